"""Plug-and-play FISTA: accelerated gradient steps on the likelihood, a training-free denoiser as the prior.

    z <- max(0, D( v - t A^T W (A v + b - y) ; strength t u )),   v <- z + momentum (z - z_before)

W is the inverse variance of each datum, t = 1 / |A^T W A| the step. D is cycle-spun wavelet shrinkage (`wavelets.denoise`),
whose threshold is a weight times t as in a proximal map; the weight is counted in u = |W^(1/2) A|, the noise that the gradient
carries in one voxel. How far to go, the noise decides: nine tenths of the photons are reconstructed first, and the iteration
that predicts the last tenth best is where the run on all of them stops.

Beck & Teboulle (SIAM J. Imaging Sci. 2:183, 2009); Kamilov, Mansour & Wohlberg (IEEE SPL 24:1872, 2017); restart: O'Donoghue &
Candes (Found. Comput. Math. 15:715, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.operator import Operator
from diffphys.reconstruct.held_out import FLOOR, KEEP, SHARE, allowed, deviance, thin
from diffphys.reconstruct.iterate import CHUNK, Callback, Problem, Solution, run, shifted
from diffphys.reconstruct.richardson_lucy import LATER, make_fit, past_minimum, start
from diffphys.reconstruct.wavelets import denoise
from diffphys.types import Array, Status

CURVES = {"held_out": "held-out negative log-likelihood per voxel", "change": "relative change per step"}
STRENGTH = 3.5  # between the best of 1, 2, 3, 4, 6 over fresh scenes of three families at 130 to 770 photons
SMOOTH = 2  # half width, in voxels, of the box whose mean photons stand for a datum's variance


class Fit(NamedTuple):
    """Constants of one run, in photons: `inverse_variance` is W, `threshold` belongs to one step; `held` only scores."""

    operator: Operator
    signal: Array
    inverse_variance: Array
    step: Array
    threshold: Array
    held: Array
    pedestal: Array


class State(NamedTuple):
    """Iterate, its extrapolation, and FISTA's momentum number."""

    x: Array
    ahead: Array
    momentum: Array


@dataclass(frozen=True)
class Step:
    """One accelerated step, and what is watched of it. Four real FFTs, six when held-out photons score it; one denoiser."""

    watch: str = "change"
    levels: int = 4

    def __call__(self, fit: Fit, state: State) -> tuple[State, Array]:
        misfit = fit.inverse_variance * (fit.operator.apply(state.ahead) - fit.signal)
        moved = state.ahead - fit.step * fit.operator.adjoint(misfit)
        x = jnp.maximum(denoise(moved, fit.threshold, levels=self.levels), 0.0)
        uphill = jnp.sum((state.ahead - x) * (x - state.x)) > 0  # the momentum points the wrong way: start it afresh
        before = jnp.where(uphill, 1.0, state.momentum)
        momentum = 0.5 * (1 + jnp.sqrt(1 + 4 * before**2))
        ahead = x + jnp.where(uphill, 0.0, (before - 1) / momentum) * (x - state.x)
        return State(x, ahead, momentum), self.value(fit, state.x, x)

    def value(self, fit: Fit, before: Array, x: Array) -> Array:
        if self.watch == "held_out":
            return deviance(fit.held, SHARE * jnp.maximum(fit.operator.apply(x) + fit.pedestal, FLOOR))
        return jnp.linalg.norm((x - before).ravel()) / jnp.maximum(jnp.linalg.norm(x.ravel()), 1e-30)


