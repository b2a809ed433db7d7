"""Primitive R(theta): rotation of sample or gantry in one plane, by linear interpolation, about the middle (n - 1) / 2.

Seen with row 0 on top, the image turns counter-clockwise for a positive angle, as with `numpy.rot90` and
`scipy.ndimage.rotate`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array


def rotate(angle_rad: ArrayLike, x: Array, *, axes: tuple[int, int] = (-2, -1)) -> Array:
    """`x` turned by `angle_rad`, same shape and units, zero outside `x`.

    Args:
        angle_rad: one angle, radians; differentiable (the gradient is that of the linear interpolation).
        x: two axes or more, e.g. (y, x) or (z, y, x).
        axes: plane of rotation; all other axes are a batch.
    """
    moved = jnp.moveaxis(x, axes, (-2, -1))
    rows, columns = moved.shape[-2:]
    dtype = jnp.real(x).dtype
    v = (jnp.arange(rows, dtype=dtype) - (rows - 1) / 2)[:, None]
    u = jnp.arange(columns, dtype=dtype) - (columns - 1) / 2
    angle = jnp.asarray(angle_rad, dtype)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source = [cos * v + sin * u + (rows - 1) / 2, cos * u - sin * v + (columns - 1) / 2]  # where each pixel came from
    planes = moved.reshape(-1, rows, columns)
    turned = jax.vmap(lambda plane: map_coordinates(plane, source, order=1, mode="constant"))(planes)
    return jnp.moveaxis(turned.reshape(moved.shape), (-2, -1), axes)


def rotate_adjoint(angle_rad: ArrayLike, y: Array, *, axes: tuple[int, int] = (-2, -1)) -> Array:
    """Adjoint of `rotate`, same shape; near the inverse rotation, not equal to it (interpolation is no isometry)."""
    return adjoint(lambda x: rotate(angle_rad, x, axes=axes), y)(y)
