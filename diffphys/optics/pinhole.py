"""Finite pinhole: average of a radial function over a disc, as a constant matrix."""

from __future__ import annotations

import math

import numpy as np

from diffphys.optics.quadrature import gauss_legendre


def airy_radius_um(wavelength_um: float, na: float) -> float:
    """Radius of the first dark ring, 0.61 wavelength / NA (object space); 1 Airy unit is its diameter."""
    return 0.61 * wavelength_um / na


def pinhole_average(
    radii_um: np.ndarray, grid_step_um: float, pinhole_radius_um: float, *, rings: int | None = None, spokes: int | None = None
) -> np.ndarray:
    """(R, G) matrix: values on the radial grid 0, step, 2 step, ... -> mean over a disc centred at each radius.

    Polar quadrature of the disc, four-point Lagrange interpolation on the grid, even reflection at the origin. The number of
    nodes grows with the disc: 6 x 16 for a radius of 15 steps, where they are right to 1e-6 of the peak.
    """
    size = int(np.ceil((radii_um.max() + pinhole_radius_um) / grid_step_um)) + 4
    steps = pinhole_radius_um / grid_step_um
    rings, spokes = rings or max(6, math.ceil(0.39 * steps)), spokes or max(16, math.ceil(1.04 * steps))
    if pinhole_radius_um > 0:
        ring, ring_weight = gauss_legendre(rings, 0.0, pinhole_radius_um)
        angle = (np.arange(spokes) + 0.5) * np.pi / spokes
        r = radii_um[:, None, None]
        sampled = np.sqrt(r**2 + ring[:, None] ** 2 - 2 * r * ring[:, None] * np.cos(angle))
        weight = np.broadcast_to((2 * ring * ring_weight / pinhole_radius_um**2 / spokes)[:, None], sampled.shape[1:])
    else:
        sampled, weight = radii_um[:, None, None], np.ones((1, 1))
    position = sampled / grid_step_um
    first = np.minimum(np.floor(position).astype(int), size - 3)
    f = position - first
    lagrange = (
        -f * (f - 1) * (f - 2) / 6,
        (f + 1) * (f - 1) * (f - 2) / 2,
        -(f + 1) * f * (f - 2) / 2,
        (f + 1) * f * (f - 1) / 6,
    )
    matrix = np.zeros((len(radii_um), size))
    rows = np.broadcast_to(np.arange(len(radii_um))[:, None, None], sampled.shape)
    for offset, value in zip((-1, 0, 1, 2), lagrange, strict=True):
        np.add.at(matrix, (rows, np.abs(first + offset)), value * weight)
    return matrix
