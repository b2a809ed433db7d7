"""Parameters that modulate the recorded rows (SHG: the power fluctuation), by generalised least squares on the row means.

The rows' means z_k = <(y_k - b) / M_k^2> carry the monitored trace; what the specimen adds to them has the covariance that
the evidence gives at nu_x = 0, cross-frame part included. Only this column is used: in the rest of the spectrum the trace
changes the noise level row by row, and a white-noise likelihood would shrink the amplitude.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.calibrate.periodogram import blocks, correlation_factor, multiplicity, taper
from diffphys.types import Modality


class Amplitude(NamedTuple):
    """Estimate of one modulating parameter, its standard error, and the reduced chi^2 of the rows' residual."""

    value: float
    sigma: float
    chi2: float


def row_modulation(modality: Modality, spec: Any, geometry: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(frame, row) modulation and its logarithmic derivative by the parameter."""

    def modulation(value: Any) -> Any:
        changed = type(spec)(**{**{f.name: getattr(spec, f.name) for f in modality.FIELDS}, name: value})
        return modality.transfer(changed, geometry=geometry).modulation[..., 0]

    value, slope = jax.jvp(modulation, (jnp.asarray(getattr(spec, name)),), (jnp.ones_like(getattr(spec, name)),))
    shape = (value.shape[0], geometry.shape[0])
    return np.broadcast_to(np.asarray(value, np.float64), shape), np.broadcast_to(np.asarray(slope / value, np.float64), shape)


def estimate(
    signal: np.ndarray, column: np.ndarray, modality: Modality, geometry: Any, spec: Any, *, name: str, block: tuple[int, ...]
) -> Amplitude:
    """Best value of modulating parameter `name`.

    Args:
        signal: (frame, y, x) photons, background subtracted, not demodulated.
        column: (K, K, |nu_y|) model covariance of the demodulated frames at nu_x = 0.
        spec: where to start; the other parameters are kept.
        block: (y, x) of the periodogram that `column` belongs to.
    """
    inverse = np.linalg.inv(np.moveaxis(column, -1, 0))
    weight = multiplicity(block[:1])
    weight[:2] = 0.0  # the mean leaks into the lowest bins
    value = float(getattr(spec, name))
    for _ in range(4):
        here = type(spec)(**{**{f.name: getattr(spec, f.name) for f in modality.FIELDS}, name: jnp.float32(value)})
        modulation, slope = row_modulation(modality, here, geometry, name)
        rows = signal / modulation[:, :, None]
        rest = _transform(rows, block)
        lean = _transform(-rows * slope[:, :, None], block)
        information = np.einsum("n,bjn,njk,bkn->", weight, lean.conj(), inverse, lean).real
        gradient = np.einsum("n,bjn,njk,bkn->", weight, lean.conj(), inverse, rest).real
        value -= gradient / information
    after = rest - (gradient / information) * lean
    chi2 = np.einsum("n,bjn,njk,bkn->", weight, after.conj(), inverse, after).real
    chi2 /= weight.sum() * signal.shape[0] * len(rest)
    share = min(1.0, signal[0].size / (len(rest) * np.prod(block))) * correlation_factor(block[0])
    return Amplitude(value, float(1 / np.sqrt(information * share)), float(chi2))


def empirical_column(cross: np.ndarray) -> np.ndarray:
    """(K, K, |nu_y|) first guess of the frames' covariance at nu_x = 0, from the columns next to it, smoothed along nu_y.

    A modulation of whole rows lives at nu_x = 0; the specimen hardly changes over a few columns.
    """
    near = cross[..., 2:6].mean(-1)
    return scipy.ndimage.gaussian_filter1d(near, 2.0, axis=-1, mode="nearest")


def _transform(frames: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    """(block, frame, |nu_y|) transform of the tapered row sums, normalised as the periodogram at nu_x = 0."""
    wy, wx = taper(block[0]), taper(block[1])
    sums = blocks(frames, block) @ wx
    sums = sums - (sums * wy).sum(-1, keepdims=True) / wy.sum()
    return np.fft.rfft(sums * wy) / np.sqrt(np.prod(block))
