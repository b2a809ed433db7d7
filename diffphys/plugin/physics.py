"""What a solver calls at one spec: apply, adjoint, data gradient, proximal step; one image or a batch of them.

The spectra are computed once, however many steps an unrolled solver makes. A pytree: jit, vmap, scan and grad go through,
and gradients reach the spec.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffphys.operator import Instrument, Operator
from diffphys.reconstruct.splitting import GRADIENTS, Data, data_step
from diffphys.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Physics:
    """Operator at one spec, or at one spec per image of a batch.

    `x` is (*specimen) or (batch, *specimen), `y` (*measurement) or (batch, *measurement); see `Operator`.
    """

    operator: Operator

    @property
    def batched(self) -> bool:
        """Whether every image has a spec of its own."""
        return self.operator.spectrum.ndim > 2 + len(self.operator.grid)

    @property
    def specimen(self) -> tuple[int, ...]:
        """Shape of one `x`."""
        return self.operator.specimen

    @property
    def measurement(self) -> tuple[int, ...]:
        """Shape of one `y`."""
        frames = (self.operator.spectrum.shape[-2 - len(self.operator.grid)],) if self.operator.framed else ()
        return (*frames, *self.operator.field)

    def apply(self, x: Array) -> Array:
        """Expected signal A x."""
        return self._each(Operator.apply, self._image("x", x))

    def adjoint(self, y: Array) -> Array:
        """A^T y."""
        return self._each(Operator.adjoint, self._data("y", y))

    def gradient(self, x: Array, y: Array, *, precision: Any = 1.0) -> Array:
        """A^T W (A x - y), the gradient of 1/2 |W^(1/2) (A x - y)|^2; `precision` is W, broadcast to `y`."""
        data, _ = self._data("y", y)
        return self.adjoint(precision * (self.apply(x) - data))

    def proximal(self, x: Array, y: Array, *, weight: Any, precision: Any = 1.0, gradients: int = GRADIENTS) -> Array:
        """argmin over u of 1/2 |W^(1/2) (A u - y)|^2 + weight/2 |u - x|^2.

        Conjugate gradients from `x`; their derivative is that of the exact minimum, solved for with as many steps.

        Args:
            x: centre, as the specimen.
            y: measurement.
            weight: number; 1 / step of a proximal method.
            precision: W, broadcast to `y`.
            gradients: conjugate gradient steps.
        """

        def step(operator: Operator, x: Array, y: Array, precision: Array) -> Array:
            return data_step(
                Data(operator, y, precision), x, towards=x, weight=jnp.asarray(weight, x.dtype), gradients=gradients
            )

        wide = jnp.broadcast_to(jnp.asarray(precision, jnp.asarray(y).dtype), jnp.shape(y))
        return self._each(step, self._image("x", x), self._data("y", y), self._data("precision", wide))

    def lipschitz(self) -> Array:
        """Upper bound of |A|^2, so that 1 / it is a safe step along `gradient` (precision 1); scalar, or (batch,).

        The largest row sum of A^T A, which bounds the norm of a symmetric matrix without negative entries.
        """

        def bound(operator: Operator) -> Array:
            ones = jnp.ones(operator.specimen, operator.modulation.dtype)
            return jnp.max(operator.adjoint(operator.apply(ones)))

        return self._each(bound)

    def crop(self, x: Array) -> Array:
        """The recorded field of `x`."""
        return x[(..., *self.operator.window)]

    def _image(self, name: str, value: Array) -> tuple[Array, bool]:
        return _with_batch(name, value, self.specimen)

    def _data(self, name: str, value: Array) -> tuple[Array, bool]:
        return _with_batch(name, value, self.measurement)

    def _each(self, fn: Callable[..., Array], *values: tuple[Array, bool]) -> Array:
        """`fn(operator, *values)`, mapped over whatever has a batch axis."""
        axes = [0 if batched else None for batched in (self.batched, *(many for _, many in values))]
        arrays = [array for array, _ in values]
        if all(axis is None for axis in axes):
            return fn(self.operator, *arrays)
        return jax.vmap(fn, in_axes=tuple(axes))(self.operator, *arrays)


@partial(jax.jit, static_argnames="instrument")
def physics_of(spec: Any, *, instrument: Instrument) -> Physics:
    """The operator at a spec; leaves of shape (batch,) give one operator per image."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, spec))
    wide = jnp.broadcast_arrays(*leaves)
    if wide[0].ndim > 1:
        raise ValueError(f"spec has leaves of shape {wide[0].shape}; expected numbers, or (batch,)")
    spec = jax.tree.unflatten(structure, wide)
    return Physics(jax.vmap(instrument.at)(spec) if wide[0].ndim else instrument.at(spec))


def _with_batch(name: str, value: Any, shape: tuple[int, ...]) -> tuple[Array, bool]:
    """The array and whether it has a batch axis before `shape`."""
    array = jnp.asarray(value)
    extra = array.ndim - len(shape)
    if extra not in (0, 1) or array.shape[extra:] != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}, or (batch, {', '.join(map(str, shape))})")
    return array, extra == 1
