"""Primitive Lambda: a pointwise function of the signal; and the spectral filter or monochromator, a weight per band."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import Map, adjoint, linearise
from diffphys.types import Array


def square_law(theta: Any, x: Array) -> Array:
    """theta |x|^2: intensity of a field, theta its scale."""
    return theta * jnp.real(x * jnp.conj(x))


def power_law(theta: Any, x: Array) -> Array:
    """x^theta for x > 0, 0 elsewhere: order of a multi-photon process, gamma curve."""
    lit = x > 0
    return jnp.where(lit, jnp.where(lit, x, 1.0) ** theta, 0.0)


def attenuate(theta: Any, x: Array) -> Array:
    """exp(-theta x): Beer-Lambert transmission of a path with line integral `x`."""
    return jnp.exp(-theta * x)


def transform(theta: Any, x: Array, *, function: Callable[[Any, Array], Array] = square_law) -> Array:
    """function(theta, x), element by element.

    Args:
        theta: parameters of the function, any pytree; differentiable.
        x: any shape.
        function: pointwise; `square_law`, `power_law`, `attenuate` or your own.
    """
    y = function(theta, x)
    if y.shape != x.shape:
        raise ValueError(f"function turned shape {x.shape} into {y.shape}; expected a pointwise function")
    return y


def transform_linearised(
    theta: Any, x: Array, *, function: Callable[[Any, Array], Array] = square_law
) -> tuple[Array, Map, Map]:
    """Value at `x`, derivative (tangent -> tangent) and its adjoint; the derivative is a diagonal."""
    return linearise(lambda v: transform(theta, v, function=function), x)


def monochromator(centre_um: ArrayLike, width_um: ArrayLike, wavelengths_um: ArrayLike) -> Array:
    """Transmission (band,) of a Gaussian passband: 1 at `centre_um`, 1/2 at +- `width_um` / 2; differentiable."""
    u = (jnp.asarray(wavelengths_um) - centre_um) / width_um
    return jnp.exp(-4 * math.log(2) * u**2)


def spectral_filter(transmission: ArrayLike, x: Array) -> Array:
    """Bands (band, ...) times their transmission (band,)."""
    t = jnp.asarray(transmission)
    if t.shape != x.shape[:1]:
        raise ValueError(f"transmission has shape {t.shape} and x {x.shape}; expected one number per band, the first axis of x")
    return t.reshape(-1, *(1,) * (x.ndim - 1)) * x


def spectral_filter_adjoint(transmission: ArrayLike, y: Array) -> Array:
    """Adjoint of `spectral_filter`: itself for a real transmission."""
    return adjoint(lambda x: spectral_filter(transmission, x), jax.ShapeDtypeStruct(y.shape, y.dtype))(y)
