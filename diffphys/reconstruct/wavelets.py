"""Cycle-spun Haar shrinkage: the average over all shifts of shrinking in an orthonormal Haar basis. Any number of axes.

Undecimated: at scale j every axis is split into half sum and half difference of samples 2^j apart; merging both halves, each
with its own shift undone, restores x exactly. Mirrored at the edges, so nothing wraps.

Coifman & Donoho (Translation-invariant de-noising, 1995); neighbourhood shrinkage: Cai & Silverman (Sankhya B 63:127, 2001).
"""

from __future__ import annotations

import jax.numpy as jnp

from diffphys.types import Array


def denoise(x: Array, threshold: Array, *, levels: int) -> Array:
    """Shrunk image, axes as `x`.

    Args:
        x: image or stack.
        threshold: of a coefficient in an orthonormal basis, broadcastable to `x`: noise of standard deviation s there has
            coefficients of standard deviation s at every scale.
        levels: scales, the coarsest with blocks of 2^levels samples; the rest is not touched.
    """
    reach = 2**levels
    pad = [(min(reach, n), min(reach, n)) for n in x.shape]
    padded = jnp.pad(x, pad, mode="symmetric")
    t = jnp.pad(jnp.broadcast_to(threshold, x.shape), pad, mode="symmetric")
    shrunk = _scales(padded, t, 0, levels)
    return shrunk[tuple(slice(a, a + n) for (a, _), n in zip(pad, x.shape, strict=True))]


def _scales(x: Array, threshold: Array, level: int, levels: int) -> Array:
    """Shrink the details of this scale and, within its mean, those of the coarser ones."""
    if level == levels:
        return x
    step, bands = 2**level, [x]
    for axis in range(x.ndim):
        bands = [half for band in bands for half in _split(band, axis, step)]
    limit = threshold / 2.0 ** (0.5 * x.ndim * (level + 1))  # so much smaller than the orthonormal coefficient is ours
    low = _scales(bands[0], threshold, level + 1, levels)
    bands = [low, *(_shrink(band, limit, step) for band in bands[1:])]
    for axis in reversed(range(x.ndim)):
        bands = [_merge(low, high, axis, step) for low, high in zip(bands[::2], bands[1::2], strict=True)]
    return bands[0]


def _shrink(band: Array, limit: Array, step: int) -> Array:
    """James-Stein by neighbourhood: what the mean square of three coefficients per axis leaves above the limit's square."""
    energy = band**2
    for axis in range(band.ndim):
        energy = (energy + jnp.roll(energy, step, axis) + jnp.roll(energy, -step, axis)) / 3
    return band * jnp.maximum(1.0 - limit**2 / jnp.maximum(energy, 1e-30), 0.0)


def _split(x: Array, axis: int, step: int) -> tuple[Array, Array]:
    ahead = jnp.roll(x, -step, axis)
    return 0.5 * (x + ahead), 0.5 * (x - ahead)


def _merge(low: Array, high: Array, axis: int, step: int) -> Array:
    return 0.5 * (low + jnp.roll(low, step, axis) + high - jnp.roll(high, step, axis))
