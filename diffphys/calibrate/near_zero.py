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

RELINKED = 2  # times a small aberration is held, linear in the parameters each time


class _Case(NamedTuple):
    """A stack that is asked: its number, its covariance, the evidence's (value, 1 sigma) of the aberration."""

    number: int
    covariance: np.ndarray
    known: tuple[float, float]


def near_zero(
    signed: Sequence[Signed], samples: Sequence[Sample], modality: Modality, geometry: Any, seed: int, how: Lanes
) -> list[Signed]:
    """The estimates, those with a small aberration fitted anew with the measurement of it."""
    out, flat = list(signed), plain(geometry)
    cases = [case for number, one in enumerate(signed) if (case := _case(number, one, modality, flat)) is not None]
    questions = [_question(signed[case.number], samples[case.number], modality, flat) for case in cases]
    found = parity.small(questions, modality, flat, seed=seed, how=how)
    goals = [_goal(case, odd, signed[case.number][2]) for case, odd in zip(cases, found, strict=True)]
    for _ in range(RELINKED if cases else 0):
        before = [out[case.number] for case in cases]
        links = [
            parity.link(modality, flat, spec, goal, estimate.box, case.covariance)
            for case, goal, (estimate, spec, _) in zip(cases, goals, before, strict=True)
        ]
        fitted = _fitted([estimate for estimate, _, _ in before], links, how)
        for case, goal, (_, _, response), estimate in zip(cases, goals, links, fitted, strict=True):
            theta = theta_of(estimate.box, estimate.fits, names(modality.FIELDS), {})
            spec = from_vector(modality.Spec, modality.FIELDS, theta)
            added = np.outer(response, response) * goal[1] ** 2
            out[case.number] = (estimate._replace(spec=spec, added=added), spec, signed[case.number][2])
    return out


def _goal(case: _Case, measured: tuple[float, float], margin: float | None) -> tuple[float, float]:
    """The merged value; where neither the twins' contest nor the measurement knows the sign, that counts as an error."""
    value, sigma = parity.merged(case.known, measured)
    sure = margin is None or margin >= verdict.SURE_OF_SIGN or abs(measured[0]) > 2 * measured[1]
    return value, sigma if sure else float(np.hypot(sigma, np.sqrt(2) * value))


def _case(number: int, one: Signed, modality: Modality, geometry: Any) -> _Case | None:
    estimate, spec, _ = one
    covariance = verdict.covariance_of(estimate, names(modality.FIELDS))
    derived = propagated(modality, geometry, spec, covariance)
    if not parity.asked(modality, spec, derived, estimate.box, geometry=geometry):
        return None
    return _Case(number, covariance, next(iter(derived.values())))


def _question(one: Signed, sample: Sample, modality: Modality, geometry: Any) -> parity.Question:
    estimate, spec, _ = one
    return parity.Question(*with_read_noise(sample), parity.matched(modality, spec, geometry, estimate.box))


def _fitted(found: Sequence[Estimate], links: Sequence[tuple[fits.Link, np.ndarray, np.ndarray]], how: Lanes) -> list[Estimate]:
    """The estimates fitted anew, each with its link and from its start."""
    problems = [e.problem._replace(link=link) for e, (link, _, _) in zip(found, links, strict=True)]
    starts = [start for _, start, _ in links]

    def restarted(family: str) -> list[fits.Fit]:
        return fits.restart(problems, [next(f for f in e.fits if f.family == family) for e in found], starts, how=how)

    families = at_once(restarted, fits.FAMILIES, ("near zero", problems[0].modality, problems[0].block))
    best_first = [sorted(pair, key=lambda f: -f.log_evidence) for pair in zip(*families, strict=True)]
    return [estimate._replace(fits=pair) for estimate, pair in zip(found, best_first, strict=True)]
