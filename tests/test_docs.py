"""The documentation builds without a warning, its links and anchors exist, its code runs, its commands and quotes are real."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command

from diffphys.cli.app import _SEVERAL, app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WRITTEN = [p for p in PAGES if not p.name.startswith("adding_")]  # those two are followed, not run, by a test of their own
ELSEWHERE = {"start", "large"}  # run by test_notebooks.py, in the process that has compiled the same instrument
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY = "\0"  # what varies in a message
needs_sphinx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="Sphinx, myst-parser or furo is not installed: pip install 'diffphys[docs]'",
)


def blocks(page, language):
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; the notebooks are not run."""
    place = tmp_path_factory.mktemp("docs")
    call = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "-d",
        place / "read",
        DOCS,
        place / "html",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DIFFPHYS_DOCS_EXECUTE": "0", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return place / "html"


class Page(HTMLParser):
    """Anchors of a page, and what it refers to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.targets = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)


@needs_sphinx
def test_the_site_is_whole(site):
    """Every page was made, every local link and anchor exists, and nothing is fetched from elsewhere to show a page."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    wanted = [p.stem for p in PAGES] + [f"generated/notebooks/{p.stem}" for p in notebooks()]
    assert all(site / f"{name}.html" in pages for name in wanted)
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            link = urlsplit(target)
            if link.scheme or link.netloc:
                assert link.scheme in ("http", "https", "mailto") and not target.endswith((".js", ".css")), target
                continue
            there = (path.parent / unquote(link.path)).resolve() if link.path else path
            missing = not there.is_file()
            lost = there in pages and link.fragment and unquote(link.fragment) not in pages[there].anchors
            broken += [f"{path.relative_to(site)}: {target}"] if missing or lost else []
    assert not broken, broken[:10]
    assert len(pages) > 20 and "<math" in (site / "physics.html").read_text(encoding="utf-8")


def notebooks():
    return sorted(p for p in (ROOT / "notebooks").glob("*.py") if p.name != "to_ipynb.py")


@needs_sphinx
def test_every_command_and_option_is_on_the_page(site):
    shown = (site / "generated" / "cli.html").read_text(encoding="utf-8")
    for name, command in commands().items():
        assert f">{name}<" in shown
        for parameter in command.params:
            assert all(option in shown for option in parameter.opts if option.startswith("--"))


MINI = """# %% [markdown]
# # Title
#
# Words.

# %%
import matplotlib.pyplot as plt

plt.plot([1, 2])
plt.show()
print("printed")
# %% [markdown]
# ## After
"""


