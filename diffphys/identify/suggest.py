"""What would lower the worst-determined parameter's bound: every change is applied and its bound computed.

In: a way to compute the information of an instrument. Out: changes with the factor they gain, best first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from diffphys.identify.fisher import Light

OFFSETS = np.arange(-3.0, 3.01, 0.75)  # rad, commanded phase mismatches that are tried for another frame
DEEPER_UM = 10.0
COLLAR_WAVES = 0.1
WORTH = 1.05  # smallest gain that is told


class Case(NamedTuple):
    """One experiment: what `Suggestion`s change."""

    geometry: Any
    spec: Any
    light: Light
    image: str


class Suggestion(NamedTuple):
    """A change, the factor by which it lowers the bound of `parameter`, and all bounds after it."""

    change: str
    gain: float
    parameter: str
    bounds: Mapping[str, float]


Bounds = Callable[[Case], Mapping[str, float]]  # name -> 1 sigma


def suggestions(
    case: Case, bounds: Bounds, fixed: Mapping[str, Mapping[str, float]], *, parameter: str
) -> tuple[Suggestion, ...]:
    """Computed suggestions, best first.

    Args:
        case: the experiment as it is.
        bounds: of any experiment; a ValueError says that it cannot be built.
        fixed: parameter -> bounds once it is known otherwise.
        parameter: whose bound is to fall.
    """
    now = bounds(case)[parameter]
    found = [
        Suggestion(change, now / after[parameter], parameter, after) for change, after in _evaluated(case, bounds, parameter)
    ]
    for name, after in fixed.items():
        if name != parameter:
            found.append(Suggestion(f"measure {name} otherwise and fix it", now / after[parameter], parameter, after))
    return tuple(sorted((s for s in found if s.gain > WORTH), key=lambda s: -s.gain))


def _evaluated(case: Case, bounds: Bounds, parameter: str) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Each change that can be made, with the bounds after it."""
    for change, after in _changes(case):
        with suppress(ValueError):  # no specimen can be drawn
            yield change, bounds(after)
    best: tuple[float, float, Mapping[str, float]] | None = None
    for offset, after in _offsets(case):
        try:
            value = bounds(after)
        except ValueError:  # a dark frame
            continue
        if best is None or value[parameter] < best[0]:
            best = (value[parameter], offset, value)
    if best is not None:
        yield f"another frame at phase offset {best[1]:+.2f} rad", best[2]


def _changes(case: Case) -> Iterator[tuple[str, Case]]:
    geometry, spec, light = case.geometry, case.spec, case.light
    more = Light(4 * light.photons, 4 * light.background, light.read_sigma)
    yield "four times the photons", case._replace(light=more)
    if case.image == "unknown":
        yield "a calibration sample of known structure", case._replace(image="known")
        lateral = (*geometry.shape[:-2], *(2 * n for n in geometry.shape[-2:]))
        extra = (
            {"power_trace": None if geometry.power_trace is None else "reference"} if hasattr(geometry, "power_trace") else {}
        )
        yield "a field twice as wide and high", case._replace(geometry=replace(geometry, shape=lateral, **extra))
    if hasattr(geometry, "depth_um"):
        deeper = replace(geometry, depth_um=geometry.depth_um + DEEPER_UM)
        yield f"imaging {DEEPER_UM:g} um deeper", case._replace(geometry=deeper)
        if getattr(geometry, "depth_anchors", None) == 1:
            yield "a blur that varies with depth (depth_anchors: 3)", case._replace(geometry=replace(geometry, depth_anchors=3))
    if hasattr(spec, "spherical_aberr"):
        collar = replace(spec, spherical_aberr=spec.spherical_aberr + COLLAR_WAVES)
        yield f"turning the correction collar by {COLLAR_WAVES:+g} waves", case._replace(spec=collar)
    if getattr(geometry, "detection", "imaging") != "imaging":
        imaging = replace(geometry, detection="imaging")
        yield "wide-field excitation with imaging collection", case._replace(geometry=imaging)


def _offsets(case: Case) -> Iterator[tuple[float, Case]]:
    """The experiment with one more frame, where the instrument takes one."""
    geometry = case.geometry
    now = getattr(geometry, "phase_offsets_rad", ())
    if not 1 <= len(now) < 3:
        return
    trace = None if geometry.power_trace is None else "reference"
    for offset in OFFSETS:
        if min(abs(offset - f) for f in now) > 0.1:
            yield offset, case._replace(geometry=replace(geometry, phase_offsets_rad=(*now, float(offset)), power_trace=trace))
