"""Marginal likelihood of the spec: the specimen, a stationary Gaussian field, is integrated out in closed form.

Frames y_k = h_k * x + noise of variance sigma_k^2 have the covariance M_jk = W[S H_j H_k^*] + sigma_k^2 delta_jk per
frequency (W: smoothing by the taper), and with the cross-periodogram C

    NLL = 1/2 sum_nu N_nu [ log det M + tr(M^-1 C) ],   F_pq = 1/2 sum_nu N_nu tr(M^-1 dM_p M^-1 dM_q).

Whittle (1951); the closed form solves the Wiener problem for every spec and optimises the evidence instead of the
posterior, which avoids the no-blur answer of joint MAP (Levin et al., CVPR 2009).

Where the blur changes with depth, the sum runs over depth windows too, each with its own H, noise level and statistic; they
are the leading axis of the quadrant and share theta and psi (Dahlhaus, Ann. Statist. 25:1, 1997: local Whittle likelihood).

Parameters q = (theta in [-1, 1] over its box, s_k: log of the noise variance over its expectation, psi of the spectrum).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.periodogram import Frequencies, Periodogram
from diffphys.calibrate.spectra import Spectrum
from diffphys.types import Array


class Data(NamedTuple):
    """The traced part: statistic, expected noise level, prior over q and its box, depth of each window (None: one blur)."""

    cross: Array
    weight: Array
    smoothing: tuple[Array, ...]
    noise: Array
    frequencies: Frequencies
    middle: Array
    half: Array
    prior_mean: Array
    prior_precision: Array
    low: Array
    high: Array
    step: Array
    depth_um: Array | None


class Model(NamedTuple):
    """The static part: OTF of (theta vector, depths) -> (real, imag), spectrum, sizes."""

    otf: Callable[[Array, Array | None], tuple[Array, Array]]
    log_spectrum: Callable[[Array, Any], Array]
    parameters: int
    frames: int

    def split(self, q: Array) -> tuple[Array, Array, Array]:
        p, k = self.parameters, self.frames
        return q[:p], q[p : p + k], q[p + k :]


class Point(NamedTuple):
    """Value, gradient and Fisher information at q, prior included, and the per-bin pieces for the sandwich."""

    value: Array
    gradient: Array
    fisher: Array
    whitened: Array  # (Q, K, K, *quadrant) L^-1 dM L^-T
    residual: Array  # (K, K, *quadrant) I - L^-1 C L^-T


def smooth(data: Data, spectrum: Array) -> Array:
    """Expected tapered periodogram of `spectrum`; the quadrant is its last axes.

    Products of matrices without a transposition: a CPU would compute what is smoothed while it writes against the grain.
    """
    *lead, last = data.smoothing
    front = spectrum.shape[: spectrum.ndim - len(data.smoothing)]
    out = spectrum.reshape(math.prod(front), *spectrum.shape[len(front) :])
    for axis, matrix in enumerate(lead, 1):
        rows = out.reshape(math.prod(out.shape[:axis]), out.shape[axis], math.prod(out.shape[axis + 1 :]))
        each = jnp.broadcast_to(matrix, (len(rows), *matrix.shape))
        out = (each @ rows).reshape(*out.shape[:axis], len(matrix), *out.shape[axis + 1 :])
    return (out @ last.T).reshape(*front, *out.shape[1:-1], len(last))


def _pairs(real: Array, imag: Array) -> Array:
    """(K, K, ...) Re H_j H_k^*."""
    return real[:, None] * real[None] + imag[:, None] * imag[None]


def _diagonal(values: Array, ndim: int) -> Array:
    """(K, K, *window, 1, ...) with `values` (K, *window) on the diagonal."""
    size, windows = len(values), values.ndim - 1
    unit = jnp.eye(size, dtype=values.dtype)[(..., *(None,) * windows)]
    return (unit * values[:, None])[(..., *(None,) * ndim)]


def _level(data: Data, s: Array) -> Array:
    """(K, *window) noise variance."""
    return data.noise * jnp.exp(s).reshape(-1, *(1,) * (data.noise.ndim - 1))


def covariance(model: Model, data: Data, q: Array) -> Array:
    """M, (K, K, *quadrant)."""
    theta, s, psi = model.split(q)
    spectrum = jnp.exp(model.log_spectrum(psi, data.frequencies))
    signal = smooth(data, spectrum * transmitted(model, data, theta))
    return signal + _diagonal(_level(data, s), len(data.smoothing))


def _cholesky(matrix: Array) -> list[list[Array]]:
    """Lower factor of a (K, K, ...) stack, K <= 3, written out: batched factorisations of tiny matrices are slow."""
    size = matrix.shape[0]
    lower: list[list[Array]] = [[jnp.zeros(())] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i, j] - sum((lower[i][m] * lower[j][m] for m in range(j)), jnp.zeros(()))
            lower[i][j] = jnp.sqrt(jnp.maximum(rest, 1e-30)) if i == j else rest / lower[j][j]
    return lower


def _solve(lower: list[list[Array]], rows: list[Array]) -> list[Array]:
    """L^-1 applied to a list of K rows."""
    out: list[Array] = []
    for i, row in enumerate(rows):
        out.append((row - sum((lower[i][m] * out[m] for m in range(i)), jnp.zeros(()))) / lower[i][i])
    return out


def _whiten(lower: list[list[Array]], matrix: Array) -> Array:
    """L^-1 A L^-T of a symmetric (K, K, ...) stack."""
    size = matrix.shape[0]
    half = [_solve(lower, [matrix[i, j] for i in range(size)]) for j in range(size)]  # columns of L^-1 A
    full = [_solve(lower, [half[j][i] for j in range(size)]) for i in range(size)]
    return jnp.stack([jnp.stack(row) for row in full])


def _log_det(lower: list[list[Array]]) -> Array:
    return 2 * sum((jnp.log(lower[i][i]) for i in range(len(lower))), jnp.zeros(()))


def _trace(matrix: Array) -> Array:
    return jnp.trace(matrix, axis1=0, axis2=1)


def prior(data: Data, q: Array) -> Array:
    away = q - data.prior_mean
    return 0.5 * away @ data.prior_precision @ away


def value(model: Model, data: Data, q: Array) -> Array:
    """Penalised NLL relative to the saturated model of each frame (so that float32 keeps the digits that matter)."""
    lower = _cholesky(covariance(model, data, q))
    return _penalised(data, q, lower, _whiten(lower, data.cross))


def _penalised(data: Data, q: Array, lower: list[list[Array]], ratio: Array) -> Array:
    """The value from the factor L of M and the whitened statistic L^-1 C L^-T."""
    own = jnp.diagonal(data.cross, axis1=0, axis2=1)
    saturated = jnp.log(jnp.maximum(own, 1e-30)).sum(-1)
    bins = _log_det(lower) + _trace(ratio) - saturated - len(lower)
    return 0.5 * jnp.sum(jnp.where(data.weight > 0, data.weight * bins, 0.0)) + prior(data, q)


def evaluate(model: Model, data: Data, q: Array) -> Point:
    """NLL, gradient, Fisher information. Only the few optical parameters are pushed through the optics."""
    parameters = data.middle + data.half * model.split(q)[0]
    (real, imag), push = jax.linearize(lambda p: model.otf(p, data.depth_um), parameters)
    d_real, d_imag = jax.lax.map(push, jnp.diag(data.half))  # one by one: abreast, a CPU transposes at every product
    d_pairs = jax.vmap(lambda dr, di: _cross(real, dr) + _cross(imag, di))(d_real, d_imag)
    return _point(model, data, q, _pairs(real, imag), d_pairs)


def transmitted(model: Model, data: Data, theta: Array) -> Array:
    """(K, K, ...) Re H_j H_k^* at box-scaled parameters."""
    return _pairs(*model.otf(data.middle + data.half * theta, data.depth_um))


def evaluate_held(model: Model, data: Data, q: Array, pairs: Array) -> Point:
    """`evaluate` in the hyper-parameters alone, the optics held at `pairs` (see `transmitted`)."""
    return _point(model, data, q, pairs, jnp.zeros((0, *pairs.shape), pairs.dtype))


def _point(model: Model, data: Data, q: Array, pairs: Array, d_pairs: Array) -> Point:
    """The point of the last parameters of q: all, or the hyper-parameters where no derivative of the optics is given."""
    _, s, psi = model.split(q)
    ndim = len(data.smoothing)
    log_s, push_s = jax.linearize(lambda p: model.log_spectrum(p, data.frequencies), psi)
    d_log_s = jax.vmap(push_s)(jnp.eye(psi.size, dtype=psi.dtype))
    spectrum = jnp.exp(log_s)
    d_theta = smooth(data, spectrum * d_pairs)
    d_psi = smooth(data, (spectrum * d_log_s)[:, None, None] * pairs)
    level = _level(data, s)
    d_s = jax.vmap(lambda e: jnp.broadcast_to(_diagonal((level.T * e).T, ndim), data.cross.shape))(
        jnp.eye(model.frames, dtype=s.dtype)
    )

    lower = _cholesky(smooth(data, spectrum * pairs) + _diagonal(level, ndim))
    whitened = jax.vmap(lambda d: _whiten(lower, d))(jnp.concatenate([d_theta, d_s, d_psi]))
    ratio = _whiten(lower, data.cross)
    residual = _diagonal(jnp.ones_like(level), ndim) - ratio
    flat = whitened.reshape(whitened.shape[0], -1)
    weight = jnp.broadcast_to(data.weight, data.cross.shape).ravel()
    first = q.size - len(flat)
    pull = data.prior_precision @ (q - data.prior_mean)
    gradient = 0.5 * flat @ (weight * residual.ravel()) + pull[first:]
    fisher = 0.5 * (flat * weight) @ flat.T + data.prior_precision[first:, first:]
    return Point(_penalised(data, q, lower, ratio), gradient, fisher, whitened, residual)


def _cross(a: Array, b: Array) -> Array:
    """(K, K, ...) a_j b_k + b_j a_k."""
    product = a[:, None] * b[None]
    return product + jnp.swapaxes(product, 0, 1)


def make_data(
    statistic: Periodogram,
    noise: Any,
    *,
    frequencies: Frequencies,
    box: tuple[Any, Any],
    theta_prior: tuple[Any, Any],
    noise_sd: float,
    spectrum: Spectrum,
    dtype: Any,
    depth_um: Any = None,
    reach: Any = 1.0,
) -> Data:
    """Assemble the traced part; `theta_prior` = (mean, (P, P) precision) and `reach` of the parameters in box units, `noise_sd`
    of the log noise level."""
    frames = statistic.cross.shape[0]
    p = len(box[0])

    def f(a: Any) -> Any:  # arrays of numpy: those of many stacks are joined before they go to a device
        return np.asarray(a, dtype)

    size = p + frames + len(spectrum.start)
    precision = np.zeros((size, size), dtype)
    precision[:p, :p] = theta_prior[1]
    precision[range(p, p + frames), range(p, p + frames)] = noise_sd**-2
    precision[p + frames :, p + frames :] = spectrum.precision
    free = f((f(box[1]) > 0) * f(reach))
    span = f(np.full(frames, 5 * noise_sd))
    return Data(
        cross=f(statistic.cross),
        weight=f(statistic.weight),
        smoothing=tuple(f(m) for m in statistic.smoothing),
        noise=f(noise),
        frequencies=Frequencies(*map(f, frequencies)),
        middle=f(box[0]),
        half=f(box[1]),
        prior_mean=f(np.concatenate([theta_prior[0], np.zeros(frames), spectrum.mean])),
        prior_precision=f(precision),
        low=f(np.concatenate([-free, -span, spectrum.low])),
        high=f(np.concatenate([free, span, spectrum.high])),
        step=f(np.concatenate([np.full(p, 0.6), np.full(frames, noise_sd), spectrum.step])),
        depth_um=None if depth_um is None else f(depth_um),
    )
