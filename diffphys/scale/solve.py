"""One tile: counts of its block -> restored core. The instrument is the volume's, moved to the tile's depth.

    y_tile = exp(-mu z_0) exp(-mu z) sum_m h_m (*) (w_m x)

Where the geometry has depth anchors the PSFs are those of the tile's own depths, finer than anchors over the whole volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.operator import Operator, bind, from_psf
from diffphys.reconstruct import problem_with
from diffphys.scale.methods import TILED
from diffphys.scale.tiles import Tile, halves
from diffphys.types import Modality, Status

BOX = 3  # half width of the grid of a PSF, in reaches of it
Read = Callable[[tuple[slice, ...]], np.ndarray]


@dataclass
class Solver:
    """Everything that tiles share; keeps the operator of the last block, which the tiles of one depth have in common.

    Attributes:
        modality, spec, geometry, detector: of the whole volume.
        method: a name of `methods.TILED`.
        options: as its `settle` fixed them.
        halo: voxels around a core, the method's margin among them.
    """

    modality: Modality
    spec: Any
    geometry: Any
    detector: Any
    method: str
    options: dict[str, Any]
    halo: tuple[int, ...]
    _kept: dict[Any, Operator] = field(default_factory=dict)
    _largest: float = math.inf  # voxels of a block that memory did not suffice for

    def solve(self, tile: Tile, read: Read) -> np.ndarray:
        """The restored core, float32, photons per voxel over `detector.peak_photons`.

        Out of memory is answered with two halves of the tile, again and again, until a block fits.

        Raises:
            ValueError: the numerics failed.
            MemoryError: the smallest block does not fit either.
        """
        known = TILED[self.method]
        parts = halves(tile, self.geometry.shape, self.halo, lattice=known.lattice)
        voxels = math.prod(b.stop - b.start for b in tile.block)
        if voxels < self._largest or not parts:
            try:
                return self._solve(tile, read(tile.block))
            except (MemoryError, RuntimeError) as error:
                if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
                    raise
                if not parts:
                    raise MemoryError(f"a block of {voxels} voxels does not fit in memory and cannot be halved") from error
                self._largest = voxels
                self._kept.clear()
        out = np.empty([c.stop - c.start for c in tile.core], np.float32)
        for part in parts:
            at = tuple(slice(p.start - c.start, p.stop - c.start) for p, c in zip(part.core, tile.core, strict=True))
            out[at] = self.solve(part, read)
        return out

    def _solve(self, tile: Tile, counts: np.ndarray) -> np.ndarray:
        problem = problem_with(counts, self.operator(tile.block), self.geometry, self.detector)
        found = TILED[self.method].restore(problem, **self.options)
        if found.status == Status.NONFINITE:
            raise ValueError(f"tile {tile.number} is not finite: {found.status.name}; check the input for extreme values")
        return np.asarray(problem.operator.crop(found.x)[tile.inside], np.float32) / np.float32(self.detector.peak_photons)

    def operator(self, block: Sequence[slice]) -> Operator:
        """The forward operator of a block."""
        geometry, decay = at_block(self.geometry, block, modality=self.modality)
        key = (geometry, decay)
        if key not in self._kept:
            self._kept.clear()
            made = self._bound(geometry)
            self._kept[key] = replace(made, modulation=made.modulation * jnp.asarray(decay, made.modulation.dtype))
        return self._kept[key]

    def _bound(self, geometry: Any) -> Operator:
        """The operator of a block; a PSF that does not change with depth is computed only as far as it reaches."""
        if geometry.depth_anchors > 1:
            with jax.disable_jit():  # every depth would compile a program of its own, used once and kept
                return bind(self.modality, self.spec, geometry=geometry)
        reach = [h - m for h, m in zip(self.halo, TILED[self.method].margin, strict=True)]
        box = tuple(min(n, 2 * BOX * r + 1) for n, r in zip(geometry.shape, reach, strict=True))
        psf = self.modality.transfer(self.spec, geometry=self.modality.block(geometry, box)).psfs[0, 0]
        planes = geometry.voxel_um[0] * np.arange(geometry.shape[0])
        decay = np.exp(-geometry.attenuation_per_um * planes)[None, :, None, None]
        return replace(from_psf(psf, field=geometry.shape), modulation=jnp.asarray(decay, psf.dtype))


def at_block(geometry: Any, block: Sequence[slice], *, modality: Modality) -> tuple[Any, float]:
    """The geometry of a block, and the attenuation of its first plane: exp(-mu z)."""
    shape = tuple(b.stop - b.start for b in block)
    above_um = block[0].start * geometry.voxel_um[0]
    own = modality.block(geometry, shape)
    if geometry.depth_anchors > 1:
        own = replace(own, depth_um=geometry.depth_um + above_um)
    return own, math.exp(-geometry.attenuation_per_um * above_um)
