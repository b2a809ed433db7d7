"""Primitive W(alpha, a): each spectral band shifted in proportion to its wavelength (prism, grating).

    shift = a (lambda - lambda_0) (sin alpha, cos alpha)   pixels along (y, x)

Source: Wagadarikar et al., Appl. Opt. 47:B44, 2008, eq. 3 (single disperser), with the direction free.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array

METHODS = ("linear", "fourier")


def disperse(
    alpha_rad: ArrayLike, pixels_per_um: ArrayLike, offsets_um: ArrayLike, x: Array, *, method: str = "linear"
) -> Array:
    """Bands (band, y, x) shifted by fractions of a pixel; same shape and units.

    Args:
        alpha_rad: direction of dispersion; 0 is along x, pi / 2 along y.
        pixels_per_um: dispersion a, pixels of shift per micrometre of wavelength.
        offsets_um: (band,), wavelength minus the undeviated one.
        x: (band, y, x).
        method: "linear": linear interpolation, zero outside. "fourier": exact for band-limited bands, which are periodic.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {METHODS}")
    offsets = jnp.asarray(offsets_um, jnp.real(x).dtype)
    if x.ndim != 3 or offsets.shape != x.shape[:1]:
        raise ValueError(f"x has shape {x.shape} and offsets_um {offsets.shape}; expected (band, y, x) and (band,)")
    distance, alpha = jnp.asarray(pixels_per_um, offsets.dtype) * offsets, jnp.asarray(alpha_rad, offsets.dtype)
    shift = _linear if method == "linear" else _fourier
    return jax.vmap(shift)(distance * jnp.sin(alpha), distance * jnp.cos(alpha), x)


def disperse_adjoint(
    alpha_rad: ArrayLike, pixels_per_um: ArrayLike, offsets_um: ArrayLike, y: Array, *, method: str = "linear"
) -> Array:
    """Adjoint of `disperse`, (band, y, x): the bands shifted back."""
    return adjoint(lambda x: disperse(alpha_rad, pixels_per_um, offsets_um, x, method=method), y)(y)


def _linear(dy: Array, dx: Array, image: Array) -> Array:
    rows, columns = (jnp.arange(n, dtype=dy.dtype) for n in image.shape)
    return map_coordinates(image, jnp.meshgrid(rows - dy, columns - dx, indexing="ij"), order=1, mode="constant")


def _fourier(dy: Array, dx: Array, image: Array) -> Array:
    ramps = _ramp(dy, image.shape[0])[:, None] * _ramp(dx, image.shape[1])
    moved = jnp.fft.ifft2(ramps * jnp.fft.fft2(image))
    return moved if jnp.iscomplexobj(image) else jnp.real(moved)


def _ramp(shift: Array, n: int) -> Array:
    """exp(-2 pi i f shift); its real part at the Nyquist frequency of even n, whose sign is not defined."""
    frequency = jnp.fft.fftfreq(n, dtype=shift.dtype)
    ramp = jnp.exp(-2j * jnp.pi * frequency * shift)
    return jnp.where(frequency == -0.5, jnp.real(ramp), ramp)
