"""Notebooks in the percent format -> Markdown pages, with the outputs of their cells where they were run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_MARK = re.compile(r"^# %%(.*)$", re.MULTILINE)


class Cell(NamedTuple):
    """One cell: Markdown, or Python."""

    is_code: bool
    source: str


def cells(text: str) -> list[Cell]:
    """Cells in order; ValueError where the text has none."""
    _, *parts = _MARK.split(text)
    if not parts:
        raise ValueError("the file has no line `# %%`; expected the percent format")
    found = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        prose = "[markdown]" in kind
        found.append(Cell(not prose, re.sub(r"^# ?", "", body.strip("\n"), flags=re.MULTILINE) if prose else body.strip("\n")))
    return found


def page(name: str, text: str, outputs: Sequence[dict[str, Any]] | None = None, *, images: str = ".") -> str:
    """Markdown of a notebook.

    Args:
        name: of the file, told under the title.
        text: the notebook.
        outputs: of the code cells in order, as `run_cells` keeps them; None: not run.
        images: folder of the figures as seen from the page.
    """
    waiting = iter(outputs or ())
    blocks = []
    for cell in cells(text):
        if not cell.is_code:
            blocks.append(cell.source)
            continue
        blocks.append(f"```python\n{cell.source}\n```")
        blocks += _output(next(waiting, None), images)
    how = "run when this page was built" if outputs is not None else "shown without its output"
    told = f"`notebooks/{name}`, {how}. It is a plain script as well: `python notebooks/{name}`."
    title, _, rest = blocks[0].partition("\n")
    return "\n\n".join([title, told, rest.strip("\n"), *blocks[1:]]) + "\n"


def _output(output: dict[str, Any] | None, images: str) -> list[str]:
    if output is None:
        return []
    text = [f"```text\n{output['text']}\n```"] if output["text"] else []
    return text + [f"![figure drawn by the cell above]({images}/{name})" for name in output["figures"]]
