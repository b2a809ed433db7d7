"""Blind calibration: counts -> spec, covariance, what cannot be known.

Detector -> periodogram -> evidence under two spectra, started all over the box -> modulating parameters by the row means ->
sign test between twins -> covariance with the model's misfit in it -> verdict. Where the geometry says that the blur changes
with depth, the evidence is summed over depth windows, and both signs of the aberration are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import detector as detectors
from diffphys.calibrate import fit as fits
from diffphys.calibrate import modulation, parity, sign, verdict
from diffphys.calibrate.covariance import propagated
from diffphys.calibrate.periodogram import (
    Periodogram,
    block_shape,
    block_starts,
    periodogram,
    tapered_mean,
    window_mean,
    window_shape,
)
from diffphys.noise import Detector, to_photons
from diffphys.spec import Box, as_vector, from_vector, names, parse_ranges, pitch_um
from diffphys.types import Calibration, Modality, resolve

Progress = Callable[[float, str], None]
KNOWN_NOISE_SD, ESTIMATED_NOISE_SD = 0.02, 0.3  # of the log noise level
PASSES = 2  # of demodulation and evidence
RELINKED = 2  # times a small aberration is held, linear in the parameters each time
ANYWHERE = (-np.inf, np.inf)
DECISIVE = 60.0  # nats of evidence between the two signs of the aberration above which positivity is not asked


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
    from diffphys.identify import blind as identifiability  # it measures with this package's evidence

    modality, tell = resolve(modality), progress or (lambda fraction, text: None)
    y = checked(y, modality, geometry)
    box_ranges = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), ranges)
    modality.check_ranges(box_ranges, geometry)
    tell(0.0, "detector")
    known, warnings = _detector(y, modality, geometry, detector)
    photons = np.asarray(to_photons(known, y), np.float64)
    if photons.ndim == len(geometry.shape):
        photons = photons[None]
    noise_sd = KNOWN_NOISE_SD if known is detector else ESTIMATED_NOISE_SD
    limits = {"geometry": geometry, "detector": known, "ranges": box_ranges}
    beyond = identifiability.hopeless(y, modality, **limits)  # what no estimator could find is not fitted
    searched = identifiability.held(box_ranges, modality, geometry, beyond)
    estimate = _estimate(photons, modality, geometry, known, searched, noise_sd, tell)
    tell(0.9, "sign of the aberration")
    estimate, spec, margin = _sign(estimate, photons, modality, geometry, known, searched)
    if margin is not None and not windowed(geometry):
        tell(0.93, "small aberrations")
        estimate, spec = _near_zero(estimate, spec, photons, modality, _plain(geometry), known, seed)
    tell(1.0, "done")
    calibration = verdict.calibration(
        estimate, spec, margin, modality, geometry, ranges=box_ranges, detector=known, warnings=warnings, seed=seed
    )
    return identifiability.refused(calibration, modality, beyond)


def checked(y: Any, modality: Modality, geometry: Any) -> np.ndarray:
    """The counts as an array; ValueError in one line where they cannot be calibrated with."""
    y = np.asarray(y)
    field = tuple(geometry.shape)
    framed = hasattr(geometry, "phase_offsets_rad")
    expected = (len(geometry.phase_offsets_rad), *field) if framed else field
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
    return detectors.estimate(y, modality, geometry=geometry, detector=detector)


class Estimate(NamedTuple):
    """Before the sign test: point estimate, fits under both spectra (more credible first), the data they saw.

    `rivals` are the fits with the other sign of the aberration; empty where |OTF| is the same for both.
    """

    spec: Any
    fits: list[fits.Fit]
    box: Box
    statistic: Periodogram
    amplitudes: dict[str, modulation.Amplitude]
    block: tuple[int, ...]
    rivals: list[fits.Fit]
    problem: fits.Problem
    added: Any = 0.0  # (P, P) covariance of what was measured beside the evidence


def windowed(geometry: Any) -> bool:
    """Whether the blur changes with depth."""
    return getattr(geometry, "depth_anchors", 1) > 1


def _windows(modality: Modality, geometry: Any) -> tuple[tuple[int, ...], Any, tuple[float, ...] | None]:
    """Block, its instrument, and the depths of the windows' centres (None: one blur for the stack)."""
    pitch = pitch_um(geometry)
    if not windowed(geometry):
        block = block_shape(geometry.shape, pitch)
        return block, modality.block(geometry, block), None
    block = window_shape(geometry.shape, pitch)
    centres = block_starts(geometry.shape[0], block[0]) + (block[0] - 1) / 2
    depths = tuple(float(geometry.depth_um + pitch[0] * c) for c in centres)
    return block, replace(modality.block(geometry, block), depth_um=depths[-1]), depths


