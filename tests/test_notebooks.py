"""Every notebook runs top to bottom, with small arrays, and draws figures whose axes are labelled; conversion to .ipynb."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(p for p in FOLDER.glob("*.py") if p.name != "to_ipynb.py")

# Pages of the documentation with the same instrument: run after the notebook, when its programs are compiled.
PAGES = {"calibrate_a_confocal_stack": ("start", "large")}

# Runs a notebook as a script, then the code of pages; what is shown is drawn and looked at instead.
RUN = """
import re, runpy, sys
from pathlib import Path
import matplotlib.pyplot as plt

def show():
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.canvas.draw()
        drawn = [axes for axes in figure.axes if axes.images or axes.lines or axes.collections]
        bare = [axes.get_title() for axes in drawn if not (axes.get_xlabel() or axes.get_ylabel())]
        assert drawn and not bare, f"axes without labels: {bare}"
        print("FIGURE", len(drawn))
    plt.close("all")

plt.show = show
runpy.run_path(sys.argv[1], run_name="__main__")
for page in map(Path, sys.argv[2:]):
    code = re.findall(r"^```python\\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    exec(compile("\\n".join(code), page.name, "exec"), {"__name__": "docs"})
    print("RAN", page.name)
"""


@pytest.fixture(scope="module")
def environment():
    """Small arrays, no screen."""
    small = {"DIFFPHYS_NOTEBOOK_SMALL": "1", "MPLBACKEND": "Agg"}
    simulated = {"DIFFPHYS_NOTEBOOK_DATA": "no such folder"}  # the real stacks: test_real_stacks.py
    return {**os.environ, **small, **simulated, "PYTHONPATH": str(FOLDER.parent)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_top_to_bottom(path, tmp_path, environment):
    pages = [FOLDER.parent / "docs" / f"{name}.md" for name in PAGES.get(path.stem, ())]
    ran = subprocess.run(
        [sys.executable, "-c", RUN, path, *pages], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.count("FIGURE") >= 2
    assert all(f"RAN {page.name}" in ran.stdout for page in pages)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_there_are_notebooks_and_the_readme_names_each():
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS and all(f"`{p.name}`" in told for p in NOTEBOOKS)


def test_conversion_keeps_the_code_and_makes_valid_notebooks(tmp_path):
    subprocess.run([sys.executable, FOLDER / "to_ipynb.py", "-o", tmp_path], check=True)
    assert sorted(p.stem for p in tmp_path.iterdir()) == [p.stem for p in NOTEBOOKS]
    for path in NOTEBOOKS:
        content = json.loads((tmp_path / f"{path.stem}.ipynb").read_text(encoding="utf-8"))
        code = "\n".join(cell["source"] for cell in content["cells"] if cell["cell_type"] == "code")
        assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(path.read_text(encoding="utf-8")))
        first = content["cells"][0]
        assert first["cell_type"] == "markdown" and first["source"].startswith("# ")
        _valid(content)


def _valid(content):
    """By nbformat where it is installed, by the format's own demands otherwise."""
    try:
        import nbformat
    except ImportError:
        assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
        assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
        for cell in content["cells"]:
            extra = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
            assert set(cell) == {"cell_type", "id", "metadata", "source"} | extra
        return
    nbformat.validate(content)
