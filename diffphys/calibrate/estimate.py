"""From photons to the evidence's estimate, for several stacks of one geometry at once.

Periodogram -> evidence under two spectra, started all over the box -> modulating parameters by the row means, in passes. Where
the geometry says that the blur changes with depth, the evidence is summed over depth windows, and both signs of the aberration
are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import fit as fits
from diffphys.calibrate import modulation
from diffphys.calibrate.lanes import Lanes
from diffphys.calibrate.periodogram import (
    Periodogram,
    block_shape,
    block_starts,
    periodogram,
    tapered_mean,
    window_mean,
    window_shape,
)
from diffphys.noise import Detector
from diffphys.spec import Box, as_vector, from_vector, names, pitch_um
from diffphys.types import Modality

Progress = Callable[[float, str], None]
PASSES = 2  # of demodulation and evidence
SEARCHED = 32  # samples per axis of a block in the search, at least: a valley is found there as well as in twice as many


class Sample(NamedTuple):
    """One stack: (K, *axes) photons, its detector, the ranges to search, how well the log noise level is known (1 sigma)."""

    photons: np.ndarray
    detector: Detector
    ranges: Mapping[str, tuple[float, float]]
    noise_sd: float


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


class _Work:
    """One stack on its way: what demodulates it, its statistic, its fits by family."""

    def __init__(self, sample: Sample, modality: Modality, geometry: Any) -> None:
        self.sample, self.modality, self.geometry = sample, modality, geometry
        self.fields, ranges = names(modality.FIELDS), sample.ranges
        self.modulating = [n for n in modality.MODULATION_FIELDS if ranges[n][0] < ranges[n][1]]
        self.held = {n: (r if n not in modality.MODULATION_FIELDS else (0.0, 0.0)) for n, r in ranges.items()}
        self.box = Box.of(modality.FIELDS, self.held)
        self.values = {n: float(np.clip(0.0, *ranges[n])) for n in modality.MODULATION_FIELDS}
        self.amplitudes: dict[str, modulation.Amplitude] = {}
        self.found: list[fits.Fit] = []
        self.block, self.local, self.depths = _windows(modality, geometry)
        self.finer = (2, 1, 1) if len(self.block) == 3 else (2, 2)

    @property
    def spec(self) -> Any:
        return from_vector(self.modality.Spec, self.modality.FIELDS, theta_of(self.box, self.found, self.fields, self.values))

    @property
    def starts(self) -> np.ndarray:
        thetas = self.modality.starts(self.held, geometry=self.geometry)
        return np.asarray(self.box.encode(jnp.asarray(thetas, jnp.float32)))

    def demodulate(self) -> None:
        photons, detector = self.sample.photons, self.sample.detector
        shape = np.broadcast_to(np.asarray(self.modality.transfer(self.spec, geometry=self.geometry).modulation), photons.shape)
        self.flat = (photons - float(detector.background)) / shape
        self.statistic = periodogram(self.flat, block=self.block, finer=self.finer, windowed=self.depths is not None)
        self.level = noise_level(photons, shape, float(detector.read_sigma), self.block if self.depths else None)

    def modulate(self) -> None:
        column = self.found[0].covariance[..., 0] if self.found else modulation.empirical_column(self.statistic.cross)
        signal = self.sample.photons - float(self.sample.detector.background)
        for name in self.modulating:
            amplitude = modulation.estimate(
                signal, column, self.modality, self.geometry, self.spec, name=name, block=self.block
            )
            self.amplitudes[name] = amplitude
            self.values[name] = float(np.clip(amplitude.value, *self.sample.ranges[name]))
        self.demodulate()

    @property
    def problem(self) -> fits.Problem:
        return fits.Problem(
            self.modality, self.local, self.statistic, self.level, self.sample.noise_sd, self.box, self.finer, self.depths
        )  # fmt: skip

    @property
    def coarse(self) -> fits.Problem:
        """The problem in smaller blocks, for the search."""
        block = block_shape(self.geometry.shape, pitch_um(self.geometry), least=SEARCHED)
        if self.depths is not None or block == self.block:
            return self.problem
        statistic = periodogram(self.flat, block=block, finer=self.finer)
        return self.problem._replace(block=self.modality.block(self.geometry, block), statistic=statistic)

    def keep(self, found: Sequence[fits.Fit]) -> None:
        self.found = sorted(found, key=lambda f: -f.log_evidence)

    def by_family(self, family: str) -> fits.Fit:
        return next(f for f in self.found if f.family == family)

    def estimate(self, rivals: list[fits.Fit]) -> Estimate:
        return Estimate(
            self.spec, self.found, self.box, self.statistic, self.amplitudes, self.block, rivals, self.problem
        )  # fmt: skip


def estimates(samples: Sequence[Sample], modality: Modality, geometry: Any, how: Lanes, tell: Progress) -> list[Estimate]:
    """Evidence fits under both spectra; with modulating parameters, in passes of demodulation."""
    works = [_Work(sample, modality, geometry) for sample in samples]
    for work in works:
        work.demodulate()
        if work.modulating:
            work.modulate()
    problems = [work.problem for work in works]
    tell(0.05, "search over the ranges")
    finalists = fits.search([work.coarse for work in works], [work.starts for work in works], how=how)
    tell(0.4, "evidence under two spectra")
    _keep(works, fits.settle_both(problems, finalists, how=how))
    again = [work for work in works if work.modulating]
    for number in range(1, PASSES if again else 1):
        for work in again:
            work.modulate()
        tell(0.7 + 0.1 * number, "evidence, demodulated")
        problems = [work.problem for work in again]
        _keep(
            again,
            [fits.polish(problems, f, [work.by_family(f).q for work in again], how=how) for f in fits.FAMILIES],
        )
    if not windowed(geometry):
        return [work.estimate([]) for work in works]
    return [work.estimate(_both_signs(work, how)) for work in works]


def _keep(works: Sequence[_Work], by_family: Sequence[Sequence[fits.Fit]]) -> None:
    for work, found in zip(works, zip(*by_family, strict=True), strict=True):
        work.keep(found)


def _both_signs(work: _Work, how: Lanes) -> list[fits.Fit]:
    """Keeps the fits with the sign of the best one; those polished from its twin, which has another |OTF|, best first."""
    problem, modality = work.problem, work.modality
    twin = modality.twin(work.spec, geometry=work.geometry, ranges=work.sample.ranges)
    if twin is None:
        return []
    theta = np.asarray(problem.box.encode(as_vector(twin, modality.FIELDS)))
    here, same, other = work.found[0].q[0, : theta.size], [], []
    for fit in work.found:
        pair = [fit, *fits.restart([problem], [fit], [theta], how=how)]
        pair.sort(key=lambda f: float(np.linalg.norm(f.q[0, : theta.size] - here)))
        same.append(pair[0])
        other.append(pair[1])
    work.found = same
    return sorted(other, key=lambda f: -f.log_evidence)


def theta_of(box: Box, found: Sequence[fits.Fit], fields: tuple[str, ...], values: Mapping[str, float]) -> Any:
    """Parameters in their units: the best fit's (the middle of the box before there is one) and the modulating ones."""
    theta = np.array(box.middle if not found else box.decode(jnp.asarray(found[0].q[0, : len(fields)])), np.float32)
    for name, value in values.items():
        theta[fields.index(name)] = value
    return jnp.asarray(theta)


def noise_level(photons: np.ndarray, shape: np.ndarray, read: float, window: tuple[int, ...] | None) -> np.ndarray:
    """(K,) or (K, window) white level of the demodulated frames: mean of (photons + read^2) / modulation^2 under the taper."""
    variance = (photons + read**2) / shape**2
    mean = tapered_mean(variance, photons.ndim - 1) if window is None else window_mean(variance, window)
    return np.maximum(mean, 1e-6)
