"""Zernike polynomials in Noll's order (R. J. Noll, JOSA 66:207, 1976): unit rms over the unit disc."""

from __future__ import annotations

import numpy as np


def primary_spherical(rho: np.ndarray) -> np.ndarray:
    """Z11 = sqrt(5) (6 rho^4 - 6 rho^2 + 1) at normalised pupil radius `rho`."""
    return np.sqrt(5.0) * (6 * rho**4 - 6 * rho**2 + 1)
