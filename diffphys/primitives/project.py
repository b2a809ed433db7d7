"""Primitive Pi(theta): parallel line integrals at given angles, by rotation and summation (linear interpolation).

For 2-D the Radon transform in the convention of scikit-image's `radon`; for 3-D the same about one axis of the volume
(parallel-beam tomography). The axis of rotation is the middle (n - 1) / 2 of the plane (Kak & Slaney 1988, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import adjoint
from diffphys.primitives.rotate import rotate
from diffphys.types import Array


def project(angles_rad: ArrayLike, x: Array, *, axis: int = 0) -> Array:
    """Line integrals of `x`, in its units times pixels.

    Args:
        angles_rad: (angle,), radians, differentiable; at 0 the lines run along the first axis of the plane.
        x: image (y, x) -> (angle, x); volume -> (angle, axis, last axis of the plane).
        axis: of the volume, parallel to the axis of rotation; unused for an image.
    """
    if x.ndim not in (2, 3):
        raise ValueError(f"x has shape {x.shape}; expected an image (y, x) or a volume of three axes")
    planes = x if x.ndim == 2 else jnp.moveaxis(x, axis, 0)
    angles = jnp.atleast_1d(jnp.asarray(angles_rad, jnp.real(x).dtype))
    return jax.lax.map(lambda angle: jnp.sum(rotate(-angle, planes), axis=-2), angles)  # one rotated copy at a time


def project_adjoint(angles_rad: ArrayLike, y: Array, *, shape: Sequence[int], axis: int = 0) -> Array:
    """Adjoint of `project` (unfiltered back-projection) -> `shape` of `x`."""
    like = jax.ShapeDtypeStruct(tuple(shape), y.dtype)
    return adjoint(lambda x: project(angles_rad, x, axis=axis), like)(y)
