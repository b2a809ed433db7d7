"""Fisher information of the mismatch parameters, the specimen known or integrated out.

Known: y ~ Poisson(photons signal(theta) + background) + read noise; gain and offset of the detector are free nuisances. With
mean m and variance v = m + read^2 (Snyder, Hammoud & White 1993), F = sum_voxels dm dm^T / v.

Unknown: the specimen is a stationary Gaussian field whose hyper-parameters are free nuisances too. With the frames'
covariance M_jk = S Re(H_j H_k^*) + noise_k delta_jk per frequency, F = 1/2 sum_nu tr(M^-1 dM_p M^-1 dM_q) (Whittle 1951). What
modulates whole rows (SHG: the power fluctuation) is known from the row means alone: a shift d of the transform at nu_x = 0 by
a known trace, F = sum_nu d^* M^-1 d. The blur is periodic and nothing is tapered: a bound, not an estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.modulation import row_modulation
from diffphys.calibrate.periodogram import block_shape, frequencies, multiplicity
from diffphys.calibrate.spectra import matern
from diffphys.identify.prior import Prior
from diffphys.spec import as_vector, from_vector, names, parse, pitch_um
from diffphys.types import Modality

WINDOWS = 5  # depths over which a depth-varying blur is averaged


class Light(NamedTuple):
    """Photons of the brightest voxel of the first frame, background per voxel, read noise (electrons rms)."""

    photons: float
    background: float
    read_sigma: float


class Information(NamedTuple):
    """Of one block: information on (theta, psi), the frames' covariance (bins, K, K), their mean signal (K,) in photons."""

    fisher: np.ndarray
    matrix: np.ndarray
    level: np.ndarray


def without_nuisances(fisher: np.ndarray, parameters: int) -> np.ndarray:
    """Information on the first `parameters` once the others are unknown (Schur complement)."""
    own, mixed, other = fisher[:parameters, :parameters], fisher[:parameters, parameters:], fisher[parameters:, parameters:]
    return own - mixed @ np.linalg.pinv(other, hermitian=True, rcond=1e-14) @ mixed.T


def double(modality: Modality, spec: Any) -> Any:
    """The spec in double precision; only inside `jax.enable_x64`."""
    return parse(
        modality.Spec, modality.FIELDS, {n: float(getattr(spec, n)) for n in names(modality.FIELDS)}, dtype=jnp.float64
    )


def known(modality: Modality, spec: Any, x: np.ndarray, *, geometry: Any, light: Light) -> np.ndarray:
    """(P, P) information of one measurement of the specimen `x` (at least the field)."""
    with jax.enable_x64(True):
        theta = as_vector(double(modality, spec), modality.FIELDS)
        mean, slopes = map(np.asarray, _mean(theta, jnp.asarray(x, jnp.float64), modality=modality, geometry=geometry))
    slopes = slopes.reshape(len(slopes), -1)
    first = mean if mean.ndim == len(geometry.shape) else mean[0]
    scale = light.photons / first.max()
    rows = np.concatenate([scale * slopes, scale * mean.reshape(1, -1), np.ones((1, mean.size))])
    variance = scale * mean.ravel() + light.background + light.read_sigma**2
    return without_nuisances((rows / variance) @ rows.T, len(slopes))


def marginal(modality: Modality, spec: Any, prior: Prior, *, geometry: Any, light: Light) -> np.ndarray:
    """(P, P) information of one measurement of an unknown specimen."""
    fields, modulating = names(modality.FIELDS), modality.MODULATION_FIELDS
    block = _one_blur(modality.block(geometry, block_shape(geometry.shape, pitch_um(geometry))))
    share = float(np.prod(geometry.shape) / np.prod(block.shape))
    with jax.enable_x64(True):
        spec = double(modality, spec)
        parts = [_spectral(modality, spec, prior, block, light, depth_um=d) for d in _depths(geometry)]
        fisher = share * np.mean([part.fisher for part in parts], axis=0)
        own = without_nuisances(fisher, len(fields))
        for name in modulating:
            i = fields.index(name)
            own[i, :] = own[:, i] = 0.0
            own[i, i] = _stripes(modality, spec, name, geometry, block, parts[0])
    return own


def _with_slopes(function: Callable[[Any], Any], at: Any) -> tuple[Any, Any]:
    """Value (...) and derivatives (parameter, ...) of a function of a vector."""

    def along(direction: Any) -> tuple[Any, Any]:
        return jax.jvp(function, (at,), (direction,))

    return jax.vmap(along, out_axes=(None, 0))(jnp.eye(at.size, dtype=at.dtype))


