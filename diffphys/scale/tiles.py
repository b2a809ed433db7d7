"""A volume cut into tiles: cores that partition it, and blocks of one shape around them that are read and restored.

A block holds its core and at least a halo of measured voxels on every side where the volume goes on. At a rim of the volume
the block is moved inwards instead of padded, so every block holds data alone and one compiled program serves them all. A method
that sees its data on a lattice (a network's folds) has its blocks begin on that of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np

from diffphys.primitives.convolve import support
from diffphys.types import Modality

Shape = tuple[int, ...]
ENERGY = 0.99  # the PSF's support holds this much along each axis
REACH = 1.8  # halo in half widths of the support: seams below 1e-3 of the peak (tests/test_volumes.py)
PROBE = 48  # first grid on which the PSF's support is measured, doubled until the support is well inside
WIDEST = 384


EVERYWHERE = (1, 1, 1)  # the lattice of a method that has none


class Tile(NamedTuple):
    """`core`: what the tile contributes; `block`: what it is computed from; slices of the volume."""

    number: int
    core: tuple[slice, ...]
    block: tuple[slice, ...]

    @property
    def inside(self) -> tuple[slice, ...]:
        """The core within the block."""
        pairs = zip(self.core, self.block, strict=True)
        return tuple(slice(c.start - b.start, c.stop - b.start) for c, b in pairs)


def block_shape(shape: Sequence[int], core: Sequence[int], halo: Sequence[int], *, lattice: Shape = EVERYWHERE) -> Shape:
    """What one tile reads: the core, its halo and the way to the lattice, at most the volume."""
    wide = [c + 2 * h + a - 1 for c, h, a in zip(core, halo, lattice, strict=True)]
    return tuple(min(n, w + (n - w) % a) if c < n else n for n, c, w, a in zip(shape, core, wide, lattice, strict=True))


def cut(shape: Sequence[int], core: Sequence[int], halo: Sequence[int], *, lattice: Shape = EVERYWHERE) -> list[Tile]:
    """Tiles of a volume in the order of its axes; the last cores may be smaller, the blocks all have `block_shape`."""
    whole, size = tuple(slice(0, n) for n in shape), block_shape(shape, core, halo, lattice=lattice)
    return [Tile(i, c, around(c, shape, size, halo, lattice=lattice)) for i, c in enumerate(_cores(whole, core))]


def halves(tile: Tile, shape: Sequence[int], halo: Sequence[int], *, lattice: Shape = EVERYWHERE) -> list[Tile]:
    """The tile's core as two, along the axis that shrinks the block most; [] where none does."""
    lengths = [c.stop - c.start for c in tile.core]
    options = []
    for axis in range(len(lengths)):
        core = [n if a != axis else -(-n // 2) for a, n in enumerate(lengths)]
        room = block_shape(shape, core, halo, lattice=lattice)
        options.append((math.prod(room), core, room))
    voxels, core, room = min(options)
    if voxels >= math.prod(b.stop - b.start for b in tile.block):
        return []
    return [Tile(tile.number, c, around(c, shape, room, halo, lattice=lattice)) for c in _cores(tile.core, core)]


def around(
    core: Sequence[slice], shape: Sequence[int], size: Sequence[int], halo: Sequence[int], *, lattice: Shape = EVERYWHERE
) -> tuple[slice, ...]:
    """The block of `size` that holds the core and its halo, moved to lie in the volume and to begin on the lattice."""
    axes = zip(core, shape, size, halo, lattice, strict=True)
    starts = [min(max(c.start - h, 0) // a * a, n - s) for c, n, s, h, a in axes]
    return tuple(slice(a, a + s) for a, s in zip(starts, size, strict=True))


def _cores(window: Sequence[slice], core: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    spans = [[slice(a, min(a + c, w.stop)) for a in range(w.start, w.stop, c)] for w, c in zip(window, core, strict=True)]
    return product(*spans)


def halo_of(modality: Modality, spec: Any, geometry: Any) -> Shape:
    """Voxels around a core that its restoration must see: REACH half widths of the PSF, the widest over the depths.

    The PSF is measured on a grid that is doubled until it lies well inside, or is as large as the volume.
    """
    probe = [min(n, PROBE) for n in geometry.shape]
    while True:
        psfs = modality.transfer(spec, geometry=modality.block(geometry, tuple(probe))).psfs
        psfs = np.abs(np.asarray(jax.device_get(psfs))).reshape(-1, *probe)
        halves = np.max([support(psf, energy=ENERGY) for psf in psfs], axis=0)
        tight = [a for a, (h, p) in enumerate(zip(halves, probe, strict=True)) if h > 0.3 * p]
        grown = [min(n, WIDEST, 2 * p) if a in tight else p for a, (n, p) in enumerate(zip(geometry.shape, probe, strict=True))]
        if grown == probe:
            return tuple(int(np.ceil(REACH * h)) for h in halves)
        probe = grown
