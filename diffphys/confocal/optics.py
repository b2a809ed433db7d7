"""Confocal optics: Spec -> intensity PSF, axes (z, y, x), unit sum.

h(r, u) = |E_ex|^2 * (|E_em|^2 averaged over the pinhole), both vectorial Richards-Wolf fields through a stratified
specimen. Piston and defocus are projected out of the aberration, so the specimen is in focus-referenced coordinates.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.confocal.spec import FIELDS, REFERENCE_UM, Geometry, Spec, default_ranges
from diffphys.optics import debye, pinhole, radial, stratified, zernike
from diffphys.optics.quadrature import gauss_legendre, nodes_needed
from diffphys.types import Array, Stack

GRID_STEP = 0.04  # radial step of the pinhole average in units of emission wavelength / NA (15 nm at NA 1.4)

TWIN_WAVES = 0.005  # a twin is one only if its |c_tot| is the same within this
TYPICAL_INDICES = (1.33, 1.52)  # of specimens, beside the default range: their path must be resolved too
REFLECTED = 3  # times as many nodes where the critical angle, a branch point, lies inside the aperture


class Aperture(NamedTuple):
    """Quadrature over the aperture angle in float64, the focus projector on it, and the focus-referenced Z11 of unit rms."""

    theta: np.ndarray
    weight: np.ndarray
    projector: np.ndarray
    spherical: np.ndarray


class Tables(NamedTuple):
    """Constants of one geometry in float64: those of its `Aperture`, Bessel matrices, pinhole."""

    theta: np.ndarray
    weight: np.ndarray
    projector: np.ndarray
    spherical: np.ndarray
    excitation: np.ndarray | None
    emission: np.ndarray
    pinhole: np.ndarray | None
    grid: radial.RadialGrid


def deepest_um(geometry: Geometry) -> float:
    """Largest depth at which this geometry needs a PSF."""
    return geometry.depth_um + (geometry.shape[0] * geometry.voxel_um[0] if geometry.depth_anchors > 1 else 0.0)


def path_range_um(geometry: Geometry) -> float:
    """B of the quadrature rule: NA r_max + |u|_max n_i (1 - cos alpha) + peak-to-valley of the worst aberration."""
    ranges = default_ranges(geometry)
    (nz, ny, nx), (dz, dy, dx) = geometry.shape, geometry.voxel_um
    alpha = math.asin(geometry.na / geometry.immersion_index)
    theta = np.linspace(0, alpha, 65)[1:]
    projector = stratified.focus_projector(theta, np.ones_like(theta))
    evanescent = geometry.total_internal_reflection
    candidates = [*ranges["refractive_index"], *(n for n in TYPICAL_INDICES if n > geometry.na)]
    index = max(candidates, key=lambda n: abs(n - geometry.immersion_index))
    with jax.ensure_compile_time_eval():
        path = stratified.index_path_um(
            index, geometry.immersion_index, deepest_um(geometry), np.sin(theta), np.cos(theta), evanescent=evanescent
        ).real
    z11 = zernike.primary_spherical(np.sin(theta) * geometry.immersion_index / geometry.na)
    worst = np.ptp(projector @ np.asarray(path)) + max(map(abs, ranges["spherical_aberr"])) * REFERENCE_UM * np.ptp(z11)
    reach = (nz // 2) * (dz + 1e-3 * ranges["z_step"][1])
    return float(
        geometry.na * math.hypot(ny // 2 * dy, nx // 2 * dx) + reach * geometry.immersion_index * (1 - math.cos(alpha)) + worst
    )


def aperture(geometry: Geometry, *, extra_um: float = 0.0) -> Aperture:
    """Nodes for `geometry` and `extra_um` of optical path beside its own aberrations."""
    shortest = min(w for w in (geometry.excitation_nm, geometry.emission_nm) if w is not None) * 1e-3
    nodes = nodes_needed(path_range_um(geometry) + extra_um, shortest)
    nodes *= REFLECTED if geometry.total_internal_reflection else 1
    theta, weight = gauss_legendre(nodes, 0.0, math.asin(geometry.na / geometry.immersion_index))
    projector = stratified.focus_projector(theta, weight)
    z11 = projector @ zernike.primary_spherical(np.sin(theta) * geometry.immersion_index / geometry.na)
    return Aperture(theta, weight, projector, z11 / stratified.pupil_rms(z11, theta, weight))


@lru_cache(maxsize=16)
def tables(geometry: Geometry) -> Tables:
    """Constants for `geometry`; seconds for a 256 x 256 field, cached."""
    grid = radial.radial_grid(geometry.shape[1:], geometry.voxel_um[1:])
    nodes = aperture(geometry)
    theta = nodes.theta
    emission_um = 1e-3 * geometry.emission_nm

    def matrices(radii: np.ndarray, wavelength_um: float) -> np.ndarray:
        return debye.bessel_matrices(radii, np.sin(theta), geometry.immersion_index, wavelength_um)

    if geometry.excitation_nm is None:
        return Tables(*nodes, None, matrices(grid.radii_um, emission_um), None, grid)
    step = GRID_STEP * emission_um / geometry.na
    radius = geometry.pinhole_au * pinhole.airy_radius_um(emission_um, geometry.na)
    average = pinhole.pinhole_average(grid.radii_um, step, radius)
    return Tables(
        *nodes,
        matrices(grid.radii_um, 1e-3 * geometry.excitation_nm),
        matrices(step * np.arange(average.shape[1]), emission_um),
        average,
        grid,
    )


def aberration_um(
    spec: Any, *, geometry: Geometry, depth_um: Array | float | None = None, nodes: Aperture | Tables | None = None
) -> Array:
    """Focus-referenced aberration W over the aperture nodes (the geometry's own if None), micrometres of path."""
    t, dtype = nodes or tables(geometry), jnp.asarray(spec.z_step).dtype
    index = _index_path_um(spec, geometry, depth_um, t).real
    spherical = REFERENCE_UM * spec.spherical_aberr * jnp.asarray(t.spherical, dtype)
    return jnp.asarray(t.projector, dtype) @ index + spherical


def _index_path_um(spec: Any, geometry: Geometry, depth_um: Array | float | None, t: Aperture | Tables) -> Array:
    dtype = jnp.asarray(spec.z_step).dtype
    depth = jnp.asarray(geometry.depth_um if depth_um is None else depth_um, dtype)
    sin, cos = jnp.asarray(np.sin(t.theta), dtype), jnp.asarray(np.cos(t.theta), dtype)
    evanescent = geometry.total_internal_reflection
    return stratified.index_path_um(spec.refractive_index, geometry.immersion_index, depth, sin, cos, evanescent=evanescent)


def amplitudes(
    spec: Any,
    *,
    geometry: Geometry,
    wavelength_um: float,
    depth_um: Array | float | None = None,
    nodes: Aperture | Tables | None = None,
) -> tuple[Array, Array, Array]:
    """Pupil weights (A_0, A_1, A_2) with quadrature and apodisation; evanescent waves decayed to the depth, complex."""
    t, dtype = nodes or tables(geometry), jnp.asarray(spec.z_step).dtype
    sin, cos = jnp.asarray(np.sin(t.theta), dtype), jnp.asarray(np.cos(t.theta), dtype)
    evanescent = geometry.total_internal_reflection
    weight = jnp.asarray(t.weight * np.sqrt(np.cos(t.theta)) * np.sin(t.theta), dtype)
    if evanescent:
        weight = weight * jnp.exp(-2 * math.pi / wavelength_um * _index_path_um(spec, geometry, depth_um, t).imag)
    parts = stratified.fresnel_amplitudes(spec.refractive_index, geometry.immersion_index, sin, cos, evanescent=evanescent)
    return weight * parts[0], weight * parts[1], weight * parts[2]


def focus_path_um(spec: Any, *, geometry: Geometry, nodes: Aperture | Tables | None = None) -> Array:
    """Path of defocus -n_i (cos - 1) u at every node and plane, (theta, z) micrometres; u = 0 at plane nz//2."""
    t, dtype = nodes or tables(geometry), jnp.asarray(spec.z_step).dtype
    planes = jnp.asarray(np.arange(geometry.shape[0]) - geometry.shape[0] // 2, dtype)
    u = planes * (geometry.voxel_um[0] + 1e-3 * spec.z_step)  # nm -> um
    return -geometry.immersion_index * jnp.asarray(np.cos(t.theta) - 1, dtype)[:, None] * u


def radial_psf(spec: Spec, *, geometry: Geometry, depth_um: Array | float | None = None) -> Array:
    """PSF at the grid's unique radii, (radius, z), unit sum over the whole grid; z centred on nz//2."""
    t, dtype = tables(geometry), jnp.asarray(spec.z_step).dtype
    path = aberration_um(spec, geometry=geometry, depth_um=depth_um)[:, None] + focus_path_um(spec, geometry=geometry)

    def spot(bessel: np.ndarray, wavelength_nm: float) -> Array:
        weights = amplitudes(spec, geometry=geometry, wavelength_um=1e-3 * wavelength_nm, depth_um=depth_um)
        return debye.intensity(jnp.asarray(bessel, dtype), weights, 2e3 * math.pi / wavelength_nm * path)

    h = spot(t.emission, geometry.emission_nm)
    if t.excitation is not None and t.pinhole is not None and geometry.excitation_nm is not None:
        h = (jnp.asarray(t.pinhole, dtype) @ h) * spot(t.excitation, geometry.excitation_nm)
    return h / jnp.vdot(jnp.asarray(t.grid.multiplicity, dtype), h.sum(1))  # planes first: ten times less rounding


@partial(jax.jit, static_argnames="geometry")
def psf(spec: Spec, *, geometry: Geometry, depth_um: Array | float | None = None) -> Stack:
    """Intensity PSF (z, y, x), centred on index n//2, unit sum.

    Args:
        spec: mismatch parameters.
        geometry: nominal instrument; the PSF has its shape and voxel size.
        depth_um: depth of the plane imaged; the geometry's if None.

    Source: Richards & Wolf 1959; Torok & Varga 1997; Gibson & Lanni 1992 (path difference).
    """
    grid = tables(geometry).grid
    quadrant = radial_psf(spec, geometry=geometry, depth_um=depth_um).T[:, grid.quadrant]
    return radial.unfold(quadrant, geometry.shape[1:])


@partial(jax.jit, static_argnames=("geometry", "finer"))
def otf_quadrant(
    spec: Spec, *, geometry: Geometry, finer: tuple[int, int, int] = (1, 1, 1), depth_um: Array | float | None = None
) -> tuple[Array, Array]:
    """Real and imaginary OTF of the one frame, (1, |nu_z|, |nu_y|, |nu_x|) each; |H| is even along every axis.

    `finer` divides the frequency step of each axis (z, y, x); `depth_um` as in `psf`.
    """
    grid = tables(geometry).grid
    quadrant = radial_psf(spec, geometry=geometry, depth_um=depth_um).T[:, grid.quadrant]
    lateral = radial.quadrant_dft(quadrant, geometry.shape[1:], finer=finer[1:])
    real, imag = radial.axial_dft(lateral, geometry.shape[0], finer=finer[0])
    return real[None], imag[None]


@partial(jax.jit, static_argnames="geometry")
def index_aberration(spec: Spec, *, geometry: Geometry) -> Array:
    """a_11: content of Z11 in the index mismatch's aberration, waves rms at 520 nm."""
    t, dtype = tables(geometry), jnp.asarray(spec.z_step).dtype
    area = t.weight * np.sin(t.theta) * np.cos(t.theta)
    project = jnp.asarray(area * t.spherical / area.sum(), dtype)
    only_index = Spec(spec.z_step, jnp.zeros_like(spec.spherical_aberr), spec.refractive_index)
    return project @ aberration_um(only_index, geometry=geometry) / REFERENCE_UM


def derived(spec: Spec, *, geometry: Geometry) -> dict[str, Array]:
    """`c_tot` = spherical_aberr + a_11(n_s, depth): the total spherical aberration, far better known than its parts."""
    return {"c_tot": spec.spherical_aberr + index_aberration(spec, geometry=geometry)}


def twin(spec: Spec, *, geometry: Geometry, ranges: dict[str, tuple[float, float]]) -> Spec | None:
    """The spec with c_tot reversed and the same z-step: |OTF| is the same, so only what specimens look like tells them apart.

    c_s is moved first; where its range ends, the index takes the rest. None where the ranges leave no twin: then the ranges
    have decided the sign. Concrete values only (not under jit).

    With depth anchors c_s and a_11 are reversed each, which reverses c_tot at all depths; what the ranges cut off makes the
    twin's OTF another one, so that it must be fitted anew.
    """
    a11 = partial(index_aberration, geometry=geometry)
    varying = geometry.depth_anchors > 1
    goal = -float(spec.spherical_aberr + a11(spec))
    c_s = jnp.clip(-spec.spherical_aberr if varying else goal - a11(spec), *ranges["spherical_aberr"])
    here = Spec(spec.z_step, c_s, spec.refractive_index)
    for _ in range(6):  # secant on a_11(n_s) = goal - c_s, nearly linear
        shifted = Spec(here.z_step, c_s, here.refractive_index + 2e-3)
        slope = float(a11(shifted) - a11(here)) / 2e-3
        move = (goal - float(c_s + a11(here))) / slope if abs(slope) > 1e-3 else 0.0
        here = Spec(here.z_step, c_s, jnp.clip(here.refractive_index + move, *ranges["refractive_index"]))
    reached = float(c_s + a11(here))
    if varying:
        return here if reached * goal > 0 else None
    return here if abs(reached - goal) < TWIN_WAVES else None


def starts(ranges: dict[str, tuple[float, float]], *, geometry: Geometry) -> np.ndarray:
    """(15, 3) start points over the box: five z-steps x three total aberrations (their sign does not matter)."""
    del geometry
    share = {"z_step": (0.06, 0.29, 0.51, 0.74, 0.94), "spherical_aberr": (0.43, 0.63, 0.89)}
    points = []
    for s in share["z_step"]:
        for a in share["spherical_aberr"]:
            at = {"z_step": s, "spherical_aberr": a, "refractive_index": 0.5}
            points.append([ranges[f.name][0] + at[f.name] * (ranges[f.name][1] - ranges[f.name][0]) for f in FIELDS])
    return np.array(points)
