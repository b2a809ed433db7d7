"""The general vectorial pupil against the radial route and against the Richards-Wolf integral summed ray by ray."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from diffphys import confocal
from diffphys.confocal import aberrated, optics
from diffphys.confocal.aberrated import with_zernike
from diffphys.optics import pupil, zernike
from diffphys.optics.quadrature import gauss_legendre
from diffphys.spec import as_vector, from_vector, parse

SMALL = confocal.Geometry(shape=(5, 16, 16))
ASTIGMATISM_COMA = with_zernike((5, 6, 7, 8))


def psf(modality, spec, geometry):
    return np.array(jax.jit(modality.psf, static_argnames="geometry")(spec, geometry=geometry))


def spec_of(modality, dtype=jnp.float64, **values):
    base = {f.name: float(getattr(modality.nominal(), f.name)) for f in modality.FIELDS}
    return parse(modality.Spec, modality.FIELDS, base | values, dtype=dtype)


def test_bessel_orders_against_scipy():
    z = np.array([0.0, 1e-3, 0.7, 5.0, 31.0, 63.5])
    np.testing.assert_allclose(pupil.bessel_orders(20, z), [special.jv(m, z) for m in range(21)], atol=1e-14)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pinhole_au": 5.0},
        {"shape": (4, 17, 12), "excitation_nm": None},
        {"voxel_um": (0.2, 0.16, 0.08)},
        {"voxel_um": (0.3, 0.3, 0.3)},
    ],
    ids=str,
)
def test_only_spherical_aberration_equals_the_radial_route(float64, change):
    """Two quadratures, two pinholes, one physics: 1e-4 of the L2 norm (2e-5 measured; pinholes are made to 1e-4)."""
    geometry, modality = replace(SMALL, **change), with_zernike(())
    values = {"z_step": 30.0, "spherical_aberr": 0.1, "refractive_index": 1.525}
    radial = psf(confocal, spec_of(confocal, **values), geometry)
    general = psf(modality, spec_of(modality, **values), geometry)
    assert general.shape == radial.shape
    assert np.linalg.norm(general - radial) <= 1e-4 * np.linalg.norm(radial)


def ray_sum(spec, modality, geometry, wavelength_um, polarisation):
    """|E|^2 of linearly polarised light by brute force: Cartesian field of every ray, summed at every voxel."""
    n_i, n_s = geometry.immersion_index, float(spec.refractive_index)
    theta, weight = gauss_legendre(60, 0.0, np.arcsin(geometry.na / n_i))
    phi = 2 * np.pi * np.arange(96) / 96
    s, c = np.sin(theta)[:, None], np.cos(theta)[:, None]
    path = np.zeros((theta.size, phi.size))
    for j in modality.modes:
        path += 0.52 * float(getattr(spec, f"z{j}")) * zernike.zernike(j, s * n_i / geometry.na, phi[None])
    s_s = n_i * s / n_s
    c_s = np.sqrt(1 - s_s**2)
    tau_s, tau_p = 2 * n_i * c / (n_i * c + n_s * c_s), 2 * n_i * c / (n_s * c + n_i * c_s)
    px, py = polarisation
    towards, across = px * np.cos(phi) + py * np.sin(phi), -px * np.sin(phi) + py * np.cos(phi)
    field = np.stack(
        [
            tau_p * c_s * towards * np.cos(phi) - tau_s * across * np.sin(phi),
            tau_p * c_s * towards * np.sin(phi) + tau_s * across * np.cos(phi),
            -tau_p * s_s * towards,
        ]
    ) * (weight[:, None] * s * np.sqrt(c))
    z, y, x = (d * (np.arange(n) - n // 2) for d, n in zip(geometry.voxel_um, geometry.shape, strict=True))
    k = 2 * np.pi / wavelength_um
    out = np.zeros(geometry.shape)
    for i, u in enumerate(z):
        wave = field * np.exp(1j * k * (path - n_i * (c - 1) * u))
        along_y = np.exp(1j * k * n_i * np.multiply.outer(y, (s * np.sin(phi)).ravel()))
        along_x = np.exp(1j * k * n_i * np.multiply.outer((s * np.cos(phi)).ravel(), x))
        for component in wave.reshape(3, -1):
            out[i] += np.abs((along_y * component) @ along_x) ** 2
    return out


def test_components_against_a_sum_over_rays(float64):
    """Depth 0 at n_s 1.46, coma, astigmatism, trefoil; light polarised along x, and unpolarised. Both converged: 1e-8."""
    modality = with_zernike((5, 6, 7, 8, 9, 10), polarised=True)
    geometry = replace(SMALL, depth_um=0.0, pinhole_au=0.0, excitation_nm=520.0, shape=(3, 11, 12))
    values = {"z5": 0.06, "z6": -0.04, "z7": 0.08, "z8": 0.05, "z9": 0.03, "z10": -0.05, "refractive_index": 1.46}
    spec = spec_of(modality, **values)
    t = aberrated.tables(geometry, modality)
    field = modality._field(spec, geometry, None, t.excitation, 520.0)
    rays = [ray_sum(spec, modality, geometry, 0.52, p) for p in ((1, 0), (0, 1), (np.sqrt(0.5), np.sqrt(0.5)))]
    for stokes, expected in (
        ((0.0, 0.0), (rays[0] + rays[1]) / 2),
        ((1.0, 0.0), rays[0]),
        ((-1.0, 0.0), rays[1]),
        ((0.0, 1.0), rays[2]),
    ):
        ours = np.array(pupil.intensity(field, stokes=stokes))
        scale = (ours * expected).sum() / (expected**2).sum()
        assert np.abs(ours - scale * expected).max() <= 1e-8 * ours.max(), stokes
        assert np.abs(np.flip(ours, 2) - ours).max() > 1e-3 * ours.max()  # the pupil has no mirror plane


@pytest.mark.parametrize("stokes", [0.0, 0.8])
def test_polarised_light_widens_the_spot_along_the_polarisation(float64, stokes):
    """Richards & Wolf 1959: at high NA the spot of light polarised along x is longer in x."""
    modality = with_zernike((), polarised=True)
    geometry = replace(SMALL, shape=(1, 33, 33), voxel_um=(0.2, 0.02, 0.02), pinhole_au=0.0, emission_nm=488.0)
    h = psf(modality, spec_of(modality, s1=stokes), geometry)[0]
    grid = np.arange(33) - 16
    ratio = np.sqrt((h.sum(0) @ grid**2) / (h.sum(1) @ grid**2))
    assert ratio > 1.02 if stokes else ratio == pytest.approx(1.0, abs=1e-9)


def test_gradient_of_every_parameter(float64):
    """Automatic differentiation against central differences; 1e-6 relative is what steps of 1e-5 of the range allow."""
    modality = with_zernike((5, 7, 9, 22), slanted=True, polarised=True, limit=0.08)
    geometry = replace(SMALL, shape=(3, 9, 8))
    ranges = modality.default_ranges(geometry)
    rng = np.random.default_rng(0)
    at = jnp.asarray([low + (high - low) * rng.uniform(0.3, 0.7) for low, high in ranges.values()])
    probe = jnp.asarray(rng.normal(size=geometry.shape))

    @jax.jit
    def value(v):
        return jnp.vdot(probe, modality.psf(from_vector(modality.Spec, modality.FIELDS, v), geometry=geometry))

    gradient = jax.grad(value)(at)
    for i, (name, (low, high)) in enumerate(ranges.items()):
        step = 1e-5 * (high - low)
        far = [float(value(at.at[i].add(s * step))) for s in (-2, -1, 1, 2)]
        numeric = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * step)
        assert float(gradient[i]) == pytest.approx(numeric, rel=1e-6, abs=1e-9), name


def test_quadrature_and_orders_have_converged(float64, monkeypatch):
    """The rule's nodes and angular orders against more of both, at the corner of the ranges: 1e-4 of the peak, TAIL."""
    spec = spec_of(ASTIGMATISM_COMA, z_step=100.0, spherical_aberr=0.2, z5=0.15, z6=0.15, z7=0.15, z8=0.15)
    rule = psf(ASTIGMATISM_COMA, spec, SMALL)
    nodes, orders = optics.nodes_needed, pupil.orders_needed
    monkeypatch.setattr(optics, "nodes_needed", lambda *a: nodes(*a) + 32)
    monkeypatch.setattr(pupil, "orders_needed", lambda *a: orders(*a) + 12)
    aberrated.tables.cache_clear()
    better = psf(ASTIGMATISM_COMA, spec, SMALL)
    aberrated.tables.cache_clear()
    assert np.abs(rule - better).max() <= 1e-4 * better.max()


