"""Panels of the figures: images with scale bar, profiles, parameters against their ranges, wrapped text.

Every function draws into one matplotlib axes. Images use perceptually uniform "magma", residuals the diverging "RdBu_r".
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffphys.types import Status

SHARES = (0.5, 99.8)  # percentiles between which an image is displayed
RESIDUAL_LIMIT = 4.0  # standard deviations
SMALL = 8.5
MEASURED, MODEL, RESTORED, TRUTH = "0.35", "#d95f02", "#1b6ca8", "#2a9d4a"


def image(
    ax: Axes,
    plane: np.ndarray,
    *,
    pitch_um: Sequence[float],
    title: str,
    unit: str,
    residual: bool = False,
    length: str = "µm",
    like: np.ndarray | None = None,
) -> None:
    """One plane (row, column) with pitch (row, column), scale bar in the unit `length` and colour bar.

    Colours span the shares of the plane, or of the plane `like` that it is to be compared with.
    """
    if residual:
        high = RESIDUAL_LIMIT if like is None else max(RESIDUAL_LIMIT, float(np.percentile(np.abs(like), SHARES[1])))
        low, cmap, ink = -high, "RdBu_r", "black"
    else:
        low, high = (float(v) for v in np.percentile(plane if like is None else like, SHARES))
        high, cmap, ink = max(high, low + 1e-12 + 1e-6 * abs(low)), "magma", "white"
    rows, columns = plane.shape
    drawn = ax.imshow(
        plane,
        vmin=low,
        vmax=high,
        cmap=cmap,
        interpolation="nearest",
        extent=(0, columns * pitch_um[1], rows * pitch_um[0], 0),
    )
    ax.set_title(title, fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.045, pad=0.02, extend="both")
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(unit, fontsize=SMALL)
    _scale_bar(ax, columns * pitch_um[1], rows * pitch_um[0], ink, length)


def _scale_bar(ax: Axes, width: float, height: float, ink: str, unit: str) -> None:
    length = nice_length(0.3 * width)
    x, y = 0.05 * width, 0.95 * height
    backing = "black" if ink == "white" else "white"
    ax.add_patch(Rectangle((x, y - 0.015 * height), length, 0.015 * height, color=ink, lw=0))
    ax.text(
        x,
        y - 0.035 * height,
        f"{length:g} {unit}",
        color=ink,
        ha="left",
        va="bottom",
        fontsize=SMALL,
        bbox={"facecolor": backing, "alpha": 0.45, "lw": 0, "pad": 1.0},
    )


def nice_length(most: float) -> float:
    """The largest of 1, 2, 5 x 10^k that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(f * power for f in (1, 2, 5) if f * power <= most * (1 + 1e-9)))


def profile(
    ax: Axes, lines: Mapping[str, tuple[np.ndarray, str]], *, pitch_um: float, title: str, xlabel: str, unit: str
) -> None:
    """Lines on the left axis (label -> values, colour); those whose label starts with "→" on a right axis."""
    right = None
    handles = []
    for label, (values, colour) in lines.items():
        target = ax
        if label.startswith("→"):
            right = right or ax.twinx()
            target = right
        style = {"marker": ".", "lw": 0.6, "ms": 4} if colour == MEASURED else {"lw": 1.6}
        handles += target.plot(pitch_um * np.arange(len(values)), values, color=colour, label=label.lstrip("→ "), **style)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel(xlabel, fontsize=9)
    ax.set_ylabel(unit, fontsize=9)
    ax.tick_params(labelsize=SMALL)
    ax.margins(x=0)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.32 * (high - low))  # room for the legend
    if right is not None:
        right.set_ylabel("reconstruction", fontsize=9, color=RESTORED)
        right.tick_params(labelsize=SMALL, colors=RESTORED)
        low, high = right.get_ylim()
        right.set_ylim(low, high + 0.32 * (high - low))
    (right or ax).legend(handles=handles, fontsize=SMALL, loc="upper center", ncols=2, frameon=False, columnspacing=1)


