"""Figure of benchmarks/scaling.py: points as measured, lines as fitted; panels of parts that were not run are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS = {"native": "tab:blue", "mkl": "tab:orange"}


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the figure of a record of scaling.json."""
    panels = [(p, f) for part, p, f in PANELS if part in record]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), squeeze=False, layout="constrained")
    for axis, (title, panel) in zip(axes[0], panels, strict=True):
        panel(axis, record)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _time(axis: Any, record: dict[str, Any]) -> None:
    for engine, found in _engines(record):
        _points(axis, found, "seconds", engine)
        n, fit = _curve(found), found["time_s"]
        label = f"{fit['a']:.1e} s + {fit['b']:.1e} s N log₂N"
        axis.loglog(n, fit["a"] + fit["b"] * n * np.log2(n), color=COLOURS[engine], label=label)
    _labels(axis, "voxels N", "seconds per iteration")


def _memory(axis: Any, record: dict[str, Any]) -> None:
    for engine, found in _engines(record):
        _points(axis, found, "peak_bytes", engine, unit=2**20)
        n, fit = _curve(found), found["memory_bytes"]
        label = f"{fit['a'] / 2**20:.0f} MiB + {fit['b']:.0f} B N"
        axis.loglog(n, (fit["a"] + fit["b"] * n) / 2**20, color=COLOURS[engine], label=label)
    _labels(axis, "voxels N", "peak resident memory of the process, MiB")


def _batch(axis: Any, record: dict[str, Any]) -> None:
    rows = record["batch"]["rows"]
    axis.semilogx([r["width"] for r in rows], [r["per_second"] for r in rows], "o-", base=2)
    axis.set_ylim(bottom=0)
    _labels(axis, "stacks at a time", "calibrations per second")


def _devices(axis: Any, record: dict[str, Any]) -> None:
    rows = record["devices"]["rows"]
    axis.semilogx([r["devices"] for r in rows], [rows[0]["seconds"] / r["seconds"] for r in rows], "o-", base=2)
    axis.set_ylim(bottom=0)
    _labels(axis, f"simulated devices on {record['devices']['cores']} cores", "times as fast as one")


def _workers(axis: Any, record: dict[str, Any]) -> None:
    rows = [r for r in record["workers"]["rows"] if r["workers"]]
    axis.semilogx([r["workers"] for r in rows], [rows[0]["seconds"] / r["seconds"] for r in rows], "o-", base=2)
    axis.set_ylim(bottom=0)
    _labels(axis, "Dask workers", "times as fast as one")


def _engines(record: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(engine, record["volume"][engine]) for engine in COLOURS if engine in record["volume"]]


def _curve(found: dict[str, Any]) -> np.ndarray:
    voxels = [r["voxels"] for r in found["rows"]]
    return np.geomspace(min(voxels), max(voxels), 100)


def _points(axis: Any, found: dict[str, Any], key: str, engine: str, *, unit: float = 1.0) -> None:
    rows = found["rows"]
    axis.loglog([r["voxels"] for r in rows], [r[key] / unit for r in rows], "o", color=COLOURS[engine], label=f"{engine} FFT")


def _labels(axis: Any, x: str, y: str) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


PANELS = (
    ("volume", "Richardson–Lucy: time", _time),
    ("volume", "Richardson–Lucy: memory", _memory),
    ("batch", "batch calibration", _batch),
    ("devices", "batch over devices", _devices),
    ("workers", "volume over workers", _workers),
)
