"""Line charts as numbers for an SVG: the page's template draws them in the reader's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 40


class Line(NamedTuple):
    """One line: label, x and y values; `dashed` for what it is compared with; `hue` chooses one of the page's colours."""

    label: str
    x: np.ndarray
    y: np.ndarray
    dashed: bool = False
    hue: int = 0


def chart(lines: Sequence[Line], *, xlabel: str, ylabel: str, log: bool = False) -> dict[str, Any] | None:
    """Points, ticks and labels in the units of the drawing; None without two finite points.

    Values that are not finite are left out, and with `log` those that are not positive.
    """
    kept = [_finite(line, log) for line in lines]
    kept = [(line, x, y) for line, x, y in kept if len(x) > 1]
    if not kept:
        return None
    xs, ys = np.concatenate([x for _, x, _ in kept]), np.concatenate([y for _, _, y in kept])
    across = _scale(xs.min(), xs.max(), LEFT, WIDTH - RIGHT, log=False)
    up = _scale(ys.min(), ys.max(), HEIGHT - BOTTOM, TOP, log=log)
    drawn = [
        {
            "label": line.label,
            "dashed": line.dashed,
            "hue": line.hue,
            "points": " ".join(f"{across['at'](a):.1f},{up['at'](b):.1f}" for a, b in zip(x, y, strict=True)),
        }
        for line, x, y in kept
    ]
    box = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
    return {"lines": drawn, "x": across["ticks"], "y": up["ticks"], "xlabel": xlabel, "ylabel": ylabel, "log": log, **box}


def _finite(line: Line, log: bool) -> tuple[Line, np.ndarray, np.ndarray]:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    good = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log))
    return line, x[good], y[good]


def _scale(low: float, high: float, start: float, end: float, *, log: bool) -> dict[str, Any]:
    """Place of a value on the drawing, and the ticks as (place, text)."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    values = LogLocator(numticks=6).tick_values(low, high) if log else MaxNLocator(5).tick_values(low, high)
    a, b = (np.log10(low), np.log10(high)) if log else (low, high)

    def at(value: float) -> float:
        return float(start + ((np.log10(value) if log else value) - a) / (b - a) * (end - start))

    inside = [v for v in values if low - 1e-9 * abs(low) <= v <= high + 1e-9 * abs(high)]
    return {"at": at, "ticks": [(round(at(v), 1), f"{v:.6g}") for v in inside]}
