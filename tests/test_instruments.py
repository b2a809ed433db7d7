"""Other instruments: immersions, apertures up to total internal reflection, wavelengths, pinholes, shapes, pixels.

Each against psfmodels, against more quadrature nodes, and its gradient against finite differences.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from diffphys import confocal
from diffphys.confocal import optics
from diffphys.optics import debye, pinhole, stratified
from diffphys.optics.quadrature import gauss_legendre
from diffphys.spec import as_vector, from_vector, parse


class Instrument(NamedTuple):
    na: float
    immersion: float
    specimen: float
    depth: float
    excitation: float
    emission: float
    pinhole: float
    shape: tuple[int, int, int]
    voxel: tuple[float, float, float]

    @property
    def reflecting(self) -> bool:
        return self.na >= self.specimen

    @property
    def geometry(self) -> confocal.Geometry:
        return confocal.Geometry(
            shape=self.shape,
            voxel_um=self.voxel,
            na=self.na,
            immersion_index=self.immersion,
            excitation_nm=self.excitation,
            emission_nm=self.emission,
            pinhole_au=self.pinhole,
            depth_um=self.depth,
            total_internal_reflection=self.reflecting,
        )

    @property
    def spec(self):
        values = {"z_step": 20.0, "spherical_aberr": 0.05, "refractive_index": self.specimen}
        return parse(confocal.Spec, confocal.FIELDS, values, dtype=jnp.float64)


INSTRUMENTS = {
    "air 0.3": Instrument(0.3, 1.0, 1.33, 5.0, 561.0, 600.0, 1.0, (4, 12, 9), (2.0, 0.3, 0.3)),
    "air 0.95": Instrument(0.95, 1.0, 1.33, 2.0, 640.0, 670.0, 0.5, (5, 11, 12), (0.3, 0.12, 0.12)),
    "water 1.2": Instrument(1.2, 1.333, 1.35, 10.0, 405.0, 455.0, 2.0, (5, 12, 12), (0.25, 0.16, 0.08)),
    "silicone 1.3": Instrument(1.3, 1.406, 1.38, 20.0, 488.0, 520.0, 5.0, (5, 9, 16), (0.2, 0.09, 0.09)),
    "glycerol 1.3": Instrument(1.3, 1.473, 1.45, 10.0, 561.0, 610.0, 1.0, (4, 12, 12), (0.2, 0.1, 0.1)),
    "oil 1.49, mounted in oil": Instrument(1.49, 1.515, 1.515, 10.0, 488.0, 520.0, 1.0, (5, 12, 12), (0.2, 0.07, 0.14)),
    "oil 1.49, water": Instrument(1.49, 1.515, 1.33, 0.1, 488.0, 520.0, 1.0, (5, 12, 12), (0.2, 0.07, 0.07)),
}
every = pytest.mark.parametrize("one", INSTRUMENTS.values(), ids=list(INSTRUMENTS))


@every
def test_field_agrees_with_psfmodels(float64, one):
    """One vectorial field with the coverslip matched to the immersion, on psfmodels' 10 nm table: 2e-3 of the L2 norm.

    Its axial origin is the paraxial focus: z_f = z_v - d (1 - n_i / n_s). 1.5e-2 with total reflection: its equidistant rule
    steps over the branch point at the critical angle (8.5e-3 measured; the wrong sign of the root would give 0.39).
    """
    psfmodels = pytest.importorskip("psfmodels")
    n_i, n_s, depth, wavelength, size = one.immersion, one.specimen, one.depth, 1e-3 * one.emission, 193
    reach = 0.4 * wavelength / (n_i * (1 - np.sqrt(1 - (one.na / n_i) ** 2)))
    stage = np.linspace(-2 * reach, 2 * reach, 7)
    params = {"NA": one.na, "ng0": n_i, "ng": n_i, "ni0": n_i, "ni": n_i, "ns": n_s, "ti0": 150, "tg": 170, "tg0": 170, "sf": 1}
    theirs = psfmodels.vectorial_psf(
        zv=stage + depth, nx=size, dxy=0.01, pz=depth, wvl=wavelength, params=params, normalize=True
    )
    theta, weight = gauss_legendre(400 if one.reflecting else 160, 0.0, np.arcsin(one.na / n_i))
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    focus = stage + depth - depth * (1 - n_i / n_s)
    path = stratified.index_path_um(n_s, n_i, depth, sin, cos, evanescent=one.reflecting)
    parts = stratified.fresnel_amplitudes(n_s, n_i, sin, cos, evanescent=one.reflecting)
    k = 2 * np.pi / wavelength
    decay = jnp.exp(-k * jnp.imag(path))
    amplitudes = tuple(weight * jnp.sqrt(cos) * sin * decay * a for a in parts)
    grid = np.arange(size) - size // 2
    radii, index = np.unique(np.hypot(*np.meshgrid(grid, grid)).round(9), return_inverse=True)
    bessel = debye.bessel_matrices(0.01 * radii, np.sin(theta), n_i, wavelength)
    phase = k * (jnp.real(path)[:, None] + n_i * cos[:, None] * (depth - focus))
    ours = np.array(debye.intensity(bessel, amplitudes, phase)).T[:, index.reshape(size, size)]
    ours /= ours.max()
    scale = (ours * theirs).sum() / (theirs * theirs).sum()
    assert np.linalg.norm(ours - scale * theirs) <= (1.5e-2 if one.reflecting else 2e-3) * np.linalg.norm(ours)


@every
def test_quadrature_has_converged(float64, monkeypatch, one):
    """The rule's nodes against 64 more: 1e-6 of the peak; 1e-3 where the critical angle, a branch point, is inside.

    Gauss's rule converges there as nodes^-1.5: 4e-4 with 120 nodes, 8e-5 with 400.
    """
    rule = np.array(optics.radial_psf(one.spec, geometry=one.geometry))
    nodes = optics.nodes_needed
    optics.tables.cache_clear()
    monkeypatch.setattr(optics, "nodes_needed", lambda *a: nodes(*a) + 64)
    better = np.array(optics.radial_psf(one.spec, geometry=one.geometry))
    optics.tables.cache_clear()
    assert np.isfinite(rule).all()
    assert np.abs(rule - better).max() <= (1e-3 if one.reflecting else 1e-6) * better.max()


@every
def test_gradient(float64, one):
    """Every parameter against fourth-order central differences; 1e-6 relative."""
    probe = jnp.asarray(np.random.default_rng(0).normal(size=one.shape))

    @jax.jit
    def value(v):
        return jnp.vdot(probe, confocal.psf(from_vector(confocal.Spec, confocal.FIELDS, v), geometry=one.geometry))

    at = as_vector(one.spec, confocal.FIELDS)
    gradient = jax.grad(value)(at)
    for i, step in enumerate((1e-2, 1e-4, 1e-6)):
        far = [float(value(at.at[i].add(s * step))) for s in (-2, -1, 1, 2)]
        numeric = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * step)
        assert float(gradient[i]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("airy_units", [0.5, 1.0, 2.0, 5.0])
def test_pinhole_of_any_size(airy_units):
    """The mean of J0(q r) over a disc is J0(q r) 2 J1(q R) / (q R); q up to an intensity's band limit 4 pi NA / lambda."""
    na, wavelength = 1.4, 0.52
    radius, step = airy_units * pinhole.airy_radius_um(wavelength, na), 0.04 * wavelength / na
    radii = np.linspace(0, 3, 40)
    matrix = pinhole.pinhole_average(radii, step, radius)
    for share in (0.05, 0.3, 0.6, 0.9):
        q = share * 4 * np.pi * na / wavelength
        expected = special.j0(q * radii) * 2 * special.j1(q * radius) / (q * radius)
        np.testing.assert_allclose(matrix @ special.j0(q * step * np.arange(matrix.shape[1])), expected, atol=2e-4)


