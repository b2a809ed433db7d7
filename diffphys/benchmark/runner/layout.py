"""What a job sees: the organiser's interpreter and this package, both read-only, and nothing else of the host.

The solver runs under the Python that runs diffphys, with the packages installed there (numpy, scipy, jax, h5py, diffphys); an
image brings its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

LIBRARY = "/opt/diffphys"  # on the job's PYTHONPATH
_SYSTEM = ("lib", "lib32", "lib64", "bin", "sbin")
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": LIBRARY,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "JAX_PLATFORMS": "cpu",
    "DIFFPHYS_CACHE": "off",
}


def package() -> Path:
    return Path(__file__).parents[2]


def exposed() -> list[Path]:
    """Folders of the host that every job can read."""
    interpreter = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix))
    roots = [Path("/usr"), *(p for p in interpreter if not p.is_relative_to("/usr"))]
    return [*dict.fromkeys(roots), package()]


def check_hidden(secrets: Sequence[Path | str]) -> None:
    """ValueError when a file that must stay secret lies in a folder that jobs can read."""
    for secret in secrets:
        place = Path(secret).resolve()
        for folder in exposed():
            if place.is_relative_to(folder.resolve()):
                raise ValueError(f"{secret} lies in {folder}, which every solver can read; move it out of there")


def arguments() -> list[str]:
    """Part of a bwrap command line that mounts the system, the interpreter and the package."""
    line = ["--ro-bind", "/usr", "/usr", "--perms", "0755", "--dir", "/etc"]
    line += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in _SYSTEM:
        place = Path("/", name)
        if place.is_symlink():
            line += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            line += ["--ro-bind", str(place), str(place)]
    made = {Path("/"), Path("/tmp"), Path("/usr"), Path("/etc")}
    for folder in exposed()[1:-1]:
        line += [*_parents(folder, made), "--ro-bind", str(folder), str(folder)]
    inside = Path(LIBRARY, "diffphys")
    return [*line, *_parents(inside, made), "--ro-bind", str(package()), str(inside)]


def _parents(path: Path, made: set[Path]) -> list[str]:
    """Every folder above a mount point spelled out: left implicit, bwrap started by root makes them unreadable."""
    line: list[str] = []
    for folder in reversed(path.parents):
        if folder not in made:
            made.add(folder)
            line += ["--perms", "0755", "--dir", str(folder)]
    return line
