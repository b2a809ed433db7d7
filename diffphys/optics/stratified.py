"""Two-layer stratified medium, immersion -> specimen: path difference, Fresnel amplitudes, focus referencing.

Richards & Wolf, Proc. R. Soc. A 253:358 (1959); Torok & Varga, Appl. Opt. 36:2305 (1997); Gibson & Lanni, JOSA A 9:154
(1992). The coverslip is matched to the immersion.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from diffphys.types import Array, ArrayLike


def specimen_cosine(n_s: ArrayLike, n_i: float, sin_theta: ArrayLike) -> Array:
    """n_s cos(theta_s) from n_s sin(theta_s) = n_i sin(theta)."""
    return jnp.sqrt(n_s**2 - (n_i * sin_theta) ** 2)


def index_path_um(n_s: ArrayLike, n_i: float, depth_um: ArrayLike, sin_theta: ArrayLike, cos_theta: ArrayLike) -> Array:
    """Path difference d (n_s cos theta_s - n_i cos theta) in micrometres, per ray.

    Written as d (n_s^2 - n_i^2) / (n_s cos theta_s + n_i cos theta): the same without cancellation, safe in float32.
    """
    return jnp.asarray(depth_um) * (jnp.asarray(n_s) ** 2 - n_i**2) / (specimen_cosine(n_s, n_i, sin_theta) + n_i * cos_theta)


def fresnel_amplitudes(n_s: ArrayLike, n_i: float, sin_theta: ArrayLike, cos_theta: Array) -> tuple[Array, Array, Array]:
    """Pupil weights (A_0, A_1, A_2) of the three diffraction integrals: tau_s + tau_p cos, tau_p sin, tau_s - tau_p cos."""
    n_cos = specimen_cosine(n_s, n_i, sin_theta)
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