def pnp_fista(
    problem: Problem,
    *,
    strength: float = STRENGTH,
    levels: int | None = None,
    iterations: int = 200,
    stopping: str = "auto",
    tolerance: float = 1e-3,
    seed: int = 0,
    callback: Callback | None = None,
) -> Solution:
    """Plug-and-play reconstruction on the extended specimen, without any training.

    Args:
        problem: data and operator.
        strength: of the shrinkage, in units of the noise that the gradient carries; 0: none.
        levels: scales of the wavelets, 1 to 8; None: 4, fewer where the specimen's shortest axis has fewer than 64 samples.
        iterations: cap.
        stopping: "held_out": the iteration k that predicts a thinned-off tenth of the photons best sets the number run on
            all of them, k^1.05. "change": stop when the relative change of x stayed below `tolerance` for ten steps.
            "auto": held_out for integer photons or known read noise, else change.
        tolerance: see `stopping`.
        seed: of the thinning.
        callback: (iterations done, watched value) -> False to stop.

    Returns:
        Solution; its curve holds the watched value after every step.
    """
    if stopping not in ("auto", *CURVES):
        raise ValueError(f"stopping is {stopping!r}; expected one of {('auto', *CURVES)}")
    if levels is None:
        levels = max(1, min(4, (min(problem.operator.specimen) // 4).bit_length() - 1))
    if not 1 <= levels <= 8 or levels != int(levels):
        raise ValueError(f"levels is {levels}; expected a whole number of 1 to 8")
    if iterations < 1 or not strength >= 0:
        raise ValueError(f"iterations is {iterations}, strength {strength}; expected at least 1 and at least 0")
    rule = stopping if stopping != "auto" else "held_out" if allowed(problem) else "change"
    step = Step(rule, int(levels))
    if rule == "held_out":
        return _held_out(problem, step, strength, iterations, seed, callback)

    def settled(values: Sequence[float]) -> bool:
        return len(values) >= CHUNK and max(values[-CHUNK:]) < tolerance

    fit, state = prepare(problem, strength)
    result = run(step, fit, state, iterations=iterations, finished=settled, callback=callback)
    return Solution(result.state.x, result.status, len(result.values), result.values, CURVES[rule])


def _held_out(problem: Problem, step: Step, strength: float, iterations: int, seed: int, callback: Callback | None) -> Solution:
    """Find the number of iterations on KEEP of the photons, then run it on all of them."""
    less, held = thin(problem, seed=seed)
    fit, state = prepare(less, strength, held=held)
    first = run(step, fit, state, iterations=iterations, finished=past_minimum, callback=callback)
    offset, name = len(first.values), CURVES["held_out"]
    if first.status in (Status.NONFINITE, Status.INTERRUPTED):
        return Solution(first.state.x / KEEP, first.status, offset, first.values, name)
    goal = min(iterations, max(1, int((np.argmin(first.values) + 1) ** LATER)))
    fit, state = prepare(problem, strength)
    second = run(Step("change", step.levels), fit, state, iterations=goal, callback=shifted(callback, offset))
    status = first.status if second.status == Status.CONVERGED else second.status
    return Solution(second.state.x, status, len(second.values), first.values, name)


def prepare(problem: Problem, strength: float, *, held: Array | None = None) -> tuple[Fit, State]:
    """Constants, step length and start."""
    op, inverse = problem.operator, 1.0 / variance(problem)
    step = 1.0 / _norm_squared(op, inverse)
    point = op.apply(jnp.zeros(op.specimen).at[tuple(n // 2 for n in op.specimen)].set(1.0))
    axes = tuple(range(-len(op.field), 0))
    noise = jnp.sqrt(jnp.sum(jnp.mean(inverse, axis=axes, keepdims=True) * point**2))
    pedestal, signal = problem.background + problem.read_variance, problem.photons - problem.background
    x = start(make_fit(problem))
    held = problem.photons if held is None else held
    fit = Fit(op, signal, inverse, step, strength * step * noise, held, pedestal)
    return fit, State(x, x, jnp.ones((), x.dtype))


def variance(problem: Problem) -> Array:
    """Variance of each datum: photons averaged over a small box, plus read noise; axes of the measurement."""
    photons, ndim = np.asarray(problem.photons, np.float64), len(problem.operator.field)
    box = [2 * SMOOTH + 1 if axis >= photons.ndim - ndim else 1 for axis in range(photons.ndim)]
    mean = np.maximum(scipy.ndimage.uniform_filter(photons, box, mode="reflect"), 1.0)
    return jnp.asarray(mean, problem.photons.dtype) + problem.read_variance


@jax.jit
def _norm_squared(op: Operator, inverse_variance: Array) -> Array:
    """Largest eigenvalue of A^T W A, from above: power iteration from a flat specimen plus 2 %."""

    def turn(x: Array, _: None) -> tuple[Array, Array]:
        image = op.adjoint(inverse_variance * op.apply(x / jnp.maximum(jnp.linalg.norm(x.ravel()), 1e-30)))
        return image, jnp.linalg.norm(image.ravel())

    return 1.02 * jnp.maximum(jax.lax.scan(turn, jnp.ones(op.specimen), length=30)[1][-1], 1e-30)
