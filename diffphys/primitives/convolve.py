"""Primitive C: shift-invariant convolution by padded FFT, without wrap-around.

The specimen may be larger than the recorded field; the field is its centre. PSFs are centred on index n//2.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.fft import irfftn, rfftn
from diffphys.primitives.adjoint import adjoint
from diffphys.types import Array


def smooth_length(n: int) -> int:
    """Smallest length >= n whose only prime factors are 2, 3 and 5 (what real FFTs like)."""
    return int(scipy.fft.next_fast_len(int(n), real=True))


def padded_shape(field: Sequence[int], specimen: Sequence[int], psf: Sequence[int]) -> tuple[int, ...]:
    """FFT lengths for which the field of a linear convolution is free of wrap-around.

    The field starts `margin` = (specimen - field) // 2 inside the specimen. A PSF of length p reaches p//2 pixels.
    """
    lengths = []
    for n, s, p in zip(field, specimen, psf, strict=True):
        if s < n:
            raise ValueError(f"specimen has shape {tuple(specimen)}; expected at least the field {tuple(field)}")
        margin = (s - n) // 2
        reach = max(margin + n - 1, s - 1 - margin)
        lengths.append(smooth_length(max(s, p, reach + p // 2 + 1)))
    return tuple(lengths)


def otf(psf: Array, shape: Sequence[int]) -> Array:
    """Half spectrum of a PSF centred on n//2, embedded in a periodic grid of `shape`; leading axes are a batch."""
    ndim = len(shape)
    sizes = psf.shape[-ndim:]
    pad = [(0, 0)] * (psf.ndim - ndim) + [(0, n - p) for n, p in zip(shape, sizes, strict=True)]
    wrapped = jnp.roll(jnp.pad(psf, pad), [-(p // 2) for p in sizes], axis=range(-ndim, 0))
    return rfftn(wrapped, shape)


def filter_field(spectrum: Array, x: Array, *, padded: Sequence[int], field: Sequence[int]) -> Array:
    """Multiply by a half spectrum on the padded grid and cut out the field; last axes of `x` are the specimen's."""
    ndim = len(padded)
    blurred = irfftn(spectrum * rfftn(x, padded), padded)
    margins = [(s - n) // 2 for s, n in zip(x.shape[-ndim:], field, strict=True)]
    window = tuple(slice(m, m + n) for m, n in zip(margins, field, strict=True))
    return blurred[(..., *window)]


def convolve(psf: Array, x: Array, *, field: Sequence[int] | None = None) -> Array:
    """Linear convolution of `x` with a PSF, zero outside `x`.

    Args:
        psf: centred on index n//2, any parity; leading axes are a batch (frames, anchors).
        x: specimen; leading axes are a batch that broadcasts against the PSF's.
        field: recorded shape, cut from the centre; None: the last axes of `x`, as many as `psf` and `x` share.

    Returns:
        Array of shape `field`, batch axes in front.
    """
    field = tuple(field or x.shape[-min(psf.ndim, x.ndim) :])
    ndim = len(field)
    if min(psf.ndim, x.ndim) < ndim:
        raise ValueError(f"psf has shape {psf.shape} and x {x.shape}; expected at least the {ndim} axes of the field {field}")
    padded = padded_shape(field, x.shape[-ndim:], psf.shape[-ndim:])
    return filter_field(otf(psf, padded), x, padded=padded, field=field)


def convolve_adjoint(psf: Array, y: Array, *, shape: Sequence[int], field: Sequence[int] | None = None) -> Array:
    """Adjoint of `convolve` with the same `psf` and `field` -> `shape` of `x`: correlation, summed over the PSF's batch."""
    field = tuple(field or y.shape[-min(psf.ndim, len(tuple(shape))) :])
    return adjoint(lambda x: convolve(psf, x, field=field), jax.ShapeDtypeStruct(tuple(shape), y.dtype))(y)


def support(psf: np.ndarray, *, energy: float = 0.999) -> tuple[int, ...]:
    """Half widths (pixels per axis) of the centred box whose every outer slab holds less than 1 - `energy` of the sum."""
    magnitude = np.abs(np.asarray(psf, np.float64))
    total = magnitude.sum()
    halves = []
    for axis, n in enumerate(magnitude.shape):
        profile = magnitude.sum(axis=tuple(a for a in range(magnitude.ndim) if a != axis))
        distance = np.abs(np.arange(n) - n // 2)
        inside = np.array([profile[distance <= h].sum() for h in range(n // 2 + 1)])
        halves.append(int(np.argmax(inside >= energy * total)))
    return tuple(halves)
