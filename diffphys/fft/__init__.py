"""The real FFT pair, for every room: JAX's own transforms, or MKL's on the CPU where the extra is installed.

    pip install 'diffphys[mkl]'        DIFFPHYS_FFT=native | mkl      (unset: MKL if it is there and works)

The choice is made once per process, at the first transform, and `diffphys doctor` shows it. Both give the same numbers within
float32. Double precision, GPUs and small arrays are always JAX's.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffphys.types import Array

VARIABLE = "DIFFPHYS_FFT"
EXTRA = "pip install 'diffphys[mkl]'"


class Choice(NamedTuple):
    """Which FFT runs ("native" or "mkl") and why."""

    name: str
    why: str


def rfftn(x: Array, shape: Sequence[int]) -> Array:
    """Half spectrum over the last axes, zero-padded or cropped to `shape`; leading axes are a batch."""
    shape = tuple(shape)
    axes = tuple(range(-len(shape), 0))
    if x.dtype != jnp.float32 or choice().name == "native":
        return jnp.fft.rfftn(x, s=None if x.shape[axes[0] :] == shape else shape, axes=axes)
    from diffphys.fft.primitives import r2c

    return r2c.bind(_fitted(x, shape), ndim=len(shape))


def irfftn(spectrum: Array, shape: Sequence[int]) -> Array:
    """Real array of `shape` from its half spectrum (*batch, *half shape), any half spectrum, as NumPy has it."""
    shape = tuple(shape)
    if spectrum.dtype != jnp.complex64 or choice().name == "native":
        return jnp.fft.irfftn(spectrum, s=shape, axes=tuple(range(-len(shape), 0)))
    from diffphys.fft.primitives import c2r

    return c2r.bind(_fitted(spectrum, (*shape[:-1], shape[-1] // 2 + 1)), ndim=len(shape), width=shape[-1])


@functools.cache
def choice() -> Choice:
    """Decide which FFT this process uses; builds and loads the accelerator if it is that.

    Raises:
        ValueError: DIFFPHYS_FFT asks for something unknown, or for what cannot be had here.
    """
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", "native", "mkl"):
        raise ValueError(f"{VARIABLE} is {wanted!r}; expected native or mkl, or leave it unset")
    if wanted == "native":
        return Choice("native", f"{VARIABLE}=native")
    if not wanted and jax.default_backend() != "cpu":
        return Choice("native", f"the device is {jax.default_backend()}; MKL serves the CPU")
    from diffphys.fft import mkl

    found = mkl.installed()
    if found is None:
        if wanted:
            raise ValueError(f"{VARIABLE}=mkl, and the packages mkl and mkl-include are absent; {EXTRA}")
        return Choice("native", f"the accelerator is not installed: {EXTRA}")
    try:
        path = mkl.enable(found)
    except (OSError, RuntimeError) as error:
        if wanted:
            raise ValueError(f"{VARIABLE}=mkl cannot be had: {error}") from None
        why = f"the MKL FFT cannot be used: {error}"
        logging.getLogger(__name__).warning("diffphys: %s; JAX's own goes on (%s=native ends this line)", why, VARIABLE)
        return Choice("native", why)
    return Choice("mkl", f"MKL {found.version}, {path}")


def _fitted(x: Array, shape: tuple[int, ...]) -> Array:
    """Last axes cropped or zero-padded at their ends to `shape`."""
    here = x.shape[x.ndim - len(shape) :]
    if here == shape:
        return x
    x = x[(..., *(slice(0, n) for n in shape))]
    widths = [(0, 0)] * (x.ndim - len(shape)) + [(0, max(0, n - old)) for n, old in zip(shape, here, strict=True)]
    return jnp.pad(x, widths)
