"""Mismatch parameters: one table per modality, strict parsing, and the map between a box and [-1, 1].

A spec is a frozen dataclass registered as a pytree: every leaf is traced, so physics can be differentiated.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.types import Array


class Field(NamedTuple):
    """One mismatch parameter. `kind` is "offset" (added to the nominal value) or "absolute"."""

    name: str
    symbol: str
    unit: str
    nominal: float
    low: float
    high: float
    kind: str
    prior_half_widths: float = 10.0  # sd of the weak Gaussian prior around the middle of the range


def names(fields: Sequence[Field]) -> tuple[str, ...]:
    return tuple(f.name for f in fields)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


def expect_names(what: str, given: Sequence[str], known: Sequence[str], *, all_needed: bool) -> None:
    """Raise a one-line error for a name that is unknown, or (if all are needed) missing."""
    for name in given:
        if name not in known:
            raise ValueError(f"{what} has unknown name {name!r}; allowed: {list(known)}{did_you_mean(name, known)}")
    missing = [name for name in known if name not in given]
    if all_needed and missing:
        raise ValueError(f"{what} lacks {missing}; expected exactly {list(known)}")


def parse(spec_type: Any, fields: Sequence[Field], raw: Mapping[str, Any], *, dtype: Any = None) -> Any:
    """A spec from exactly the table's names; leaves get one dtype, so equal specs share one trace."""
    expect_names("spec", list(raw), names(fields), all_needed=True)
    dtype = dtype or jnp.float32
    return spec_type(**{f.name: jnp.asarray(raw[f.name], dtype) for f in fields})


def parse_ranges(
    fields: Sequence[Field],
    defaults: Mapping[str, tuple[float, float]],
    given: Mapping[str, Sequence[float]] | None,
) -> dict[str, tuple[float, float]]:
    """The box to search: the defaults, with the given names replaced. low == high fixes a parameter."""
    given = given or {}
    expect_names("ranges", list(given), names(fields), all_needed=False)
    ranges = dict(defaults)
    for name, pair in given.items():
        if len(pair) != 2 or not all(np.isfinite(pair)):
            raise ValueError(f"range of {name} is {list(pair)}; expected two finite numbers, low and high")
        low, high = float(pair[0]), float(pair[1])
        if low > high:
            raise ValueError(f"range of {name} has low {low:g} > high {high:g}; swap them")
        ranges[name] = (low, high)
    return ranges


def as_vector(spec: Any, fields: Sequence[Field]) -> Array:
    return jnp.stack([jnp.asarray(getattr(spec, f.name)) for f in fields])


def from_vector(spec_type: Any, fields: Sequence[Field], vector: Array) -> Any:
    return spec_type(**{f.name: vector[i] for i, f in enumerate(fields)})


class Box(NamedTuple):
    """Affine map between parameters and [-1, 1]; a fixed parameter has half width 0."""

    middle: Array
    half: Array

    @classmethod
    def of(cls, fields: Sequence[Field], ranges: Mapping[str, tuple[float, float]], dtype: Any = None) -> Box:
        low, high = np.array([ranges[f.name] for f in fields], np.float64).T
        dtype = dtype or jnp.float32
        return cls(jnp.asarray((low + high) / 2, dtype), jnp.asarray((high - low) / 2, dtype))

    def decode(self, unit: Array) -> Array:
        return self.middle + self.half * unit

    def encode(self, value: Array) -> Array:
        half = jnp.where(self.half > 0, self.half, 1.0)
        return jnp.where(self.half > 0, (value - self.middle) / half, 0.0)


def pitch_um(geometry: Any) -> tuple[float, ...]:
    """Voxel or pixel size of any modality's geometry, axes as its shape."""
    return tuple(getattr(geometry, "voxel_um", None) or geometry.pixel_um)
