"""Drawing of a composed graph: a box per primitive, arrows with the shapes. In: a Graph. Out: a PNG, written whole."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from diffphys.io.atomic import replacing
from diffphys.primitives.graph import Graph, describe

BOX, GAP, HEIGHT, DPI = 2.6, 1.5, 2.2, 120  # inches
ROUND = "round,pad=0,rounding_size=0.1"
LINES = 5  # of parameters in a box


def draw(graph: Graph, path: str | Path, *, title: str = "") -> None:
    """Write the graph as a PNG; nodes from left to right, tracing the light."""
    count = len(graph.nodes)
    width = count * BOX + (count + 1) * GAP
    figure = Figure(figsize=(width, HEIGHT), dpi=DPI)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, HEIGHT))
    ax.set_axis_off()
    ax.text(width / 2, HEIGHT - 0.08, title or graph.chain, ha="center", va="top", fontsize=11)
    middle = 0.45 * HEIGHT
    for i, (shape, dtype) in enumerate(graph.edges):
        start = i * (BOX + GAP)
        ax.annotate("", (start + GAP, middle), (start, middle), arrowprops={"arrowstyle": "-|>", "color": "0.3"})
        ax.text(start + GAP / 2, middle + 0.07, " × ".join(map(str, shape)) or "number", ha="center", va="bottom", fontsize=9)
        ax.text(start + GAP / 2, middle - 0.07, str(dtype), ha="center", va="top", fontsize=7.5, color="0.4")
    for i, (token, node) in enumerate(zip(graph.tokens, graph.nodes, strict=True)):
        left = i * (BOX + GAP) + GAP
        ax.add_patch(FancyBboxPatch((left, middle - 0.75), BOX, 1.5, boxstyle=ROUND, facecolor="#eaf1f8", edgecolor="#1b6ca8"))
        ax.text(left + BOX / 2, middle + 0.66, token, ha="center", va="top", fontsize=12, weight="bold")
        ax.text(left + BOX / 2, middle + 0.38, node.primitive, ha="center", va="top", fontsize=9.5, style="italic")
        lines = textwrap.wrap(describe(node), 40)
        if len(lines) > LINES:
            lines = [*lines[: LINES - 1], lines[LINES - 1] + " …"]
        ax.text(left + BOX / 2, middle + 0.14, "\n".join(lines), ha="center", va="top", fontsize=7.5, linespacing=1.3)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
