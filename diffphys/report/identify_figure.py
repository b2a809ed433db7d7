"""Figure of `identify`: bounds against their ranges, correlations, what each suggestion gains.

In: an `Identification`. Out: a PNG, written whole or not at all.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from diffphys.io.atomic import replacing

INCHES, DPI = (16.0, 6.4), 100
KNOWN, UNKNOWN, BAR = "#1b6ca8", "#c23b22", "#5b8f4d"
SHOWN = 9  # suggestions


def identify_figure(path: str | Path, found: Any, *, title: str = "") -> None:
    """Write the figure of one `Identification`.

    Raises:
        OSError: the folder is absent or not writable.
    """
    sheet = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(sheet)
    left, middle, right = sheet.subplots(1, 3, width_ratios=(1.25, 0.8, 1.25))
    _bounds(left, found)
    _correlations(middle, found)
    _gains(right, found)
    heading = f"{title + ': ' if title else ''}{found.photons:.4g} photons in the brightest voxel"
    sheet.suptitle(heading + "\n" + textwrap.fill(found.worst, 170), fontsize=11)
    with replacing(path) as temporary:
        sheet.savefig(temporary, format="png", dpi=DPI)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _bounds(ax: Axes, found: Any) -> None:
    """1 sigma over half the range, logarithmic: beyond 1 the data say less than the range did."""
    names = [n for n in found.names if found.ranges[n][0] < found.ranges[n][1]]
    units = dict(zip(found.names, found.units, strict=True))
    half = {n: (found.ranges[n][1] - found.ranges[n][0]) / 2 for n in names}
    shares = np.array([found.bounds[n] / half[n] for n in names])
    rows = np.arange(len(names))[::-1]
    left = min(1e-3, 0.3 * float(shares.min(initial=1.0)))
    right = max(10.0, 3 * float(shares.max(initial=1.0)))
    ax.barh(rows, shares - left, left=left, height=0.5, color=[UNKNOWN if s > 1 else KNOWN for s in shares])
    for row, name, share in zip(rows, names, shares, strict=True):
        unit = "" if units[name] == "1" else f" {units[name]}"
        ax.text(left * 1.15, row + 0.3, f"{_label(name)}: ± {found.bounds[name]:.2g}{unit}", va="bottom", fontsize=9.5)
        percent = f"{100 * share:.2g} %" if share < 10 else f"{share:.2g} times"
        ax.text(max(share, left) * 1.08, row, percent, va="center", fontsize=8.5)
    for name, (value, sigma) in found.derived.items():
        ax.text(left * 1.15, -0.75, f"{name} = {value:.3f} ± {sigma:.2g}", fontsize=9.5, color="0.25")
    ax.axvline(1.0, color="0.2", lw=1, ls="--")
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.set_ylim(-1.0, len(names) - 0.2)
    ax.set_yticks([])
    ax.set_xlabel("1 σ over half the range (dashed: no better than the range)", fontsize=9)
    ax.set_title(f"bounds, image {found.image}", fontsize=10)


def _correlations(ax: Axes, found: Any) -> None:
    matrix, labels = found.correlation, [_label(n).replace(" ", "\n") for n in found.names]
    ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    for (i, j), value in np.ndenumerate(matrix):
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=10, color="white" if abs(value) > 0.6 else "black")
    ax.set_xticks(range(len(labels)), labels, fontsize=8.5)
    ax.set_yticks(range(len(labels)), labels, fontsize=8.5)
    ax.set_title("correlation of an efficient estimate", fontsize=10)


def _gains(ax: Axes, found: Any) -> None:
    """Factor by which each change lowers the worst bound."""
    if not found.suggestions:
        ax.axis("off")
        ax.text(0, 1, "no change computed lowers the worst bound", va="top", fontsize=9.5)
        return
    shown = found.suggestions[:SHOWN]
    rows, gains = np.arange(len(shown))[::-1], np.array([s.gain for s in shown])
    ax.barh(rows, gains - 1, left=1, height=0.42, color=BAR)
    right = max(3.0, float(gains.max()) ** 1.25)
    for row, suggestion in zip(rows, shown, strict=True):
        ax.text(1.01, row + 0.25, suggestion.change, va="bottom", fontsize=9)
        ax.text(suggestion.gain * 1.02, row, f"{suggestion.gain:.3g}×", va="center", fontsize=8.5)
    ax.set_xscale("log")
    ax.set_xlim(1, right)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if right < 10 else NullFormatter())
    ax.set_ylim(-0.5, len(shown) - 0.1)
    ax.set_yticks([])
    ax.set_xlabel("factor", fontsize=9)
    ax.set_title(f"what lowers the bound of {_label(shown[0].parameter)}", fontsize=10)
