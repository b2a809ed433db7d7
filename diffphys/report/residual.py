"""What the model leaves unexplained, in units of the noise that the model itself predicts."""

from __future__ import annotations

from typing import Any

import numpy as np


def in_sigmas(y: np.ndarray, prediction: np.ndarray, detector: Any) -> np.ndarray:
    """(measured - model) / noise, float64, axes as `y`.

    variance = gain (model - offset) + (gain read_sigma)^2, counts^2; at least a thousandth of a photon's.
    """
    gain, offset, read = (float(np.asarray(v)) for v in (detector.gain, detector.offset, detector.read_sigma))
    expected = np.asarray(prediction, np.float64)
    variance = gain * np.clip(expected - offset, 0, None) + (gain * read) ** 2
    return (np.asarray(y, np.float64) - expected) / np.sqrt(np.maximum(variance, 1e-3 * gain**2))
