"""SHG optics: Spec -> intensity PSF of each frame, axes (frame, y, x), and its efficiency.

The collection objective images the harmonic, so its aperture is the coherent cut-off and the phase mismatch filters the
pupil:

    E_k(r) = integral over [0, theta_c] of sqrt(cos) s_hat(k_2w (cos - 1) + dk_k) J0(k_2w r sin) sin dtheta
    dk_k = 2 (p_m + phi_k) / L,   sin theta_c = (NA_c + c_n) / n,   h_k = |E_k|^2

Slab after Boyd, Nonlinear Optics, section 2.7; a Gaussian profile has an analytic spectrum without zeros, so nothing is
integrated (or cut off) along z. Incoherent in x: fibrils of random polarity (Mertz & Moreaux, Opt. Commun. 196:325, 2001).
Bucket and descanned detection of a scanned focus: `point_scanning`.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.optics import radial
from diffphys.optics.bessel import j0
from diffphys.optics.quadrature import gauss_legendre, nodes_needed
from diffphys.shg import point_scanning
from diffphys.shg.spec import FIELDS, Geometry, Spec, default_ranges
from diffphys.types import Array, Frames


class Tables(NamedTuple):
    """Constants of one geometry in float64: rule on (0, 1) for theta/theta_c, radii, the reference frame's energy."""

    node: np.ndarray
    weight: np.ndarray
    grid: radial.RadialGrid
    reference: float


def wave_number(geometry: Geometry) -> float:
    """k_2w = 2 pi n / wavelength of the harmonic, rad per um."""
    return 2 * math.pi * geometry.index / geometry.harmonic_um


