"""Vectorial Debye integral of an axisymmetric pupil by constant Bessel matrices.

I_m(r, u) = sum over nodes of w A_m J_m(k0 n_i r sin theta) exp(i k0 [W - n_i (cos theta - 1) u]) sqrt(cos) sin, m = 0, 1, 2;
unpolarised light: |E|^2 = |I_0|^2 + 2 |I_1|^2 + |I_2|^2 (Richards & Wolf, Proc. R. Soc. A 253:358, 1959).
Radii are fixed, so the Bessel factors are constants; only nodes x planes numbers depend on the traced parameters.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.types import Array


def bessel_matrices(radii_um: np.ndarray, sin_theta: np.ndarray, n_i: float, wavelength_um: float) -> np.ndarray:
    """(3, R, T) float64: J_m at every radius and node, m = 0, 1, 2."""
    argument = 2 * np.pi / wavelength_um * n_i * np.outer(radii_um, sin_theta)
    return np.stack([scipy.special.jv(m, argument) for m in (0, 1, 2)])


def intensity(bessel: Array, amplitudes: tuple[Array, ...], phase: Array) -> Array:
    """|E|^2 at (radius, plane). `amplitudes`: three (T,) pupil weights, quadrature included; `phase`: (T, planes) radians.

    Amplitudes are real, or complex where rays are totally reflected.
    """
    planes = phase.shape[1]
    cos, sin = jnp.cos(phase), jnp.sin(phase)
    wave, turned = jnp.concatenate([cos, sin], axis=1), jnp.concatenate([-sin, cos], axis=1)
    total = jnp.zeros((bessel.shape[1], planes), phase.dtype)
    for matrix, amplitude, share in zip(bessel, amplitudes, (1.0, 2.0, 1.0), strict=True):
        pupil = amplitude.real[:, None] * wave
        if jnp.iscomplexobj(amplitude):
            pupil = pupil + amplitude.imag[:, None] * turned
        field = matrix @ pupil
        total += share * (field[:, :planes] ** 2 + field[:, planes:] ** 2)
    return total
