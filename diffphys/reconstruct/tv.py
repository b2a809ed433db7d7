"""Total variation: min over x >= 0 of D(A x + b; y) + w TV(x), solved to convergence by the primal-dual method.

D is the Poisson negative log-likelihood or its Gaussian approximation with fixed variances. Chambolle & Pock (J. Math.
Imaging Vis. 40:120, 2011), the case of Condat (2013) and Vu (2013) without a smooth term; the dual step sizes of data and
gradient differ (Pock & Chambolle, ICCV 2011). TV is isotropic in micrometres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.operator import Operator
from diffphys.reconstruct.differences import divergence, gradient, magnitude, total_variation
from diffphys.reconstruct.held_out import FLOOR, KEEP, SHARE, allowed, deviance, thin
from diffphys.reconstruct.iterate import CHUNK, Callback, Problem, Run, Solution, noise_weight, run, shifted
from diffphys.reconstruct.richardson_lucy import make_fit, start
from diffphys.types import Array, Status

CURVE = "relative change per step"
DATA_TERMS = ("poisson", "gaussian")
STRENGTH = 0.75  # median of the best weights over 18 scenes and photon levels, in units of `noise_weight`
PATH = tuple(STRENGTH * 2.0**k for k in (2, 1, 0, -1, -2, -3, -4, -5, -6))  # weights tried on the thinned data
WARM = 60  # steps for each of them, started from the one before


class Fit(NamedTuple):
    """Constants of one run, in photons. `variance` is used by the Gaussian data term only."""

    operator: Operator
    counts: Array
    pedestal: Array
    variance: Array
    weight: Array
    pitch: Array
    tau: Array
    sigma_data: Array
    sigma_slope: Array


class State(NamedTuple):
    """Primal x, its extrapolation, and the duals of the data (axes of y) and of the gradient (one per axis)."""

    x: Array
    ahead: Array
    data: Array
    slope: tuple[Array, ...]


@dataclass(frozen=True)
class Step:
    """One primal-dual step; the value is the relative change of x. Four real FFTs."""

    data_term: str = "poisson"

    def __call__(self, fit: Fit, state: State) -> tuple[State, Array]:
        data = self.prox(fit, state.data + fit.sigma_data * fit.operator.apply(state.ahead))
        rising = gradient(state.ahead, fit.pitch)
        slope = tuple(p + fit.sigma_slope * g for p, g in zip(state.slope, rising, strict=True))
        shrink = 1.0 / jnp.maximum(1.0, magnitude(slope) / jnp.maximum(fit.weight, 1e-30))
        slope = tuple(p * shrink for p in slope)
        x = state.x - fit.tau * (fit.operator.adjoint(data) - divergence(slope, fit.pitch))
        x = jnp.maximum(x, 0.0)
        change = jnp.linalg.norm((x - state.x).ravel()) / jnp.maximum(jnp.linalg.norm(x.ravel()), 1e-30)
        return State(x, 2 * x - state.x, data, slope), change

    def prox(self, fit: Fit, v: Array) -> Array:
        """Proximal map of the conjugate data term, step sigma_data, element by element."""
        sigma = fit.sigma_data
        if self.data_term == "gaussian":
            return (v - sigma * (fit.counts - fit.pedestal)) / (1 + sigma * fit.variance)
        shifted = v + sigma * fit.pedestal
        return 0.5 * (1 + shifted - jnp.sqrt((shifted - 1) ** 2 + 4 * sigma * fit.counts))

    def objective(self, fit: Fit, x: Array) -> Array:
        """What is minimised, in nats (Poisson: relative to a perfect fit)."""
        mean = fit.operator.apply(x) + fit.pedestal
        if self.data_term == "gaussian":
            misfit = 0.5 * jnp.sum((mean - fit.counts) ** 2 / fit.variance)
        else:
            misfit = fit.counts.size * deviance(fit.counts, jnp.maximum(mean, FLOOR))
        return misfit + fit.weight * total_variation(x, fit.pitch)


def tv(
    problem: Problem,
    *,
    weight: float | None = None,
    data_term: str = "poisson",
    iterations: int = 1000,
    tolerance: float = 2e-4,
    level: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> Solution:
    """Total-variation reconstruction on the extended specimen.

    Args:
        problem: data and operator.
        weight: of the total variation, in nats per photon of difference (per smallest voxel). None: `held_out_weight` where
            the data are whole photons or carry a known read noise, else STRENGTH times `noise_weight`.
        data_term: "poisson", or "gaussian" with the variances max(y, 1) + read variance.
        iterations: cap.
        tolerance: stop when the relative change of x stayed below it for ten steps.
        level: mean photons per voxel that the flat start and the step sizes follow; None: of the data. Tiles of one volume
            share it, and the weight.
        seed: of the thinning that chooses the weight.
        callback: (iterations done, relative change) -> False to stop.

    Returns:
        Solution; its curve holds the relative change per step.
    """
    if data_term not in DATA_TERMS:
        raise ValueError(f"data_term is {data_term!r}; expected one of {DATA_TERMS}")
    if iterations < 1 or (weight is not None and not weight >= 0):
        raise ValueError(f"iterations is {iterations}, weight {weight}; expected at least 1 and at least 0")

    def settled(values: Sequence[float]) -> bool:
        return max(values[-CHUNK:]) < tolerance

    first, offset = None, 0
    if weight is None and allowed(problem):
        weight, first, offset = held_out_weight(problem, seed=seed, callback=callback)
        if first.status != Status.CONVERGED:
            return Solution(first.state.x, first.status, offset, first.values, CURVE)
    fit, fresh = prepare(problem, STRENGTH * noise_weight(problem) if weight is None else weight, level=level)
    state = fresh if first is None else first.state
    onwards = shifted(callback, offset)
    result = run(Step(data_term), fit, state, iterations=iterations, finished=settled, callback=onwards)
    return Solution(result.state.x, result.status, len(result.values), result.values, CURVE)


def held_out_weight(problem: Problem, *, seed: int = 0, callback: Callback | None = None) -> tuple[float, Run, int]:
    """The weight of PATH whose solution from nine tenths of the photons predicts the last tenth best.

    Descends from strong to weak, warm-started, until the prediction gets worse.

    Returns:
        The weight, its run with the solution scaled to all photons (not CONVERGED: it was cut short), steps done in all.
    """
    less, held = thin(problem, seed=seed)
    unit, steps, found = noise_weight(problem), 0, PATH[0]
    best: tuple[float, Run | None] = (np.inf, None)
    for strength in PATH:
        fit, fresh = prepare(less, strength * unit)
        before = best[1]
        trial = run(Step(), fit, before.state if before else fresh, iterations=WARM, callback=shifted(callback, steps))
        steps += len(trial.values)
        mean = jnp.maximum(fit.operator.apply(trial.state.x) + fit.pedestal, FLOOR)
        score = float(deviance(held, SHARE * mean))
        if trial.status == Status.CONVERGED and before and not score < best[0]:
            break
        found, best = strength, (score, trial)
        if trial.status != Status.CONVERGED:
            break
    assert best[1] is not None  # the first trial is always taken
    x, ahead = best[1].state.x / KEEP, best[1].state.ahead / KEEP
    return found * unit, best[1]._replace(state=best[1].state._replace(x=x, ahead=ahead)), steps


def prepare(problem: Problem, weight: float, *, level: float | None = None) -> tuple[Fit, State]:
    """Constants, step sizes and start. Steps obey tau (sigma_data |A|^2 + sigma_slope |grad|^2) < 1."""
    base = make_fit(problem)
    x = start(base, level=level)
    light = jnp.maximum(jnp.mean(base.counts) if level is None else level + jnp.mean(base.pedestal), 1e-3)
    sigma_data, sigma_slope = 0.05 / light, 0.02 / light
    bound = sigma_data * base.operator.norm() ** 2 + sigma_slope * 4 * jnp.sum(problem.pitch**-2.0)
    fit = Fit(
        base.operator, base.counts, base.pedestal, jnp.maximum(problem.photons, 1.0) + problem.read_variance,
        jnp.asarray(weight, x.dtype), problem.pitch, 0.99 / bound, sigma_data, sigma_slope,
    )  # fmt: skip
    return fit, State(x, x, jnp.zeros_like(base.counts), (jnp.zeros_like(x),) * x.ndim)
