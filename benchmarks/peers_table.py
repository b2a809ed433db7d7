"""README lines of benchmarks/peers.py and benchmarks/scaling.py, from their JSON; written by readme_tables.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Provenance = Callable[[dict[str, Any]], str]
TITLES = {
    "richardson_lucy": "RL iteration",
    "total_variation": "TV iteration",
    "psf": "PSF",
    "joint": "joint gradient",
    "networks": "inference",
}


def peers(record: dict[str, Any], provenance: Provenance) -> str:
    """One table of all rows, best CPU time first in each group, and what the rows stand on."""
    lines = [
        "| work | contender | wall minimum | CPU median | CPU ÷ scipy | largest difference |",
        "|---|---|--:|--:|--:|--:|",
    ]
    notes = []
    for part, title in TITLES.items():
        for size, table in record.get(part, {"tables": {}})["tables"].items():
            lines += [_line(f"{title} {size}", *item) for item in _ordered(table["rows"])]
        if part in record:
            notes.append(f"* {title}: {_standing(record[part])}. {provenance(record[part])}.")
    return "\n".join([*lines, "", *notes])


def _ordered(rows: dict[str, Any]) -> list[tuple[str, Any]]:
    """Without the yardstick's copies in other processes; those that failed last."""
    kept = [(name, row) for name, row in rows.items() if ", beside " not in name]
    return sorted(kept, key=lambda item: item[1].get("cpu_over_scipy", item[1].get("cpu_median_ms", float("inf"))))


def _line(work: str, name: str, row: dict[str, Any]) -> str:
    label = f"{name} ({row['note']})" if "note" in row else name
    if "failed" in row:
        return f"| {work} | {label} | – | – | – | {row['failed']} |"
    ratio = f"{row['cpu_over_scipy']:.2f}" if "cpu_over_scipy" in row else "–"
    apart = f"{row['difference']:.0e}" if "difference" in row else "–"
    return f"| {work} | {label} | {row['wall_min_ms']:.1f} ms | {row['cpu_median_ms']:.1f} ms | {ratio} | {apart} |"


def _standing(found: dict[str, Any]) -> str:
    """Rounds, what scipy's row is, versions, and who is absent for what reason."""
    told, versions, absent = [], dict(found["environment"]["peers"]), {}
    for size, table in found["tables"].items():
        told.append(f"{size} n = {table['rounds']}")
        absent |= table.get("absent", {})
        for name, theirs in table.get("elsewhere", {}).items():
            known = {k: v for k, v in theirs.items() if k not in ("numpy", "scipy")}
            versions[f"{name}'s process"] = " + ".join(f"{k} {v}" for k, v in known.items())
    yard = {t["yardstick"] for t in found["tables"].values() if "yardstick" in t}
    parts = [", ".join(told), *(f"divided by “{y}” of the same process" for y in yard)]
    parts.append(", ".join(f"{k} {v}" for k, v in versions.items()))
    parts.append(found["environment"].get("processor", "processor not recorded"))
    return "; ".join([*parts, *(f"{name} absent: {reason}" for name, reason in absent.items())])


def scaling(record: dict[str, Any], provenance: Provenance) -> list[str]:
    """One line for each part of benchmarks/scaling.py that was run."""
    lines = []
    if "volume" in record:
        for engine in (e for e in ("native", "mkl") if e in record["volume"]):
            lines.append(f"* {_volume(engine, record['volume'][engine])}. {provenance(record['volume'])}.")
    if "batch" in record:
        rates = ", ".join(f"{r['width']}: {r['per_second']:.2f}" for r in record["batch"]["rows"])
        lines.append(f"* calibrations per second, stacks at a time {rates}. {provenance(record['batch'])}.")
    for part, key, what in (("devices", "devices", "simulated devices"), ("workers", "workers", "Dask workers")):
        if part in record:
            rows = [r for r in record[part]["rows"] if r[key]]
            times = ", ".join(f"{r[key]}: {rows[0]['seconds'] / r['seconds']:.2f}" for r in rows)
            lines.append(f"* times as fast as one, {what} {times}. {provenance(record[part])}.")
    return lines


def _volume(engine: str, found: dict[str, Any]) -> str:
    rows, time, memory = found["rows"], found["time_s"], found["memory_bytes"]
    return (
        f"RL iteration, {engine} FFT, 2^{rows[0]['exponent']} to 2^{rows[-1]['exponent']} voxels: "
        f"{1e3 * rows[0]['seconds']:.1f} to {1e3 * rows[-1]['seconds']:.0f} ms, "
        f"{1e3 * time['a']:.2f} ms + {1e9 * time['b']:.2f} ns N log₂N within "
        f"{100 * time['worst']:.0f} %; peak {memory['a'] / 2**20:.0f} MiB + {memory['b']:.1f} B per voxel within "
        f"{100 * memory['worst']:.0f} %"
    )
