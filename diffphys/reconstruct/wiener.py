"""Wiener filter: the linear estimate of least mean squared error, jointly over frames and exact on a cropped field.

    min over x of   sum_k |y_k - A_k x|^2 / v_k + |S^(-1/2) x|^2

v_k is the mean noise variance of frame k. The specimen's spectrum S(nu) = e^a (nu_c^2 + nu^2)^-p is fitted to the data by
Whittle's likelihood, whose signal-to-noise form for K frames is sum log(1 + S W) - S |Z|^2 / (1 + S W). The mean is not
regularised. On a torus without margin the minimum is the filter in closed form,

    x = F^-1[ Z / (W + 1/S) ],   Z = sum_k conj(H_k) Y_k / v_k,   W = sum_k |H_k|^2 / v_k

A recorded field is no torus: its continuation by blended mirror images is wrong by far more than the noise, and where the OTF
is small and S large the filter turns that into waves. So the filter is only the start, and the preconditioner, of conjugate
gradients on the field as it was recorded. Where the blur changes with depth, each anchor's PSF has its own filter, and their
estimates are blended by the anchors' weights before the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.fft import irfftn, rfftn
from diffphys.operator import Operator
from diffphys.reconstruct.iterate import Callback, Problem, Solution, run
from diffphys.types import Array, Status

CURVE = "length of the residual"
SETTLED = 0.3  # standard deviations of the estimate, over all its voxels together
SAMPLE = 60_000  # frequencies that the spectrum is fitted to; Whittle's likelihood is a sum over independent ones
BOUNDS = ((None, None), (np.log(1e-3), np.log(0.5)), (0.3, 6.0))  # a, ln nu_c (per smallest voxel), p


class Fit(NamedTuple):
    """Constants of the conjugate gradients; spectra on the half grid, `precision` broadcastable to the measurement."""

    operator: Operator
    precision: Array
    inverse_s: Array
    filter: Array


class State(NamedTuple):
    """Conjugate gradients: estimate, residual, search direction, residual times preconditioned residual."""

    x: Array
    residual: Array
    direction: Array
    product: Array


@dataclass(frozen=True)
class Step:
    """One step of preconditioned conjugate gradients; the value is the residual's length before it. Eight real FFTs."""

    def __call__(self, fit: Fit, state: State) -> tuple[State, Array]:
        image = _normal(fit, state.direction)
        length = state.product / jnp.maximum(jnp.vdot(state.direction, image), 1e-30)
        residual = state.residual - length * image
        better = _filtered(fit.operator, residual, fit.filter)
        product = jnp.vdot(residual, better)
        direction = better + product / jnp.maximum(state.product, 1e-30) * state.direction
        moved = State(state.x + length * state.direction, residual, direction, product)
        return moved, jnp.sqrt(jnp.maximum(state.product, 0.0))


def wiener(
    problem: Problem,
    *,
    noise_to_signal: float | None = None,
    spectrum: Sequence[float] | None = None,
    variance: float | None = None,
    iterations: int = 200,
    callback: Callback | None = None,
) -> Solution:
    """Wiener estimate; may be negative.

    Args:
        problem: data and operator.
        noise_to_signal: one number for all frequencies (Tikhonov), noise variance over specimen power per voxel; None:
            estimated from the data.
        spectrum: (a, ln nu_c, p) of S as `fitted_spectrum` returns it; None: fitted to the data. Tiles of one volume share
            it, and `variance`.
        variance: mean noise variance v of all frames, photons squared; None: of the data.
        iterations: cap of the conjugate gradients; 0: the filter on the continued field alone, some fifty times faster.
        callback: (iterations done, length of the residual) -> False to stop.

    Returns:
        Solution; its curve holds the residual's preconditioned length, 1 being one standard deviation of the estimate.
    """
    if noise_to_signal is not None and not noise_to_signal > 0:
        raise ValueError(f"noise_to_signal is {noise_to_signal}; expected a number above 0")
    if iterations < 0:
        raise ValueError(f"iterations is {iterations}; expected 0 or more")
    op = problem.operator
    z, w, inverse_variance = _sufficient(problem, variance)
    if noise_to_signal is None:
        law = _fit_spectrum(z, w, problem.pitch, op) if spectrum is None else spectrum
        inverse_s = _inverse_spectrum(jnp.asarray(law, w.dtype), problem.pitch, op.grid)
    else:
        inverse_s = jnp.full(z.shape[1:], noise_to_signal * inverse_variance).at[(0,) * (z.ndim - 1)].set(0.0)
    x = _estimate(op, z, w, inverse_s)
    if not bool(jnp.all(jnp.isfinite(x))):
        return Solution(jnp.nan_to_num(x), Status.NONFINITE, 0, np.zeros(0), CURVE)
    if iterations == 0:
        return Solution(x, Status.CONVERGED, 0, np.zeros(0), CURVE)

    def settled(values: Sequence[float]) -> bool:
        return values[-1] < SETTLED

    fit, state = _start(problem, w, inverse_s, x, variance)
    result = run(Step(), fit, state, iterations=iterations, finished=settled, callback=callback)
    status = Status.CONVERGED if result.status == Status.OUT_OF_STEPS else result.status  # every step is an estimate
    return Solution(result.state.x, status, len(result.values), result.values, CURVE)