def parameters(ax: Axes, fields: Sequence[Any], calibration: Any, *, truth: Any = None) -> None:
    """Each parameter on its own range: 1 sigma thick, 2 sigma thin, truth as a triangle, undetermined ones hatched."""
    values, sigma = calibration.values, calibration.sigma
    units = {f.name: f.unit for f in fields}
    count = len(calibration.names)
    for i, name in enumerate(calibration.names):
        row = count - 1 - i
        low, high = calibration.ranges[name]
        value, error, fixed = values[name], sigma[name], high <= low
        span = (high - low) or 1.0
        unknown = name in calibration.undetermined
        grey = fixed or unknown
        ax.add_patch(
            Rectangle((0, row - 0.13), 1, 0.26, facecolor="0.93", edgecolor="0.6", hatch="////" if unknown else None, lw=0.6)
        )
        if not fixed:
            at = (value - low) / span
            for widths, thick in ((2, 1.5), (1, 5)):
                ends = np.clip([at - widths * error / span, at + widths * error / span], 0, 1)
                ax.plot(ends, [row, row], color="0.5" if grey else MODEL, lw=thick, solid_capstyle="butt")
            ax.plot([at], [row], "o", color="0.4" if grey else MODEL, ms=6, mec="white")
        else:
            ax.plot([0.5], [row], "s", color="0.5", ms=5)
        if truth is not None and not fixed:
            goal = float(truth[name] if isinstance(truth, Mapping) else getattr(truth, name))
            ax.plot([(goal - low) / span], [row + 0.17], "v", color=TRUTH, ms=8, mec="white", zorder=5)
        text = _parameter_text(name, units.get(name, ""), value, error, fixed=fixed, unknown=unknown)
        ax.text(0, row + 0.26, text, fontsize=9, va="bottom", color="0.35" if grey else "black")
        ax.text(0, row - 0.2, f"{low:g}", fontsize=SMALL, va="top", color="0.4")
        ax.text(1, row - 0.2, f"{high:g}", fontsize=SMALL, va="top", ha="right", color="0.4")
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.6, count - 0.35)
    ax.axis("off")
    legend = "thick 1σ, thin 2σ; hatched: undetermined" + ("" if truth is None else "; triangle: truth")
    if calibration.status == Status.MISFIT:
        legend += "; misfit: σ are lower limits"
    ax.set_title(f"parameters on their ranges\n({legend})", fontsize=10)


def _parameter_text(name: str, unit: str, value: float, error: float, *, fixed: bool, unknown: bool) -> str:
    label = name.replace("_", " ") + (f" ({unit})" if unit not in ("", "1") else "")
    if fixed:
        return f"{label} = {value:g}, fixed"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 6)) if np.isfinite(error) and error > 0 else 3
    return f"{label} = {value:.{digits}f} ± {error:.{digits}f}" + (", undetermined" if unknown else "")


def curve(ax: Axes, values: np.ndarray, *, name: str, iterations: int) -> None:
    """The stopping curve over the iterations."""
    values = np.asarray(values, float).ravel()
    steps = np.linspace(iterations / len(values), iterations, len(values))
    ax.plot(steps, values, color=RESTORED, lw=1.4, marker="." if len(values) < 60 else None)
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 30 * finite.min():
        ax.set_yscale("log")
    ax.set_title(f"stopping rule, {iterations} iterations", fontsize=10)
    ax.set_xlabel("iteration", fontsize=9)
    ax.set_ylabel("\n".join(textwrap.wrap(name.replace("_", " "), 34)), fontsize=9)
    ax.tick_params(labelsize=SMALL)
    ax.grid(alpha=0.3)


def notes(ax: Axes, lines: Sequence[str], *, width: int, rows: int) -> None:
    """Wrapped lines of text; what does not fit is counted, never drawn over something."""
    wrapped: list[str] = []
    for line in lines:
        wrapped += textwrap.wrap(line, width, subsequent_indent="   ") or [""]
    if len(wrapped) > rows:
        wrapped = [*wrapped[: rows - 1], f"... {len(wrapped) - rows + 1} more lines in calibration.json and run.json"]
    ax.axis("off")
    ax.text(0, 1, "\n".join(wrapped), fontsize=SMALL + 0.5, va="top", ha="left", transform=ax.transAxes, linespacing=1.35)
