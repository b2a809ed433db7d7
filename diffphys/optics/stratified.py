"""Two-layer stratified medium, immersion -> specimen: path difference, Fresnel amplitudes, focus referencing.

Richards & Wolf, Proc. R. Soc. A 253:358 (1959); Torok & Varga, Appl. Opt. 36:2305 (1997); Gibson & Lanni, JOSA A 9:154
(1992). The coverslip is matched to the immersion.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from diffphys.types import Array, ArrayLike


def specimen_cosine(n_s: ArrayLike, n_i: float, sin_theta: ArrayLike, *, evanescent: bool = False) -> Array:
    """n_s cos(theta_s) from n_s sin(theta_s) = n_i sin(theta).

    Beyond the critical angle it is +i times a real number, the wave that decays into the specimen: complex if `evanescent`,
    NaN otherwise.
    """
    squared = jnp.asarray(n_s) ** 2 - (n_i * jnp.asarray(sin_theta)) ** 2
    return jnp.sqrt(squared.astype(jnp.result_type(squared, jnp.complex64)) if evanescent else squared)


def index_path_um(
    n_s: ArrayLike,
    n_i: float,
    depth_um: ArrayLike,
    sin_theta: ArrayLike,
    cos_theta: ArrayLike,
    *,
    evanescent: bool = False,
) -> Array:
    """Path difference d (n_s cos theta_s - n_i cos theta) in micrometres, per ray; its imaginary part is the decay with depth.

    Written as d (n_s^2 - n_i^2) / (n_s cos theta_s + n_i cos theta): the same without cancellation, safe in float32.
    """
    n_cos = specimen_cosine(n_s, n_i, sin_theta, evanescent=evanescent)
    return jnp.asarray(depth_um) * (jnp.asarray(n_s) ** 2 - n_i**2) / (n_cos + n_i * cos_theta)


def fresnel_amplitudes(
    n_s: ArrayLike, n_i: float, sin_theta: ArrayLike, cos_theta: Array, *, evanescent: bool = False
) -> tuple[Array, Array, Array]:
    """Pupil weights (A_0, A_1, A_2) of the three diffraction integrals: tau_s + tau_p cos, tau_p sin, tau_s - tau_p cos.

    Fresnel's coefficients hold beyond the critical angle with the complex cosine (Born & Wolf 1.5.4), if `evanescent`.
    """
    n_cos = specimen_cosine(n_s, n_i, sin_theta, evanescent=evanescent)
    sin_s, cos_s = n_i * sin_theta / n_s, n_cos / n_s
    tau_s = 2 * n_i * cos_theta / (n_i * cos_theta + n_cos)
    tau_p = 2 * n_i * cos_theta / (n_s * cos_theta + n_i * cos_s)
    return tau_s + tau_p * cos_s, tau_p * sin_s, tau_s - tau_p * cos_s


def focus_projector(theta: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(T, T) weighted least-squares projector that removes piston and defocus (cos theta) from a path over the pupil.

    Weights sin theta cos theta (pupil area). A shift along z cannot be seen when the specimen is unknown; removing it
    keeps the specimen in focus-referenced coordinates.
    """
    basis = np.stack([np.ones_like(theta), np.cos(theta)], axis=1)
    area = weight * np.sin(theta) * np.cos(theta)
    gram = basis.T @ (area[:, None] * basis)
    return np.eye(len(theta)) - basis @ np.linalg.solve(gram, basis.T * area)


def pupil_rms(path: np.ndarray, theta: np.ndarray, weight: np.ndarray) -> float:
    """Root mean square over the pupil area."""
    area = weight * np.sin(theta) * np.cos(theta)
    return float(np.sqrt((area * path**2).sum() / area.sum()))
