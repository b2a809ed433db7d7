"""A network on the tiles of a volume: one pass over the Wiener image of a block, which begins on the lattice of its folds.

Only networks that look a limited way around themselves can work so; attention over all voxels would see others in every tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffphys.cores import cores
from diffphys.networks import tiled
from diffphys.reconstruct import learned
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.wiener import fitted_spectrum

FAMILIES = ("care", "unet")
LATTICE = tiled.ALIGN[3]
MARGIN = tuple(round(tiled.RIM * o) for o in tiled.OVERLAP[3])  # voxels (z, y, x) that a network sees around one
PASS = 470.0  # bytes per voxel that a network sees at once, as XLA states them for the largest of these
KEPT = 60.0  # bytes per voxel of the block beside it: inputs, Wiener image, result
PROGRAM = 150e6  # bytes of the network itself and its compiled program


def settled(problem: Problem, options: Mapping[str, Any], callback: Callback | None) -> dict[str, Any]:
    """What all tiles share: the Wiener image's spectrum and noise variance, and the unit of the network's inputs."""
    if set(options) - {"seed"}:
        raise ValueError(f"networks have no options in tiles; got {sorted(set(options) - {'seed'})}")
    law, variance = fitted_spectrum(problem)
    unit = learned.prepared(problem, spectrum=law, variance=variance, callback=callback).unit
    return {"spectrum": law, "variance": variance, "unit": unit}


def restored(family: str, problem: Problem, *, unit: float, **wiener: Any) -> Solution:
    """One pass over a block.

    Args:
        family: one of FAMILIES.
        problem: the block's data and operator.
        unit, wiener: as `settled` found them.
    """
    ready = learned.prepared(problem, unit=unit, **wiener)
    image = learned.through(learned.name_of(family, problem), ready.inputs)[..., 0]
    return learned.finished(problem, ready, image, None)


def memory(field: Sequence[int]) -> float:
    """Bytes while a network looks at a block."""
    window, count = tiled.seen_at_once(field)
    return PASS * math.prod(window) * min(cores(), count) + KEPT * math.prod(field) + PROGRAM