def _estimate(
    photons: np.ndarray, modality: Modality, geometry: Any, detector: Detector, ranges: Mapping, noise_sd: float, tell: Progress
) -> Estimate:
    """Evidence fits under both spectra; with modulating parameters, in passes of demodulation."""
    fields, modulating = names(modality.FIELDS), [n for n in modality.MODULATION_FIELDS if ranges[n][0] < ranges[n][1]]
    held = {n: (r if n not in modality.MODULATION_FIELDS else (0.0, 0.0)) for n, r in ranges.items()}
    box = Box.of(modality.FIELDS, held)
    block, local, depths = _windows(modality, geometry)
    finer = (2, 1, 1) if len(block) == 3 else (2, 2)
    background, read = float(detector.background), float(detector.read_sigma)
    values = {n: float(np.clip(0.0, *ranges[n])) for n in modality.MODULATION_FIELDS}
    amplitudes: dict[str, modulation.Amplitude] = {}
    found: list[fits.Fit] = []

    def demodulated(values: Mapping[str, float]) -> tuple[Periodogram, np.ndarray]:
        spec = from_vector(modality.Spec, modality.FIELDS, _theta(box, found, fields, values))
        shape = np.broadcast_to(np.asarray(modality.transfer(spec, geometry=geometry).modulation), photons.shape)
        statistic = periodogram((photons - background) / shape, block=block, finer=finer, windowed=depths is not None)
        return statistic, _noise_level(photons, shape, read, block if depths else None)

    def modulate(column: np.ndarray) -> None:
        for name in modulating:
            spec = from_vector(modality.Spec, modality.FIELDS, _theta(box, found, fields, values))
            amplitudes[name] = modulation.estimate(
                photons - background, column, modality, geometry, spec, name=name, block=block
            )
            values[name] = float(np.clip(amplitudes[name].value, *ranges[name]))

    statistic, level = demodulated(values)
    for number in range(PASSES if modulating else 1):
        if modulating:
            modulate(found[0].covariance[..., 0] if found else modulation.empirical_column(statistic.cross))
            statistic, level = demodulated(values)
        problem = fits.Problem(modality, local, statistic, level, noise_sd, box, finer, depths)
        if not found:
            starts = np.asarray(box.encode(jnp.asarray(modality.starts(held, geometry=geometry), jnp.float32)))
            tell(0.05, "search over the ranges")
            finalists = fits.search(problem, starts)
            tell(0.4, "evidence under two spectra")
            found = [fits.settle(problem, family, finalists) for family in fits.FAMILIES]
        else:
            tell(0.7 + 0.1 * number, "evidence, demodulated")
            found = [fits.polish(problem, f.family, f.q) for f in found]
        found.sort(key=lambda f: -f.log_evidence)
    spec = from_vector(modality.Spec, modality.FIELDS, _theta(box, found, fields, values))
    if depths:
        found, rivals = _both_signs(problem, found, modality.twin(spec, geometry=geometry, ranges=ranges))
    else:
        rivals = []
    return Estimate(spec, found, box, statistic, amplitudes, block, rivals, problem)


def _both_signs(problem: fits.Problem, found: list[fits.Fit], twin: Any) -> tuple[list[fits.Fit], list[fits.Fit]]:
    """The fits with the sign of the best one, and those polished from its twin, which has another |OTF|; best first."""
    if twin is None:
        return found, []
    theta = np.asarray(problem.box.encode(as_vector(twin, problem.modality.FIELDS)))
    here, same, other = found[0].q[0, : theta.size], [], []
    for fit in found:
        pair = [fit, fits.restart(problem, fit._replace(q=fit.q[:1].repeat(len(fit.q), axis=0)), theta)]
        pair.sort(key=lambda f: float(np.linalg.norm(f.q[0, : theta.size] - here)))
        same.append(pair[0])
        other.append(pair[1])
    return same, sorted(other, key=lambda f: -f.log_evidence)


