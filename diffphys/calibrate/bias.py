"""What the specimen itself does to the estimate: rehearsed on a restored specimen, and taken off.

Specimens are not the Gaussian fields of the evidence's prior, and the spectrum that one specimen happens to have pulls the
parameters along. How far is seen on a known specimen that resembles it: a network's restoration of these counts at the
estimated spec. Its expected periodogram under that spec goes through the same fit; what comes out differs from what went in by
the pull (indirect inference: Gourieroux, Monfort & Renault, J. Appl. Econometrics 8:S85, 1993). No noise is drawn.

Richardson-Lucy's restorations do not resemble the specimen enough: their pull has the wrong sign more often than not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import explain, verdict
from diffphys.calibrate import fit as fits
from diffphys.calibrate.estimate import Estimate, Sample, noise_level
from diffphys.calibrate.lanes import Lanes
from diffphys.calibrate.periodogram import periodogram
from diffphys.calibrate.twins import Signed, plain, with_read_noise
from diffphys.reconstruct.learned import Glance
from diffphys.spec import as_vector, names, pitch_um
from diffphys.types import Modality

NETWORK = "unet"  # restores the specimen: by `explain.JUDGE`, of half its width, a pull is taken off worse
LARGEST = 2**21  # voxels: what a larger stack's specimen pulls averages out, and restoring it takes long
REACH = 1.5  # half widths of the ranges within which the bias is looked for: an edge would hide it
# of 72 benchmark stacks, 132 simulated ones: the sigmas beyond which a pull is another optimum's, what is left of sigma
LIMIT, LEFT = 2.5, 0.7


class _Case(NamedTuple):
    """A stack that is asked: number, covariance so far, parameters in box units (beyond an edge where one stopped them)."""

    number: int
    covariance: np.ndarray
    theta: np.ndarray


def corrected(
    signed: Sequence[Signed], samples: Sequence[Sample], modality: Modality, geometry: Any, how: Lanes
) -> list[Signed]:
    """The estimates without the specimen's pull on the parameters in `modality.BIASED`."""
    out, flat = list(signed), plain(geometry)
    numbers = [n for n, one in enumerate(signed) if asked(modality, flat, one[0])]
    if not numbers:
        return out
    cases = _cases(numbers, signed, modality, flat, how)
    stages = rehearsed([Stage(*signed[c.number][:2], c.theta, samples[c.number]) for c in cases], modality, flat)
    told = [(case, problem) for case, problem in zip(cases, stages, strict=True) if problem is not None]
    ended = _fitted([signed[c.number][0] for c, _ in told], [p for _, p in told], [c.theta for c, _ in told], how)
    for (case, _), theta in zip(told, ended, strict=True):
        out[case.number] = _without(signed[case.number], case, theta - case.theta, modality)
    return out


def asked(modality: Modality, geometry: Any, estimate: Estimate) -> bool:
    """Whether something is free that specimens pull, and a network knows specimens like this."""
    free = [half > 0 for name, half in zip(names(modality.FIELDS), estimate.box.half, strict=True) if name in modality.BIASED]
    small = bool(free) and int(np.prod(geometry.shape)) <= LARGEST
    return small and any(free) and explain.judge_of(pitch_um(geometry)) == "network"


def _cases(numbers: Sequence[int], signed: Sequence[Signed], modality: Modality, geometry: Any, how: Lanes) -> list[_Case]:
    """Estimates that an edge stopped go on beyond it."""
    fields, cases = names(modality.FIELDS), []
    rows = [fields.index(name) for name in modality.BIASED]
    for number in numbers:
        estimate, spec, _ = signed[number]
        theta = np.asarray(estimate.box.encode(as_vector(spec, modality.FIELDS)), np.float64)
        covariance = verdict.covariance_of(estimate, fields) + estimate.added
        cases.append(_Case(number, covariance, theta))
    stopped = [c for c in cases if np.any(np.abs(c.theta[rows]) > 0.999)]
    found = [signed[c.number][0] for c in stopped]
    problems = [widened(e.problem, modality, geometry) for e in found]
    for case, theta in zip(stopped, _fitted(found, problems, [c.theta for c in stopped], how), strict=True):
        case.theta[rows] = theta[rows]
    return cases


def widened(problem: fits.Problem, modality: Modality, geometry: Any) -> fits.Problem:
    """The problem with a longer reach in the parameters that specimens pull, where the model holds that far."""
    fields = names(modality.FIELDS)
    reach = np.array([REACH if name in modality.BIASED else 1.0 for name in fields])
    middle, half = np.asarray(problem.box.middle), np.asarray(problem.box.half)
    ends = zip(fields, middle - reach * half, middle + reach * half, strict=True)
    try:
        modality.check_ranges({name: (float(low), float(high)) for name, low, high in ends}, geometry)
    except ValueError:
        return problem
    return problem._replace(reach=reach)


