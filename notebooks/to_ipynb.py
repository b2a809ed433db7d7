"""Percent-format notebooks -> .ipynb, with the standard library: `python notebooks/to_ipynb.py [FILE.py ...] [-o FOLDER]`.

A cell starts at `# %%`; `# %% [markdown]` cells are comment lines. Outputs are left empty: run them in Jupyter.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

HERE = Path(__file__).parent
MARK = re.compile(r"^# %%(.*)$", re.MULTILINE)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cells(text: str) -> list[dict]:
    """The notebook's cells; ValueError where the text has none."""
    _, *parts = MARK.split(text)
    if not parts:
        raise ValueError("the file has no line `# %%`; expected the percent format")
    return [_cell(number, *pair) for number, pair in enumerate(zip(parts[::2], parts[1::2], strict=True))]


def _cell(number: int, kind: str, body: str) -> dict:
    source = body.strip("\n")
    if "[markdown]" in kind:
        source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        return {"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}, "source": source}
    common = {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": source}
    return {**common, "execution_count": None, "outputs": []}


def notebook(text: str) -> dict:
    """The notebook as nbformat 4.5."""
    return {"cells": cells(text), "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Percent-format notebooks -> .ipynb")
    parser.add_argument("files", nargs="*", type=Path, default=sorted(p for p in HERE.glob("*.py") if p != Path(__file__)))
    parser.add_argument("-o", "--output", type=Path, default=Path("."), help="folder of the .ipynb files")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    for file in asked.files:
        content = json.dumps(notebook(file.read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
        (asked.output / f"{file.stem}.ipynb").write_text(content + "\n", encoding="utf-8")
