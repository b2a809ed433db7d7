"""What is assumed of an unknown specimen: a stationary Gaussian field of Matern spectrum, given or fitted.

    S(nu) = exp(log_amplitude) / (exp(2 log_corner) + nu_perp^2 + exp(2 log_stretch) nu_z^2) ^ exponent

Frequencies in cycles per x pixel (nu_perp) and per plane (nu_z). Fitted by Whittle's likelihood (Whittle 1951) to a specimen,
or to a measured stack through the blur of a spec. Brightness: the brightest voxel of the first frame's signal is 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.calibrate.periodogram import Frequencies, block_shape, fold, frequencies, multiplicity, periodogram
from diffphys.calibrate.spectra import MIDDLE, matern
from diffphys.noise import Detector, to_photons
from diffphys.spec import pitch_um
from diffphys.types import Modality

BRIGHT = 99.9  # percentile that stands for the brightest voxel of a noisy stack


class Prior(NamedTuple):
    """Hyper-parameters of the specimen's spectrum, and its mean brightness."""

    log_stretch: float
    log_amplitude: float
    exponent: float
    log_corner: float
    mean: float

    @property
    def psi(self) -> np.ndarray:
        """(4,) in the order of `diffphys.calibrate.spectra.matern(directions=1)`."""
        fall = self.exponent * np.log(np.exp(2 * self.log_corner) + MIDDLE)
        return np.array([self.log_stretch, self.log_amplitude - fall, self.exponent, self.log_corner])

    @classmethod
    def of(cls, psi: np.ndarray, mean: float) -> Prior:
        """From `psi`."""
        stretch, level, exponent, corner = (float(v) for v in psi)
        return cls(stretch, level + exponent * float(np.log(np.exp(2 * corner) + MIDDLE)), exponent, corner, mean)

    def scaled(self, factor: float) -> Prior:
        """The prior of `factor` times the specimen."""
        return self._replace(log_amplitude=self.log_amplitude + 2 * float(np.log(factor)), mean=self.mean * factor)


def of_specimen(x: np.ndarray, geometry: Any, *, peak: float, periodic: bool = False) -> Prior:
    """Fit to a specimen.

    Args:
        x: (z, y, x) or (y, x) on the geometry's voxels.
        peak: brightest voxel of the first frame's signal, in the units of `x`.
        periodic: whether the specimen closes on itself; otherwise its edges are tapered.
    """
    x = np.asarray(x, np.float64)
    ones = (1,) * x.ndim
    at = frequencies(x.shape, pitch_um(geometry), finer=ones)
    if periodic:
        power = fold(np.abs(np.fft.fftn(x - x.mean())) ** 2 / x.size, x.ndim)
        weight, smoothing = multiplicity(x.shape), None
        weight.flat[0] = 0.0
    else:
        statistic = periodogram(x[None], block=x.shape, finer=ones)
        power, weight, smoothing = statistic.cross[0, 0], statistic.weight, statistic.smoothing
    psi = _fit(power, weight, smoothing, at, np.ones(()), 1e-12 * float(power.max()))
    return Prior.of(psi, float(x.mean())).scaled(1 / peak)


def of_stack(modality: Modality, spec: Any, y: np.ndarray, *, geometry: Any, detector: Detector) -> tuple[Prior, float]:
    """Fit to a measurement through the blur of `spec`: the prior, and the photons of the brightest voxel.

    Args:
        y: counts, (z, y, x) or (frame, y, x); the first frame is used.
        detector: with numbers, not NaN.
    """
    photons = np.asarray(to_photons(detector, jnp.asarray(y)), np.float64).reshape(-1, *geometry.shape)[0]
    signal = photons - float(detector.background)
    modulation = np.broadcast_to(np.asarray(modality.transfer(spec, geometry=geometry).modulation)[0], signal.shape)
    shape = block_shape(geometry.shape, pitch_um(geometry))
    ones = (1,) * len(shape)
    statistic = periodogram((signal / modulation)[None], block=shape, finer=ones)
    real, imag = jax.jit(lambda s: modality.otf_quadrant(s, geometry=modality.block(geometry, shape)))(spec)
    gain = np.asarray(real[0] ** 2 + imag[0] ** 2, np.float64)
    noise = float(np.mean((photons + float(detector.read_sigma) ** 2) / modulation**2))
    at = frequencies(shape, pitch_um(geometry), finer=ones)
    psi = _fit(statistic.cross[0, 0], statistic.weight, statistic.smoothing, at, gain, noise)
    peak = float(np.percentile(signal, BRIGHT))
    if not peak > 0:
        raise ValueError("the stack is no brighter than its background: no prior can be fitted to it")
    mean = float((signal / modulation).mean()) / float(real[(0, *(0,) * len(shape))])
    return Prior.of(psi, mean).scaled(1 / peak), peak


def _fit(power: np.ndarray, weight: np.ndarray, smoothing: Any, at: Frequencies, gain: np.ndarray, noise: float) -> np.ndarray:
    """(4,) hyper-parameters of the largest Whittle likelihood of a folded periodogram = smooth(gain S) + noise."""
    family = matern(1.0, directions=1)

    def loss(psi: Any) -> Any:
        model = jnp.exp(family.log(psi, at)) * gain
        if smoothing is not None:
            for axis, matrix in enumerate(smoothing):
                model = jnp.moveaxis(jnp.tensordot(model, matrix, ((axis,), (1,))), -1, axis)
        model = model + noise
        return jnp.sum(weight * (jnp.log(model) + power / model)) / weight.sum()

    with jax.enable_x64(True):
        graded = jax.jit(jax.value_and_grad(loss))
        excess = max(float((weight * np.maximum(power - noise, 0)).sum() / (weight * gain).sum()), 1e-12)
        start = np.array([0.0, np.log(excess), 1.5, -3.0])
        limits = [(-2.0, 3.0), (-60.0, 60.0), (0.3, 6.0), (-7.0, 0.0)]
        found = scipy.optimize.minimize(
            lambda psi: tuple(np.asarray(v, np.float64) for v in graded(jnp.asarray(psi))),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=limits,
        )
    return np.asarray(found.x)
