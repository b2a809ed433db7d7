"""One spec for many stacks of one instrument: the sum of their evidences, each stack with its own noise level and spectrum.

    q = (theta, nuisance_1, ..., nuisance_N),   F = the stacks' Fisher matrices, added in theta, side by side elsewhere

Signs are decided by the sum of the stacks' margins, a small aberration by the mean of what `parity` finds in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import bias, evidence, fisher_scoring, parity, verdict
from diffphys.calibrate import fit as fits
from diffphys.calibrate.blind import Case, judged, prepare
from diffphys.calibrate.covariance import doubled, propagated
from diffphys.calibrate.estimate import Estimate, Progress, estimates, theta_of, windowed
from diffphys.calibrate.lanes import Lanes
from diffphys.calibrate.twins import decided, plain, with_read_noise
from diffphys.noise import Detector
from diffphys.spec import as_vector, from_vector, names
from diffphys.types import Array, Calibration, Modality

STEPS = 60


def shared_spec(
    stacks: Sequence[Any], modality: Modality, *, geometry: Any, detectors: Sequence[Detector | None],
    ranges: Mapping[str, Sequence[float]] | None, seed: int, progress: Progress, how: Lanes,
) -> list[Calibration]:  # fmt: skip
    """One calibration per stack, all with the same spec and covariance; arguments as of `calibrate_batch`."""
    if windowed(geometry):
        raise ValueError("one spec for many stacks takes one blur per stack; set depth_anchors to 1 in the optics")
    cases = [prepare(y, modality, geometry, d, ranges) for y, d in zip(stacks, detectors, strict=True)]
    alone = estimates([case.sample for case in cases], modality, geometry, how, lambda f, text: progress(0.6 * f, text))
    progress(0.6, "one spec for all")
    found = _joined(alone, modality)
    progress(0.9, "sign of the aberration")
    found, spec, margin = _signed(found, cases, modality, geometry, how)
    covariance = verdict.joint_covariance(found, names(modality.FIELDS))
    if margin is not None and margin < verdict.SURE_OF_SIGN:
        covariance = covariance + doubled(modality, plain(geometry), spec, covariance)
    if margin is not None:
        progress(0.95, "small aberrations")
        found, spec, covariance = _near_zero(found, spec, covariance, cases, modality, geometry, seed, how)
    progress(0.98, "pull of the specimens")
    spec, covariance = _without_pull(found, spec, covariance, cases, modality, geometry)
    progress(1.0, "done")
    told: dict[str, Any] = {"seed": seed, "covariance": covariance}
    return [judged(case, e, spec, margin, modality, geometry, **told) for case, e in zip(cases, found, strict=True)]


def _joined(alone: Sequence[Estimate], modality: Modality) -> list[Estimate]:
    """The estimates with one theta under each spectrum."""
    problems = [e.problem._replace(share=1 / len(alone)) for e in alone]
    values = {name: _mean([e.amplitudes[name] for e in alone]) for name in alone[0].amplitudes}
    return _refitted(alone, problems, values, modality)


def _refitted(
    before: Sequence[Estimate], problems: Sequence[fits.Problem], values: Mapping[str, float], modality: Modality,
    start: np.ndarray | None = None,
) -> list[Estimate]:  # fmt: skip
    """Both spectra fitted with one theta, the one that is more credible for all stacks first; `values` of modulating ones."""
    families = [
        _fitted(problems, [next(f for f in e.fits if f.family == name) for e in before], start) for name in fits.FAMILIES
    ]
    families.sort(key=lambda found: -sum(fit.log_evidence for fit in found))
    pairs = zip(*families, strict=True)
    found = [e._replace(fits=list(pair), problem=p) for e, pair, p in zip(before, pairs, problems, strict=True)]
    theta = theta_of(found[0].box, found[0].fits, names(modality.FIELDS), values)
    return [e._replace(spec=from_vector(modality.Spec, modality.FIELDS, theta)) for e in found]


def _mean(amplitudes: Sequence[Any]) -> float:
    weights = [1 / verdict.variance_of(a) for a in amplitudes]
    return float(np.average([a.value for a in amplitudes], weights=weights))


def _fitted(problems: Sequence[fits.Problem], own: Sequence[fits.Fit], start: np.ndarray | None) -> list[fits.Fit]:
    """Fits of one family with one theta, from `start` or else from the stacks' own."""
    with problems[0].precision():
        made = [fits.make(problem, own[0].family) for problem in problems]
        model, dtype = made[0][0], problems[0].dtype
        data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[m[1] for m in made])
        p = model.parameters
        tail = np.concatenate([fit.q[0, p:] for fit in own])
        thetas = _starts(own, p) if start is None else [start]
        starts = np.stack([np.concatenate([np.clip(t, -1, 1), tail]) for t in thetas])
        q, value = jax.device_get(_minimised(model, data, jnp.asarray(starts, dtype), jnp.int32(STEPS)))
        q = q[np.argmin(np.where(np.isfinite(value), value, np.inf))]
    return fits.described(problems, own[0].family, [np.append(q[:p], part)[None] for part in np.split(q[p:], len(own))])


