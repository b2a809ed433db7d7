"""The calibrated instrument as table rows: estimates with error bars on their ranges, derived numbers, correlations."""

from __future__ import annotations

import math
from typing import Any

from diffphys.report.text import label, number

_DASH = "–"


def parameters(run: Any) -> list[dict[str, Any]]:
    """Rows of the spec: value, error bar, range, and where in the range that is, in percent."""
    nominal = run.modality.nominal(run.geometry)
    symbols = {f.name: f.symbol for f in run.modality.FIELDS}
    if run.calibration is None:
        stated = {n: float(getattr(run.spec, n)) for n in symbols} if run.spec is not None else {}
        units = {f.name: f.unit for f in run.modality.FIELDS}
        return [
            {
                "name": label(n),
                "symbol": symbols[n],
                "value": number(v, None),
                "sigma": "",
                "unit": _blank(units[n]),
                "bar": None,
            }
            | {"range": "", "note": "given", "nominal": number(float(getattr(nominal, n)), None)}
            for n, v in stated.items()
        ]
    rows = []
    for name, p in run.calibration.parameters.items():
        fixed, unknown = p.range[0] == p.range[1], name in run.calibration.undetermined
        ideal = float(getattr(nominal, name, math.nan))
        row = {"name": label(name), "symbol": symbols.get(name, ""), "unit": _blank(p.unit), "nominal": number(ideal, None)}
        row |= {"value": _number(p.value, p.sigma), "sigma": "" if fixed else _number(p.sigma, p.sigma)}
        row["range"] = f"{p.range[0]:.5g} … {p.range[1]:.5g}"
        row["note"] = "fixed" if fixed else "not determined by this data" if unknown else ""
        row["bar"] = None if fixed else _bar(p.value, p.sigma, p.range, ideal)
        rows.append(row)
    return rows


def _bar(value: float | None, sigma: float | None, span: tuple[float, float], ideal: float) -> dict[str, float] | None:
    if value is None:
        return None

    def at(v: float) -> float:
        return 100 * min(1.0, max(0.0, (v - span[0]) / (span[1] - span[0])))

    low, high = at(value - (sigma or 0)), at(value + (sigma or 0))
    return {"at": at(value), "low": low, "width": high - low, "nominal": at(ideal) if math.isfinite(ideal) else -1.0}


def derived(run: Any) -> list[dict[str, str]]:
    found = run.calibration.derived if run.calibration else {}
    return [{"name": n, "value": _number(e.value, e.sigma), "sigma": _number(e.sigma, e.sigma)} for n, e in found.items()]


def correlation(run: Any) -> dict[str, Any] | None:
    """Rows of (text, strength 0 to 100, sign); None for a single parameter."""
    if run.calibration is None or len(run.calibration.names) < 2:
        return None
    rows = [
        [{"text": _DASH if r is None else f"{r:+.2f}", "share": round(100 * abs(r or 0)), "sign": _sign(r)} for r in row]
        for row in run.calibration.correlation
    ]
    return {"names": [label(n) for n in run.calibration.names], "rows": rows}


def _sign(r: float | None) -> str:
    return "plus" if (r or 0) >= 0 else "minus"


def _blank(unit: str) -> str:
    return "" if unit == "1" else unit


def _number(value: float | None, sigma: float | None) -> str:
    return _DASH if value is None else number(value, sigma)