def fitted_spectrum(problem: Problem, *, sample: int = SAMPLE) -> tuple[tuple[float, ...], float]:
    """(a, ln nu_c, p) of the specimen's spectrum, from `sample` frequencies, and the mean noise variance; with the default as
    `wiener` finds them in this data."""
    z, w, _ = _sufficient(problem)
    law = _fit_spectrum(z, w, problem.pitch, problem.operator, sample)
    return tuple(float(q) for q in law), float(jnp.mean(_noise(problem, None)))


@jax.jit
def white(problem: Problem, spreads: Array) -> Array:
    """Closed-form estimates on the continued field under white priors; spreads (n,) photons per voxel -> (n, *specimen)."""
    z, w, _ = _sufficient(problem)
    return jax.vmap(lambda s: _estimate(problem.operator, z, w, jnp.full(z.shape[1:], 1 / s**2)))(spreads)


def _noise(problem: Problem, variance: float | None) -> Array:
    """Noise variance of each datum, (frame, *axes)."""
    frames = problem.photons if problem.operator.framed else problem.photons[None]
    return jnp.maximum(frames, 0.0) + problem.read_variance if variance is None else jnp.full(frames.shape, variance)


@jax.jit
def _start(problem: Problem, w: Array, inverse_s: Array, x: Array, variance: float | None = None) -> tuple[Fit, State]:
    op, noise = problem.operator, _noise(problem, variance)
    mean = jnp.mean(noise, axis=tuple(range(1, noise.ndim)), keepdims=True)
    precision = 1.0 / jnp.maximum(mean if op.framed else mean[0], 1e-6)
    fit = Fit(op, precision, inverse_s, 1.0 / jnp.maximum(jnp.mean(w, axis=0) + inverse_s, 1e-20))
    residual = op.adjoint((problem.photons - problem.background) * precision) - _normal(fit, x)
    direction = _filtered(op, residual, fit.filter)
    return fit, State(x, residual, direction, jnp.vdot(residual, direction))


def _normal(fit: Fit, x: Array) -> Array:
    """(A^T V^-1 A + S^-1) x."""
    op = fit.operator
    return op.adjoint(op.apply(x) * fit.precision) + _filtered(op, x, fit.inverse_s)


def _filtered(op: Operator, x: Array, factor: Array) -> Array:
    """The specimen times a real factor on the half grid of its torus."""
    inside = tuple(slice(0, s) for s in op.specimen)
    return irfftn(rfftn(x, op.grid) * factor, op.grid)[inside]


@jax.jit
def _sufficient(problem: Problem, variance: float | None = None) -> tuple[Array, Array, Array]:
    """Z and W of each anchor on the half grid (anchor, *half grid), and the mean of 1/v_k."""
    op = problem.operator
    mask = jnp.maximum(op.modulation, 1e-2 * jnp.max(op.modulation))
    frames = problem.photons if op.framed else problem.photons[None]
    background = jnp.broadcast_to(problem.background, problem.photons.shape)
    signal = (frames - (background if op.framed else background[None])) / mask
    axes = tuple(range(1, frames.ndim))
    inverse = 1.0 / jnp.maximum(jnp.mean(_noise(problem, variance) / mask**2, axis=axes, keepdims=True), 1e-6)
    for axis, (window, n) in enumerate(zip(op.window, op.grid, strict=True)):
        signal = extend(signal, axis=1 + axis, before=window.start, length=n)
    weighted = (rfftn(signal, op.grid) * inverse)[:, None]
    z = jnp.sum(jnp.conj(op.spectrum) * weighted, axis=0)
    return z, jnp.sum(jnp.abs(op.spectrum) ** 2 * inverse[:, None], axis=0), jnp.mean(inverse)


