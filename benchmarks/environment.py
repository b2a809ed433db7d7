"""What a benchmark ran on: versions, commit, device, command; and the atomic writing of its small JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "diffphys", "scikit-image", "torch", "psfmodels")


def environment() -> dict[str, Any]:
    """Versions, commit, device, cores and the command line."""
    import jax  # here: interpreters of peers take `versions` and have none

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()
    return {
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "commit": commit,
        "device": str(jax.devices()[0].device_kind),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "command": shlex.join(["python", *sys.argv]),
    }


def processor() -> str:
    """The CPU's model as the system names it."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(path: Path, record: dict[str, Any]) -> None:
    """Write JSON completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1, default=float) + "\n")
    os.replace(temporary, path)