def _theta(box: Box, found: list[fits.Fit], fields: tuple[str, ...], values: Mapping[str, float]) -> Any:
    """Parameters in their units: the best fit's (the middle of the box before there is one) and the modulating ones."""
    theta = np.array(box.middle if not found else box.decode(jnp.asarray(found[0].q[0, : len(fields)])), np.float32)
    for name, value in values.items():
        theta[fields.index(name)] = value
    return jnp.asarray(theta)


def _noise_level(photons: np.ndarray, shape: np.ndarray, read: float, window: tuple[int, ...] | None) -> np.ndarray:
    """(K,) or (K, window) white level of the demodulated frames: mean of (photons + read^2) / modulation^2 under the taper."""
    variance = (photons + read**2) / shape**2
    mean = tapered_mean(variance, photons.ndim - 1) if window is None else window_mean(variance, window)
    return np.maximum(mean, 1e-6)


def _sign(
    estimate: Estimate, photons: np.ndarray, modality: Modality, geometry: Any, detector: Detector, ranges: Mapping
) -> tuple[Estimate, Any, float | None]:
    """The spec or its twin, whichever positivity prefers, and by how many nats; None where there is no twin."""
    if estimate.rivals:
        rival = _other_sign(estimate, modality, ranges)
        gap = estimate.fits[0].log_evidence - rival.fits[0].log_evidence
        if not abs(gap) < DECISIVE:
            return (estimate, estimate.spec, gap) if gap > 0 else (rival, rival.spec, -gap)
        twin = rival.spec
    else:
        rival, twin = estimate, modality.twin(estimate.spec, geometry=geometry, ranges=ranges)
    if twin is None:
        return estimate, estimate.spec, None
    read2 = float(detector.read_sigma) ** 2
    background = float(detector.background) + read2
    exact = twin if estimate.rivals else modality.twin(estimate.spec, geometry=geometry, ranges=dict.fromkeys(ranges, ANYWHERE))
    gain = sign.margin(photons[0] + read2, modality, _plain(geometry), (estimate.spec, exact), background=background)
    return (estimate, estimate.spec, gain) if gain >= 0 else (rival, twin, -gain)


def _near_zero(
    estimate: Estimate, spec: Any, photons: np.ndarray, modality: Modality, geometry: Any, detector: Detector, seed: int
) -> tuple[Estimate, Any]:
    """Where the evidence says little about the aberration, positivity measures it and the rest is fitted anew around that."""
    fields = names(modality.FIELDS)
    covariance = verdict.covariance_of(estimate, fields)
    derived = propagated(modality, geometry, spec, covariance)
    if not parity.asked(modality, spec, derived, estimate.box, geometry=geometry):
        return estimate, spec
    ((value, sigma),) = derived.values()
    read2 = float(detector.read_sigma) ** 2
    odd = parity.small(photons[0] + read2, modality, geometry, spec, background=float(detector.background) + read2, seed=seed)
    goal = parity.merged((value, sigma), odd)
    found, response = estimate.fits, np.zeros(len(fields))
    for _ in range(RELINKED):
        link, start, response = parity.link(modality, geometry, spec, goal, estimate.box, covariance)
        found = [fits.restart(estimate.problem._replace(link=link), fit, start) for fit in found]
        found.sort(key=lambda f: -f.log_evidence)
        spec = from_vector(modality.Spec, modality.FIELDS, _theta(estimate.box, found, fields, {}))
    return estimate._replace(spec=spec, fits=found, added=np.outer(response, response) * goal[1] ** 2), spec


def _other_sign(estimate: Estimate, modality: Modality, ranges: Mapping) -> Estimate:
    """The estimate with fits and rivals exchanged."""
    fields = names(modality.FIELDS)
    theta = np.array(estimate.box.decode(jnp.asarray(estimate.rivals[0].q[0, : len(fields)])), np.float32)
    spec = from_vector(modality.Spec, modality.FIELDS, jnp.asarray(theta))
    return estimate._replace(spec=spec, fits=estimate.rivals, rivals=estimate.fits)


def _plain(geometry: Any) -> Any:
    """The geometry with one blur, that of the stack's middle, and without attenuation."""
    if not hasattr(geometry, "depth_anchors"):
        return geometry
    middle = 0.5 * (geometry.shape[0] - 1) * geometry.voxel_um[0] if windowed(geometry) else 0.0
    return replace(geometry, depth_anchors=1, attenuation_per_um=0.0, depth_um=geometry.depth_um + middle)
