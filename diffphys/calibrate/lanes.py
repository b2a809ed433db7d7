"""One function over many stacks: equal shapes share one compiled program, spread over devices, vectorised where that pays.

A CPU gains nothing from vectorising iterations that end at different times, so there stacks of a device follow one another; an
accelerator runs `together` of them abreast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec


class Lanes(NamedTuple):
    """How many stacks go into one program, how many of them abreast on a device, and on which devices (none: jax's default)."""

    width: int = 1
    together: int = 1
    devices: tuple[Any, ...] = ()


ONE = Lanes()
ABREAST = 64  # on an accelerator


def lanes(width: int, *, devices: Sequence[Any] | None = None) -> Lanes:
    """Lanes for `width` stacks at a time over local `devices` (None: all of them)."""
    chosen = tuple(jax.local_devices() if devices is None else devices)
    abreast = 1 if chosen[0].platform == "cpu" else min(ABREAST, -(-width // len(chosen)))
    return Lanes(width, abreast, chosen)


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
    for members in groups.values():
        for first in range(0, len(members), how.width):
            part = members[first : first + how.width]
            for number, result in zip(part, _together(fn, static, [items[n] for n in part], how), strict=True):
                found[number] = result
    return found


def _together(fn: Callable[..., Any], static: tuple[Any, ...], items: list[tuple[Any, ...]], how: Lanes) -> list[Any]:
    if how.width == 1:
        return [jax.device_get(_single(fn, static, items[0]))]
    size = _padded(len(items), how)
    filled = items + items[-1:] * (size - len(items))
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(v) for v in leaves]), *filled)
    found = jax.device_get(_many(fn, static, how.together, how.devices, stacked))
    return [jax.tree.map(lambda leaf, n=n: leaf[n], found) for n in range(len(items))]


def _padded(count: int, how: Lanes) -> int:
    """Few sizes, so few programs: a power of two times the devices, the whole width at most."""
    size = max(len(how.devices), 1)
    while size < count:
        size *= 2
    return size


@partial(jax.jit, static_argnames=("fn", "static"))
def _single(fn: Callable[..., Any], static: tuple[Any, ...], item: tuple[Any, ...]) -> Any:
    return fn(*static, *item)


@partial(jax.jit, static_argnames=("fn", "static", "together", "devices"))
def _many(fn: Callable[..., Any], static: tuple[Any, ...], together: int, devices: tuple[Any, ...], stacked: Any) -> Any:
    def several(part: Any) -> Any:
        return jax.lax.map(lambda item: fn(*static, *item), part, batch_size=None if together == 1 else together)

    if len(devices) < 2:
        return several(stacked)
    split = PartitionSpec("stack")
    mesh = Mesh(np.array(devices), ("stack",))
    return jax.shard_map(several, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)(stacked)
