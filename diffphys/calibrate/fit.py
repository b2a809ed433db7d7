"""Fit of the evidence: starts over the box, hyper-parameters warmed up first, the best finalists polished.

Every function takes several stacks of one geometry; see `lanes` for how they share programs and devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import evidence, fisher_scoring, spectra
from diffphys.calibrate.lanes import ONE, Lanes, over
from diffphys.calibrate.periodogram import Periodogram, frequencies
from diffphys.cores import at_once
from diffphys.spec import Box, from_vector, pitch_um
from diffphys.types import Array, Modality

FAMILIES = ("matern", "spline")
WARM_UP, SIFT, JOINT, POLISH = 8, 6, 14, 40  # iterations
KEPT, FINALISTS = 5, 2  # starts after the sieve (in 10 simulated draws the best was never below rank 3 there), and at the end
APART = 0.15  # of a box-scaled parameter: below, two starts have found the same
OPEN = 3.0  # nats: no further behind the best, a start has not lost; the screening spectrum sees little in dim specimens
SOFT = 2e-3


class Link(NamedTuple):
    """What another source knows of one combination of the parameters: slope @ theta = value +- sigma, theta in box units."""

    slope: np.ndarray
    value: float
    sigma: float


class Problem(NamedTuple):
    """What is fitted: a modality's block instrument and the data statistic of its blocks; `depth_um` of each depth window."""

    modality: Modality
    block: Any
    statistic: Periodogram
    noise: np.ndarray
    noise_sd: float
    box: Box
    finer: tuple[int, ...]
    depth_um: tuple[float, ...] | None = None
    link: Link | None = None
    share: float = 1.0  # of the parameters' prior, where several stacks have one spec
    reach: Any = 1.0  # half widths of the box that the parameters may move from its middle

    @property
    def dtype(self) -> Any:
        """Frames that share a specimen have a nearly singular covariance where the light is bright: double precision."""
        return jnp.float64 if len(self.noise) > 1 else jnp.float32

    def precision(self) -> AbstractContextManager[Any]:
        return jax.enable_x64(self.dtype == jnp.float64)


class Fit(NamedTuple):
    """One family's result.

    Attributes:
        family: name of the spectrum.
        q: (F, Q) finalists, best first.
        value: (F,) penalised NLL.
        point: evidence at the best one.
        covariance: (K, K, *quadrant) model covariance of the frames at the best one.
        penalty: its share of `value` that the prior makes.
        log_evidence: minus the NLL with the hyper-parameters integrated out (Laplace), comparable between families.
    """

    family: str
    q: np.ndarray
    value: np.ndarray
    point: evidence.Point
    covariance: np.ndarray
    penalty: float
    log_evidence: float


@lru_cache(maxsize=32)
def model_of(
    modality: Modality, block: Any, family: str, finer: tuple[int, ...], *, windows: int | None = None
) -> tuple[evidence.Model, spectra.Spectrum]:
    """Static part for a block geometry and a spectrum family; cached so that equal shapes share a trace.

    Depth windows are short: their PSF may be `finer` times as long as they are.
    """
    pitch = pitch_um(block)
    spectrum = getattr(spectra, family)(pitch[-1] / pitch[0] if len(pitch) == 3 else 1.0)
    if windows is not None:
        spectrum = spectra.windowed(spectrum, windows)
        block, finer = modality.block(block, (finer[0] * block.shape[0], *block.shape[1:])), (1, *finer[1:])

    def otf(theta: Array, depth_um: Array | None) -> tuple[Array, Array]:
        spec = from_vector(modality.Spec, modality.FIELDS, theta)
        quadrant: Callable[..., tuple[Array, Array]] = partial(modality.otf_quadrant, spec, geometry=block, finer=finer)
        return quadrant() if depth_um is None else jax.vmap(lambda d: quadrant(depth_um=d), out_axes=1)(depth_um)

    depths = None if windows is None else jnp.zeros(windows)
    frames = jax.eval_shape(otf, jnp.zeros(len(modality.FIELDS)), depths)[0].shape[0]
    return evidence.Model(otf, spectrum.log, len(modality.FIELDS), frames), spectrum


