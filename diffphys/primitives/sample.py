"""Primitive S(Omega): keep some entries of an array; and patterned illumination, an M with a set of patterns."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array


def entries(mask: np.ndarray) -> np.ndarray:
    """Omega as flat indices (entry,), from a Boolean mask of the array's shape."""
    return np.flatnonzero(np.asarray(mask))


def sample(omega: ArrayLike, x: Array) -> Array:
    """The entries `omega` (flat indices, C order, repeats allowed) of `x`, (entry,)."""
    if not isinstance(omega, jax.core.Tracer):
        index = np.asarray(omega)
        if not np.issubdtype(index.dtype, np.integer) or (index.size and not 0 <= index.min() <= index.max() < x.size):
            raise ValueError(f"omega is not a set of flat indices 0 to {x.size - 1} of x {x.shape}; use entries(mask)")
    return jnp.ravel(x)[jnp.asarray(omega)]


def sample_adjoint(omega: ArrayLike, y: Array, *, shape: Sequence[int]) -> Array:
    """Adjoint of `sample`: entries put back in an array of zeros of `shape`."""
    return adjoint(lambda x: sample(omega, x), jax.ShapeDtypeStruct(tuple(shape), y.dtype))(y)


def illuminate(patterns: ArrayLike, x: Array) -> Array:
    """Patterned illumination: (pattern, *axes) times `x` (*axes) -> (pattern, *axes).

    A single-pixel camera sums each result (`accumulate`), a structured-illumination microscope blurs it (`convolve`).
    """
    p = jnp.asarray(patterns)
    if p.ndim != x.ndim + 1:
        raise ValueError(f"patterns have shape {p.shape}; expected one axis more than x {x.shape}")
    return p * x


def illuminate_adjoint(patterns: ArrayLike, y: Array) -> Array:
    """Adjoint of `illuminate`: (pattern, *axes) -> (*axes)."""
    return adjoint(lambda x: illuminate(patterns, x), jax.ShapeDtypeStruct(y.shape[1:], y.dtype))(y)
