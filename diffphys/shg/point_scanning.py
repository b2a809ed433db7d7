"""Point-scanning SHG: focused excitation, harmonic collected by a bucket or imaged onto a small descanned detector.

In: collection half-angle and mismatch (traced), the constants of a geometry. Out: intensity PSF at the grid's unique radii.

    E(r, z)  = integral over [0, alpha] of sqrt(cos) (1 + cos) J0(k_w r sin) exp(i k_w z (cos - 1)) sin dtheta
    bucket:    h = integral over [0, theta_c] of |int s(z) E^2 exp(-i q z) dz|^2 (1 + cos^2)/2 sin dtheta,
               q = (k_2w + dk) cos - 2 k_w
    descanned: h = |int s(z) E^2 G dz|^2,  G = integral over [0, theta_c] of sqrt(cos) J0(k_2w r sin) exp(-i q z) sin dtheta,
               q = k_2w (cos - 1) + dk

with dk = 2 (p_m + phi) / L. A mismatch stated in percent of k_2w is p_m = k_2w L percent / 200 in radians (0.33 rad per percent
at n = 1.4, 400 nm, L = 3 um). Scalar fields, random polarity (Mertz & Moreaux, Opt. Commun. 196:325, 2001); focusing after
Moreaux, Sandre & Mertz, JOSA B 17:1685, 2000: the Gouy phase of E^2 acts against a positive mismatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy

from diffphys.optics import radial
from diffphys.optics.quadrature import gauss_legendre, nodes_needed
from diffphys.shg.spec import Geometry, default_ranges, tilt

REACH = 2.0  # the slab is integrated to +- this many L, where the Gaussian has fallen to 1.5e-5


class Beam(NamedTuple):
    """Constants of one geometry in float64: depth nodes and the slab-weighted square of the excitation field.

    Attributes:
        z_um: (Z,) nodes through the slab.
        real, imag: (R, Z) w(z) s(z) E^2(r, z), over the largest |E^2|.
        radii_um: (R,).
    """

    z_um: np.ndarray
    real: np.ndarray
    imag: np.ndarray
    radii_um: np.ndarray


def collection_nodes(geometry: Geometry) -> int:
    """Gauss-Legendre nodes over the collection angle."""
    na = geometry.na + default_ranges(geometry)["collection_na_mismatch"][1]
    reach = na * _corner_um(geometry) if geometry.detection == "descanned" else 0.0
    depth = 2 * REACH * geometry.slab_um * geometry.index * (1 - math.sqrt(1 - (na / geometry.index) ** 2))
    return nodes_needed(reach + depth, geometry.harmonic_um)


@lru_cache(maxsize=16)
def beam(geometry: Geometry) -> Beam:
    """The excitation of a geometry, cached."""
    assert geometry.excitation_na is not None  # the geometry's own check
    radii = radial.radial_grid(geometry.shape, geometry.pixel_um).radii_um
    excitation_um, slab = 2 * geometry.harmonic_um, geometry.slab_um
    edge = math.asin(geometry.excitation_na / geometry.index)
    depth = REACH * slab * geometry.index * (1 - math.cos(edge))
    theta, weight = gauss_legendre(
        nodes_needed(geometry.excitation_na * _corner_um(geometry) + depth, excitation_um), 0.0, edge
    )
    z, step = gauss_legendre(_depth_nodes(geometry), -REACH * slab, REACH * slab)
    k, sin, cos = math.pi * geometry.index / geometry.harmonic_um, np.sin(theta), np.cos(theta)
    waves = (weight * sin * np.sqrt(cos) * (1 + cos))[:, None] * np.exp(1j * k * np.outer(cos - 1, z))
    squared = (scipy.special.j0(k * np.outer(radii, sin)) @ waves) ** 2
    source = squared / np.abs(squared).max() * (step * np.exp(-4 * math.log(2) * (z / slab) ** 2))
    return Beam(z, source.real, source.imag, radii)


def intensity(
    xp: Any,
    bessel: Callable[[Any], Any],
    source: Beam,
    aperture: tuple[Any, Any],
    mismatch: Any,
    *,
    wave_number: float,
    descanned: bool,
) -> Any:
    """Unnormalised intensity PSF of one frame at the radii, (R,).

    Args:
        xp: numpy or jax.numpy; `bessel` its J0.
        source: the beam, arrays of `xp`.
        aperture: collection angles theta and their weights, (Q,) each.
        mismatch: dk, rad/um.
        wave_number: k_2w, rad/um.
    """
    theta, weight = aperture
    sin, cos = xp.sin(theta), xp.cos(theta)
    lag = -2 * wave_number * xp.sin(theta / 2) ** 2  # k (cos - 1) without its cancellation
    q = lag + mismatch if descanned else lag + mismatch * cos
    phase = source.z_um[:, None] * q
    c, s = xp.cos(phase), -xp.sin(phase)
    if not descanned:
        real, imag = source.real @ c - source.imag @ s, source.real @ s + source.imag @ c
        return (real**2 + imag**2) @ (weight * sin * (1 + cos**2) / 2)
    waves = bessel(wave_number * source.radii_um[:, None] * sin) * (weight * sin * xp.sqrt(cos))
    c, s = waves @ c.T, waves @ s.T
    real, imag = xp.sum(source.real * c - source.imag * s, 1), xp.sum(source.real * s + source.imag * c, 1)
    return real**2 + imag**2


def _depth_nodes(geometry: Geometry) -> int:
    """Nodes along z: the phases of excitation and collection, and the mismatch anywhere in its default range."""
    ranges = default_ranges(geometry)
    assert geometry.excitation_na is not None
    widest = geometry.na + ranges["collection_na_mismatch"][1]
    turn = max(abs(p + f) for p in ranges["phase_matching_error"] for f in geometry.phase_offsets_rad)
    total = max(tilt(geometry, geometry.excitation_na), tilt(geometry, widest)) + 2 * turn  # rad over one L
    return nodes_needed(2 * REACH * total / (2 * math.pi) * geometry.harmonic_um, geometry.harmonic_um)


def _corner_um(geometry: Geometry) -> float:
    (ny, nx), (dy, dx) = geometry.shape, geometry.pixel_um
    return math.hypot(ny // 2 * dy, nx // 2 * dx)