def extend(y: Array, *, axis: int, before: int, length: int) -> Array:
    """Periodic continuation of one axis to `length`, the data starting at index `before`.

    The gap holds the mirror image of the far end, faded into the mirror image of the near end: no jump, no kink in value.
    """
    n = y.shape[axis]
    gap = length - n
    step = np.arange(gap)
    after, ahead = _mirror(n + step, n), _mirror(step - gap, n)
    fade = 0.5 + 0.5 * np.cos(np.pi * (step + 0.5) / max(gap, 1))
    share = jnp.asarray(fade, y.dtype).reshape([-1 if a == axis else 1 for a in range(y.ndim)])
    filled = share * jnp.take(y, after, axis=axis) + (1 - share) * jnp.take(y, ahead, axis=axis)
    return jnp.roll(jnp.concatenate([y, filled], axis=axis), before, axis=axis)


def _mirror(index: np.ndarray, n: int) -> np.ndarray:
    """Index into n samples of their symmetric continuation."""
    folded = index % (2 * n)
    return np.where(folded < n, folded, 2 * n - 1 - folded)


@jax.jit
def _estimate(op: Operator, z: Array, w: Array, inverse_s: Array) -> Array:
    """Z / (W + 1/S) back in space, on the specimen, blended over the anchors."""
    x = irfftn(z / jnp.maximum(w + inverse_s, 1e-20), op.grid)
    return jnp.sum(op.weights * x[(..., *(slice(0, s) for s in op.specimen))], axis=0)


def _fit_spectrum(z: Array, w: Array, pitch: Array, op: Operator, sample: int = SAMPLE) -> np.ndarray:
    """(a, ln nu_c, p) of the power law that fits best; all anchors see one spectrum."""
    square = _frequency_squared(op.grid, np.asarray(pitch, np.float64))
    power = np.asarray(jnp.abs(z) ** 2, np.float64).reshape(len(z), -1)[:, 1:].ravel() / np.prod(op.grid)
    weight = np.asarray(w, np.float64).reshape(len(w), -1)[:, 1:].ravel()
    nu2 = np.tile(square.ravel()[1:], len(z))
    if nu2.size > sample:
        pick = _picked(nu2.size, sample)
        power, weight, nu2 = power[pick], weight[pick], nu2[pick]

    def objective(q: np.ndarray) -> tuple[float, np.ndarray]:
        knee2 = np.exp(2 * q[1])
        square = knee2 + nu2
        log_square = np.log(square)
        s = np.exp(np.clip(q[0] - q[2] * log_square, -60, 60))
        gain = 1 + s * weight
        seen = s * power / gain
        slope = (s * weight - seen) / gain
        by = np.sum(slope), -2 * q[2] * knee2 * np.sum(slope / square), -np.sum(slope * log_square)
        return float(np.mean(np.log(gain) - seen)), np.array(by) / nu2.size

    excess = max(float(np.mean(power - weight)) / max(float(np.mean(weight**2)), 1e-30), 1e-12)
    knee, p = np.log(0.02), 1.5
    a = np.log(excess) - np.log(np.mean((np.exp(2 * knee) + nu2) ** -p * weight**2) / np.mean(weight**2))
    return np.asarray(scipy.optimize.minimize(objective, np.array([a, knee, p]), jac=True, method="L-BFGS-B", bounds=BOUNDS).x)


@lru_cache(maxsize=8)
def _picked(size: int, sample: int) -> np.ndarray:
    return np.random.default_rng(0).choice(size, sample, replace=False)


@partial(jax.jit, static_argnames="grid")
def _inverse_spectrum(law: Array, pitch: Array, grid: tuple[int, ...]) -> Array:
    """1/S on the half grid; 0 at frequency zero: the mean is left as it is."""
    a, knee, p = law
    inverse = jnp.exp(jnp.clip(p * jnp.log(jnp.exp(2 * knee) + _frequency_squared(grid, pitch)) - a, -60, 60))
    return inverse.at[(0,) * len(grid)].set(0.0).astype(law.dtype)


def _frequency_squared(grid: tuple[int, ...], pitch: Any) -> Any:
    """|nu|^2 on the half grid, cycles per smallest voxel."""
    axes = [np.fft.fftfreq(n) for n in grid[:-1]]
    mesh = np.meshgrid(*axes, np.fft.rfftfreq(grid[-1]), indexing="ij", sparse=True)
    return sum((nu / step) ** 2 for nu, step in zip(mesh, pitch, strict=True))
