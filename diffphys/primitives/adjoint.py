"""Adjoint of a linear map by transposition, linearisation of any map, and the dot test that ties the two.

In: a function and the shape of its argument. Out: functions. Complex maps get the Hermitian adjoint A^H y, and a complex map
of real images its real part, so that Re<A x, y> = Re<x, A^H y> always holds (Claerbout, Earth Soundings Analysis, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffphys.types import Array

Map = Callable[[Array], Array]


def adjoint(fn: Map, like: Any) -> Map:
    """Adjoint of a linear `fn`.

    Args:
        fn: linear map x -> y.
        like: an array, or `jax.ShapeDtypeStruct`, with the shape and dtype of `x`.

    Returns:
        y -> A^H y, in the shape and dtype of `like`.
    """
    x = jax.ShapeDtypeStruct(jnp.shape(like), like.dtype)
    out = jax.eval_shape(fn, x)
    transposed = jax.linear_transpose(fn, x)

    def back(y: Array) -> Array:
        if y.shape != out.shape:
            raise ValueError(f"y has shape {y.shape}; expected {out.shape}, the shape of the map's result")
        return jnp.conj(transposed(jnp.conj(y).astype(out.dtype))[0])

    return back


def linearise(fn: Map, x: Array) -> tuple[Array, Map, Map]:
    """Value of `fn` at `x`, its derivative there (tangent -> tangent), and the derivative's adjoint."""
    y, push = jax.linearize(fn, x)
    return y, push, adjoint(push, x)


def dot_test(key: Array, fn: Map, like: Any, *, back: Map | None = None) -> Array:
    """|Re<A x, y> - Re<x, A^H y>| over the product of norms, for normal random x and y; rounding if `back` is the adjoint.

    Args:
        key: random key.
        fn: linear map.
        like: shape and dtype of `x`.
        back: the adjoint to test; None: the transposed `fn`.
    """
    key_x, key_y = jax.random.split(key)
    x = jax.random.normal(key_x, jnp.shape(like), like.dtype)
    image = fn(x)
    y = jax.random.normal(key_y, image.shape, image.dtype)
    gap = jnp.real(jnp.vdot(y, image)) - jnp.real(jnp.vdot((back or adjoint(fn, like))(y), x))
    return jnp.abs(gap) / (jnp.linalg.norm(image.ravel()) * jnp.linalg.norm(y.ravel()))
