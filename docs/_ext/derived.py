"""Pages that are derived, written into `docs/generated` before Sphinx looks for pages.

`cli.md` from the command line, `parts/*.md` (included by the page of the file formats), `notebooks/*.md` from `notebooks/*.py`.
DIFFPHYS_DOCS_EXECUTE=1 runs the notebooks and puts what they print and draw below their cells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import command_line
import keys
import percent
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

DOCS = Path(__file__).resolve().parents[1]
NOTEBOOKS = DOCS.parent / "notebooks"
TOOLS = ("to_ipynb.py",)  # in that folder, but no notebooks
GENERATED = DOCS / "generated"
_log = logging.getLogger(__name__)


def write(path: Path, text: str) -> None:
    """Only what changed, whole or not at all: Sphinx then reads only what changed, and two builds may run at once."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def notebooks() -> list[Path]:
    return sorted(p for p in NOTEBOOKS.glob("*.py") if p.name not in TOOLS)


def executed(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Outputs of a notebook, run in a process of its own from the repository's root; notebooks leave nothing behind."""
    _log.info("running %s", path.name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join([str(DOCS / "_ext"), str(DOCS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "default"}
    call = [sys.executable, str(DOCS / "_ext" / "run_cells.py"), str(path), str(folder)]
    ran = subprocess.run(call, cwd=DOCS.parent, env=environment, capture_output=True, text=True, timeout=1800)
    if ran.returncode:
        raise ExtensionError(f"{path.name} does not run: {ran.stderr.strip()[-2000:]}")
    return json.loads((folder / f"{path.stem}.json").read_text(encoding="utf-8"))


def generate(*_: Any) -> None:
    write(GENERATED / "cli.md", command_line.markdown())
    for name, text in keys.parts().items():
        write(GENERATED / "parts" / f"{name}.md", text)
    run = os.environ.get("DIFFPHYS_DOCS_EXECUTE") == "1"
    place = GENERATED / "notebooks"
    for path in notebooks():
        outputs = executed(path, place / "drawn") if run else None
        text = percent.page(path.name, path.read_text(encoding="utf-8"), outputs, images="drawn")
        write(place / f"{path.stem}.md", text)
    for stale in set(place.glob("*.md")) - {place / f"{p.stem}.md" for p in notebooks()}:
        stale.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", generate)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
