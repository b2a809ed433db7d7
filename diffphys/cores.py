"""The processor's cores: how many this process may use, and one piece of work for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_RUN: set[Hashable] = set()


def at_once(fn: Callable[[Any], Any], items: Sequence[Any], like: Hashable) -> list[Any]:
    """[fn(item) for item in items], on a CPU each core with one of them: the programs here keep no more than one core busy.

    Args:
        fn: runs compiled programs, the same for every item.
        items: what it is given.
        like: what the programs depend on; the first item ever runs alone and compiles them.
    """
    alone = 0 if like in _RUN else 1
    found = [fn(item) for item in items[:alone]]
    _RUN.add(like)
    rest = items[alone:]
    if len(rest) < 2 or cores() < 2 or jax.default_backend() != "cpu":
        return found + [fn(item) for item in rest]
    wide = jax.config.read("jax_enable_x64")  # a thread does not inherit it

    def run(item: Any) -> Any:
        with jax.enable_x64(wide):
            return fn(item)

    pool = ThreadPoolExecutor(min(cores(), len(rest)))
    try:
        return found + list(pool.map(run, rest))
    finally:
        pool.shutdown(cancel_futures=True)
