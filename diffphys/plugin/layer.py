"""A flax NNX layer of an instrument: its spec is trained, inside the ranges, or given with every call.

>>> import jax, jax.numpy as jnp, optax
>>> from flax import nnx
>>> import diffphys
>>> from diffphys.plugin.layer import Optics
>>> optics = Optics("confocal_3d", diffphys.confocal.Geometry(shape=(6, 12, 12)), trainable=["z_step"])
>>> x = jax.random.uniform(jax.random.key(0), (2, *optics.specimen))
>>> y = optics(x, spec=diffphys.confocal.Spec(z_step=40.0, spherical_aberr=0.0, refractive_index=1.515))
>>> optimizer = nnx.Optimizer(optics, optax.adam(0.1), wrt=nnx.Param)
>>> update = nnx.jit(lambda o, m: o.update(m, nnx.grad(lambda n: jnp.mean((n(x) - y) ** 2))(m)))
>>> for _ in range(60):
...     moved = update(optimizer, optics)
>>> abs(optics.values["z_step"] - 40.0) < 4.0
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from diffphys.operator import bind
from diffphys.plugin.physics import Physics, physics_of
from diffphys.plugin.settings import settings_of
from diffphys.spec import from_vector
from diffphys.types import Array, Modality


class Mismatch(nnx.Param):
    """The trained numbers of a spec; a type of its own, so that an optimiser can have its own rate (`wrt=Mismatch`)."""


class Optics(nnx.Module):
    """An instrument whose spec is a parameter.

    Args:
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        geometry: nominal instrument.
        spec: start; None: nominal.
        ranges: name -> (low, high), instead of the modality's own.
        trainable: names that may move; None: all, []: none.
        specimen, margin: as in `diffphys.bind`.

    Attributes:
        theta: `Mismatch` (parameter,), the spec's place in its ranges through arctanh.
        specimen: shape of one `x`; the recorded field is its centre.
        measurement: shape of one `y`.
    """

    def __init__(
        self, modality: Modality | str, geometry: Any, *, spec: Any = None, ranges: Mapping[str, Sequence[float]] | None = None,
        trainable: Sequence[str] | None = None, specimen: Sequence[int] | None = None, margin: Any = None,
    ) -> None:  # fmt: skip
        self.instrument = bind(modality, geometry, geometry=None, specimen=specimen, margin=margin)
        self.settings = settings_of(spec, modality=modality, geometry=geometry, ranges=ranges, trainable=trainable)
        self.theta = Mismatch(jnp.asarray(self.settings.theta))
        self.specimen, self.measurement = self.instrument.specimen, self.instrument.measurement

    @property
    def spec(self) -> Any:
        """The spec as it stands, a modality's `Spec`; traced."""
        theta, modality = self.theta[...], self.instrument.modality
        middle, half = (jnp.asarray(v, theta.dtype) for v in (self.settings.middle, self.settings.half))
        return from_vector(modality.Spec, modality.FIELDS, middle + half * jnp.tanh(theta))

    @property
    def values(self) -> dict[str, float]:
        """The spec as plain numbers; outside of jit."""
        return {name: float(getattr(self.spec, name)) for name in self.settings.names}

    def at(self, spec: Any = None) -> Physics:
        """Operator for the steps of a solver: at the trained spec, or at the given one (numbers, or one per image)."""
        return physics_of(self.spec if spec is None else spec, instrument=self.instrument)

    def __call__(self, x: Array, *, spec: Any = None) -> Array:
        """Expected signal of (*specimen) or (batch, *specimen), in the units of `x`."""
        return self.at(spec).apply(x)
