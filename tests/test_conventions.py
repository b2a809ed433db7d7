"""The house's conventions, read off the source: import directions, signatures, docstrings, light import."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import diffphys
from diffphys.types import Modality

PACKAGE = Path(diffphys.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
BASE = {"types", "spec"}
FORWARD = BASE | {"primitives", "optics", "noise", "fft"}
# room -> diffphys rooms it may import (itself is always allowed); rooms that are not listed are free below.
MAY_IMPORT = {
    "types": {"installed"},
    "installed": set(),
    "spec": {"types"},
    "cache": set(),
    "cores": set(),
    "fft": BASE | {"cache", "cores", "io"},  # io: files written whole
    "optics": BASE | {"fft"},
    "noise": BASE,
    "primitives": BASE | {"noise", "fft"},  # D's deterministic part lives with its noise
    "shg": FORWARD,
    "confocal": FORWARD,
}
NEVER_A_MODALITY = ("operator", "identify", "calibrate", "reconstruct", "networks", "train", "scale", "simulate", "plugin")
HEAVY = {
    "h5py": {"io"},
    "tifffile": {"io"},
    "zarr": {"io"},
    "matplotlib": {"report"},
    "flax": {"networks", "train", "reconstruct", "plugin"},
    "typer": {"cli"},
    "torch": {"plugin"},
    "deepinv": {"plugin"},
    "dask": {"scale", "plugin"},
    "napari": {"plugin"},
    "magicgui": {"plugin"},
    "qtpy": {"plugin"},
    "psfmodels": set(),  # GPL: an oracle of the tests, never a dependency
}


def room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path):
    """Every module imported anywhere in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path.name}: star import"
            yield node.module
            if node.module == "diffphys":
                yield from (f"diffphys.{alias.name}" for alias in node.names)


