"""One function over many stacks: equal shapes share one compiled program, spread over devices, vectorised where that pays.

A CPU gains nothing from vectorising iterations that end at different times: its cores take one item each, and the next when
they are done. An accelerator takes `together` of them abreast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from diffphys.cores import at_once


class Lanes(NamedTuple):
    """How many stacks a device takes abreast, and which devices (none: jax's default one)."""

    together: int = 1
    devices: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Stacks per call of the program."""
        return self.together * max(len(self.devices), 1)


ONE = Lanes()
ABREAST = 64  # at most, on an accelerator


def lanes(count: int, *, devices: Sequence[Any] | None = None) -> Lanes:
    """Lanes for `count` stacks over local `devices` (None: all of them)."""
    chosen = tuple(jax.local_devices() if devices is None else devices)
    if chosen[0].platform == "cpu":
        return Lanes(1, chosen[: max(count, 1)])
    return Lanes(min(ABREAST, -(-count // len(chosen))), chosen)


def over(fn: Callable[..., Any], static: tuple[Any, ...], items: Sequence[tuple[Any, ...]], how: Lanes) -> list[Any]:
    """[fn(*static, *item) for item in items], compiled; results as numpy.

    Args:
        fn: pure; defined in a module, so that a second call finds the compiled program.
        static: hashable arguments.
        items: pytrees of arrays, one tuple per stack.
        how: lanes; `ONE` runs item by item on the default device.
    """
    groups: dict[Any, list[int]] = {}
    for number, item in enumerate(items):
        leaves, tree = jax.tree.flatten(item)
        groups.setdefault((tree, tuple((np.shape(v), v.dtype) for v in leaves)), []).append(number)
    found: list[Any] = [None] * len(items)

    def alone(item: tuple[Any, ...]) -> Any:
        return jax.device_get(_single(fn, static, item))

    for like, members in groups.items():
        if how.size == 1:
            results = at_once(alone, [items[n] for n in members], (fn, static, like))
        else:
            parts = [members[first : first + how.size] for first in range(0, len(members), how.size)]
            results = [result for part in parts for result in _abreast(fn, static, [items[n] for n in part], how)]
        for number, result in zip(members, results, strict=True):
            found[number] = result
    return found


def _abreast(fn: Callable[..., Any], static: tuple[Any, ...], items: list[tuple[Any, ...]], how: Lanes) -> list[Any]:
    """At most `how.size` items; the last is repeated where there are fewer, so that one program serves every number."""
    filled = items + items[-1:] * (how.size - len(items))
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(v) for v in leaves]), *filled)
    found = jax.device_get(_many(fn, static, how.devices, stacked))
    return [jax.tree.map(lambda leaf, n=n: leaf[n], found) for n in range(len(items))]


@partial(jax.jit, static_argnames=("fn", "static"))
def _single(fn: Callable[..., Any], static: tuple[Any, ...], item: tuple[Any, ...]) -> Any:
    return fn(*static, *item)


@partial(jax.jit, static_argnames=("fn", "static", "devices"))
def _many(fn: Callable[..., Any], static: tuple[Any, ...], devices: tuple[Any, ...], stacked: Any) -> Any:
    def several(part: Any) -> Any:
        if len(jax.tree.leaves(part)[0]) == 1:
            return jax.tree.map(lambda leaf: leaf[None], fn(*static, *jax.tree.map(lambda leaf: leaf[0], part)))
        return jax.vmap(lambda item: fn(*static, *item))(part)

    if len(devices) < 2:
        return several(stacked)
    split = PartitionSpec("stack")
    mesh = Mesh(np.array(devices), ("stack",))
    return jax.shard_map(several, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)(stacked)
