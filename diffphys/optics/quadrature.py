"""Gauss-Legendre rules over the aperture angle, and how many nodes a field of view needs."""

from __future__ import annotations

import math

import numpy as np


def gauss_legendre(nodes: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Abscissae and weights on [low, high], float64."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return (high - low) / 2 * x + (high + low) / 2, (high - low) / 2 * w


def nodes_needed(path_um: float, wavelength_um: float) -> int:
    """Nodes for an optical path range of `path_um` over the aperture: k0 * path / 4 + 16, rounded up to eights.

    `path_um` = NA r_max + |u|_max n_i (1 - cos alpha) + peak-to-valley of the aberration. Error of the unit-sum PSF below
    1e-6 (tests/test_confocal_optics.py).
    """
    k0 = 2 * math.pi / wavelength_um
    return 8 * math.ceil((k0 * path_um / 4 + 16) / 8)
