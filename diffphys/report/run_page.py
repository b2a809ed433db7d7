"""One run as one HTML page that needs nothing else: no library, no network, no font.

In: a run as `diffphys.cli.finished.read_run` gives it. First everything is brought into plain data (texts, numbers, data
URIs), then a template with escaping writes it: file names and metadata may come from anyone. Without JavaScript the page still
shows the middle slices, the projections and all tables.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffphys.report import run_images as images
from diffphys.report import run_psf, run_spec
from diffphys.report.panels import RESIDUAL_LIMIT
from diffphys.report.residual import in_sigmas
from diffphys.report.run_chart import Line, chart
from diffphys.report.text import label
from diffphys.spec import pitch_um

_DASH = "–"
_TITLES = {"confocal_3d": "Confocal 3-D stack", "shg": "SHG frames"}


def page(run: Any) -> str:
    """The page of a finished run (`diffphys.cli.finished.Finished`)."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template("run.html").render(collect(run))


def collect(run: Any) -> dict[str, Any]:
    """Everything the page shows, in plain data."""
    record, pitch = run.record, pitch_um(run.geometry)
    volume = len(run.geometry.shape) == 3
    layers = _layers(run)
    shown = images.viewer(layers, pitch_um=pitch[-2:]) if layers else None
    return {
        "name": run.name,
        "kind": _TITLES.get(run.modality.NAME, run.modality.NAME),
        "volume": volume,
        "facts": _facts(run, pitch),
        "outcomes": _outcomes(run),
        "notes": run.notes,
        "warnings": _warnings(run),
        "viewer": shown,
        "slices": {layer["key"]: layer["slices"] for layer in shown["layers"]} if shown else {},
        "places": _places(layers, pitch) if layers else [],
        "projections": _projections(run, pitch) if volume else [],
        "limit": RESIDUAL_LIMIT,
        "parameters": run_spec.parameters(run),
        "calibrated": run.calibration is not None,
        "misfit": run.calibration is not None and run.calibration.status == "MISFIT",
        "derived": run_spec.derived(run),
        "undetermined": run.calibration.undetermined if run.calibration else {},
        "correlation": run_spec.correlation(run),
        "psf": run_psf.collect(run),
        "curve": _curve(record.reconstruction),
        "provenance": _provenance(record),
        "optics": _flat(record.optics),
        "options": _flat({k: v for k, v in record.options.items() if v is not None}),
    }


def _layers(run: Any) -> list[images.Layer]:
    """Channels of the viewer: measurement, reconstruction, residual, uncertainty, those that there are."""
    peak = float(np.asarray(run.detector.peak_photons))
    found = []
    if run.measurement is not None:
        found.append(images.intensity("measurement", "Measurement", "counts", run.measurement))
    if run.image is not None:
        found.append(images.intensity("reconstruction", "Reconstruction", "photons", run.image, scale=peak))
    if run.measurement is not None and run.prediction is not None:
        y, model = run.measurement, run.prediction

        def residual(k: int) -> np.ndarray:
            return in_sigmas(y[k], model[k], run.detector)

        found.append(images.Layer("residual", "Residual", "σ", len(y), residual, (0.0, 0.0), "", residual=True))
    if run.uncertainty is not None:
        found.append(images.intensity("uncertainty", "Uncertainty, 1 σ", "photons", run.uncertainty, scale=peak))
    return found


def _places(layers: Sequence[images.Layer], pitch: Sequence[float]) -> list[str]:
    """What each plane or frame is called."""
    total = max(layer.total for layer in layers)
    if len(pitch) == 2:
        return [f"frame {k + 1} of {total}" for k in range(total)]
    return [f"plane {k + 1} of {total}, z {k * pitch[0]:.2f} µm" for k in range(total)]


def _projections(run: Any, pitch: Sequence[float]) -> list[dict[str, Any]]:
    peak = float(np.asarray(run.detector.peak_photons))
    shown = (("Measurement", "counts", run.measurement, 1.0), ("Reconstruction", "photons", run.image, peak))
    return [
        {"label": label, "unit": unit, **images.projected(stack, pitch, scale=scale)}
        for label, unit, stack, scale in shown
        if stack is not None
    ]


def _facts(run: Any, pitch: Sequence[float]) -> list[tuple[str, str]]:
    """The few numbers at the top."""
    how, shape = run.record.reconstruction, run.geometry.shape
    frames = f"{run.geometry.frames} × " if len(shape) == 2 else ""
    facts = [("field", frames + " × ".join(map(str, shape))), ("voxel" if len(shape) == 3 else "pixel", _size(pitch))]
    if how is not None:
        facts.append(("method", str(run.record.options.get("method", _DASH)).replace("_", " ")))
    facts.append(("time", f"{sum(run.record.seconds.values()):.1f} s"))
    return [*facts, ("date", run.record.started.replace("T", " ")[:16])]


def _size(pitch: Sequence[float]) -> str:
    return " × ".join(f"{p:.4g}" for p in pitch) + " µm"


def _outcomes(run: Any) -> list[dict[str, Any]]:
    """Status and remedy of calibration and reconstruction. That an image converged does not make its instrument right."""
    c, r = run.calibration, run.record.reconstruction
    found = []
    if c is not None:
        found.append({"what": "Calibration", "status": _word(c.status), "good": c.status == "CONVERGED", "text": c.remedy})
    if r is not None:
        good = r.status == "CONVERGED"
        text = f"after {r.iterations} iteration{'s' if r.iterations != 1 else ''}"
        if not good:
            text += f": {r.remedy}"
        elif c is not None and c.status != "CONVERGED":
            good, text = False, f"{text}, but no better than the calibration it rests on"
        found.append({"what": "Reconstruction", "status": _word(r.status), "good": good, "text": text})
    return found


def _word(status: str) -> str:
    return status.lower().replace("_", " ")


def _warnings(run: Any) -> list[str]:
    told = [*run.record.warnings, *(run.calibration.warnings if run.calibration else ())]
    told += run.record.reconstruction.warnings if run.record.reconstruction else ()
    return list(dict.fromkeys((*run.modality.sampling_warnings(run.geometry), *told)))


def _curve(how: Any) -> dict[str, Any] | None:
    """What the stopping rule watched."""
    if how is None or len(how.curve) < 2:
        return None
    values = np.array([math.nan if v is None else v for v in how.curve])
    steps = np.linspace(how.iterations / len(values), how.iterations, len(values))
    good = values[np.isfinite(values)]
    log = bool(good.size and good.min() > 0 and good.max() > 10 * good.min())
    return chart([Line("", steps, values)], xlabel="iteration", ylabel=label(how.curve_name), log=log)


def _provenance(record: Any) -> list[tuple[str, str]]:
    device = record.device
    rows = [("command", shlex.join(record.command)), ("directory", record.directory)]
    rows += [("started", record.started), ("finished", record.finished)]
    rows += [("wall time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in record.seconds.items()))]
    rows += [("device", f"{device.get('count', 1)} × {device.get('kind', '')} ({device.get('platform', '')})")]
    rows += [("platform", record.platform), ("source commit", record.git_commit or "")]
    rows += [("peak memory", ", ".join(f"{k} {v / 2**20:.0f} MiB" for k, v in record.peak_memory_bytes.items()))]
    rows += [("versions", ", ".join(f"{k} {v}" for k, v in record.versions.items()))]
    for role, given in record.inputs.items():
        rows += [(role, given.path), (f"{role}, sha256", given.sha256)]
    return [(k, v) for k, v in rows if v]


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows; long lists shortened."""
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{prefix}{key}", text if len(text) < 300 else f"{text[:300]} …"))
    return rows
