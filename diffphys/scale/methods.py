"""The methods that work on a volume in tiles: what fixes each over all tiles, how it restores one, what it needs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from diffphys.reconstruct import richardson_lucy as rl
from diffphys.reconstruct import tv, wiener
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.learned import unfamiliar
from diffphys.scale import networks, settle
from diffphys.scale.tiles import EVERYWHERE, Shape


class Tiled(NamedTuple):
    """A method in tiles.

    Attributes:
        settle: (window's problem, stated options, callback) -> options that every tile is given.
        restore: (tile's problem, **options) -> Solution.
        solver: the method whose program the memory plan asks for.
        margin: voxels (z, y, x) that are needed around a core beyond the reach of the PSF.
        lattice: voxels (z, y, x) after which the method repeats: blocks begin at multiples of them.
        beside: (z, y, x) of a block -> bytes of what does not run at once with the solver.
        warnings: what the user should know before.
    """

    settle: Callable[[Problem, Mapping[str, Any], Callback | None], dict[str, Any]]
    restore: Callable[..., Solution]
    solver: str
    margin: Shape = (0, 0, 0)
    lattice: Shape = EVERYWHERE
    beside: Callable[[Sequence[int]], float] = lambda block: 0.0
    warnings: Callable[[Problem], tuple[str, ...]] = lambda problem: ()


def _network(family: str) -> Tiled:
    return Tiled(
        networks.settled, partial(networks.restored, family), "wiener",
        margin=networks.MARGIN, lattice=networks.LATTICE, beside=networks.memory, warnings=unfamiliar,
    )  # fmt: skip


TILED: dict[str, Tiled] = {
    "richardson_lucy": Tiled(settle.richardson_lucy, rl.richardson_lucy, "richardson_lucy"),
    "richardson_lucy_tv": Tiled(settle.richardson_lucy_tv, rl.richardson_lucy, "richardson_lucy"),
    "wiener": Tiled(settle.wiener, wiener.wiener, "wiener"),
    "tv": Tiled(settle.tv, tv.tv, "tv"),
    **{family: _network(family) for family in networks.FAMILIES},
}


def tiled(method: str) -> Tiled:
    """The entry of a method; ValueError with what is allowed for one that has none."""
    if method not in TILED:
        raise ValueError(f"method {method} is not available for volumes in tiles; expected one of {sorted(TILED)}")
    return TILED[method]
