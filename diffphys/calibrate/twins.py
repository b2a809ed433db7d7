"""Which of two twins is the instrument: the evidence where it tells them apart, their restorations (`sign`) elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diffphys.calibrate import explain, sign, verdict
from diffphys.calibrate.covariance import doubled
from diffphys.calibrate.estimate import Estimate, Sample, theta_of, windowed
from diffphys.calibrate.lanes import Lanes
from diffphys.spec import from_vector, names
from diffphys.types import Modality

ANYWHERE = (-np.inf, np.inf)
DECISIVE = 60.0  # nats of evidence between the two signs of the aberration above which restorations are not asked
Signed = tuple[Estimate, Any, float | None]  # the estimate, its spec, how many nats its sign is preferred by


def decided(
    found: Sequence[Estimate], samples: Sequence[Sample], small: Sequence[Signed | None], modality: Modality, geometry: Any,
    how: Lanes,
) -> list[Signed]:  # fmt: skip
    """Per stack the spec or its twin, whichever restorations prefer, and by how many nats: 0 where they tell nothing, None
    where there is no twin. An unsure sign counts as an error of the estimate. `small` are decided already (`near_zero`)."""
    signed = list(small)
    contests, contestants = [], []
    for number, (estimate, sample) in enumerate(zip(found, samples, strict=True)):
        if signed[number] is not None:
            continue
        rival, twin, known = _rival(estimate, sample, modality, geometry)
        signed[number] = known
        if known is None:
            photons, background = with_read_noise(sample)
            contests.append(
                sign.Contest(photons, background, (estimate.spec, _exact(estimate, twin, sample, modality, geometry)))
            )
            contestants.append((number, rival, twin))
    gains = sign.margins(contests, modality, plain(geometry), how=how)
    for (number, rival, twin), gain in zip(contestants, gains, strict=True):
        estimate, spec = (found[number], found[number].spec) if gain.nats >= 0 else (rival, twin)
        nats = abs(gain.nats) if gain.contrast > explain.TELLING else 0.0
        if nats < verdict.SURE_OF_SIGN:
            estimate = estimate._replace(added=_doubt(estimate, spec, modality, geometry))
        signed[number] = (estimate, spec, nats)
    return [s for s in signed if s is not None]


def _doubt(estimate: Estimate, spec: Any, modality: Modality, geometry: Any) -> np.ndarray:
    covariance = verdict.covariance_of(estimate, names(modality.FIELDS))
    return doubled(modality, plain(geometry), spec, covariance)


def _rival(estimate: Estimate, sample: Sample, modality: Modality, geometry: Any) -> tuple[Estimate, Any, Signed | None]:
    """The estimate with the other sign, its spec, and the decision where restorations need not be asked."""
    if not estimate.rivals:
        twin = modality.twin(estimate.spec, geometry=geometry, ranges=sample.ranges)
        return estimate, twin, (estimate, estimate.spec, None) if twin is None else None
    rival = _other_sign(estimate, modality)
    gap = estimate.fits[0].log_evidence - rival.fits[0].log_evidence
    if abs(gap) < DECISIVE:
        return rival, rival.spec, None
    return rival, rival.spec, (estimate, estimate.spec, gap) if gap > 0 else (rival, rival.spec, -gap)


def _exact(estimate: Estimate, twin: Any, sample: Sample, modality: Modality, geometry: Any) -> Any:
    """The twin that competes: the exact one, also outside the ranges."""
    if estimate.rivals:
        return twin
    return modality.twin(estimate.spec, geometry=geometry, ranges=dict.fromkeys(sample.ranges, ANYWHERE))


def with_read_noise(sample: Sample) -> tuple[np.ndarray, float]:
    """Photons of the first frame and the background, the read noise's variance added to both."""
    read2 = float(sample.detector.read_sigma) ** 2
    return sample.photons[0] + read2, float(sample.detector.background) + read2


def _other_sign(estimate: Estimate, modality: Modality) -> Estimate:
    """The estimate with fits and rivals exchanged."""
    spec = from_vector(modality.Spec, modality.FIELDS, theta_of(estimate.box, estimate.rivals, names(modality.FIELDS), {}))
    return estimate._replace(spec=spec, fits=estimate.rivals, rivals=estimate.fits)


def plain(geometry: Any) -> Any:
    """The geometry with one blur, that of the stack's middle, and without attenuation."""
    if not hasattr(geometry, "depth_anchors"):
        return geometry
    middle = 0.5 * (geometry.shape[0] - 1) * geometry.voxel_um[0] if windowed(geometry) else 0.0
    clear = {"attenuation_per_um": 0.0} if hasattr(geometry, "attenuation_per_um") else {}
    return replace(geometry, depth_anchors=1, depth_um=geometry.depth_um + middle, **clear)