def test_a_notebook_run_shows_its_output_below_the_cell(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    import percent

    (tmp_path / "mini.py").write_text(MINI, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(DOCS / "_ext")}
    subprocess.run([sys.executable, DOCS / "_ext/run_cells.py", tmp_path / "mini.py", tmp_path], env=environment, check=True)
    outputs = json.loads((tmp_path / "mini.json").read_text(encoding="utf-8"))
    assert (tmp_path / "mini-1.png").read_bytes()[:4] == b"\x89PNG"
    text = percent.page("mini.py", MINI, outputs, images="drawn")
    places = [text.index(part) for part in ("# Title", "Words.", "plt.plot", "printed\n", "(drawn/mini-1.png)", "## After")]
    assert places == sorted(places) and text.startswith("# Title")
    assert "printed\n```" not in percent.page("mini.py", MINI)


def test_names_in_the_text_exist():
    """Every `diffphys.a.b` of the pages is a module or an attribute."""
    names = {n for page in WRITTEN for n in re.findall(r"`(diffphys(?:\.\w+)+)", page.read_text(encoding="utf-8"))}
    assert len(names) > 30
    for name in names:
        parts = name.split(".")
        modules = [n for n in range(len(parts), 0, -1) if find_spec_quietly(".".join(parts[:n]))]
        if parts[:3] in (["diffphys", "plugin", "torch"], ["diffphys", "plugin", "deepinv"]):
            continue  # may be absent; tests of their own
        here = importlib.import_module(".".join(parts[: modules[0]]))
        for part in parts[modules[0] :]:
            assert hasattr(here, part), f"{name} does not exist"
            here = getattr(here, part)


def find_spec_quietly(name):
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # its parent is no package
        return None


def test_code_blocks_run(tmp_path):
    """Page by page, in one namespace each, in a process of its own; the first that fails is told."""
    script = tmp_path / "run.py"
    script.write_text(RUN, encoding="utf-8")
    texts = [(p, blocks(p, "python")) for p in WRITTEN if p.stem not in ELSEWHERE]
    ours = [p for p, found in texts if found and (find_spec("torch") or not any("import torch" in b for b in found))]
    assert {"physics", "files", "choosing"} <= {p.stem for p in ours}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DIFFPHYS_FFT": "native"}
    ran = subprocess.run(
        [sys.executable, script, *ours], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("RAN ")] == [p.name for p in ours]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.py"]  # nothing is left behind


RUN = """
import re, sys
from pathlib import Path

for path in map(Path, sys.argv[1:]):
    text, space = path.read_text(encoding="utf-8"), {"__name__": "docs"}
    for found in re.finditer(r"^```python\\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text[: found.start()].count("\\n") + 1
        exec(compile("\\n" * line + found.group(1), path.name, "exec"), space)
    print("RAN", path.name)
"""


@cache
def commands():
    """Full name -> command, groups opened."""

    def of(group, name):
        for short, command in group.commands.items():
            yield from of(command, f"{name} {short}") if hasattr(command, "commands") else [(f"{name} {short}", command)]

    return dict(of(get_command(app), "diffphys"))


def told_commands():
    """(page, command line) of every `diffphys ...` in a shell block or in running text."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
        lines += [" ".join(span.split()) for span in re.findall(r"`((?:\.venv/bin/)?diffphys [^`]+)`", FENCE.sub("", text))]
        yield from ((page.name, line.partition(" #")[0].removeprefix(".venv/bin/")) for line in lines)


def test_commands_and_their_options_exist():
    """Every command line on the pages is one that the program has; nothing is run."""
    checked = 0
    for page, line in told_commands():
        words = shlex.split(line)
        if not words or words[0] != "diffphys" or "COMMAND" in words:
            continue
        name = next((n for n in sorted(commands(), key=len, reverse=True) if " ".join(words).startswith(n)), None)
        assert name, f"{page}: no such command: {line}"
        options = {o for p in commands()[name].params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        given = [w.partition("=")[0] for w in words[len(name.split()) :] if re.match(r"--?[a-z]", w)]
        assert set(given) <= options, f"{page}: {sorted(set(given) - options)} in {line}"
        checked += 1
    assert checked > 25 and set(_SEVERAL) <= {o for c in commands().values() for p in c.params for o in p.opts}


@cache
def templates():
    """Every string of the package as the parser sees it, adjacent parts joined, what is filled in replaced by ANY."""
    found = set()
    for path in (ROOT / "diffphys").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(p.value if isinstance(p, ast.Constant) else ANY for p in node.values))
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                found |= {_joined(node)}
    return [" ".join(text.split(" ")) for text in found]


def _joined(node):
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined(node.left) + _joined(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else ANY for p in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ANY


def said(quote, texts):
    """Whether the parts of a quoted line between its dots stand in one string of the program, in this order."""
    parts = [part.strip() for part in quote.split("…") if part.strip(" ().:;,%")]
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    return parts and any(pattern.search(text) for text in texts)


def test_quoted_messages_are_what_the_program_prints():
    quotes = [line for block in blocks(DOCS / "troubleshooting.md", "text") for line in block.splitlines()]
    assert len(quotes) > 60
    invented = [quote for quote in quotes if not said(quote, templates())]
    assert not invented, invented
    assert not said("the calibration is … and kept forever", templates())  # the check can fail
