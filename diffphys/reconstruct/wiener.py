"""Wiener filter: the linear estimate of least mean squared error, jointly over frames.

    x = F^-1[ Z / (W + 1/S) ],   Z = sum_k conj(H_k) Y_k / v_k,   W = sum_k |H_k|^2 / v_k

v_k is the mean noise variance of frame k. The specimen's spectrum S(nu) = e^a (nu_c^2 + nu^2)^-p is fitted to the data by
Whittle's likelihood, whose signal-to-noise form for K frames is sum log(1 + S W) - S |Z|^2 / (1 + S W). The mean is not
regularised. The field is continued to the torus by blended mirror images, so that no edge wraps. Where the blur changes with
depth, each anchor's PSF has its own filter, and the estimates are blended by the anchors' weights: one filter per depth,
right as long as the PSF changes little over its own length.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from diffphys.operator import Operator
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.types import Array, Status

SAMPLE = 60_000  # frequencies that the spectrum is fitted to; Whittle's likelihood is a sum over independent ones
BOUNDS = ((None, None), (np.log(1e-3), np.log(0.5)), (0.3, 6.0))  # a, ln nu_c (per smallest voxel), p


def wiener(problem: Problem, *, noise_to_signal: float | None = None, callback: Callback | None = None) -> Solution:
    """Wiener estimate in one step; may be negative.

    Args:
        problem: data and operator.
        noise_to_signal: one number for all frequencies (Tikhonov), noise variance over specimen power per voxel; None:
            estimated from the data.
        callback: called once, (1, value).

    Returns:
        Solution; its curve holds the fitted negative log evidence per frequency (NaN-free; 0 for a given ratio).
    """
    if noise_to_signal is not None and not noise_to_signal > 0:
        raise ValueError(f"noise_to_signal is {noise_to_signal}; expected a number above 0")
    op = problem.operator
    z, w, inverse_variance = _sufficient(problem)
    if noise_to_signal is None:
        inverse_s, value = _fitted_inverse_spectrum(z, w, problem.pitch, op)
    else:
        inverse_s, value = jnp.full(z.shape[1:], noise_to_signal * inverse_variance), 0.0
    x = _estimate(op, z, w, inverse_s)
    if callback is not None:
        callback(1, value)
    status = Status.CONVERGED if bool(jnp.all(jnp.isfinite(x))) else Status.NONFINITE
    return Solution(jnp.nan_to_num(x), status, 1, np.array([value]), "negative log evidence per frequency")


@jax.jit
def _sufficient(problem: Problem) -> tuple[Array, Array, Array]:
    """Z and W of each anchor on the half grid (anchor, *half grid), and the mean of 1/v_k."""
    op = problem.operator
    mask = jnp.maximum(op.modulation, 1e-2 * jnp.max(op.modulation))
    frames = problem.photons if op.framed else problem.photons[None]
    background = jnp.broadcast_to(problem.background, problem.photons.shape)
    signal = (frames - (background if op.framed else background[None])) / mask
    axes = tuple(range(1, frames.ndim))
    variance = jnp.mean((jnp.maximum(frames, 0.0) + problem.read_variance) / mask**2, axis=axes, keepdims=True)
    inverse = 1.0 / jnp.maximum(variance, 1e-6)
    for axis, (window, n) in enumerate(zip(op.window, op.grid, strict=True)):
        signal = extend(signal, axis=1 + axis, before=window.start, length=n)
    weighted = (jnp.fft.rfftn(signal, axes=op.axes) * inverse)[:, None]
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
    """Z / (W + 1/S) back in space, on the specimen, blended over the anchors; the mean is left unregularised."""
    inverse_s = inverse_s.at[(0,) * inverse_s.ndim].set(0.0)
    x = jnp.fft.irfftn(z / jnp.maximum(w + inverse_s, 1e-20), s=op.grid, axes=op.axes)
    return jnp.sum(op.weights * x[(..., *(slice(0, s) for s in op.specimen))], axis=0)


def _fitted_inverse_spectrum(z: Array, w: Array, pitch: Array, op: Operator) -> tuple[Array, float]:
    """1/S on the half grid from the fitted power law, and the fit's value per frequency; all anchors see one spectrum."""
    square = _frequency_squared(op.grid, np.asarray(pitch, np.float64))
    power = np.asarray(jnp.abs(z) ** 2, np.float64).reshape(len(z), -1)[:, 1:].ravel() / np.prod(op.grid)
    weight = np.asarray(w, np.float64).reshape(len(w), -1)[:, 1:].ravel()
    nu2 = np.tile(square.ravel()[1:], len(z))
    if nu2.size > SAMPLE:
        pick = np.random.default_rng(0).choice(nu2.size, SAMPLE, replace=False)
        power, weight, nu2 = power[pick], weight[pick], nu2[pick]

    def objective(q: np.ndarray) -> tuple[float, np.ndarray]:
        knee2 = np.exp(2 * q[1])
        log_s = np.clip(q[0] - q[2] * np.log(knee2 + nu2), -60, 60)
        s = np.exp(log_s)
        gain = 1 + s * weight
        slope = s * weight / gain - s * power / gain**2
        by = np.stack([np.ones_like(nu2), -2 * q[2] * knee2 / (knee2 + nu2), -np.log(knee2 + nu2)])
        return float(np.mean(np.log(gain) - s * power / gain)), by @ slope / nu2.size

    excess = max(float(np.mean(power - weight)) / max(float(np.mean(weight**2)), 1e-30), 1e-12)
    knee, p = np.log(0.02), 1.5
    a = np.log(excess) - np.log(np.mean((np.exp(2 * knee) + nu2) ** -p * weight**2) / np.mean(weight**2))
    best = minimize(objective, np.array([a, knee, p]), jac=True, method="L-BFGS-B", bounds=BOUNDS)
    inverse = np.exp(np.clip(best.x[2] * np.log(np.exp(2 * best.x[1]) + square) - best.x[0], -60, 60))
    return jnp.asarray(inverse, w.dtype), float(best.fun)


def _frequency_squared(grid: tuple[int, ...], pitch: np.ndarray) -> np.ndarray:
    """|nu|^2 on the half grid, cycles per smallest voxel."""
    axes = [np.fft.fftfreq(n, d) for n, d in zip(grid[:-1], pitch[:-1], strict=True)]
    mesh = np.meshgrid(*axes, np.fft.rfftfreq(grid[-1], pitch[-1]), indexing="ij", sparse=True)
    return np.asarray(sum(m**2 for m in mesh))
