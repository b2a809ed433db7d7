"""The project's own papers against what they describe: versions, licences, minima, the wheel, the hooks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import diffphys

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import third_party  # noqa: E402
import tidy  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GPL = re.compile(r"(?<!L)GPL|(?<!Lesser )General Public License")
USERS_CHOICE = {"bioio-czi", "psfmodels"}  # an extra that nothing else brings, and an oracle of the tests
TOOLS = {"tests", "docs"}  # of the developers
IN_PART = {"docutils"}  # public domain and BSD; under the GPL is an Emacs mode among its tools only


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["version"] == diffphys.__version__
    assert cited["license"] == PROJECT["license"] and cited["title"] == PROJECT["name"]
    assert [a["name"] for a in cited["authors"]] == [a["name"] for a in PROJECT["authors"]]


def table():
    """Declared dependencies by the page: {package: (versions, licence, uses)}."""
    return third_party.rows(third_party.DECLARED)


def gpl(licence):
    """Under the GPL, with no other licence to choose (and LGPL is another)."""
    return all(GPL.search(choice) for choice in licence.split(" OR "))


def test_every_dependency_is_in_the_table_of_licences():
    """Run benchmarks/third_party.py after a change of pyproject.toml."""
    told, known = table(), third_party.declared()
    assert set(told) == set(known)
    for package, uses in known.items():
        versions, licence, used = told[package]
        assert used == ", ".join(uses) and licence not in ("", "see its files")
        assert set(versions.split(" or ")) == {v or "any" for v in uses.values()}, package


def test_nothing_under_the_gpl_comes_unasked():
    """By the table for what is declared; below that by the installed metadata, else by the table."""
    known = third_party.declared()
    assert {package for package, (_, licence, _) in table().items() if gpl(licence)} - IN_PART == USERS_CHOICE
    assert set(known["psfmodels"]) == {"tests"} and set(known["bioio-czi"]) == {"czi"}
    brought = third_party.brought({package for package, uses in known.items() if set(uses) - TOOLS - {"czi"}})
    assert {"ml-dtypes", "contourpy"} <= set(brought)  # the walk went below the surface
    assert {p for p in brought if gpl(third_party.licence(p))} <= IN_PART
    assert gpl("GPL-3.0") and not gpl("LGPL-3.0") and not gpl("EPL-2.0 OR GPL-2.0-or-later")
    assert not gpl("GNU Lesser General Public License v3 (LGPLv3)")


def test_the_oldest_versions_are_the_declared_minima():
    pins = {p.name: p for p in map(Requirement, (ROOT / "tests/oldest.txt").read_text().splitlines()[2:])}
    assert set(pins) == {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for wanted in map(Requirement, PROJECT["dependencies"]):
        (least,), (pin,) = wanted.specifier, pins[canonicalize_name(wanted.name)].specifier
        assert (least.operator, pin.operator) == (">=", "==")
        stated = Version(least.version).release
        assert Version(pin.version) in wanted.specifier and Version(pin.version).release[: len(stated)] == stated, wanted.name


def test_the_tests_of_supported_versions_exist():
    lines = (ROOT / "tests/supported.txt").read_text().splitlines()
    for file, _, name in (line.partition("::") for line in lines):
        assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"
    assert len(lines) > 10


def test_contributing_names_files_that_exist():
    named = re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|txt|toml|yaml|cff))`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 5 and not [name for name in named if not (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without network by the build back end of this environment."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'diffphys[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}
        about = packed.read(f"diffphys-{PROJECT['version']}.dist-info/METADATA").decode()
        licence = packed.read(f"diffphys-{PROJECT['version']}.dist-info/licenses/LICENSE")
    here = {str(p.relative_to(ROOT)) for p in (ROOT / "diffphys").rglob("*") if p.is_file() and p.suffix not in (".pyc", ".so")}
    assert held == here  # weights, results, pages, py.typed: whatever lies in the package, no tests
    assert {Path(name).suffix for name in held} >= {".py", ".safetensors", ".json", ".html", ".cc", ".typed"}
    assert "License-Expression: Apache-2.0" in about and licence == (ROOT / "LICENSE").read_bytes()
    assert wheel.stat().st_size < 64 * 2**20  # weights of at most 60 MiB in all, and the rest


def test_the_unpacked_wheel_works_outside_the_source_tree(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    code = (
        "import diffphys; from diffphys.networks.weights import FOLDER; print(diffphys.__file__, len(list(FOLDER.iterdir())))"
    )
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=settings, capture_output=True, text=True, check=True)
    place, files = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path) and int(files) == len(list((ROOT / "diffphys/networks/shipped").iterdir()))


def test_large_files_and_private_paths_are_found(tmp_path):
    home = "/" + "home/ada"
    (tmp_path / "a.py").write_text(f'x = 1\nDATA = "{home}/stack.tif"\nY = "https://example.org/work/x", "/home/USER/x"\n')
    (tmp_path / "b.bin").write_bytes(b"\0" + home.encode())
    with (tmp_path / "c.tif").open("wb") as file:
        file.truncate(tidy.LARGEST + 1)
    found = list(tidy.faults(sorted(tmp_path.iterdir())))
    assert len(found) == 2 and f"a.py:2: {home}" in found[0] and "c.tif: 16 MiB" in found[1]


def test_this_tree_has_none():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert not list(tidy.faults([p for p in map(ROOT.joinpath, listed.stdout.splitlines()) if p.is_file()]))
