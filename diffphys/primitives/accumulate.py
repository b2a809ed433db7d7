"""Primitive Sigma: sum over an axis (exposure, spectral bands on one camera, bucket detection)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array


def accumulate(x: Array, *, axis: int | tuple[int, ...] = 0) -> Array:
    """Sum of `x` over `axis`, units of `x`."""
    return jnp.sum(x, axis=axis)


def accumulate_adjoint(y: Array, *, shape: tuple[int, ...], axis: int | tuple[int, ...] = 0) -> Array:
    """Adjoint of `accumulate`: `y` repeated along `axis` -> `shape` of `x`."""
    return adjoint(lambda x: accumulate(x, axis=axis), jax.ShapeDtypeStruct(shape, y.dtype))(y)
