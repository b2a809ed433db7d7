"""Nyquist steps of the instruments, with the formula in the message."""

from __future__ import annotations

import math


def confocal_nyquist_um(excitation_um: float, na: float, n_i: float) -> tuple[float, float]:
    """(axial, lateral) formal Nyquist steps of a confocal: wavelength / (4 n (1 - cos alpha)) and wavelength / (8 NA)."""
    alpha = math.asin(na / n_i)
    return excitation_um / (4 * n_i * (1 - math.cos(alpha))), excitation_um / (8 * na)


def widefield_nyquist_um(emission_um: float, na: float, n_i: float) -> tuple[float, float]:
    """(axial, lateral) Nyquist steps of a wide-field microscope: wavelength / (2 n (1 - cos alpha)) and wavelength / (4 NA)."""
    alpha = math.asin(na / n_i)
    return emission_um / (2 * n_i * (1 - math.cos(alpha))), emission_um / (4 * na)
