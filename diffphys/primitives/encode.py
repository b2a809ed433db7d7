"""Primitive F(k): Fourier sampling, at arbitrary frequencies by a direct sum or on the grid by a masked FFT.

    y_j = sum_n x_n exp(-2 pi i k_j . (n - n_0)),   n_0 = n // 2 on every axis, k in cycles per pixel

The direct sum is exact, costs points x pixels, and is differentiable in k (k-space trajectories).
Source: Pruessmann et al., Magn. Reson. Med. 42:952, 1999, eq. 2 without coils.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array

CHUNK = 1024  # frequencies summed at once: CHUNK x pixels of one axis is the largest matrix


def encode(k: ArrayLike, x: Array, *, chunk: int = CHUNK) -> Array:
    """Spectrum of `x` at the frequencies `k`, (point,), complex, units of `x`.

    Args:
        k: (point, axis), cycles per pixel along each axis of `x`; periodic with 1.
        x: image or volume, real or complex.
        chunk: points handled at once; bounds the memory.
    """
    points = jnp.asarray(k, jnp.real(x).dtype)
    if points.ndim != 2 or points.shape[1] != x.ndim:
        raise ValueError(f"k has shape {points.shape}; expected (point, {x.ndim}), one frequency per axis of x")

    def one(point: Array) -> Array:
        total = x
        for axis in range(x.ndim):  # contracts the first axis that is left
            n = x.shape[axis]
            wave = jnp.exp(-2j * math.pi * point[axis] * (jnp.arange(n, dtype=points.dtype) - n // 2))
            total = jnp.tensordot(wave, total, axes=1)
        return total

    return jax.lax.map(one, points, batch_size=min(chunk, max(points.shape[0], 1)))


def encode_adjoint(k: ArrayLike, y: Array, *, shape: Sequence[int], chunk: int = CHUNK) -> Array:
    """Adjoint of `encode` on complex images (point,) -> `shape`; its real part is the adjoint on real images."""
    like = jax.ShapeDtypeStruct(tuple(shape), y.dtype)
    return adjoint(lambda x: encode(k, x, chunk=chunk), like)(y)


def encode_grid(mask: ArrayLike, x: Array) -> Array:
    """mask * spectrum on the grid, frequency 0 at n // 2; equals `encode` at `fftshift(fftfreq(n))` where the mask is 1.

    Args:
        mask: broadcasts against `x`; weights of the grid's frequencies, 0 where nothing is measured.
        x: image or volume, real or complex.
    """
    return jnp.asarray(mask) * jnp.fft.fftshift(jnp.fft.fftn(jnp.fft.ifftshift(x)))


def encode_grid_adjoint(mask: ArrayLike, y: Array) -> Array:
    """Adjoint of `encode_grid` on complex images, shape of `y`."""
    return adjoint(lambda x: encode_grid(mask, x), y)(y)
