"""Prior power spectra of the unknown specimen: hyper-parameters -> log spectrum on the frequency quadrant.

Each family is a value with the same five members, so the evidence does not know which one it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.types import Array


class Spectrum(NamedTuple):
    """A family of prior spectra S(nu).

    Attributes:
        name: of the family.
        log: (psi, lateral^2, axial^2) -> log S.
        start: psi at log amplitude 0.
        mean, precision: weak Gaussian prior, (Q,) and (Q, Q).
        low, high: box, (Q,).
        step: largest change per iteration, (Q,).
        amplitude: (Q,) direction in psi that scales S by e.
    """

    name: str
    log: Callable[[Array, Array, Array], Array]
    start: np.ndarray
    mean: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    amplitude: np.ndarray


def matern(isotropy: float) -> Spectrum:
    """log S = a - p log(nu_c^2 + nu_perp^2 + kappa^2 nu_z^2) - (nu / nu_g)^2, psi = (a, p, ln nu_c, ln kappa, ln nu_g^-2).

    The Gaussian roll-off lets compact objects (beads) be what they are instead of pushing p to its cap.

    Args:
        isotropy: lateral pixel / plane distance; the value of kappa for a specimen that is isotropic in micrometres.
    """

    def log(psi: Array, lateral2: Array, axial2: Array) -> Array:
        squared = lateral2 + jnp.exp(2 * psi[3]) * axial2
        return psi[0] - psi[1] * jnp.log(jnp.exp(2 * psi[2]) + squared) - jnp.exp(psi[4]) * squared

    kappa = np.log(isotropy)
    sd = np.array([1e3, 2.2, 4.5, 0.5, 3.0])
    return Spectrum(
        name="matern",
        log=log,
        start=np.array([0.0, 2.0, -3.0, kappa, 0.0]),
        mean=np.array([0.0, 2.0, -3.0, kappa, 0.0]),
        precision=np.diag(sd**-2.0),
        low=np.array([-60.0, 0.3, -7.0, kappa - 2.0, -4.0]),
        high=np.array([60.0, 6.0, 0.0, kappa + 2.0, 5.0]),
        step=np.array([2.0, 0.6, 0.6, 0.6, 1.0]),
        amplitude=np.array([1.0, 0.0, 0.0, 0.0, 0.0]),
    )


def spline(isotropy: float, *, knots: int = 8, angular_sd: float = 0.3) -> Spectrum:
    """log S piecewise linear in ln(nu_perp^2 + kappa^2 nu_z^2), with a mild dependence on the angle to the axis.

    psi = (ln kappa, angular terms P4 and P2 * radius, values at the knots). Knots from 0.02 to 0.9 cycles per pixel, second
    differences penalised with weight 1. The angular terms say what an ellipsoid cannot: real specimens have preferred
    directions, and leaving that out biases the axial parameters.
    """
    position = np.linspace(np.log(0.02**2), np.log(0.9**2), knots)

    def log(psi: Array, lateral2: Array, axial2: Array) -> Array:
        stretched = jnp.exp(2 * psi[0]) * axial2
        squared = lateral2 + stretched + 1e-6
        cosine2 = stretched / squared
        t = jnp.clip((jnp.log(squared) - position[0]) / (position[1] - position[0]), 0.0, knots - 1.001)
        hats = jnp.maximum(0.0, 1.0 - jnp.abs(t[..., None] - jnp.arange(knots, dtype=t.dtype)))
        fourth = (35 * cosine2**2 - 30 * cosine2 + 3) / 8
        second = (3 * cosine2 - 1) / 2
        return hats @ psi[3:] + psi[1] * fourth + psi[2] * second * (t - knots / 2) / 2

    bend = np.diff(np.eye(knots), 2, axis=0)
    precision = np.zeros((knots + 3, knots + 3))
    precision[0, 0] = 4.0
    precision[1, 1] = precision[2, 2] = angular_sd**-2.0
    precision[3:, 3:] = bend.T @ bend + 1e-6 * np.eye(knots)
    kappa = np.log(isotropy)
    return Spectrum(
        name="spline",
        log=log,
        start=np.concatenate([[kappa, 0.0, 0.0], -1.7 * (position - position[0])]),
        mean=np.concatenate([[kappa], np.zeros(knots + 2)]),
        precision=precision,
        low=np.concatenate([[kappa - 2.0, -2.0, -2.0], np.full(knots, -80.0)]),
        high=np.concatenate([[kappa + 2.0, 2.0, 2.0], np.full(knots, 80.0)]),
        step=np.concatenate([[0.6, 0.3, 0.3], np.full(knots, 3.0)]),
        amplitude=np.concatenate([[0.0, 0.0, 0.0], np.ones(knots)]),
    )