def rooms_imported(path):
    return {name.split(".")[1] for name in imports(path) if name.startswith("diffphys.")} - {room(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here, used = room(path), rooms_imported(path)
    if here in MAY_IMPORT:
        assert used <= MAY_IMPORT[here], f"{here} may not import {sorted(used - MAY_IMPORT[here])}"
    if here in NEVER_A_MODALITY:
        assert not used & {"shg", "confocal"}, f"{here} receives a modality as an argument"
    for name in {name.split(".")[0] for name in imports(path)} & set(HEAVY):
        assert here in HEAVY[name], f"{name} may be imported in {sorted(HEAVY[name])} only"


def test_every_import_is_declared():
    """A package that comes only because another one needs it today may be gone tomorrow."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    declared = {canonicalize_name(Requirement(line).name) for line in lines} | {project["name"]}
    owners = metadata.packages_distributions()
    used = {name.split(".")[0] for path in FILES for name in imports(path)} - sys.stdlib_module_names
    strangers = {name for name in used if name in owners and not declared & set(map(canonicalize_name, owners[name]))}
    assert len(used) > 15 and not strangers


def optional_modules():
    """Import names of every package of every extra that is installed here."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    core = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]} | {project["name"]}
    extras = {
        canonicalize_name(Requirement(line).name) for lines in project["optional-dependencies"].values() for line in lines
    }
    owners = metadata.packages_distributions().items()
    return {module for module, names in owners if (extras - core) & set(map(canonicalize_name, names))}


def test_importing_the_package_is_light():
    """In a fresh interpreter: no extra, no format, figure or network, and no part of scipy, which loads on first use.

    `benchmarks/import_time.py` measures what that saves.
    """
    heavy = {
        "flax",
        "optax",
        "orbax",
        "h5py",
        "tifffile",
        "matplotlib",
        "PIL",
        "jinja2",
        "typer",
        "pydantic",
        "yaml",
        "safetensors",
    }
    code = "import sys, jax; before = set(sys.modules); import diffphys; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = {tuple(name.split(".")) for name in done.stdout.split()}
    optional = optional_modules()
    assert {"torch", "zarr", "pytest"} & optional  # there is something to find
    assert not {name[0] for name in loaded} & (heavy | optional)
    parts = {name[1] for name in loaded if name[0] == "scipy" and len(name) > 1 and not name[1].startswith("_")}
    assert parts <= {"version"}, f"import scipy and write scipy.{min(parts - {'version'})}.name where it is used"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_its_place(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no module docstring"


def public_functions(path):
    """Top-level functions of a file, without those of private name."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


# Functions of one argument that may be left out; everything else that has a default is keyword-only.
MEASUREMENT_FIRST = {
    "calibrate",
    "reconstruct",
    "problem_of",
}  # the user's two verbs act on a measurement: verb(y, modality, ...)
OPTIONAL_POSITIONAL = {"nominal": {"geometry"}, "default_ranges": {"geometry"}, "with_zernike": {"modes"}}
COMMAND_LINE = "cli"  # its arguments are those of a command line, which typer reads off their defaults


@pytest.mark.parametrize("path", [f for f in FILES if room(f) != COMMAND_LINE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_options_are_keyword_only_and_arguments_in_order(path):
    """Order key, spec, x, y; whatever has a default is an option and is passed by name."""
    order = ["key", "spec", "x", "y"]
    for node in public_functions(path):
        positional = [a.arg for a in node.args.posonlyargs + node.args.args]
        options = positional[len(positional) - len(node.args.defaults) :] if node.args.defaults else []
        assert set(options) <= OPTIONAL_POSITIONAL.get(node.name, set()), f"{node.name}: options {options} are positional"
        if node.name in MEASUREMENT_FIRST:
            assert positional[0] == "y", f"{node.name}{tuple(positional)}: expected the measurement first"
            continue
        ranked = [order.index(a) for a in positional if a in order]
        assert ranked == sorted(ranked), f"{node.name}{tuple(positional)}: expected the order key, spec, x, y"


def test_every_public_name_of_a_modality_has_a_docstring(modality):
    for name in dir(modality):
        thing = getattr(modality, name)
        if not name.startswith("_") and (inspect.isfunction(thing) or inspect.isclass(thing)):
            assert thing.__doc__ and not thing.__doc__.startswith(f"{name}("), f"{modality.NAME}.{name} has no docstring"


def test_signatures_follow_the_protocol(modality):
    """Same parameter names and kinds as the protocol states; a modality may add keyword-only options of its own."""
    for name, declared in vars(Modality).items():
        if name.startswith("_") or not inspect.isfunction(declared):
            continue
        expected = list(inspect.signature(declared).parameters.values())[1:]  # without self
        given = inspect.signature(getattr(modality, name)).parameters
        for p in expected:
            assert p.name in given and given[p.name].kind == p.kind, f"{modality.NAME}.{name} lacks {p.name}"
        extra = [given[n] for n in given if n not in {p.name for p in expected}]
        assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in extra), f"{modality.NAME}.{name}"


def test_siblings_have_the_same_files():
    """`point_scanning` is the one extra: a second optical path of SHG microscopes."""
    files = [{p.name for p in (PACKAGE / m).glob("*.py")} for m in ("confocal", "shg")]
    assert files[0] == {"__init__.py", "spec.py", "optics.py", "forward.py", "scenes.py", "aberrated.py"}
    assert files[1] - files[0] == {"point_scanning.py"} and files[0] <= files[1]


def test_a_spec_is_traced_and_a_geometry_is_static(modality):
    """Every field of a Spec is a pytree leaf; a Geometry has none and is hashable."""
    import jax

    assert len(jax.tree.leaves(modality.nominal())) == len(modality.FIELDS)
    assert isinstance(hash(modality.Geometry()), int)
    with pytest.raises(AttributeError):
        modality.nominal().__setattr__(modality.FIELDS[0].name, 1.0)
    importlib.import_module(modality.__name__)
