"""Blind calibration: counts -> spec, covariance, what cannot be known.

Detector -> the evidence's estimate -> small aberrations, or the sign test between twins -> the specimen's pull taken off ->
covariance with the model's misfit in it -> verdict. `calibrate` is `together` of one stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffphys.calibrate import detector as light
from diffphys.calibrate import verdict
from diffphys.calibrate.bias import corrected
from diffphys.calibrate.estimate import Estimate, Progress, Sample, estimates, windowed
from diffphys.calibrate.lanes import ONE, Lanes
from diffphys.calibrate.near_zero import near_zero
from diffphys.calibrate.twins import decided
from diffphys.noise import Detector, to_photons
from diffphys.operator import measurement_shape
from diffphys.spec import parse_ranges
from diffphys.types import Calibration, Modality, resolve

KNOWN_NOISE_SD, ESTIMATED_NOISE_SD = 0.02, 0.3  # of the log noise level


def calibrate(
    y: Any,
    modality: Modality | str,
    *,
    geometry: Any,
    detector: Detector | None = None,
    ranges: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Find how the instrument was really set, from the measurement alone.

    Args:
        y: counts, (z, y, x) confocal or (frame, y, x) SHG; not periodic, light from outside the field welcome.
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        geometry: nominal instrument, its shape that of the field.
        detector: gain, offset, background, read noise; NaN entries (or None) are estimated from `y`.
        ranges: name -> (low, high) replaces a default range; low == high fixes that parameter.
        seed: kept in the record; the estimate itself is deterministic.
        progress: called with (fraction done, what is being done).

    Returns:
        `Calibration`. Its status says whether to trust it and its `undetermined` what this data cannot tell.

    Raises:
        ValueError: in one line, when the input cannot be calibrated at all.
    """
    return together(
        [y], resolve(modality), geometry=geometry, detectors=[detector], ranges=ranges, seed=seed, progress=progress
    )[0]


def together(
    stacks: Sequence[Any],
    modality: Modality,
    *,
    geometry: Any,
    detectors: Sequence[Detector | None],
    ranges: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    how: Lanes = ONE,
) -> list[Calibration]:
    """`calibrate` of several stacks of one geometry; `how` says how they share programs and devices."""
    tell = progress or (lambda fraction, text: None)
    tell(0.0, "detector")
    cases = [prepare(y, modality, geometry, d, ranges) for y, d in zip(stacks, detectors, strict=True)]
    samples = [case.sample for case in cases]
    found = estimates(samples, modality, geometry, how, tell)
    tell(0.8, "small aberrations")
    small = [None] * len(found) if windowed(geometry) else near_zero(found, samples, modality, geometry, seed, how)
    tell(0.9, "sign of the aberration")
    signed = decided(found, samples, small, modality, geometry, how)
    if not windowed(geometry):
        tell(0.95, "pull of the specimen")
        signed = corrected(signed, samples, modality, geometry, how)
    tell(1.0, "done")
    return [
        judged(case, estimate, spec, margin, modality, geometry, seed=seed)
        for case, (estimate, spec, margin) in zip(cases, signed, strict=True)
    ]


class Case(NamedTuple):
    """One stack ready for the evidence; `warnings` of its detector, `beyond`: parameters that no estimator could find."""

    sample: Sample
    ranges: dict[str, tuple[float, float]]
    warnings: tuple[str, ...]
    beyond: dict[str, float]


def prepare(
    y: Any, modality: Modality, geometry: Any, detector: Detector | None, ranges: Mapping[str, Sequence[float]] | None
) -> Case:
    """Check the input, estimate what the detector leaves open, hold what cannot be found."""
    from diffphys.identify import blind as identifiability  # it measures with this package's evidence

    y = checked(y, modality, geometry)
    box = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), ranges)
    modality.check_ranges(box, geometry)
    known, warnings = _detector(y, modality, geometry, detector)
    beyond = identifiability.hopeless(y, modality, geometry=geometry, detector=known, ranges=box)
    searched = identifiability.held(box, modality, geometry, beyond)
    noise_sd = KNOWN_NOISE_SD if known is detector else ESTIMATED_NOISE_SD
    return Case(Sample(_photons(y, known, geometry), known, searched, noise_sd), box, warnings, beyond)


def judged(
    case: Case, estimate: Estimate, spec: Any, margin: float | None, modality: Modality, geometry: Any, *, seed: int,
    covariance: np.ndarray | None = None,
) -> Calibration:  # fmt: skip
    """The calibration of one stack; `covariance` replaces the estimate's own."""
    from diffphys.identify import blind as identifiability

    told: dict[str, Any] = {"ranges": case.ranges, "detector": case.sample.detector, "warnings": case.warnings, "seed": seed}
    found = verdict.calibration(estimate, spec, margin, modality, geometry, covariance=covariance, **told)
    return identifiability.refused(found, modality, case.beyond)


def _photons(y: Any, detector: Detector, geometry: Any) -> np.ndarray:
    photons = np.asarray(to_photons(detector, y), np.float64)
    return photons[None] if photons.ndim == len(geometry.shape) else photons


def checked(y: Any, modality: Modality, geometry: Any) -> np.ndarray:
    """The counts as an array; ValueError in one line where they cannot be calibrated with."""
    y = np.asarray(y)
    field = tuple(geometry.shape)
    small = modality.block(geometry, (8,) * len(field))  # as many frames, and next to nothing to trace
    frames = measurement_shape(modality, modality.nominal(geometry), geometry=small)[: -len(field)]
    expected = (*frames, *field)
    if y.shape != expected:
        raise ValueError(f"y has shape {y.shape}; expected {expected} as the {modality.NAME} geometry says")
    if not np.isfinite(y).all():
        raise ValueError(f"y has {int((~np.isfinite(y)).sum())} values that are NaN or infinite; mask or crop them first")
    if np.ptp(y) == 0:
        raise ValueError("y is constant: there is no structure to calibrate with")
    if min(field) < 8:
        raise ValueError(f"the field is {field}; calibration needs at least 8 samples along every axis")
    return y


def _detector(y: np.ndarray, modality: Modality, geometry: Any, detector: Detector | None) -> tuple[Detector, tuple[str, ...]]:
    if detector is not None and not any(np.isnan(float(getattr(detector, n))) for n in Detector.__dataclass_fields__):
        return detector, ()
    return light.estimate(y, modality, geometry=geometry, detector=detector)
