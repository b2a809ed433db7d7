"""Timing in turns: contenders one after another, round by round, so that what else the machine does meets all of them alike.

Only numpy: it also runs in the environments of peers that cannot live beside diffphys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Call = Callable[[], Any]


def interleave(contenders: Mapping[str, Call], rounds: int, *, per: int = 1) -> dict[str, dict[str, float]]:
    """{name: call that blocks} -> `row` of each, over `per`; one call of each before, not timed."""
    for call in contenders.values():
        call()
    return {name: row(times, per=per) for name, times in turns(contenders, rounds).items()}


def turns(contenders: Mapping[str, Call], rounds: int, *, most: Mapping[str, int] | None = None) -> dict[str, list[Any]]:
    """{name: [(wall, CPU) seconds per round]}; `most` rounds of a contender, where stated."""
    times: dict[str, list[Any]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, call in contenders.items():
            if turn < (most or {}).get(name, rounds):
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def row(times: list[Any], *, per: int = 1) -> dict[str, float]:
    """Wall minimum and median, CPU median, in ms over `per`."""
    wall, cpu = 1e3 * np.array(times).T / per
    found = {"wall_min_ms": wall.min(), "wall_median_ms": np.median(wall), "cpu_median_ms": np.median(cpu)}
    return {name: float(value) for name, value in found.items()}