def test_float32_is_as_good_as_float64(float64):
    single = spec_of(ASTIGMATISM_COMA, jnp.float32, z_step=50.0, spherical_aberr=0.1, z5=0.1, z7=-0.1)
    exact = psf(ASTIGMATISM_COMA, jax.tree.map(jnp.float64, single), SMALL)
    rounded = psf(ASTIGMATISM_COMA, single, SMALL)
    assert rounded.dtype == np.float32 and exact.dtype == np.float64
    assert np.abs(rounded - exact).max() <= 2e-6 * exact.max()


def test_reversed_pupil_is_the_mirrored_psf(float64):
    """All aberrations reversed at n_s = n_i: h(z, y, x) -> h(-z, -y, -x), so |H| is the same: the twin."""
    geometry = replace(SMALL, shape=(5, 15, 15), depth_um=0.0)
    spec = spec_of(ASTIGMATISM_COMA, spherical_aberr=0.05, z5=0.08, z6=-0.05, z7=0.1, z8=0.04)
    twin = ASTIGMATISM_COMA.twin(spec, geometry=geometry, ranges=ASTIGMATISM_COMA.default_ranges(geometry))
    here, there = (psf(ASTIGMATISM_COMA, s, geometry) for s in (spec, twin))
    np.testing.assert_allclose(there, here[::-1, ::-1, ::-1], atol=1e-9 * here.max())
    assert np.abs(there - here).max() > 0.01 * here.max()
    assert (
        ASTIGMATISM_COMA.twin(spec, geometry=geometry, ranges={**ASTIGMATISM_COMA.default_ranges(geometry), "z7": (0.0, 0.1)})
        is None
    )


