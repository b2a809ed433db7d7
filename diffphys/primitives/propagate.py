"""Primitive P(d, lambda): free-space propagation of a scalar complex field by its angular spectrum.

    U_d = F^-1[ exp(i k_z d) F[U_0] ],   k_z = 2 pi / lambda * sqrt(1 - (lambda f)^2)

A finite field is surrounded by zeros and its transfer function is cut where it would alias: |f| below
1 / (lambda sqrt((2 df d)^2 + 1)) along each axis, df = 1 / (2 N pixel) (Matsushima & Shimobaba, Opt. Express 17:19662, 2009,
eqs. 13 and 20). Evanescent waves decay with |d|, also backwards, so no distance amplifies.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array


def propagate(
    distance_um: ArrayLike, wavelength_um: ArrayLike, pixel_um: ArrayLike, x: Array, *, periodic: bool = False
) -> Array:
    """Field (..., y, x) carried over `distance_um`; complex, amplitude units of `x`.

    Args:
        distance_um: along the optical axis; negative goes back.
        wavelength_um: in the medium (vacuum wavelength over index).
        pixel_um: pitch, one number or (y, x).
        x: field at distance 0, real or complex.
        periodic: the field is one period of an infinite one: no surrounding zeros, no band limit, exact.

    Differentiable in the three numbers, except across the (measure zero) steps of the band limit.
    """
    rows, columns = x.shape[-2:]
    spread = 1 if periodic else 2
    real = jnp.real(x).dtype
    py, px = jnp.broadcast_to(jnp.asarray(pixel_um, real), (2,))
    distance, wavelength = jnp.asarray(distance_um, real), jnp.asarray(wavelength_um, real)
    fy, fx = jnp.fft.fftfreq(spread * rows, dtype=real) / py, jnp.fft.fftfreq(spread * columns, dtype=real) / px
    transfer = _transfer(distance, wavelength, fy[:, None], fx)
    if not periodic:
        inside_y, inside_x = (_band(distance, wavelength, f, n * p) for f, n, p in ((fy, rows, py), (fx, columns, px)))
        transfer = jnp.where(inside_y[:, None] & inside_x, transfer, 0)
    spectrum = jnp.fft.fft2(x, s=(spread * rows, spread * columns))
    return jnp.fft.ifft2(transfer * spectrum)[..., :rows, :columns]


def propagate_adjoint(
    distance_um: ArrayLike, wavelength_um: ArrayLike, pixel_um: ArrayLike, y: Array, *, periodic: bool = False
) -> Array:
    """Adjoint of `propagate` on complex fields, (..., y, x): propagation by -distance, evanescent waves decaying."""
    return adjoint(lambda x: propagate(distance_um, wavelength_um, pixel_um, x, periodic=periodic), y)(y)


def _transfer(distance: Array, wavelength: Array, fy: Array, fx: Array) -> Array:
    """exp(i k_z d) over the frequencies; the piston is split off, so large phases keep their digits in float32."""
    sine2 = wavelength**2 * (fy**2 + fx**2)
    travels = sine2 < 1
    cosine = jnp.sqrt(jnp.where(travels, 1 - sine2, 1.0))
    decay = jnp.sqrt(jnp.where(travels, 1.0, jnp.maximum(sine2 - 1, jnp.finfo(sine2.dtype).tiny)))
    k = 2 * math.pi / wavelength
    phase = k * distance * jnp.where(travels, -sine2 / (1 + cosine), -1.0)  # k_z d less the piston k d
    piston = 2 * math.pi * ((distance / wavelength) % 1.0)
    amplitude = jnp.exp(jnp.where(travels, 0.0, -k * jnp.abs(distance) * decay))
    return amplitude * jnp.exp(1j * phase) * jnp.exp(1j * piston)


def _band(distance: Array, wavelength: Array, frequency: Array, width: Array) -> Array:
    """Frequencies whose transfer function is sampled without aliasing on the doubled field of `width`."""
    return (frequency * wavelength) ** 2 * ((distance / width) ** 2 + 1) <= 1
