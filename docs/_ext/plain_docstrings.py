"""Docstrings of this project are plain text with `code`: `(*field, 3)`, `|H|` and `x_` mean themselves, not reST markup."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"(`+[^`]*`+)")
_MARKUP = re.compile(r"(?<!\\)[*|]|(?<=\w)_(?!\w)")


def _plain(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape what reST would take for emphasis, substitutions and references; code spans may run over two lines."""
    if any(line.lstrip().startswith(">>>") for line in lines):
        return
    parts = _CODE.split("\n".join(lines))
    parts[::2] = [_MARKUP.sub(lambda found: "\\" + found.group(), part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon writes markup of its own
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
