"""Write THIRD_PARTY.md: the licence of every dependency as its own metadata states it, of what they bring, and of the data.

python benchmarks/third_party.py

Best where everything is installed, `pip install -e ".[dev,torch,deepinv,mkl,zarr,bio,czi,cluster]"`: a package that is not
keeps what the page said of it, and one that the page does not know ends it with one line. The tests compare the table with
pyproject.toml.
"""

from __future__ import annotations

import os
import tomllib
from collections import deque
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "THIRD_PARTY.md"
HEAD = """# Licences of what diffphys uses and ships

diffphys is under the Apache License 2.0 (`LICENSE`). This page is written by
`python benchmarks/third_party.py`; a licence is given as the package's own metadata states it.

* The core and the extras `torch`, `deepinv`, `zarr`, `bio` and `cluster` bring no package under the GPL.
* `psfmodels` (GPL-3.0) is an oracle of the tests: the package never imports it.
* `bioio-czi` (GPL-3.0) reads Zeiss's CZI files: an extra of its own, `diffphys[czi]`, installed unasked with the
  developers' tools (`dev`) only. Who passes on a bundle with it passes on a GPL work.
* `mkl` (Intel Simplified Software License: free to use and to pass on, not open source): an extra of its own, `diffphys[mkl]`.
"""
DECLARED, BROUGHT = "Declared dependencies", "What these bring"
DATA = """
## Data that ships

| what | licence | from |
|---|---|---|
| `diffphys/networks/shipped/`: weights and their cards | Apache-2.0, ours | trained on simulated scenes only |
| `diffphys/benchmark/results/`, `benchmarks/results/`: measured figures | Apache-2.0, ours | the commands that they name |
| `diffphys/benchmark/published.json`: scores stated by others | numbers, each with its source | the original pages |

## Data that does not ship

Some tests and benchmarks read real stacks where they are present, and are left out where they are not. The licences are those
of the repositories that hold the files; who passes a file on adds its credit line, its licence and a note of changes.

| stack | licence | credit |
|---|---|---|
| confocal beads, line grid at 1 AU | CC-BY 4.0 | Bert Nitzsche, Robert Haase, MPI-CBG (BioImageAnalysisNotebooks) |
| nucleus, confocal and widefield | CC-BY 4.0 | European Molecular Biology Laboratory (NEUBIAS training resources) |
| hollow bars: actual, data, kernel | Apache-2.0; EPFL's own terms not checked | flowdec; Sage et al., Methods 115 (2017) |
| widefield PSF, 520 nm, NA 0.85 | Apache-2.0 | pyOTF |
| SHG collagen, SHG fibre stack | BSD-2-Clause | Board of Regents of the University of Wisconsin-Madison (curvelets) |
| SHG collagen, three frames | Apache-2.0 | PyFibre |
"""


def declared() -> dict[str, dict[str, str]]:
    """{canonical name: {use: specifier}} of pyproject.toml; use is "core", "tests" or the name of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, dict[str, str]] = {}
    for use, lines in groups.items():
        for wanted in map(Requirement, lines):
            if canonical(wanted.name) != project["name"]:
                found.setdefault(canonical(wanted.name), {})["tests" if use == "dev" else use] = str(wanted.specifier)
    return found


def rows(section: str) -> dict[str, list[str]]:
    """{package: its other cells} of a table of the page as it is, by the section's title."""
    if not PAGE.exists():
        return {}
    table = PAGE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if line.startswith("| ")]
    return {package: others for package, *others in cells[1:]}


def licence(package: str) -> str:
    """Licence by the installed package's metadata: expression, else short field, else classifiers; "" where nobody knows.

    Of a package that is not installed: what the page says.
    """
    if _absent(package):
        known = {name: cells[1] for name, cells in rows(DECLARED).items()} | {n: c[0] for n, c in rows(BROUGHT).items()}
        return known.get(package, "")
    about = metadata.metadata(package)
    if expression := about.get("License-Expression"):
        return expression
    stated = (about.get("License") or "").strip()
    classes = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
    short = stated if stated and "\n" not in stated and len(stated) <= 70 else ""
    return short or ", ".join(c for c in classes if c != "OSI Approved") or "see its files"


def brought(packages: set[str]) -> dict[str, set[str]]:
    """{package: those that need it} below the given ones, which are left out."""
    found: dict[str, set[str]] = {}
    seen, left = set(packages), deque(sorted(packages))
    while left:
        parent = left.popleft()
        for name in map(canonical, _needs(parent)):
            if name in packages:
                continue
            found.setdefault(name, set()).add(parent)
            if name not in seen:
                seen.add(name)
                left.append(name)
    return found


def _needs(package: str) -> list[str]:
    """What a package needs on this system without its extras; if it is not installed, by the page."""
    if _absent(package):
        return [name for name, (_, parents) in rows(BROUGHT).items() if package in parents.split(", ")]
    wanted = map(Requirement, metadata.requires(package) or [])
    return [w.name for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})]


@cache
def _absent(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return True
    return False


def page() -> str:
    """The whole of THIRD_PARTY.md.

    Raises:
        SystemExit: a declared package is neither installed nor in the page.
    """
    known = declared()
    if missing := [name for name in known if not licence(name)]:
        raise SystemExit(f"not installed and not in {PAGE.name} yet: {', '.join(missing)}; install them first")
    lines = [HEAD, f"## {DECLARED}", "", "| package | versions | licence | used by |", "|---|---|---|---|"]
    for name, uses in sorted(known.items()):
        versions = " or ".join(dict.fromkeys(v or "any" for v in uses.values()))
        lines.append(f"| {name} | {versions} | {licence(name)} | {', '.join(uses)} |")
    lines += ["", f"## {BROUGHT}", "", "| package | licence | brought by |", "|---|---|---|"]
    for name, parents in sorted(brought(set(known)).items()):
        if licence(name):  # else it belongs to another system
            lines.append(f"| {name} | {licence(name)} | {', '.join(sorted(parents))} |")
    return "\n".join([*lines, DATA])


def main() -> None:
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(page())
    os.replace(temporary, PAGE)
    kept = [name for name in declared() if _absent(name)]
    print(f"{PAGE.name}: {len(declared())} declared packages; not installed, kept as they were: {', '.join(kept) or 'none'}")


if __name__ == "__main__":
    main()
