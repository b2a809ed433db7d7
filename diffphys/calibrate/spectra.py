"""Prior power spectra of the unknown specimen: hyper-parameters -> log spectrum on the frequency quadrant.

log S = radial part of ln(nu_perp^2 + kappa^2 nu_z^2) + mild dependence on direction. The directional terms are shared by the
families: fibres have preferred directions, and an ellipsoid alone would bias the optics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.periodogram import Frequencies
from diffphys.types import Array

KNOTS = 8
POSITION = np.linspace(np.log(0.02**2), np.log(0.9**2), KNOTS)  # ln of squared frequency, cycles per pixel
MIDDLE = float(np.exp(POSITION.mean()))  # squared frequency at which the Matérn family has its level
WINDOW_SD = 0.5  # of the log power of a depth window over the stack's
DIRECTION_SD = np.array([0.5, 0.3, 0.3, 1.0, 1.0, 1.0, 1.0])  # of ln kappa, two axial terms, four lateral ones


class Spectrum(NamedTuple):
    """A family of prior spectra S(nu).

    Attributes:
        log: (psi, frequencies) -> log S.
        start: psi at log amplitude 0.
        mean, precision: weak Gaussian prior, (Q,) and (Q, Q).
        low, high: box, (Q,).
        step: largest change per iteration, (Q,).
        amplitude: (Q,) direction in psi that scales S by e.
    """

    log: Callable[[Array, Frequencies], Array]
    start: np.ndarray
    mean: np.ndarray
    precision: np.ndarray
    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    amplitude: np.ndarray


def _radius(psi: Array, at: Frequencies) -> tuple[Array, Array]:
    """Squared radius and squared cosine to the axis in the frame where the specimen's spectrum is isotropic."""
    stretched = jnp.exp(2 * psi[0]) * at.axial2
    squared = at.lateral2 + stretched + 1e-6
    return squared, stretched / squared


def _direction(psi: Array, squared: Array, cosine2: Array, at: Frequencies) -> Array:
    """P4 and radius * P2 of the angle to the axis; cos 2 phi, cos 4 phi and radius times both of the angle in the plane."""
    radius = (jnp.log(squared) - POSITION.mean()) / (POSITION[-1] - POSITION[0]) * 4
    axial = psi[1] * (35 * cosine2**2 - 30 * cosine2 + 3) / 8 + psi[2] * radius * (3 * cosine2 - 1) / 2
    lateral = (psi[3] + psi[5] * radius) * at.turn + (psi[4] + psi[6] * radius) * (2 * at.turn**2 - 1)
    return axial + (1 - cosine2) * lateral


def _family(
    radial: Callable[[Array, Array], Array],
    isotropy: float,
    *,
    directions: int = len(DIRECTION_SD),
    start: np.ndarray,
    mean: np.ndarray,
    precision: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    step: np.ndarray,
    amplitude: np.ndarray,
) -> Spectrum:
    """The first `directions` directional terms (1: ln kappa alone) in front of a radial family's own hyper-parameters."""

    def log(psi: Array, at: Frequencies) -> Array:
        squared, cosine2 = _radius(psi, at)
        own = radial(psi[directions:], squared)
        return own if directions == 1 else own + _direction(psi, squared, cosine2, at)

    sd = DIRECTION_SD[:directions]
    centre = np.concatenate([[np.log(isotropy)], np.zeros(directions - 1)])
    full = np.zeros((directions + len(start),) * 2)
    full[:directions, :directions] = np.diag(sd**-2.0)
    full[directions:, directions:] = precision
    return Spectrum(
        log=log,
        start=np.concatenate([centre, start]),
        mean=np.concatenate([centre, mean]),
        precision=full,
        low=np.concatenate([centre - 4 * sd, low]),
        high=np.concatenate([centre + 4 * sd, high]),
        step=np.concatenate([np.full(directions, 0.5), step]),
        amplitude=np.concatenate([np.zeros(directions), amplitude]),
    )


def screen(isotropy: float) -> Spectrum:
    """Matérn without the dependence on direction: few numbers, for the search from many starts."""
    return matern(isotropy, directions=1)


def matern(isotropy: float, *, directions: int = len(DIRECTION_SD)) -> Spectrum:
    """Radial part a - p log((nu_c^2 + nu^2) / (nu_c^2 + nu_0^2)), psi = (directions, a, p, ln nu_c).

    a is the level at nu_0, in the middle of the frequencies: at 0, where nothing is measured, it would go with p and nu_c.

    Args:
        isotropy: lateral pixel / plane distance; the value of kappa for a specimen that is isotropic in micrometres.
    """

    def radial(psi: Array, squared: Array) -> Array:
        knee2 = jnp.exp(2 * psi[2])
        return psi[0] - psi[1] * jnp.log((knee2 + squared) / (knee2 + MIDDLE))

    return _family(
        radial,
        isotropy,
        directions=directions,
        start=np.array([3.8, 2.0, -3.0]),
        mean=np.array([0.0, 2.0, -3.0]),
        precision=np.diag(np.array([1e3, 2.2, 4.5]) ** -2.0),
        low=np.array([-60.0, 0.3, -7.0]),
        high=np.array([60.0, 6.0, 0.0]),
        step=np.array([2.0, 0.6, 0.6]),
        amplitude=np.array([1.0, 0.0, 0.0]),
    )


def spline(isotropy: float, *, stiffness: float = 1.0) -> Spectrum:
    """Radial part piecewise linear in ln nu^2, psi = (directions, values at the knots).

    Knots from 0.02 to 0.9 cycles per pixel; second differences penalised with weight `stiffness`.
    """

    def radial(psi: Array, squared: Array) -> Array:
        t = jnp.clip((jnp.log(squared) - POSITION[0]) / (POSITION[1] - POSITION[0]), 0.0, KNOTS - 1.001)
        hats = (value * jnp.maximum(0.0, 1.0 - jnp.abs(t - knot)) for knot, value in enumerate(psi))
        return sum(hats, jnp.zeros(()))  # one knot after the other: their axis would be the one that nothing is fused along

    bend = np.diff(np.eye(KNOTS), 2, axis=0)
    return _family(
        radial,
        isotropy,
        start=2.0 - 1.7 * (POSITION - POSITION[0]),
        mean=np.zeros(KNOTS),
        precision=stiffness * bend.T @ bend + 1e-6 * np.eye(KNOTS),
        low=np.full(KNOTS, -80.0),
        high=np.full(KNOTS, 80.0),
        step=np.full(KNOTS, 3.0),
        amplitude=np.ones(KNOTS),
    )


def windowed(spectrum: Spectrum, count: int) -> Spectrum:
    """The family's spectrum in `count` depth windows, times one power per window: psi = (the family's, ln powers).

    Specimens are not evenly filled along z; their spectra differ in power first.
    """
    own, join = len(spectrum.start), lambda a, value: np.concatenate([a, np.full(count, value)])
    precision = np.zeros((own + count,) * 2)
    precision[:own, :own], precision[own:, own:] = spectrum.precision, WINDOW_SD**-2 * np.eye(count)

    def log(psi: Array, at: Frequencies) -> Array:
        return spectrum.log(psi[:own], at) + psi[own:, None, None, None]

    return Spectrum(
        log=log,
        start=join(spectrum.start, 0.0),
        mean=join(spectrum.mean, 0.0),
        precision=precision,
        low=join(spectrum.low, -8 * WINDOW_SD),
        high=join(spectrum.high, 8 * WINDOW_SD),
        step=join(spectrum.step, 1.0),
        amplitude=join(spectrum.amplitude, 0.0),
    )
