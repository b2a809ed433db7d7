"""Real FFT pair over the last `ndim` axes as two linear primitives: a lowering may be exchanged, the derivatives stay.

    r2c   X_k = sum_n x_n e^{-ikn}                       its transpose: N c2r(conj X / m)
    c2r   x_n = 1/N sum_k m_k Re(X_k e^{ikn})            its transpose: m/N conj r2c(x)

over the half spectrum, where m = 1 in the columns that are their own mirror image and 2 elsewhere. c2r means this sum for any
half spectrum, so the transposes are exact; a cotangent is seldom the spectrum of a real array. Forward and reverse mode, `vmap`
and transposition all work. Here the lowering is JAX's own; `mkl` registers another one for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from diffphys.types import Array

r2c, c2r = Primitive("diffphys_r2c"), Primitive("diffphys_c2r")


def native_r2c(x: Array, *, ndim: int) -> Array:
    return jnp.fft.rfftn(x, axes=range(-ndim, 0))


def native_c2r(spectrum: Array, *, ndim: int, width: int) -> Array:
    return jnp.fft.irfftn(spectrum, s=(*spectrum.shape[-ndim:-1], width), axes=range(-ndim, 0))


def _abstract_r2c(x: Any, *, ndim: int) -> Any:
    return x.update(shape=(*x.shape[:-1], x.shape[-1] // 2 + 1), dtype=jnp.dtype(jnp.complex64), weak_type=False)


def _abstract_c2r(spectrum: Any, *, ndim: int, width: int) -> Any:
    return spectrum.update(shape=(*spectrum.shape[:-1], width), dtype=jnp.dtype(jnp.float32), weak_type=False)


def _transpose_r2c(ct: Array, x: Any, *, ndim: int) -> list[Array]:
    *_, width = shape = x.aval.shape
    size = np.float32(np.prod(shape[-ndim:]))
    return [size * c2r.bind(jnp.conj(ct) / _repeats(width), ndim=ndim, width=width)]


def _transpose_c2r(ct: Array, spectrum: Any, *, ndim: int, width: int) -> list[Array]:
    size = np.float32(np.prod(ct.shape[-ndim:]))
    return [jnp.conj(r2c.bind(ct, ndim=ndim)) * (_repeats(width) / size)]


def _repeats(width: int) -> np.ndarray:
    """Columns of the full spectrum that each column of the half spectrum stands for."""
    k = np.arange(width // 2 + 1)
    return np.where((k == 0) | (2 * k == width), 1, 2).astype(np.float32)


def _define(primitive: Primitive, native: Callable, abstract: Callable, transpose: Callable, options: tuple[str, ...]) -> None:
    def batched(arguments: Any, axes: Any, **chosen: Any) -> tuple[Array, int]:
        return primitive.bind(jnp.moveaxis(arguments[0], axes[0], 0), **chosen), 0

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=options))
    mlir.register_lowering(primitive, mlir.lower_fun(native, multiple_results=False))
    ad.deflinear2(primitive, transpose)
    batching.primitive_batchers[primitive] = batched


_define(r2c, native_r2c, _abstract_r2c, _transpose_r2c, ("ndim",))
_define(c2r, native_c2r, _abstract_c2r, _transpose_c2r, ("ndim", "width"))