class Stage(NamedTuple):
    """What a rehearsal is of: an estimate, its spec, parameters in box units, the stack."""

    estimate: Estimate
    spec: Any
    theta: np.ndarray
    sample: Sample


def rehearsed(stages: Sequence[Stage], modality: Modality, geometry: Any) -> list[fits.Problem | None]:
    """The stacks' problems with the statistics that their specimens, restored at `theta`, are expected to give; None where the
    network sees a Gaussian field, in which the evidence is right as it is."""
    seen = [_stack(stage, modality, geometry) for stage in stages]
    found = explain.glances(seen, network=NETWORK)
    return [_problem(*each, modality, geometry) for each in zip(stages, seen, found, strict=True)]


def _stack(stage: Stage, modality: Modality, geometry: Any) -> explain.Case:
    free = dict(zip(names(modality.FIELDS), stage.estimate.box.decode(jnp.asarray(stage.theta, jnp.float32)), strict=True))
    at = replace(stage.spec, **{name: free[name] for name in modality.BIASED})
    photons, background = with_read_noise(stage.sample)
    return explain.models(photons, background, at, modality, geometry, largest=photons.shape)(at)


def _problem(stage: Stage, stack: explain.Case, found: Glance, modality: Modality, geometry: Any) -> fits.Problem | None:
    if found.contrast <= explain.TELLING:
        return None
    signal = np.asarray(stack.operator.apply(found.x), np.float64)[None]
    return expected(widened(stage.estimate.problem, modality, geometry), signal, with_read_noise(stage.sample)[1])


def expected(problem: fits.Problem, signal: np.ndarray, background: float) -> fits.Problem:
    """The problem as a stack with this mean gives it in the mean: the signal's periodogram on the noise's white level.

    Args:
        signal: (1, *axes) photons without background.
        background: photons, the variance of the read noise in it.
    """
    statistic = periodogram(signal, block=problem.block.shape, finer=problem.finer)
    level = noise_level(signal + background, np.ones_like(signal), 0.0, None)
    cross = statistic.cross + np.diag(level)[(..., *(None,) * (signal.ndim - 1))]
    return problem._replace(statistic=statistic._replace(cross=cross), noise=level)


def _fitted(
    found: Sequence[Estimate], problems: Sequence[fits.Problem], thetas: Sequence[np.ndarray], how: Lanes
) -> list[np.ndarray]:
    """Box-scaled parameters (P,) at which the better spectrum of each stack ends, from `thetas`."""
    ended: list[Any] = [None] * len(found)
    for family in fits.FAMILIES:
        own = [n for n, e in enumerate(found) if e.fits[0].family == family]
        if own:
            again = fits.ends([problems[n] for n in own], [found[n].fits[0] for n in own], [thetas[n] for n in own], how=how)
            for n, theta in zip(own, again, strict=True):
                ended[n] = theta
    return ended


def _without(one: Signed, case: _Case, pull: np.ndarray, modality: Modality) -> Signed:
    """The estimate with the pull (box units) taken off."""
    estimate, spec, margin = one
    if not np.isfinite(pull).all():
        return one
    values, covariance = taken_off(pull, case.theta, case.covariance, [estimate], modality)
    spec = replace(spec, **values)
    return estimate._replace(spec=spec, added=estimate.added + covariance - case.covariance), spec, margin


def taken_off(
    pull: np.ndarray, theta: np.ndarray, covariance: np.ndarray, found: Sequence[Estimate], modality: Modality
) -> tuple[dict[str, np.float32], np.ndarray]:
    """New values, in their units and ranges, of the free parameters that specimens pull, and the covariance that is left.

    A rehearsed pull is a measurement as noisy as the estimate, and is weighed against how far specimens usually pull.
    """
    middle, half = (np.asarray(v, np.float64) for v in (found[0].box.middle, found[0].box.half))
    values, left, noise = {}, covariance.copy(), photon_noise(found) * half
    for i in (n for n, name in enumerate(names(modality.FIELDS)) if name in modality.BIASED and half[n] > 0):
        limit, usual = LIMIT * float(np.sqrt(covariance[i, i])), modality.BIASED[modality.FIELDS[i].name]
        share = 1 / (1 + (noise[i] / usual) ** 2)
        value = middle[i] + theta[i] * half[i] - share * float(np.clip(pull[i] * half[i], -limit, limit))
        values[modality.FIELDS[i].name] = np.float32(np.clip(value, middle[i] - half[i], middle[i] + half[i]))
        left[i, :] *= LEFT
        left[:, i] *= LEFT
    return values, left


def photon_noise(found: Sequence[Estimate]) -> np.ndarray:
    """(P,) 1 sigma in box units that light alone gives a parameter, in the mean over stacks: what Fisher's information says."""
    p = np.size(found[0].box.half)
    mean = np.mean([fits.information(e.fits[0], p) for e in found], axis=0)
    return np.sqrt(np.diagonal(np.linalg.inv(mean)))
