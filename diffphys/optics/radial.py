"""Radially symmetric functions on a pixel grid: unique radii, one quadrant, the whole centred grid, and the quadrant's DFT.

An axisymmetric PSF is fixed by its values at the grid's unique radii. One quadrant (|y|, |x|) holds them all, and the
discrete Fourier transform of an even array is a cosine sum over that quadrant.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.types import Array


class RadialGrid(NamedTuple):
    """Constants of a (ny, nx) grid.

    Attributes:
        radii_um: (R,) sorted unique distances from the centre pixel.
        quadrant: (ny//2+1, nx//2+1) quadrant pixel -> radius number.
        multiplicity: (R,) pixels of the whole grid at that radius.
    """

    radii_um: np.ndarray
    quadrant: np.ndarray
    multiplicity: np.ndarray


@lru_cache(maxsize=32)
def radial_grid(shape: tuple[int, int], pixel_um: tuple[float, float]) -> RadialGrid:
    """Unique radii of a centred grid of `shape` (y, x) with the given pixel pitch (y, x)."""
    (ny, nx), (dy, dx) = shape, pixel_um
    y, x = np.arange(ny // 2 + 1), np.arange(nx // 2 + 1)
    squared = np.round(((y * dy) ** 2)[:, None] + ((x * dx) ** 2)[None, :], 10)
    unique, index = np.unique(squared, return_inverse=True)
    index = index.reshape(squared.shape).astype(np.int32)
    weight = np.outer(_repeats(ny), _repeats(nx))
    multiplicity = np.bincount(index.ravel(), weights=weight.ravel())
    return RadialGrid(np.sqrt(unique), index, multiplicity)


def _repeats(n: int) -> np.ndarray:
    """How often distance 0 .. n//2 occurs on a centred axis of length n."""
    counts = np.full(n // 2 + 1, 2.0)
    counts[0] = 1.0
    if n % 2 == 0:
        counts[-1] = 1.0
    return counts


def unfold(quadrant: Array, shape: tuple[int, int]) -> Array:
    """(..., ny//2+1, nx//2+1) -> (..., ny, nx), centred on index n//2."""
    ny, nx = shape
    rows = jnp.concatenate([quadrant[..., ny // 2 : 0 : -1, :], quadrant[..., : ny - ny // 2, :]], axis=-2)
    return jnp.concatenate([rows[..., nx // 2 : 0 : -1], rows[..., : nx - nx // 2]], axis=-1)


@lru_cache(maxsize=64)
def _cosines(n: int, finer: int) -> np.ndarray:
    """(finer n//2+1, n//2+1): sums over a centred even axis, distance -> |frequency| in steps of 1 / (finer n)."""
    k, y = np.arange(finer * n // 2 + 1), np.arange(n // 2 + 1)
    return _repeats(n) * np.cos(2 * np.pi * np.outer(k, y) / (finer * n))


def quadrant_dft(quadrant: Array, shape: tuple[int, int], *, finer: tuple[int, int] = (1, 1)) -> Array:
    """DFT over the last two axes of the even array that `quadrant` stands for; (..., |ky|, |kx|).

    `finer` divides the frequency step of each axis, as zero padding would.
    """
    (ny, nx), (fy, fx) = shape, finer
    along_y = jnp.asarray(_cosines(ny, fy), quadrant.dtype)
    along_x = jnp.asarray(_cosines(nx, fx), quadrant.dtype)
    return along_y @ quadrant @ along_x.T


def axial_dft(values: Array, n: int, *, finer: int = 1) -> tuple[Array, Array]:
    """Real and imaginary part of the DFT of the real centred first axis, frequencies 0 .. 1/2 in steps of 1 / (finer n)."""
    z, k = np.arange(n) - n // 2, np.arange(finer * n // 2 + 1)
    angle = -2 * np.pi * np.outer(k, z) / (finer * n)
    real = jnp.tensordot(jnp.asarray(np.cos(angle), values.dtype), values, (1, 0))
    imag = jnp.tensordot(jnp.asarray(np.sin(angle), values.dtype), values, (1, 0))
    return real, imag