def _minimised(model: evidence.Model, data: evidence.Data, q: Array, iterations: Array) -> tuple[Array, Array]:
    """Parameters (Q,) and value that the iteration from `q` ends at."""

    def evaluate(q: Array) -> tuple[Array, Array, Array]:
        return evidence.evaluate(model, data, q)[:3]

    box = fisher_scoring.Box(data.low, data.high, data.step)
    state = fisher_scoring.minimise(evaluate, box, q, mask=jnp.ones_like(q), iterations=iterations)
    return state.q, state.value


def _warmed(model: evidence.Model, data: evidence.Data, q: Array, iterations: Array) -> Array:
    """`q` (Q,) with its hyper-parameters fitted; theta would otherwise run off to repair a wrong spectrum."""
    p = model.parameters
    box = fisher_scoring.Box(data.low[p:], data.high[p:], data.step[p:])
    pairs = evidence.transmitted(model, data, q[:p])

    def evaluate(tail: Array) -> tuple[Array, Array, Array]:
        return evidence.evaluate_held(model, data, jnp.concatenate([q[:p], tail]), pairs)[:3]

    state = fisher_scoring.minimise(evaluate, box, q[p:], mask=jnp.ones_like(q[p:]), iterations=iterations)
    return jnp.concatenate([q[:p], state.q])


def _each(
    fn: Callable[..., Any], model: evidence.Model, data: Sequence[evidence.Data], starts: Sequence[Any], iterations: int,
    how: Lanes,
) -> list[Any]:  # fmt: skip
    """Per stack the results of `fn` from its starts (S, Q), stacked. One start per item: one program for any number of them,
    and each ends when it is done."""
    items = [(d, q, np.int32(iterations)) for d, own in zip(data, starts, strict=True) for q in own]
    ended = iter(over(fn, (model,), items, how))
    return [jax.tree.map(lambda *v: np.stack(v), *(next(ended) for _ in own)) for own in starts]


def _described(model: evidence.Model, data: evidence.Data, q: Array) -> tuple[evidence.Point, Array, Array]:
    """The evidence at q with its per-bin pieces, the model covariance and the prior's share of the value."""
    return evidence.evaluate(model, data, q), evidence.covariance(model, data, q), evidence.prior(data, q)


def make(problem: Problem, family: str) -> tuple[evidence.Model, evidence.Data, spectra.Spectrum]:
    """Model and data of the evidence under one spectrum family."""
    windows = None if problem.depth_um is None else len(problem.depth_um)
    model, spectrum = model_of(problem.modality, problem.block, family, problem.finer, windows=windows)
    data = evidence.make_data(
        problem.statistic,
        problem.noise,
        frequencies=frequencies(problem.block.shape, pitch_um(problem.block), finer=problem.finer),
        box=(problem.box.middle, problem.box.half),
        theta_prior=_theta_prior(problem),
        reach=problem.reach,
        noise_sd=problem.noise_sd,
        spectrum=spectrum,
        dtype=problem.dtype,
        depth_um=problem.depth_um,
    )
    return model, data, spectrum


