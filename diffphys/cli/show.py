"""What a command prints at its end: parameters with error bars, status with its remedy, where the results are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffphys.cli.load import Job
from diffphys.report.text import number as number
from diffphys.types import Status


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def calibration_table(modality: Any, calibration: Any) -> str:
    """parameter, estimate, 1 sigma, unit, range; derived combinations below."""
    units = {f.name: f.unit for f in modality.FIELDS}
    rows = [("parameter", "estimate", "± sigma", "unit", "range", "")]
    for name, value in calibration.values.items():
        sigma, (low, high) = calibration.sigma[name], calibration.ranges[name]
        note = "fixed" if low == high else "not determined by this data" if name in calibration.undetermined else ""
        rows.append((name, number(value, sigma), number(sigma, sigma), units[name], f"{low:g} ... {high:g}", note))
    for name, (value, sigma) in calibration.derived.items():
        nothing = set(calibration.names) <= set(calibration.undetermined)
        note = "not determined by this data" if nothing else "derived"
        rows.append((name, number(value, sigma), number(sigma, sigma), "", "", note))
    return table(rows)


def verdicts(calibration: Any, restored: Any) -> list[str]:
    """Status and remedy of what was done (None: it was not), and what this data cannot tell; one line each."""
    lines: list[str] = []
    if calibration is not None:
        lines.append(f"calibration: {calibration.status.name}, {calibration.remedy}")
        lines += [f"not determined: {name}: {why}" for name, why in calibration.undetermined.items()]
    if restored is not None:
        trusted = calibration is None or calibration.status == Status.CONVERGED
        rest = restored.remedy if trusted or restored.status else "no better than the calibration it rests on"
        lines.append(f"reconstruction: {restored.status.name} after {restored.iterations} iterations, {rest}")
    return lines


def outcome(job: Job, calibration: Any, restored: Any, output: Path) -> tuple[str, ...]:
    """Print the results of a run; its warnings."""
    lines: list[str] = []
    if calibration is not None:
        print(calibration_table(job.modality, calibration))
        lines += calibration.warnings
    if restored is not None:
        lines += restored.warnings
    for line in verdicts(calibration, restored):
        print(line)
    print(f"results: {output}")
    return tuple(lines)
