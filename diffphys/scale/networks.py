"""A network on the tiles of a volume: one pass over the Wiener image of a block, on the lattice that all blocks share.

Only networks that look a limited way around themselves can work so; attention over all voxels would see others in every tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffphys.cores import cores
from diffphys.networks import tiled
from diffphys.reconstruct import learned
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.wiener import fitted_spectrum

FAMILIES = ("care", "unet")
PASS = 470.0  # bytes per voxel that a network sees at once, as XLA states them for the largest of these
KEPT = 60.0  # bytes per voxel of the block beside it: inputs, Wiener image, result


def settled(problem: Problem, options: Mapping[str, Any], callback: Callback | None) -> dict[str, Any]:
    """What all tiles share: the Wiener image's spectrum and noise variance, and the unit of the network's inputs."""
    if set(options) - {"seed"}:
        raise ValueError(f"networks have no options in tiles; got {sorted(set(options) - {'seed'})}")
    law, variance = fitted_spectrum(problem)
    unit = learned.prepared(problem, spectrum=law, variance=variance, callback=callback).unit
    return {"spectrum": law, "variance": variance, "unit": unit}


def margin() -> tuple[int, ...]:
    """Voxels around a core that a network needs beyond the reach of the PSF: its view, and the way to its lattice."""
    return tuple(round(tiled.RIM * o) + a - 1 for o, a in zip(tiled.OVERLAP[3], tiled.ALIGN[3], strict=True))


def restored(family: str, problem: Problem, start: Sequence[int], *, unit: float, **wiener: Any) -> Solution:
    """One pass over a block whose first voxel is `start` of its volume; before its first lattice point Wiener's voxels stay.

    Args:
        family: one of FAMILIES.
        problem: the block's data and operator.
        start: (z, y, x).
        unit, wiener: as `settled` found them.
    """
    ready = learned.prepared(problem, unit=unit, **wiener)
    ahead = tuple(slice((-s) % a, None) for s, a in zip(start, tiled.ALIGN[3], strict=True))
    image = ready.inputs[..., 0].copy()
    image[ahead] = learned.through(learned.name_of(family, problem), np.ascontiguousarray(ready.inputs[ahead]))[..., 0]
    return learned.finished(problem, ready, image, None)


def memory(field: Sequence[int]) -> float:
    """Bytes while a network looks at a block."""
    window = math.prod(min(n, most) for n, most in zip(field, tiled.LARGEST[3], strict=True))
    passes = min(cores(), math.ceil(math.prod(field) / window))
    return PASS * window * passes + KEPT * math.prod(field)
