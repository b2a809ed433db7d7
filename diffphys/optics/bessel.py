"""Bessel functions J0 and J1 that JAX can differentiate, in forward and reverse mode, to any order.

Rational forms of Abramowitz & Stegun 9.4.1-9.4.6 (after E. E. Allen, 1954): absolute error below 1e-7 for every real
argument, float32's own resolution. Derivatives are the exact identities J0' = -J1 and J1' = J0 - J1/x.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffphys.types import Array

# Coefficients in rising powers of (x/3)^2 below 3, of 3/x above.
_J0_NEAR = (1.0, -2.2499997, 1.2656208, -0.3163866, 0.0444479, -0.0039444, 0.0002100)
_J0_SIZE = (0.79788456, -0.00000077, -0.00552740, -0.00009512, 0.00137237, -0.00072805, 0.00014476)
_J0_TURN = (-0.78539816, -0.04166397, -0.00003954, 0.00262573, -0.00054125, -0.00029333, 0.00013558)
_J1_NEAR = (0.5, -0.56249985, 0.21093573, -0.03954289, 0.00443319, -0.00031761, 0.00001109)
_J1_SIZE = (0.79788456, 0.00000156, 0.01659667, 0.00017105, -0.00249511, 0.00113653, -0.00020033)
_J1_TURN = (-2.35619449, 0.12499612, 0.00005650, -0.00637879, 0.00074348, 0.00079824, -0.00029166)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def _far(x: Array, size: tuple[float, ...], turn: tuple[float, ...]) -> Array:
    """Amplitude-phase form for x >= 3; the argument is held at 3 below, where the other branch is taken."""
    x = jnp.maximum(x, 3.0)
    t = 3.0 / x
    return _polynomial(t, size) * jnp.cos(x + _polynomial(t, turn)) / jnp.sqrt(x)


@jax.custom_jvp
def j0(x: Array) -> Array:
    """J0 of a real array, same shape and dtype; even."""
    x = jnp.abs(x)
    near = jnp.minimum(x, 3.0) / 3.0
    return jnp.where(x < 3.0, _polynomial(near**2, _J0_NEAR), _far(x, _J0_SIZE, _J0_TURN))


@jax.custom_jvp
def j1(x: Array) -> Array:
    """J1 of a real array, same shape and dtype; odd."""
    return x * j1_over_x(x)


@jax.custom_jvp
def j1_over_x(x: Array) -> Array:
    """J1(x)/x, 1/2 at the origin; even."""
    x = jnp.abs(x)
    near = jnp.minimum(x, 3.0) / 3.0
    return jnp.where(x < 3.0, _polynomial(near**2, _J1_NEAR), _far(x, _J1_SIZE, _J1_TURN) / jnp.maximum(x, 3.0))


@j0.defjvp
def _j0_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return j0(x), -j1(x) * dx


@j1.defjvp
def _j1_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return j1(x), (j0(x) - j1_over_x(x)) * dx


@j1_over_x.defjvp
def _j1_over_x_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """d(J1/x)/dx = (J0 - 2 J1/x)/x = -J2/x; near the origin its series -x/8 + x^3/96, free of cancellation."""
    (x,), (dx,) = primals, tangents
    small = jnp.abs(x) < 0.1
    away = jnp.where(small, 1.0, x)
    slope = jnp.where(small, x * (x**2 / 96 - 1 / 8), (j0(x) - 2 * j1_over_x(x)) / away)
    return j1_over_x(x), slope * dx
