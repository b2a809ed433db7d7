"""What diffphys finds on this computer: versions, devices, memory, cache, FFT and its speed, extras, sandbox, shipped weights.

Every part is looked at, none stops another: what is absent or broken is a line of text that says what to do.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from diffphys import fft
from diffphys.cores import cores

PACKAGES = ("diffphys", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "h5py", "tifffile", "matplotlib")
PAIR = (64, 256, 256)
Part = dict[str, Any]


def examine(*, progress: Callable[[float, str], None] | None = None) -> dict[str, Part]:
    """{part: {name: finding}}, JSON types only.

    Args:
        progress: called with (fraction done, part).
    """
    parts = {
        "versions": versions,
        "devices": devices,
        "memory": memory,
        "compilation cache": compilation_cache,
        "fft": transforms,
        "extras": extras,
        "sandbox": sandboxes,
        "weights": weights,
    }
    found = {}
    for done, (name, look) in enumerate(parts.items()):
        if progress is not None:
            progress(done / len(parts), name)
        found[name] = look()
    return found


def versions() -> Part:
    """Python, the system and the packages that matter."""
    told = {name: _version(name) or "absent" for name in PACKAGES}
    return {"python": platform.python_version(), "system": platform.platform(), **told}


def devices() -> Part:
    """What jax computes on, with its memory where the device tells it."""
    found = {}
    for device in jax.devices():
        told = device.memory_stats() or {}
        limit = told.get("bytes_limit")
        found[str(device)] = {
            "kind": device.device_kind,
            "memory_mib": None if limit is None else limit // 2**20,
            "in_use_mib": None if limit is None else told.get("bytes_in_use", 0) // 2**20,
        }
    return found


def memory() -> Part:
    """Memory of the computer in MiB: all, free for a new program, this control group's limit; cores; GPU preallocation."""
    limit = _text("/sys/fs/cgroup/memory.max")
    free = [line.split()[1] for line in _text("/proc/meminfo").splitlines() if line.startswith("MemAvailable")]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 if hasattr(os, "sysconf") else None
    return {
        "total_mib": total,
        "available_mib": int(free[0]) // 1024 if free else None,
        "limit_mib": int(limit) // 2**20 if limit.isdigit() else None,
        "cores": cores(),
        "gpu_preallocation": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true, jax's own"),
    }


def compilation_cache() -> Part:
    """Where compiled programs are kept between runs, and how much they take."""
    place = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if not place:
        return {"folder": "off: no program is kept (the command line keeps them unless DIFFPHYS_CACHE=off)"}
    sizes = [path.stat().st_size for path in Path(place).rglob("*") if path.is_file()]
    return {"folder": str(place), "files": len(sizes), "size_mib": round(sum(sizes) / 2**20, 1)}


def transforms() -> Part:
    """The FFT in use, why, and one r2c + c2r pair of JAX's own and, where it is in use, of MKL: wall minimum of 5, ms."""
    try:
        chosen = fft.choice()
    except ValueError as error:
        return {"in_use": "none", "why": str(error)}
    x = jax.random.normal(jax.random.key(0), PAIR)

    def timed(pair: Callable[[Any], Any]) -> tuple[float, Any]:
        program = jax.jit(pair)
        back, walls = jax.block_until_ready(program(x)), []
        for _ in range(5):
            started = time.perf_counter()
            jax.block_until_ready(program(x))
            walls.append(time.perf_counter() - started)
        return round(1e3 * min(walls), 2), back

    ms, own = timed(lambda v: jnp.fft.irfftn(jnp.fft.rfftn(v), s=PAIR))
    found: Part = {"in_use": chosen.name, "why": chosen.why, "pair": "x".join(map(str, PAIR)), "native_ms": ms}
    if chosen.name != "native":
        ms, other = timed(lambda v: fft.irfftn(fft.rfftn(v, PAIR), PAIR))
        found |= {f"{chosen.name}_ms": ms, "largest_difference": float(f"{float(jnp.max(jnp.abs(own - other))):.2g}")}
    return found


def extras() -> Part:
    """Every extra: its packages that are here, or the command that installs it."""
    from packaging.requirements import Requirement

    found: Part = {}
    about = metadata.metadata("diffphys")
    for extra in about.get_all("Provides-Extra") or []:
        asked = [r for r in map(Requirement, metadata.requires("diffphys") or []) if r.marker and "extra" in str(r.marker)]
        names = [r.name for r in asked if r.marker is not None and r.marker.evaluate({"extra": extra})]
        missing = [name for name in names if _version(name) is None]
        if not names:
            found[extra] = "not for this system"
        elif missing:
            found[extra] = f"absent ({', '.join(missing)}): pip install 'diffphys[{extra}]'"
        else:
            found[extra] = "present: " + ", ".join(f"{name} {_version(name)}" for name in names)
    return found


def sandboxes() -> Part:
    """What can contain a stranger's solver here; bubblewrap is tried with the benchmark's own attacks."""
    from diffphys.benchmark.runner import Solver, probe
    from diffphys.benchmark.runner.verdict import NoSandbox

    found = {}
    for name, solver in {"scripts": Solver(script=Path("solve.py")), "images": Solver(image="any")}.items():
        try:
            found[name] = probe.backend(solver)
        except NoSandbox as error:
            found[name] = str(error)
    return found


def weights() -> Part:
    """Every network that ships, loaded and checked against its card and its code."""
    from diffphys.networks.registry import NETWORKS
    from diffphys.networks.weights import FOLDER, load

    good, absent, wrong = [], [], {}
    for name in NETWORKS:
        if not (FOLDER / f"{name}.safetensors").exists():
            absent.append(name)
            continue
        try:
            load(name)
        except ValueError as error:
            wrong[name] = str(error)
        else:
            good.append(name)
    return {"whole": len(good), "not trained": ", ".join(absent) or "none", **wrong}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(path: str) -> str:
    """A small file of the system, empty where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
