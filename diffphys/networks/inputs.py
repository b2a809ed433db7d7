"""What every network is given, on the field: the Wiener image, the measured image and its noise, in units of one scale.

A network then works for any brightness, gain and number of frames; the scale is put back on what it returns.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.reconstruct.pnp import variance
from diffphys.types import Array

BRIGHT = 99.7  # percentile of the Wiener image that is the unit
CHANNELS = 3


def scale_of(wiener: Any, noise: Any) -> float:
    """Photons per voxel that become 1: a high percentile of the Wiener image, twice the noise where there is little else."""
    return max(float(np.percentile(np.asarray(wiener, np.float64), BRIGHT)), 2 * float(np.median(noise)), 1e-6)


def flux(problem: Any) -> Array:
    """(frame, *field) or (*field): counts that one photon per voxel everywhere would give."""
    op = problem.operator
    total = jnp.abs(op.spectrum[(..., *(0,) * len(op.grid))]).mean(axis=1)
    weights = op.modulation * total.reshape(-1, *(1,) * len(op.field))
    whole = jnp.broadcast_to(weights, (op.spectrum.shape[0], *op.field))
    return whole if op.framed else whole[0]


@jax.jit
def _measured(problem: Any, variance: Array) -> tuple[Array, Array]:
    weights = flux(problem) / variance
    signal, total = weights * (problem.photons - problem.background), weights * flux(problem)
    if problem.operator.framed:
        signal, total = signal.sum(0), total.sum(0)
    return signal / jnp.maximum(total, 1e-20), 1 / jnp.sqrt(jnp.maximum(total, 1e-20))


def measured(problem: Any) -> tuple[np.ndarray, np.ndarray]:
    """Signal over flux, photons per voxel, frames weighted by their precision, and its standard deviation; both (*field)."""
    image, noise = _measured(problem, variance(problem))
    return np.asarray(image), np.asarray(noise)