def path_range_um(geometry: Geometry) -> float:
    """B of the quadrature rule: NA r_max + L n (1 - cos theta_c), at the widest aperture of the default range."""
    (ny, nx), (dy, dx) = geometry.shape, geometry.pixel_um
    na = geometry.na + default_ranges(geometry)["collection_na_mismatch"][1]
    axial = geometry.slab_um * geometry.index * (1 - math.sqrt(1 - (na / geometry.index) ** 2))
    return na * math.hypot(ny // 2 * dy, nx // 2 * dx) + axial


def slab_exponent(q: Any, slab_um: float) -> Any:
    """Log of the Fourier transform of a Gaussian slab of full width at half maximum `slab_um`, 0 at q = 0; q in rad/um."""
    return -((q * slab_um) ** 2) / (16 * math.log(2))


@lru_cache(maxsize=16)
def tables(geometry: Geometry) -> Tables:
    """Constants for `geometry`, cached."""
    grid = radial.radial_grid(geometry.shape, geometry.pixel_um)
    edge, k = math.asin(geometry.na / geometry.index), wave_number(geometry)
    if geometry.detection != "imaging":
        node, weight = gauss_legendre(point_scanning.collection_nodes(geometry), 0.0, 1.0)
        source, at = point_scanning.beam(geometry), (edge * node, edge * weight)
        descanned = geometry.detection == "descanned"
        h = point_scanning.intensity(np, scipy.special.j0, source, at, 0.0, wave_number=k, descanned=descanned)
        return Tables(node, weight, grid, float(grid.multiplicity @ h))
    node, weight = gauss_legendre(nodes_needed(path_range_um(geometry), geometry.harmonic_um), 0.0, 1.0)
    sin, cos = np.sin(edge * node), np.cos(edge * node)
    pupil = edge * weight * sin * np.sqrt(cos) * np.exp(slab_exponent(k * (cos - 1), geometry.slab_um))
    field = scipy.special.j0(k * np.outer(grid.radii_um, sin)) @ pupil
    return Tables(node, weight, grid, float(grid.multiplicity @ field**2))


def radial_intensity(spec: Spec, *, geometry: Geometry) -> Array:
    """h_k at the grid's unique radii, (frame, radius), over the reference frame's sum (p_m = c_n = phi = 0)."""
    t, dtype = tables(geometry), jnp.asarray(spec.phase_matching_error).dtype
    k = wave_number(geometry)
    edge = jnp.arcsin((geometry.na + spec.collection_na_mismatch) / geometry.index)
    theta = edge * jnp.asarray(t.node, dtype)
    offsets = jnp.asarray(geometry.phase_offsets_rad, dtype)
    mismatch = 2 * (spec.phase_matching_error + offsets) / geometry.slab_um
    if geometry.detection != "imaging":
        source = jax.tree.map(lambda a: jnp.asarray(a, dtype), point_scanning.beam(geometry))
        at, descanned = (theta, edge * jnp.asarray(t.weight, dtype)), geometry.detection == "descanned"
        one = partial(point_scanning.intensity, jnp, j0, source, at, wave_number=k, descanned=descanned)
        return jax.vmap(one)(mismatch) / t.reference
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    tilt = -2 * k * jnp.sin(theta / 2) ** 2  # k (cos - 1) without its cancellation, safe in float32
    slab = jnp.exp(slab_exponent(tilt + mismatch[:, None], geometry.slab_um))
    pupil = edge * jnp.asarray(t.weight, dtype) * sin * jnp.sqrt(cos) * slab
    field = pupil @ j0(sin[:, None] * jnp.asarray(k * t.grid.radii_um, dtype))
    return field**2 / t.reference


def radial_psf(spec: Spec, *, geometry: Geometry) -> tuple[Array, Array]:
    """Unit-sum PSFs at the unique radii (frame, radius), and the efficiencies (frame,)."""
    h = radial_intensity(spec, geometry=geometry)
    eta = jnp.sum(h * jnp.asarray(tables(geometry).grid.multiplicity, h.dtype), axis=1)
    return h / eta[:, None], eta


@partial(jax.jit, static_argnames="geometry")
def psf(spec: Spec, *, geometry: Geometry) -> Frames:
    """Intensity PSF of each frame (frame, y, x), centred on index n//2, unit sum.

    Args:
        spec: mismatch parameters.
        geometry: nominal instrument; the PSFs have its shape and pixel size.
    """
    h, _ = radial_psf(spec, geometry=geometry)
    return radial.unfold(h[:, tables(geometry).grid.quadrant], geometry.shape)


@partial(jax.jit, static_argnames="geometry")
def efficiency(spec: Spec, *, geometry: Geometry) -> Array:
    """eta_k, (frame,): collected harmonic flux of each frame relative to p_m = c_n = phi = 0."""
    return radial_psf(spec, geometry=geometry)[1]


def gauge(spec: Spec, *, geometry: Geometry) -> tuple[Array, Array]:
    """`radial_psf` with the efficiency that the model uses: 1 for a single frame, whose brightness is a free scale."""
    h, eta = radial_psf(spec, geometry=geometry)
    return h, (eta if geometry.frames > 1 else jnp.ones_like(eta))


@partial(jax.jit, static_argnames=("geometry", "finer"))
def otf_quadrant(spec: Spec, *, geometry: Geometry, finer: tuple[int, int] = (1, 1)) -> tuple[Array, Array]:
    """Real and imaginary OTF, (frame, |nu_y|, |nu_x|) each, efficiency included; real, since the PSFs are even.

    `finer` divides the frequency step of each axis (y, x).
    """
    h, eta = gauge(spec, geometry=geometry)
    quadrant = (eta[:, None] * h)[:, tables(geometry).grid.quadrant]
    real = radial.quadrant_dft(quadrant, geometry.shape, finer=finer)
    return real, jnp.zeros_like(real)


def derived(spec: Spec, *, geometry: Geometry) -> dict[str, Array]:
    """Nothing: no combination of the three parameters is better known than its parts."""
    del spec, geometry
    return {}


def twin(spec: Spec, *, geometry: Geometry, ranges: dict[str, tuple[float, float]]) -> None:
    """None: no second spec gives the same |OTF|."""
    del spec, geometry, ranges


def starts(ranges: dict[str, tuple[float, float]], *, geometry: Geometry) -> np.ndarray:
    """(15, 3) start points over the box: five phase mismatches x three apertures; no power fluctuation, if allowed."""
    del geometry
    points = []
    for p in (0.1, 0.3, 0.5, 0.7, 0.9):
        for c in (0.15, 0.5, 0.85):
            at = {"phase_matching_error": p, "collection_na_mismatch": c}
            point = {name: low + at.get(name, 0.5) * (high - low) for name, (low, high) in ranges.items()}
            point["excitation_power_fluctuation"] = float(np.clip(0.0, *ranges["excitation_power_fluctuation"]))
            points.append([point[f.name] for f in FIELDS])
    return np.array(points)
