"""Small aberrations: where the evidence says little, `parity` measures, and the rest is fitted anew around its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from diffphys.calibrate import fit as fits
from diffphys.calibrate import parity, verdict
from diffphys.calibrate.covariance import propagated
from diffphys.calibrate.estimate import Estimate, Sample, theta_of
from diffphys.calibrate.lanes import Lanes
from diffphys.calibrate.twins import Signed, plain, with_read_noise
from diffphys.cores import at_once
from diffphys.spec import from_vector, names
from diffphys.types import Modality


class _Case(NamedTuple):
    """A stack that is asked: number, estimate so far, covariance, (value, 1 sigma) of the aberration: the evidence's, then the
    one to hold; nats of its sign."""

    number: int
    estimate: Estimate
    covariance: np.ndarray
    goal: tuple[float, float]
    nats: float = 0.0


def near_zero(
    found: Sequence[Estimate], samples: Sequence[Sample], modality: Modality, geometry: Any, seed: int, how: Lanes
) -> list[Signed | None]:
    """The estimates with a small aberration, fitted anew with the measurement of it; None where there is none."""
    out: list[Signed | None] = [None] * len(found)
    flat = plain(geometry)
    asked = [case for number, one in enumerate(found) if (case := _case(number, one, modality, flat)) is not None]
    questions = [_question(case.estimate, samples[case.number], modality, flat) for case in asked]
    told = zip(asked, parity.small(questions, modality, flat, seed=seed, how=how), strict=True)
    cases = [_measured(case, value) for case, value in told if np.isfinite(value.value)]
    for case in _held(cases, modality, flat, how):
        out[case.number] = (case.estimate, case.estimate.spec, case.nats)
    return out


def _case(number: int, estimate: Estimate, modality: Modality, geometry: Any) -> _Case | None:
    covariance = verdict.covariance_of(estimate, names(modality.FIELDS))
    derived = propagated(modality, geometry, estimate.spec, covariance)
    if not parity.asked(modality, estimate.spec, derived, estimate.box, geometry=geometry):
        return None
    return _Case(number, estimate, covariance, next(iter(derived.values())))


def _question(estimate: Estimate, sample: Sample, modality: Modality, geometry: Any) -> parity.Question:
    return parity.Question(*with_read_noise(sample), parity.matched(modality, estimate.spec, geometry, estimate.box))


def _measured(case: _Case, found: parity.Measured) -> _Case:
    """The merged value, its sign the measurement's; where the specimen tells none, that counts as an error."""
    evidence, sigma = case.goal
    value, sigma = parity.merged((float(np.copysign(evidence, found.value)), sigma), found[:2])
    doubt = 0.0 if found.nats > 0 else np.sqrt(2) * value
    return case._replace(goal=(value, float(np.hypot(sigma, doubt))), nats=found.nats)


def _held(cases: Sequence[_Case], modality: Modality, geometry: Any, how: Lanes) -> list[_Case]:
    """The estimates fitted anew with their aberrations held."""
    if not cases:
        return []
    links = [parity.link(modality, geometry, c.estimate.spec, c.goal, c.estimate.box, c.covariance) for c in cases]
    problems = [c.estimate.problem._replace(link=link) for c, (link, _, _) in zip(cases, links, strict=True)]
    starts = [start for _, start, _ in links]

    def restarted(family: str) -> list[fits.Fit]:
        own = [next(f for f in c.estimate.fits if f.family == family) for c in cases]
        return fits.restart(problems, own, starts, how=how)

    families = at_once(restarted, fits.FAMILIES, ("near zero", problems[0].modality, problems[0].block))
    pairs = zip(*families, strict=True)
    return [
        _fitted(c, pair, response, modality, geometry) for c, pair, (_, _, response) in zip(cases, pairs, links, strict=True)
    ]


def _fitted(case: _Case, pair: Sequence[fits.Fit], response: np.ndarray, modality: Modality, geometry: Any) -> _Case:
    found, box = sorted(pair, key=lambda f: -f.log_evidence), case.estimate.box
    spec = from_vector(modality.Spec, modality.FIELDS, theta_of(box, found, names(modality.FIELDS), {}))
    spec = parity.held(modality, spec, geometry, case.goal[0], box)
    added = np.outer(response, response) * case.goal[1] ** 2
    return case._replace(estimate=case.estimate._replace(spec=spec, fits=found, added=added))