def test_critical_angle_splits_the_amplitudes(float64):
    """Below it real and as without evanescent waves; beyond it |tau_s|^2 by hand, and n_s cos(theta_s) = +i kappa."""
    n_i, n_s = 1.515, 1.33
    sin = jnp.asarray([0.2, 0.6, 0.85, 0.92, 0.98])
    cos = jnp.sqrt(1 - sin**2)
    parts = stratified.fresnel_amplitudes(n_s, n_i, sin, cos, evanescent=True)
    plain = stratified.fresnel_amplitudes(n_s, n_i, sin[:3], cos[:3])
    for a, b in zip(parts, plain, strict=True):
        np.testing.assert_allclose(a[:3], b, rtol=1e-14)
    kappa = np.sqrt((n_i * np.array(sin[3:])) ** 2 - n_s**2)
    np.testing.assert_allclose(stratified.specimen_cosine(n_s, n_i, sin[3:], evanescent=True), 1j * kappa, rtol=1e-12)
    tau_s = (parts[0] + parts[2])[3:] / 2
    n_cos = n_i * np.array(cos[3:])
    np.testing.assert_allclose(np.abs(tau_s) ** 2, 4 * n_cos**2 / (n_cos**2 + kappa**2), rtol=1e-12)


def test_evanescent_waves_fade_with_depth(float64):
    """exp(-k kappa d), kappa^2 = (n_i sin)^2 - n_s^2, for the rays beyond the critical angle; the others keep their weight."""
    one = INSTRUMENTS["oil 1.49, water"]._replace(shape=(1, 8, 8))
    nodes = optics.aperture(one.geometry)
    at = [
        optics.amplitudes(one.spec, geometry=one.geometry, wavelength_um=0.52, depth_um=d, nodes=nodes)[1] for d in (0.0, 0.1)
    ]
    kappa = np.sqrt(np.maximum((one.immersion * np.sin(nodes.theta)) ** 2 - one.specimen**2, 0.0))
    assert 0.2 < (kappa > 0).mean() < 0.4
    np.testing.assert_allclose(np.abs(at[1]) / np.abs(at[0]), np.exp(-2 * np.pi / 0.52 * kappa * 0.1), rtol=1e-10)


def test_an_index_below_the_na_needs_the_flag():
    geometry = confocal.Geometry(na=1.49)
    with pytest.raises(ValueError, match="total_internal_reflection: true"):
        confocal.check_ranges({**confocal.default_ranges(geometry), "refractive_index": (1.33, 1.33)}, geometry)
    allowed = confocal.Geometry(na=1.49, total_internal_reflection=True)
    ranges = confocal.default_ranges(allowed)
    assert ranges["refractive_index"][0] < 1.33
    confocal.check_ranges(ranges, allowed)
    with pytest.raises(ValueError, match="less than immersion_index"):
        confocal.Geometry(na=1.52, total_internal_reflection=True)
