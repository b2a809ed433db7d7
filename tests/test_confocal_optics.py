"""Confocal optics against closed forms, another library and its own symmetries."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from diffphys import confocal
from diffphys.confocal import optics
from diffphys.optics import debye, stratified
from diffphys.optics.quadrature import gauss_legendre
from diffphys.primitives.convolve import convolve
from diffphys.spec import parse

SMALL = confocal.Geometry(shape=(16, 32, 32))
HARD = (115.0, 0.23, 1.538)  # the corner of the ranges with the longest optical path


def spec_of(*values, dtype=jnp.float64):
    return parse(confocal.Spec, confocal.FIELDS, dict(zip((f.name for f in confocal.FIELDS), values, strict=True)), dtype=dtype)


def more_nodes(monkeypatch, extra):
    """Let the tables use more quadrature nodes than the rule."""
    rule = optics.nodes_needed
    optics.tables.cache_clear()
    monkeypatch.setattr(optics, "nodes_needed", lambda *a: rule(*a) + extra)


@pytest.fixture(autouse=True)
def clean_tables():
    """Tables are cached per geometry: none built with other nodes may leave its test."""
    yield
    optics.tables.cache_clear()


def test_low_na_limit_is_airy_and_born_wolf(float64):
    """Born & Wolf 8.8: (2 J1(v)/v)^2 in focus, sinc^2(u/4) on the axis. Vectorial terms are O(NA^2) = 4e-4 / 16."""
    geometry = confocal.Geometry(
        shape=(9, 64, 64),
        voxel_um=(100.0, 1.0, 1.0),
        na=0.02,
        immersion_index=1.0,
        excitation_nm=None,
        emission_nm=500.0,
        depth_um=0.0,
    )
    h = np.array(confocal.psf(spec_of(0.0, 0.0, 1.0), geometry=geometry))
    h /= h[4, 32, 32]
    grid = np.arange(64) - 32
    v = 2 * np.pi / 0.5 * 0.02 * np.hypot(*np.meshgrid(grid, grid))
    safe = np.where(v == 0, 1.0, v)
    airy = np.where(v == 0, 1.0, (2 * special.j1(safe) / safe) ** 2)
    u = 2 * np.pi / 0.5 * 0.02**2 * 100.0 * (np.arange(9) - 4)
    assert np.abs(h[4] - airy).max() <= 1e-4
    assert np.abs(h[:, 32, 32] - np.sinc(u / 4 / np.pi) ** 2).max() <= 1e-4


def test_confocal_psf_is_the_product_of_its_factors(float64):
    """At equal wavelengths and a point pinhole, the confocal PSF is the square of the wide-field one.

    Tolerance: the emission factor is interpolated on a radial grid of 0.04 wavelengths / NA (2e-6 at 10 nm, 4th order).
    """
    both = confocal.Geometry(shape=(9, 32, 32), excitation_nm=520.0, pinhole_au=0.0)
    spec = spec_of(30.0, 0.05, 1.525)
    wide = np.array(confocal.psf(spec, geometry=replace(both, excitation_nm=None)))
    h = np.array(confocal.psf(spec, geometry=both))
    assert np.abs(h - wide**2 / (wide**2).sum()).max() <= 2e-5 * h.max()


def test_wider_pinhole_lies_between_point_pinhole_and_wide_field_detection(float64):
    """Sectioning is lost as the pinhole opens: the on-axis profile widens with its diameter."""
    share = []
    for au in (0.0, 1.0, 2.0, 4.0):
        h = np.array(confocal.psf(spec_of(0.0, 0.0, 1.515), geometry=replace(SMALL, pinhole_au=au)))
        share.append(h[8].sum())
    assert np.all(np.diff(share) < 0)


@pytest.mark.parametrize("vectorial", [True, False], ids=["vectorial", "scalar"])
@pytest.mark.parametrize(("n_s", "depth", "na"), [(1.515, 0.0, 1.4), (1.525, 10.0, 1.4), (1.33, 5.0, 1.2)])
def test_field_agrees_with_psfmodels(float64, n_s, depth, na, vectorial):
    """psfmodels 0.3.3 keeps defocus in, with the paraxial focus as origin: z_f = z_v - d (1 - n_i / n_s).

    Tolerance 2e-3: psfmodels interpolates linearly in radius, 0.9-1.4e-3 even on its 10 nm table.
    """
    psfmodels = pytest.importorskip("psfmodels")
    n_i, wavelength, pixel, size = 1.515, 0.52, 0.01, 193
    stage = np.linspace(-1.2, 1.2, 9)
    params = {"NA": na, "ng0": n_i, "ng": n_i, "ni0": n_i, "ni": n_i, "ns": n_s, "ti0": 150, "tg": 170, "tg0": 170, "sf": 1}
    call = psfmodels.vectorial_psf if vectorial else psfmodels.scalar_psf
    theirs = call(zv=stage + depth, nx=size, dxy=pixel, pz=depth, wvl=wavelength, params=params, normalize=True)

    theta, weight = gauss_legendre(160, 0.0, np.arcsin(na / n_i))
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    focus = stage + depth - depth * (1 - n_i / n_s)
    # the un-projected path d (n_s cos_s - n_i cos) + d n_i cos, less the stage's z n_i cos
    path = stratified.index_path_um(n_s, n_i, depth, sin, cos)[:, None] + n_i * cos[:, None] * (depth - focus)
    grid = np.arange(size) - size // 2
    radii, index = np.unique(np.hypot(*np.meshgrid(grid, grid)).round(9), return_inverse=True)
    bessel = debye.bessel_matrices(pixel * radii, np.sin(theta), n_i, wavelength)
    if vectorial:
        amplitudes = tuple(weight * jnp.sqrt(cos) * sin * a for a in stratified.fresnel_amplitudes(n_s, n_i, sin, cos))
    else:  # Gibson & Lanni's scalar pupil has no apodisation: d(sin^2) = 2 sin cos dtheta
        amplitudes = (weight * sin * cos, jnp.zeros_like(sin), jnp.zeros_like(sin))
    ours = np.array(debye.intensity(bessel, amplitudes, 2 * np.pi / wavelength * path)).T[:, index.reshape(size, size)]
    ours /= ours.max()
    scale = (ours * theirs).sum() / (theirs * theirs).sum()
    assert abs(scale - 1) <= 2e-3
    assert np.linalg.norm(ours - scale * theirs) <= 2e-3 * np.linalg.norm(ours)
    assert ours.max(axis=(1, 2)).argmax() == theirs.max(axis=(1, 2)).argmax()


@pytest.mark.parametrize(
    ("shape", "step"), [((32, 64, 64), 0.2), ((8, 16, 16), 0.1), ((1, 64, 64), 0.2), ((64, 256, 256), 0.2)], ids=str
)
def test_quadrature_rule_has_converged(float64, monkeypatch, shape, step):
    """The rule's nodes against 64 more, at the worst corner of the ranges. 1e-6 of the peak is float32's own error."""
    geometry = confocal.Geometry(shape=shape, voxel_um=(step, 0.08, 0.08))
    spec = spec_of(*HARD)
    rule = np.array(optics.radial_psf(spec, geometry=geometry))
    more_nodes(monkeypatch, 64)
    better = np.array(optics.radial_psf(spec, geometry=geometry))
    assert np.abs(rule - better).max() <= 1e-6 * better.max()


@pytest.mark.parametrize("values", [(0.0, 0.0, 1.515), (50.0, 0.1, 1.525), HARD], ids=str)
def test_float32_psf_is_as_good_as_float64(float64, values):
    """1e-6 of the peak: phases of up to 100 rad carry 1e-5 rad of float32 rounding, averaged over the nodes."""
    geometry = confocal.Geometry(shape=(32, 64, 64))
    single = spec_of(*values, dtype=jnp.float32)
    exact = confocal.psf(
        jax.tree.map(jnp.float64, single), geometry=geometry
    )  # the same numbers: the spec's rounding is no error
    rounded = confocal.psf(single, geometry=geometry)
    assert exact.dtype == jnp.float64 and rounded.dtype == jnp.float32
    assert np.abs(np.array(rounded, np.float64) - exact).max() <= 1e-6 * exact.max()


def test_mirror_identity(float64):
    """h(r, u; +c_s) = h(r, -u; -c_s) at n_s = n_i: the fields are complex conjugates.

    Exact on an odd number of planes. On an even one the plane -nz/2 has no mate, which changes the sum: 2.4e-4 measured.
    """
    for planes, tolerance in ((17, 1e-12), (32, 1e-3)):
        geometry = replace(SMALL, shape=(planes, 32, 32))
        plus, minus = (np.array(confocal.psf(spec_of(0.0, c, 1.515), geometry=geometry)) for c in (0.1, -0.1))
        first = 1 - planes % 2
        assert np.abs(plus[first:] - minus[first:][::-1]).max() <= tolerance * plus.max()
        assert np.abs(plus - minus).max() > 0.01 * plus.max()  # the sign does matter away from the mirror


@pytest.mark.parametrize("planes", [16, 17, 1])
@pytest.mark.parametrize("lateral", [(32, 32), (31, 24), (33, 32)])
def test_psf_is_centred_and_has_unit_sum(float64, planes, lateral):
    geometry = replace(SMALL, shape=(planes, *lateral))
    h = np.array(confocal.psf(spec_of(20.0, 0.0, 1.515), geometry=geometry))
    ny, nx = lateral
    assert h.shape == geometry.shape and h.min() >= 0
    assert h.sum() == pytest.approx(1.0, rel=1e-12)  # double rounding
    assert np.unravel_index(h.argmax(), h.shape) == (planes // 2, ny // 2, nx // 2)
    fy, fx = 1 - ny % 2, 1 - nx % 2
    np.testing.assert_array_equal(h[:, fy:], h[:, fy:][:, ::-1])  # copies of one quadrant: equal to the last bit
    np.testing.assert_array_equal(h[:, :, fx:], h[:, :, fx:][:, :, ::-1])


def test_spherical_aberration_darkens_the_peak_as_stated(float64):
    """Peak against the unaberrated one, excitation times detection: 0.81, 0.42, 0.08 at 0.05, 0.1, 0.2 waves rms.

    Marechal's exp(-(2 pi c)^2) per factor gives 0.81 and 0.43. Fine grid, so that the peak is sampled: 10 %.
    """
    geometry = confocal.Geometry(shape=(65, 1, 1), voxel_um=(0.02, 0.08, 0.08), pinhole_au=0.0)
    t = optics.tables(geometry)
    sin, cos = jnp.sin(t.theta), jnp.cos(t.theta)
    u = 0.02 * (np.arange(65) - 32)
    amplitudes = tuple(t.weight * jnp.sqrt(cos) * sin * a for a in stratified.fresnel_amplitudes(1.515, 1.515, sin, cos))

    def peak(c_s):
        path = optics.aberration_um(spec_of(0.0, c_s, 1.515), geometry=geometry)[:, None] - 1.515 * (cos - 1)[:, None] * u
        centre = [debye.bessel_matrices(np.zeros(1), np.sin(t.theta), 1.515, w) for w in (0.488, 0.52)]
        spots = [debye.intensity(b, amplitudes, 2 * np.pi / w * path) for b, w in zip(centre, (0.488, 0.52), strict=True)]
        return float(jnp.max(spots[0] * spots[1]))

    for c_s, expected in ((0.05, 0.81), (0.1, 0.42), (0.2, 0.08)):
        assert peak(c_s) / peak(0.0) == pytest.approx(expected, rel=0.1)


A11_AT_10_UM = {1.47: -0.0958, 1.503: -0.0213, 1.51: -0.0086, 1.52: 0.0082, 1.525: 0.0160, 1.53: 0.0234, 1.538: 0.0347}


@pytest.mark.parametrize("n_s", list(A11_AT_10_UM))
def test_index_mismatch_in_waves_of_spherical_aberration(float64, n_s):
    """Table at a depth of 10 um; 1e-3 waves covers its four digits and the unit-rms rescaling of Z11 (0.6 %)."""
    geometry = replace(SMALL, depth_um=10.0)
    a11 = optics.index_aberration(spec_of(0.0, 0.0, n_s), geometry=geometry)
    assert float(a11) == pytest.approx(A11_AT_10_UM[n_s], abs=1e-3)


def test_index_mismatch_is_linear_in_depth_and_adds_to_c_s(float64):
    spec = spec_of(0.0, 0.07, 1.53)
    per_um = [
        float(optics.index_aberration(spec, geometry=replace(SMALL, depth_um=depth))) / depth for depth in (1.0, 10.0, 40.0)
    ]
    np.testing.assert_allclose(per_um, per_um[0], rtol=1e-12)  # an exact law
    total = confocal.derived(spec, geometry=SMALL)["c_tot"]
    assert float(total) == pytest.approx(0.07 + 10 * per_um[0], rel=1e-12)
    assert float(optics.index_aberration(spec, geometry=replace(SMALL, depth_um=0.0))) == 0.0


def test_aberration_is_free_of_piston_and_defocus(float64):
    """What the projector removes may not come back: weighted moments of W with 1 and cos vanish."""
    t = optics.tables(SMALL)
    path = np.array(optics.aberration_um(spec_of(0.0, 0.1, 1.53), geometry=SMALL))
    area = t.weight * np.sin(t.theta) * np.cos(t.theta)
    for function in (np.ones_like(t.theta), np.cos(t.theta)):
        assert abs((area * function * path).sum()) <= 1e-12 * (area * np.abs(path)).sum()


def test_twin_has_the_same_otf_modulus(float64):
    """c_tot -> -c_tot mirrors the PSF axially at n_s = n_i, so |H| agrees up to the unpaired plane of an odd-even grid."""
    geometry = replace(SMALL, shape=(17, 32, 32))
    ranges = confocal.default_ranges(geometry)
    spec = spec_of(20.0, 0.1, 1.515)
    twin = confocal.twin(spec, geometry=geometry, ranges=ranges)
    assert float(confocal.derived(twin, geometry=geometry)["c_tot"]) == pytest.approx(-0.1, abs=1e-12)
    here, there = (np.hypot(*confocal.otf_quadrant(s, geometry=geometry)) for s in (spec, twin))
    np.testing.assert_allclose(here, there, atol=1e-12)
    near_edge = spec_of(20.0, 0.125, 1.517)  # c_s alone cannot reverse this one: n_s takes the rest
    far = confocal.twin(near_edge, geometry=geometry, ranges=ranges)
    total, reversed_ = (float(confocal.derived(s, geometry=geometry)["c_tot"]) for s in (near_edge, far))
    assert reversed_ == pytest.approx(-total, abs=1e-6) and float(far.refractive_index) < 1.515
    assert float(far.spherical_aberr) == pytest.approx(ranges["spherical_aberr"][0])
    assert confocal.twin(spec_of(20.0, 0.2, 1.53), geometry=geometry, ranges=ranges) is None  # out of reach of both


@pytest.mark.parametrize(("anchors", "tolerance"), [(2, 5e-3), (3, 1e-3)])
def test_depth_anchors_against_one_psf_per_plane(anchors, tolerance):
    """Filaments, 32 planes of 0.25 um from 5 um, n_s 1.535, c_s 0.05: measured 2.6e-3 and 7.4e-4 relative L2."""
    geometry = confocal.Geometry(shape=(32, 48, 48), voxel_um=(0.25, 0.08, 0.08), depth_um=5.0, depth_anchors=anchors)
    spec = spec_of(0.0, 0.05, 1.535, dtype=jnp.float32)
    x = jnp.asarray(confocal.scene("filaments", shape=geometry.shape, voxel_um=geometry.voxel_um, seed=0), jnp.float32)
    exact = jnp.zeros_like(x)
    for j in range(32):
        plane = jnp.zeros_like(x).at[j].set(x[j])
        exact += convolve(confocal.psf(spec, geometry=geometry, depth_um=5.0 + 0.25 * j), plane)
    error = jnp.linalg.norm(confocal.forward(spec, x, geometry=geometry) - exact) / jnp.linalg.norm(exact)
    assert error <= tolerance


def test_attenuation_follows_beers_law(float64):
    """exp(-mu z), z from the first plane; an exact factor."""
    spec, x = spec_of(0.0, 0.0, 1.515), jnp.ones(SMALL.shape)
    clear, dim = (confocal.forward(spec, x, geometry=replace(SMALL, attenuation_per_um=mu)) for mu in (0.0, 0.3))
    np.testing.assert_allclose(
        dim / clear, np.broadcast_to(np.exp(-0.3 * 0.2 * np.arange(16))[:, None, None], x.shape), rtol=1e-12
    )


def test_z_step_error_is_a_change_of_sampling(float64):
    """A nominal step of 200 nm with an error of 50 nm is a step of 250 nm: identical arithmetic up to rounding."""
    moved = confocal.psf(spec_of(50.0, 0.05, 1.52), geometry=SMALL)
    nodes = replace(SMALL, voxel_um=(0.25, 0.08, 0.08))
    np.testing.assert_allclose(moved, confocal.psf(spec_of(0.0, 0.05, 1.52), geometry=nodes), atol=1e-9 * float(moved.max()))


def test_sampling_warnings_carry_the_formula():
    lines = confocal.sampling_warnings(confocal.Geometry())
    assert len(lines) == 1 and "λ/(4n(1-cos α)) = 130 nm" in lines[0]
    assert confocal.sampling_warnings(confocal.Geometry(voxel_um=(0.1, 0.08, 0.08))) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 8)}, "three positive voxel counts"),
        ({"voxel_um": (0.2, 0.0, 0.08)}, "three positive micrometres"),
        ({"na": 1.6}, "less than immersion_index"),
        ({"emission_nm": 0.52}, "200 to 3000 nm"),
        ({"pinhole_au": -1.0}, "0 or more"),
        ({"depth_anchors": 4}, "1, 2 or 3"),
    ],
)
def test_impossible_instruments_are_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        confocal.Geometry(**change)
    assert "\n" not in str(error.value)


def test_ranges_outside_the_model_are_refused():
    geometry = confocal.Geometry()
    ranges = confocal.default_ranges(geometry)
    with pytest.raises(ValueError, match="totally reflected"):
        confocal.check_ranges({**ranges, "refractive_index": (1.33, 1.5)}, geometry)
    with pytest.raises(ValueError, match="z_step may fall"):
        confocal.check_ranges({**ranges, "z_step": (-250.0, 0.0)}, geometry)
