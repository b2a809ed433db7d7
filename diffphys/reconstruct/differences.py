"""Forward differences with zero flux at the far edge, their negative adjoint, and isotropic total variation.

Axes may have different pitch: a difference along an axis is divided by that axis's pitch. A vector field is a tuple with one
array per axis, which the compiler fuses far better than a stacked one.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from diffphys.types import Array

Field = tuple[Array, ...]


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
    return jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])


def gradient(x: Array, pitch: Array) -> Field:
    """(x[i + 1] - x[i]) / pitch along each axis, 0 at the last index."""
    return tuple(
        _pad(lax.slice_in_dim(x, 1, n, axis=axis) - lax.slice_in_dim(x, 0, n - 1, axis=axis), axis, 0, 1) / pitch[axis]
        for axis, n in enumerate(x.shape)
    )


def divergence(p: Field, pitch: Array) -> Array:
    """Minus the adjoint of `gradient`: field -> image."""
    total = jnp.zeros_like(p[0])
    for axis, component in enumerate(p):
        inner = lax.slice_in_dim(component, 0, component.shape[axis] - 1, axis=axis)
        total += (_pad(inner, axis, 0, 1) - _pad(inner, axis, 1, 0)) / pitch[axis]
    return total


def magnitude(p: Field) -> Array:
    """Euclidean length of a vector field."""
    return jnp.sqrt(sum((component**2 for component in p), jnp.zeros_like(p[0])))


def total_variation(x: Array, pitch: Array) -> Array:
    """Isotropic total variation, sum over voxels of |gradient|."""
    return jnp.sum(magnitude(gradient(x, pitch)))
