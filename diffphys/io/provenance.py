"""What is needed to repeat a run: command, input and its sha256, optics, options, versions, commit, device, time, memory."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def run_record(
    *,
    command: Sequence[str],
    inputs: Mapping[str, Path | str | None],
    optics: Mapping[str, Any],
    options: Mapping[str, Any],
    started: datetime,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Content of `run.json`.

    Args:
        command: the command line, program name first.
        inputs: role -> file; None entries are left out.
        optics: the optics as they were used, nothing left to look up.
        options: every option with its value, the seed among them.
        started: when the run began.
        seconds: stage -> wall time.
    """
    return {
        "format": "diffphys-run",
        "version": 1,
        "command": list(command),
        "directory": str(Path.cwd()),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": dict(seconds),
        "inputs": {role: {"path": str(p), "sha256": sha256(p)} for role, p in inputs.items() if p is not None},
        "optics": dict(optics),
        "options": dict(options),
        "versions": versions(),
        "git_commit": git_commit(),
        "device": device(),
        "platform": platform.platform(),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def sha256(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Python, diffphys and the libraries that decide the numbers."""
    from diffphys import __version__

    libraries = {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "numpy", "scipy", "optax", "tifffile", "h5py")}
    return {"python": platform.python_version(), "diffphys": __version__, **libraries}


def git_commit() -> str | None:
    """Commit of the source tree this package runs from (`+` if changed since); None when it runs from an installation."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(root), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def device() -> dict[str, Any]:
    """The accelerator or processor that jax computes on."""
    import jax

    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "count": jax.device_count()}


def peak_memory_bytes() -> dict[str, int]:
    """Largest resident memory of this process, and of the device where it keeps count."""
    import jax

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["device"] = int(stats["peak_bytes_in_use"])
    return peak