def _theta_prior(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of the box-scaled parameters: wide and independent, with the link where there is one."""
    widths = np.array([f.prior_half_widths for f in problem.modality.FIELDS])
    wide = problem.share * np.diag(widths**-2.0)
    if problem.link is None:
        return np.zeros(len(widths)), wide
    slope, value, sigma = problem.link
    precision = wide + np.outer(slope, slope) / sigma**2
    return np.linalg.solve(precision, slope * value / sigma**2), precision


def first_guess(problem: Problem, spectrum: spectra.Spectrum, thetas: np.ndarray) -> np.ndarray:
    """(S, Q) start points: box-scaled thetas (S, P), expected noise, the family's spectrum at the data's power."""
    own = np.diagonal(problem.statistic.cross, axis1=0, axis2=1)[..., 0]
    weight = problem.statistic.weight
    noise = problem.noise[0] if problem.depth_um is None else problem.noise[0][:, None, None, None]
    power = float(np.maximum((own - noise) * weight, 0).sum() / weight.sum())
    psi = spectrum.start + spectrum.amplitude * np.log(max(power, 1e-6))
    tail = np.concatenate([np.zeros(len(problem.noise)), psi])
    return np.concatenate([thetas, np.tile(tail, (len(thetas), 1))], axis=1).astype(problem.dtype)


def _order(value: Any) -> np.ndarray:
    return np.argsort(np.where(np.isfinite(value), value, np.inf))


def search(problems: Sequence[Problem], thetas: Sequence[np.ndarray], *, how: Lanes = ONE) -> list[np.ndarray]:
    """Per stack the best box-scaled parameters (F, P) from many starts (S, P), F <= FINALISTS different ones: psi warmed up
    first, then everything, the better starts for longer.

    Under the screening spectrum and on the coarse frequency grid, with white noise added to data and model alike where
    the light is bright: the valley becomes wide enough to be found, and finding it is all that is asked here.
    """
    coarse = [_coarse(p) for p in problems]
    with problems[0].precision():
        made = [make(p, "screen") for p in coarse]
        model = made[0][0]
        starts = [first_guess(p, m[2], theta) for p, m, theta in zip(coarse, made, thetas, strict=True)]
        data = [m[1] for m in made]
        warm = _each(_warmed, model, data, starts, WARM_UP, how)
        sifted = _each(_minimised, model, data, warm, SIFT, how)
        kept = [q[_order(value)[:KEPT]] for q, value in sifted]
        found = _each(_minimised, model, data, kept, JOINT, how)
    ends = [[np.concatenate(pair) for pair in zip(*both, strict=True)] for both in zip(found, sifted, strict=True)]
    return [_spread(q[:, : model.parameters], value) for q, value in ends]


def _spread(thetas: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The best of (S, P) points, then those far from it among the ones that have not lost, at most FINALISTS."""
    best = _order(value)[0]
    kept, others = thetas[best][None], thetas[value < value[best] + OPEN]
    while len(kept) < FINALISTS and len(others):
        away = np.abs(others[:, None] - kept).max(axis=2).min(axis=1)
        if away.max() <= APART:
            break
        kept = np.concatenate([kept, others[[int(np.argmax(away))]]])
    return kept


def _coarse(problem: Problem) -> Problem:
    statistic, extra = problem.statistic, softening(problem.statistic)
    cross = statistic.cross + np.diag(extra)[(..., *(None,) * (statistic.cross.ndim - 2))]
    return problem._replace(
        finer=(1,) * len(problem.finer),
        statistic=statistic._replace(cross=cross, smoothing=statistic.coarse),
        noise=(problem.noise.T + extra).T,
    )


def softening(statistic: Periodogram) -> np.ndarray:
    """(K,) white power that caps the signal-to-noise ratio of the brightest frequencies at about 1 / SOFT."""
    own = np.diagonal(statistic.cross, axis1=0, axis2=1)
    weighted = statistic.weight[..., None] * own
    axes = tuple(range(own.ndim - 1))
    return SOFT * np.sum(weighted * own, axis=axes) / np.sum(weighted, axis=axes)


def settle(problems: Sequence[Problem], family: str, thetas: Sequence[np.ndarray], *, how: Lanes = ONE) -> list[Fit]:
    """Fits of one family from box-scaled parameters (F, P) per stack."""
    with problems[0].precision():
        made = [make(p, family) for p in problems]
        starts = [first_guess(p, m[2], t) for p, m, t in zip(problems, made, thetas, strict=True)]
        warm = _each(_warmed, made[0][0], [m[1] for m in made], starts, WARM_UP, how)
    return polish(problems, family, warm, how=how)


def settle_both(problems: Sequence[Problem], thetas: Sequence[np.ndarray], *, how: Lanes = ONE) -> list[list[Fit]]:
    """Fits of both families from box-scaled parameters (F, P) per stack; each goes on from where the other ended, and the
    better of its two ends stands."""

    def settled(family: str) -> list[Fit]:
        return settle(problems, family, thetas, how=how)

    def crossed(pair: tuple[list[Fit], list[Fit]]) -> list[Fit]:
        return _crossed(problems, *pair, how)

    key = problems[0].modality, problems[0].block
    one, two = at_once(settled, FAMILIES, ("settle", *key))
    return at_once(crossed, [(one, two), (two, one)], ("cross", *key))


def _crossed(problems: Sequence[Problem], own: Sequence[Fit], other: Sequence[Fit], how: Lanes) -> list[Fit]:
    p, out = len(problems[0].modality.FIELDS), list(own)
    apart = [n for n, fit in enumerate(own) if np.abs(fit.q[0, :p] - other[n].q[0, :p]).max() > APART]
    if apart:
        thetas = [other[n].q[0, :p] for n in apart]
        again = restart([problems[n] for n in apart], [own[n] for n in apart], thetas, how=how)
        for n, fit in zip(apart, again, strict=True):
            out[n] = min(own[n], fit, key=lambda f: float(f.value[0]))
    return out


def polish(problems: Sequence[Problem], family: str, q: Sequence[np.ndarray], *, how: Lanes = ONE) -> list[Fit]:
    """Iterate to convergence from full points q, (F, Q) per stack."""
    ended = _polished(problems, family, q, how)
    return described(problems, family, [points for points, _ in ended], values=[value for _, value in ended], how=how)


def _polished(
    problems: Sequence[Problem], family: str, q: Sequence[np.ndarray], how: Lanes
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per stack where (F, Q) end, best first, and their values."""
    with problems[0].precision():
        made, dtype = [make(p, family) for p in problems], problems[0].dtype
        starts = [np.asarray(v, dtype) for v in q]
        ended = _each(_minimised, made[0][0], [m[1] for m in made], starts, POLISH, how)
    return [(points[_order(value)], value[_order(value)]) for points, value in ended]


def described(
    problems: Sequence[Problem], family: str, q: Sequence[np.ndarray], *, values: Sequence[np.ndarray] | None = None,
    how: Lanes = ONE,
) -> list[Fit]:  # fmt: skip
    """Fits that ended at q, (F, Q) per stack, best first; `values` (F,) are taken at the best where they are not given."""
    with problems[0].precision():
        made = [make(p, family) for p in problems]
        best = over(_described, (made[0][0],), [(m[1], points[0]) for m, points in zip(made, q, strict=True)], how)
    values = [np.asarray(point.value)[None] for point, _, _ in best] if values is None else values
    return [
        _fit(family, m[0], m[1], (points, np.asarray(value, np.float64)), told)
        for m, points, value, told in zip(made, q, values, best, strict=True)
    ]


def _fit(
    family: str, model: evidence.Model, data: evidence.Data, ended: tuple[np.ndarray, np.ndarray], described: tuple[Any, ...]
) -> Fit:
    (finalists, values), (point, covariance, penalty) = ended, described
    credit = -values[0] - _occam(model, data, point) if np.isfinite(values[0]) else -np.inf
    return Fit(family, finalists, values, point, np.asarray(covariance, np.float64), float(penalty), credit)


def restart(problems: Sequence[Problem], found: Sequence[Fit], thetas: Sequence[np.ndarray], *, how: Lanes = ONE) -> list[Fit]:
    """The best fits of one family iterated again from other box-scaled parameters (P,), noise and spectrum kept as start."""
    return polish(problems, found[0].family, _moved(found, thetas), how=how)


def ends(
    problems: Sequence[Problem], found: Sequence[Fit], thetas: Sequence[np.ndarray], *, how: Lanes = ONE
) -> list[np.ndarray]:
    """Only the box-scaled parameters (P,) at which `restart` ends."""
    ended = _polished(problems, found[0].family, _moved(found, thetas), how)
    return [points[0, : theta.size].astype(np.float64) for (points, _), theta in zip(ended, thetas, strict=True)]


def _moved(found: Sequence[Fit], thetas: Sequence[np.ndarray]) -> list[np.ndarray]:
    starts = []
    for fit, theta in zip(found, thetas, strict=True):
        q = fit.q[:1].copy()
        q[:, : theta.size] = theta
        starts.append(q)
    return starts


def information(fit: Fit, p: int) -> np.ndarray:
    """(P, P) Fisher information about the first `p` parameters, noise and spectrum being unknown."""
    return np.linalg.inv(np.linalg.inv(np.asarray(fit.point.fisher, np.float64))[:p, :p])


def _occam(model: evidence.Model, data: evidence.Data, point: evidence.Point) -> float:
    """Laplace's price of the hyper-parameters: half the log of how much narrower than the prior the data made them."""
    p = model.parameters
    posterior = np.asarray(point.fisher, np.float64)[p:, p:]
    prior = np.asarray(data.prior_precision, np.float64)[p:, p:]
    return 0.5 * float(np.linalg.slogdet(posterior)[1] - np.linalg.slogdet(prior)[1])
