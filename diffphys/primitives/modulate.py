"""Primitive M(m): element-wise modulation, self-adjoint for a real mask."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array


def modulate(mask: Array, x: Array) -> Array:
    """mask * x; `mask` broadcasts against the axes of `x` (a leading axis of its own makes one image per mask)."""
    return mask * x


def modulate_adjoint(mask: Array, y: Array, *, shape: Sequence[int] | None = None) -> Array:
    """Adjoint of `modulate`: conj(mask) * y, summed over the axes that the mask added; `shape` of `x`, that of `y` if None."""
    like = jax.ShapeDtypeStruct(tuple(shape or y.shape), y.dtype)
    return adjoint(lambda x: modulate(mask, x), like)(jnp.asarray(y))
