"""A spec as free numbers: value = middle + half tanh(theta), so that training never leaves the ranges of the modality.

Plain numbers, hence static for every framework that uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffphys.spec import expect_names, names, parse_ranges
from diffphys.types import resolve

EDGE = 0.999  # of the range: nearest that a start may lie to its end, where tanh has no slope


class Settings(NamedTuple):
    """Box of a spec and the start within it; one entry per parameter, in the order of `names`.

    Attributes:
        names: of the parameters.
        middle, half: of the ranges, in the parameters' units; half is 0 where a parameter is fixed.
        theta: start, without unit.
    """

    names: tuple[str, ...]
    middle: tuple[float, ...]
    half: tuple[float, ...]
    theta: tuple[float, ...]


def settings_of(
    spec: Any,
    *,
    modality: Any,
    geometry: Any,
    ranges: Mapping[str, Sequence[float]] | None = None,
    trainable: Sequence[str] | None = None,
) -> Settings:
    """The box around a start.

    Args:
        spec: start; None: the nominal spec.
        modality, geometry: the instrument.
        ranges: name -> (low, high), instead of the modality's own; low == high fixes a parameter there.
        trainable: names that may move, the others stay at the start; None: all.

    Raises:
        ValueError: a name is unknown, or the start lies outside its range.
    """
    modality = resolve(modality)
    known = names(modality.FIELDS)
    box = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), ranges)
    start = modality.nominal(geometry) if spec is None else spec
    values = {name: float(getattr(start, name)) for name in known}
    if trainable is not None:
        expect_names("trainable", list(trainable), known, all_needed=False)
        box = {name: pair if name in trainable else (values[name],) * 2 for name, pair in box.items()}
    modality.check_ranges(box, geometry)
    for name, (low, high) in box.items():
        slack = 1e-6 * max(abs(low), abs(high))  # a start in single precision may lie on the edge
        if not low - slack <= values[name] <= high + slack:
            raise ValueError(f"{name} starts at {values[name]:g}, outside its range {low:g} to {high:g}; pass ranges= or spec=")
    low, high = np.array([box[name] for name in known], np.float64).T
    middle, half = (low + high) / 2, (high - low) / 2
    place = np.where(half > 0, (np.array(list(values.values())) - middle) / np.where(half > 0, half, 1.0), 0.0)
    theta = np.arctanh(np.clip(place, -EDGE, EDGE))
    return Settings(known, tuple(middle.tolist()), tuple(half.tolist()), tuple(theta.tolist()))