def test_folded_spectrum_cannot_see_mirrors_and_twins(float64):
    """The statement of the module: which signs the quadrant's mean |H|^2 has lost, and which it has kept."""
    geometry = replace(SMALL, shape=(5, 15, 15), depth_um=0.0)

    quadrant = jax.jit(partial(ASTIGMATISM_COMA.otf_quadrant, geometry=geometry))

    def folded(**values):
        return np.array(quadrant(spec_of(ASTIGMATISM_COMA, **values))[0])

    here = {"spherical_aberr": 0.05, "z5": 0.08, "z6": 0.05, "z7": 0.1}
    seen = folded(**here)
    for change in ({"z5": -0.08, "z7": -0.1}, {"z5": -0.08}, {k: -v for k, v in here.items()}):
        np.testing.assert_allclose(folded(**here | change), seen, atol=1e-7)
    assert np.abs(folded(**here | {"z6": -0.05}) - seen).max() > 1e-3
    assert np.abs(folded(**here | {"z5": 0.0}) - seen).max() > 1e-2


def test_otf_quadrant_is_the_modulus_where_there_is_nothing_to_fold(float64):
    modality = with_zernike(())
    values = {"z_step": 20.0, "spherical_aberr": 0.08}
    quadrant = jax.jit(partial(modality.otf_quadrant, geometry=SMALL, finer=(2, 1, 1)))
    ours, zero = quadrant(spec_of(modality, **values))
    theirs = np.hypot(*confocal.otf_quadrant(spec_of(confocal, **values), geometry=SMALL, finer=(2, 1, 1)))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.any(zero)


def test_a_zernike_mode_of_order_zero_leaves_focus_alone(float64):
    modality = with_zernike((22,))
    t = aberrated.tables(SMALL, modality)
    area = t.nodes.weight * np.sin(t.nodes.theta) * np.cos(t.nodes.theta)
    profile = t.modes[0][:, 0]
    for function in (np.ones_like(profile), np.cos(t.nodes.theta)):
        assert abs((area * function * profile).sum()) <= 1e-12 * area.sum()
    assert (area * profile**2).sum() / area.sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("modes", "message"),
    [((4, 5), "only move the image"), ((11,), "spherical_aberr already"), ((5, 5), "twice"), ((0,), "1 or more")],
)
def test_modes_that_are_no_parameters_are_refused(modes, message):
    with pytest.raises(ValueError, match=message) as error:
        with_zernike(modes)
    assert "\n" not in str(error.value)


def test_forward_is_the_convolution_with_the_psf(float64):
    from diffphys.operator import bind

    spec = spec_of(ASTIGMATISM_COMA, z5=0.1, z8=-0.1)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(7, 20, 20)))
    ours = ASTIGMATISM_COMA.forward(spec, x, geometry=SMALL)
    operator = bind(ASTIGMATISM_COMA, spec, geometry=SMALL, specimen=x.shape)
    np.testing.assert_allclose(operator.apply(x), ours, rtol=1e-9)
    assert np.array(as_vector(spec, ASTIGMATISM_COMA.FIELDS)).shape == (7,)