@partial(jax.jit, static_argnames=("modality", "geometry"))
def _mean(theta: Any, x: Any, *, modality: Modality, geometry: Any) -> tuple[Any, Any]:
    """Signal of the specimen `x` and its derivatives by theta."""

    def signal(theta: Any) -> Any:
        return modality.forward(from_vector(modality.Spec, modality.FIELDS, theta), x, geometry=geometry)

    return _with_slopes(signal, theta)


@partial(jax.jit, static_argnames=("modality", "block"))
def _covariance(q: Any, depth_um: Any, *, modality: Modality, block: Any) -> tuple[Any, Any]:
    """S Re(H_j H_k^*), (K, K, *quadrant), of q = (theta, psi), and its derivatives."""
    count, where = len(modality.FIELDS), {} if depth_um is None else {"depth_um": depth_um}

    def signal(q: Any) -> Any:
        spec = from_vector(modality.Spec, modality.FIELDS, q[:count])
        real, imag = modality.otf_quadrant(spec, geometry=block, **where)
        return _spectrum(q[count:], block) * (real[:, None] * real[None] + imag[:, None] * imag[None])

    return _with_slopes(signal, q)


def _spectrum(psi: Any, block: Any) -> Any:
    """S(nu) on the block's quadrant, the brightest voxel of the first frame's signal being 1."""
    at = frequencies(block.shape, pitch_um(block), finer=(1,) * len(block.shape))
    return jnp.exp(matern(1.0, directions=1).log(psi, at))


def _depths(geometry: Any) -> list[float | None]:
    """Depths over which a blur that varies is averaged; None where it does not."""
    if getattr(geometry, "depth_anchors", 1) == 1:
        return [None]
    return (geometry.depth_um + np.linspace(0, geometry.shape[0] * geometry.voxel_um[0], WINDOWS)).tolist()


def _one_blur(block: Any) -> Any:
    """The block's instrument with the same blur at every depth."""
    return replace(block, depth_anchors=1) if hasattr(block, "depth_anchors") else block


def _spectral(modality: Modality, spec: Any, prior: Prior, block: Any, light: Light, *, depth_um: float | None) -> Information:
    """Whittle information on (theta, psi) and what it rests on."""
    q = jnp.concatenate([as_vector(spec, modality.FIELDS), jnp.asarray(prior.psi)])
    signal, slopes = (light.photons**2 * np.asarray(a) for a in _covariance(q, depth_um, modality=modality, block=block))
    size = signal.shape[0]
    signal = np.moveaxis(signal.reshape(size, size, -1), -1, 0)
    power = light.photons**2 * float(_spectrum(jnp.asarray(prior.psi), block).ravel()[0])
    level = light.photons * prior.mean * np.sqrt(np.diag(signal[0]) / power)  # H(0) > 0 is the sum of a PSF
    matrix = signal + np.diag(level + light.background + light.read_sigma**2)
    slopes = slopes.reshape(q.size, size, size, -1)
    relative = np.linalg.solve(matrix[:, None], np.moveaxis(slopes, -1, 0).reshape(len(matrix), q.size, size, size))
    weight = multiplicity(block.shape).ravel()
    weight[0] = 0.0  # the mean is not part of the field
    flat = relative.reshape(len(matrix), q.size, -1)
    turned = np.swapaxes(relative, -1, -2).reshape(len(matrix), q.size, -1)
    fisher = 0.5 * np.einsum("bpk,bqk->pq", weight[:, None, None] * flat, turned, optimize=True)
    return Information(fisher, matrix, level)


def _stripes(modality: Modality, spec: Any, name: str, geometry: Any, block: Any, at_rest: Information) -> float:
    """Information on a parameter that modulates whole rows by a known trace, from the row means; (y, x) geometries."""
    (rows, columns), size = geometry.shape, at_rest.matrix.shape[-1]
    _, slope = row_modulation(modality, spec, geometry, name)
    shift = at_rest.level[:, None] * slope
    d = np.fft.fft(shift, axis=1) * np.sqrt(columns / rows)
    column = at_rest.matrix.reshape(block.shape[0] // 2 + 1, block.shape[1] // 2 + 1, size, size)[:, 0]
    nu, grid = np.abs(np.fft.fftfreq(rows)), np.arange(block.shape[0] // 2 + 1) / block.shape[0]
    at = np.array([[np.interp(nu, grid, column[:, j, k]) for k in range(size)] for j in range(size)]).transpose(2, 0, 1)
    solved = np.linalg.solve(at[1:], d.T[1:, :, None])[..., 0]
    return float(np.sum(d.T[1:].conj() * solved).real)
