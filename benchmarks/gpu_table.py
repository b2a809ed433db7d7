"""README's lines from results/gpu.json: one accelerator, absolute times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Provenance = Callable[[dict[str, Any]], str]


def table(record: dict[str, Any], provenance: Provenance) -> str:
    """Richardson-Lucy against its transforms and peers on the same card, PSF, joint gradient, one calibration."""
    lines = ["| work | contender | wall median | share of copy bandwidth |", "|---|---|--:|--:|"]
    for shape, block in _sizes(record["richardson_lucy"]):
        for name, t in block["per_iteration"].items():
            lines.append(f"| RL iteration {shape} | {name} | {t['wall_median_ms']:.2f} ms | {100 * t['share_of_copy']:.0f} % |")
    for work, key in (("PSF", "psf"), ("joint gradient", "joint_gradient")):
        for shape, block in _sizes(record[key]):
            rows = block["psf" if key == "psf" else "gradient"]
            lines += [f"| {work} {shape} | {name} | {t['wall_median_ms']:.2f} ms | – |" for name, t in rows.items()]
    peers = ", ".join(f"{name} {version}" for name, version in record["environment"]["peers"].items())
    largest = max(block["largest_difference"] for _, block in _sizes(record["richardson_lucy"]))
    one = record["calibration"]["32x64x64"]["1"]
    notes = [
        f"* Copy bandwidth {record['bandwidth']['bytes_per_s'] / 1e12:.2f} TB/s; least bytes of an iteration as counted in "
        f"the script's head; iterates agree within {largest:.0e}; {peers}.",
        f"* Calibrating one 32 × 64 × 64 stack after compilation: {one['seconds']:.2f} s, half of it on the host "
        f"({one['stacks_per_minute']:.0f} stacks a minute; batches were not timed).",
        f"* {provenance(record)}.",
    ]
    return "\n".join([*lines, "", *notes])


def _sizes(block: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, value) for name, value in block.items() if isinstance(value, dict)]
