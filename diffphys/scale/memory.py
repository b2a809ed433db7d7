"""How much memory there is, how much this process holds, and how to make it give back what it freed."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from pathlib import Path

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
SHARE = 0.8  # of the free memory that is used unless told otherwise
_MMAP_THRESHOLD = -3  # mallopt(3)
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def parse(text: str) -> int:
    """`6GiB`, `6 GB`, `800M`: bytes."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or not float(match[1]) > 0 or match[2] not in UNITS:
        raise ValueError(f"--memory is {text!r}; expected a size, e.g. 6GiB")
    return int(float(match[1]) * UNITS[match[2]])


def gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def available() -> int:
    """Bytes that a new piece of work may use: SHARE of what is free, by the machine and by the container's limit."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        held = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free.append(1024 * int(held["MemAvailable"].split()[0]))
    except (OSError, KeyError):
        pass  # not Linux: the physical memory stands
    for limit in map(Path, _LIMITS):
        try:
            free.append(int(limit.read_text()))
        except (OSError, ValueError):
            continue  # no such limit, or "max"
    return int(SHARE * min(free)) + resident()


def device_limit() -> int | None:
    """Bytes that the accelerator gives to this process; None on a CPU, which shares the process's memory."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def resident() -> int:
    """Bytes that this process holds in memory now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def release() -> None:
    """Give back what finished stages left: compiled programs and the holes of the heap."""
    import jax

    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def return_freed() -> None:
    """Ask the C library to hand every large array back to the system when it is freed.

    By default glibc learns from the first freed array to keep those up to 32 MiB, and a process holds twice what it uses.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, 2**20)