def _starts(own: Sequence[fits.Fit], p: int) -> list[np.ndarray]:
    """The mean of the stacks' own theta, weighted by what each knows, and those of the two that know most."""
    known = [fits.information(fit, p) for fit in own]
    thetas = [fit.q[0, :p].astype(np.float64) for fit in own]
    mean = np.linalg.solve(sum(known), sum(k @ t for k, t in zip(known, thetas, strict=True)))
    best = np.argsort([-np.linalg.slogdet(k)[1] for k in known])[:2]
    return [mean, *(thetas[i] for i in best)]


@partial(jax.jit, static_argnames=("model",))
def _minimised(model: evidence.Model, data: evidence.Data, starts: Array, iterations: Array) -> tuple[Array, Array]:
    """Joint parameters (S, P + N R) and values (S,); leaves of `data` carry the stack in front."""
    p, count = model.parameters, len(data.cross)

    def joined(low: Array) -> Array:
        return jnp.concatenate([low[0, :p], low[:, p:].ravel()])

    def evaluate(q: Array) -> tuple[Array, Array, Array]:
        each = jnp.concatenate([jnp.broadcast_to(q[:p], (count, p)), q[p:].reshape(count, -1)], axis=1)
        value, gradient, fisher = jax.lax.map(lambda part: evidence.evaluate(model, *part)[:3], (data, each))
        return value.sum(), jnp.concatenate([gradient[:, :p].sum(0), gradient[:, p:].ravel()]), arrow(fisher, p)

    box = fisher_scoring.Box(joined(data.low), joined(data.high), joined(data.step))

    def one(q: Array) -> tuple[Array, Array]:
        state = fisher_scoring.minimise(evaluate, box, q, mask=jnp.ones_like(q), iterations=iterations)
        return state.q, state.value

    return jax.lax.map(one, starts)


def arrow(fisher: Array, p: int) -> Array:
    """(P + N R, P + N R) of the stacks' (N, P + R, P + R): shared parameters first."""
    corner, side = fisher[:, :p, :p].sum(0), jnp.concatenate(list(fisher[:, :p, p:]), axis=1)
    own = jax.scipy.linalg.block_diag(*fisher[:, p:, p:])
    return jnp.block([[corner, side], [side.T, own]])


def _signed(
    found: list[Estimate], cases: Sequence[Case], modality: Modality, geometry: Any, how: Lanes
) -> tuple[list[Estimate], Any, float | None]:
    """The spec or its twin, whichever the stacks together prefer."""
    signed = decided(found, [case.sample for case in cases], [None] * len(found), modality, geometry, how)
    if signed[0][2] is None:
        return found, found[0].spec, None
    own = names(modality.FIELDS)
    keeps = [all(float(getattr(s, n)) == float(getattr(found[0].spec, n)) for n in own) for _, s, _ in signed]
    total = sum((1 if kept else -1) * float(m or 0.0) for kept, (_, _, m) in zip(keeps, signed, strict=True))
    twin = modality.twin(found[0].spec, geometry=geometry, ranges=cases[0].sample.ranges)
    return found, found[0].spec if total >= 0 else twin, abs(total)


def _near_zero(
    found: list[Estimate], spec: Any, covariance: np.ndarray, cases: Sequence[Case], modality: Modality, geometry: Any,
    seed: int, how: Lanes,
) -> tuple[list[Estimate], Any, np.ndarray]:  # fmt: skip
    """Where the evidence says little about the aberration, `parity` measures it in every stack; see `near_zero`."""
    derived, flat = propagated(modality, geometry, spec, covariance), plain(geometry)
    if not parity.asked(modality, spec, derived, found[0].box, geometry=flat):
        return found, spec, covariance
    flatter = parity.matched(modality, spec, flat, found[0].box)
    questions = [parity.Question(*with_read_noise(case.sample), flatter) for case in cases]
    measured = parity.pooled([one[:2] for one in parity.small(questions, modality, flat, seed=seed, how=how)])
    goal = parity.merged(next(iter(derived.values())), measured)
    root = np.sqrt(len(found))  # the stacks carry one link together
    link, start, response = parity.link(modality, flat, spec, goal, found[0].box, covariance)
    problems = [e.problem._replace(link=link._replace(sigma=link.sigma * root)) for e in found]
    found = _refitted(found, problems, {}, modality, start)
    spec = parity.held(modality, found[0].spec, flat, goal[0], found[0].box)
    return found, spec, verdict.joint_covariance(found, names(modality.FIELDS)) + np.outer(response, response) * goal[1] ** 2


def _without_pull(
    found: list[Estimate], spec: Any, covariance: np.ndarray, cases: Sequence[Case], modality: Modality, geometry: Any
) -> tuple[Any, np.ndarray]:
    """What the specimens do to the estimate together; see `bias`."""
    flat, box = plain(geometry), found[0].box
    if not bias.asked(modality, flat, found[0]):
        return spec, covariance
    theta = np.asarray(box.encode(as_vector(spec, modality.FIELDS)), np.float64)
    stages = [bias.Stage(e, spec, theta, case.sample) for e, case in zip(found, cases, strict=True)]
    each = bias.rehearsed(stages, modality, flat)
    problems = [problem for problem in each if problem is not None]
    if len(problems) < len(each):
        return spec, covariance
    best = found[0].fits[0].family
    (ended, *_) = _fitted(problems, [next(f for f in e.fits if f.family == best) for e in found], theta)
    pull = ended.q[0, : theta.size] - theta
    if not np.isfinite(pull).all():
        return spec, covariance
    values, covariance = bias.taken_off(pull, theta, covariance, found, modality)
    return replace(spec, **values), covariance
