"""Planes side by side: what a comparison of several images of one object looks like.

In: rows of (title, plane, pitch). Out: a PNG, 1600 pixels wide, written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffphys.io.atomic import replacing
from diffphys.report import panels

WIDTH, CELL, TITLES, LINE, DPI = 16.0, 4.0, 0.7, 0.2, 100  # inches: sheet, tallest row of images, titles, line of text
LONGEST = 12  # lines of text
Cell = tuple[str, np.ndarray, Sequence[float]]


def gallery(
    path: str | Path,
    rows: Sequence[Sequence[Cell]],
    *,
    title: str = "",
    unit: str = "",
    length: str = "µm",
    notes: Sequence[str] = (),
    like: int | None = None,
) -> None:
    """Write the figure.

    Args:
        rows: each a sequence of (title, plane (row, column), pitch (row, column)); titles say what the values are.
        unit: label of every colour bar.
        length: unit of the pitch; "px" where the pixel size is not known.
        notes: lines of text below the images.
        like: number of the image in each row whose colours the others share; each its own if None.
    """
    heights = [_height(row) for row in rows] + ([LINE * (min(len(notes), LONGEST) + 1)] if notes else [])
    sheet = Figure(figsize=(WIDTH, sum(heights) + 0.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(sheet)
    grid = sheet.add_gridspec(len(heights), 1, height_ratios=heights)
    for i, row in enumerate(rows):
        cells = grid[i].subgridspec(1, len(row))
        for column, (label, plane, pitch) in enumerate(row):
            ax = sheet.add_subplot(cells[column])
            scale = None if like is None else np.asarray(row[like][1], np.float64)
            panels.image(ax, np.asarray(plane, np.float64), pitch_um=pitch, title=label, unit=unit, length=length, like=scale)
    if notes:
        panels.notes(sheet.add_subplot(grid[-1]), notes, width=180, rows=LONGEST)
    scaled = "each" if like is None else f"image {like + 1} in its row"
    shares = f"images: {panels.SHARES[0]:g} to {panels.SHARES[1]:g} percentile of {scaled}"
    sheet.suptitle(f"{title}\n{shares}" if title else shares, fontsize=11)
    with replacing(path) as temporary:
        sheet.savefig(temporary, format="png", dpi=DPI)


def _height(row: Sequence[Cell]) -> float:
    """Inches that a row needs: its tallest image at the width it gets, and its titles."""
    tallest = max(np.shape(plane)[0] * pitch[0] / (np.shape(plane)[1] * pitch[1]) for _, plane, pitch in row)
    return min(CELL, 0.8 * WIDTH / len(row) * tallest + TITLES)
