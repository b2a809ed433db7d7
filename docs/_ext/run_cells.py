"""Run a notebook's code cells in one process and keep what they print and draw: `python run_cells.py FILE.py FOLDER`.

Writes FOLDER/STEM.json, a list with one entry per code cell: `text` and `figures` (names of PNG files in FOLDER).
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from percent import cells

DPI = 80


class Shown:
    """Figures of the cell that runs, saved where `plt.show` is called."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem, self.names, self.count = folder, stem, [], 0

    def show(self) -> None:
        for number in plt.get_fignums():
            self.count += 1
            self.names.append(f"{self.stem}-{self.count}.png")
            plt.figure(number).savefig(self.folder / self.names[-1], dpi=DPI, facecolor="white")
        plt.close("all")


def run(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Outputs of the code cells of `path`, in order; the first exception ends it."""
    shown, space, outputs = Shown(folder, path.stem), {"__name__": "__main__"}, []
    plt.show = lambda *_, **__: shown.show()  # a function: matplotlib sets attributes on it
    for number, cell in enumerate(c for c in cells(path.read_text(encoding="utf-8")) if c.is_code):
        printed, shown.names = io.StringIO(), []
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.source, f"{path.name}, code cell {number}", "exec"), space)
            shown.show()
        outputs.append({"text": printed.getvalue().rstrip(), "figures": shown.names})
    return outputs


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    (target / f"{source.stem}.json").write_text(json.dumps(run(source, target)), encoding="utf-8")
