"""Point-scanning SHG: bucket and descanned detection against published numbers, and the refusal to invent what they hide."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import Detector, Status, shg
from diffphys.identify import blind
from diffphys.io import hdf5, optics_file, optics_template
from diffphys.shg import optics, point_scanning
from diffphys.spec import parse

ONE = (0.0,)
BUCKET = shg.Geometry(shape=(64, 64), detection="bucket", excitation_na=0.9, slab_um=3.0, phase_offsets_rad=ONE)
DESCANNED = shg.Geometry(shape=(64, 64), detection="descanned", excitation_na=0.8, phase_offsets_rad=ONE)


def spec_of(*values, dtype=jnp.float64):
    return parse(shg.Spec, shg.FIELDS, dict(zip((f.name for f in shg.FIELDS), values, strict=True)), dtype=dtype)


def radians(percent, *, index=1.4, harmonic_um=0.4, slab_um):
    """Phase mismatch in percent of k_2w -> radians of delta-k L / 2."""
    return 2 * math.pi * index / harmonic_um * slab_um * percent / 200


@pytest.mark.parametrize(("na", "flux"), [(0.8, (0.91, 1.0, 0.68, 0.29)), (0.55, (1.55, 1.0, 0.27, 0.03))])
def test_descanned_flux_fixes_the_sign_of_p_m(float64, na, flux):
    """Values at p_m = -1, 0, 1, 2 rad found by a study with 24 nodes: two decimals, hence 0.015 (0.9 %)."""
    geometry = replace(DESCANNED, shape=(128, 128), na=na)
    eta = [float(shg.efficiency(spec_of(p, 0.0, 0.0), geometry=geometry)[0]) for p in (-1.0, 0.0, 1.0, 2.0)]
    np.testing.assert_allclose(eta, flux, atol=0.015)


@pytest.mark.parametrize(
    ("excitation_na", "slab_um", "na", "by_na", "by_phase"),
    [(0.9, 3.0, 0.8, 2.5e-3, 5e-3), (0.9, 3.0, 0.9, 1e-4, 2e-3), (0.8, 10.0, 0.5, 0.02, 0.04)],
)
def test_bucket_hardly_changes_the_blur(float64, excitation_na, slab_um, na, by_na, by_phase):
    """Largest change of the OTF by c_n = 0.02 and p_m = 1 % as a study rounds it (imaging collection: 0.11 and 0.12)."""
    geometry = replace(BUCKET, shape=(128, 128), excitation_na=excitation_na, slab_um=slab_um, na=na)

    def otf(p_m, c_n):
        return np.asarray(shg.otf_quadrant(spec_of(p_m, 0.0, c_n), geometry=geometry)[0][0])

    rest = otf(0.0, 0.0)
    assert np.abs(otf(0.0, 0.02) - rest).max() == pytest.approx(by_na, rel=0.4)
    assert np.abs(otf(radians(1.0, slab_um=slab_um), 0.0) - rest).max() == pytest.approx(by_phase, rel=0.15)


@pytest.mark.parametrize("geometry", [BUCKET, DESCANNED], ids=lambda g: g.detection)
def test_quadrature_has_converged(float64, monkeypatch, geometry):
    """Half as many nodes again, over angle and depth, change the PSF by less than 1e-6 of its peak."""
    at = spec_of(2.3, 0.0, 0.046)
    here = np.asarray(shg.psf(at, geometry=geometry))
    needed = point_scanning.nodes_needed
    monkeypatch.setattr(point_scanning, "nodes_needed", lambda *a: needed(*a) * 3 // 2)
    for cache in (point_scanning.beam, optics.tables):
        cache.cache_clear()
    finer = np.asarray(shg.psf(at, geometry=geometry))
    for cache in (point_scanning.beam, optics.tables):
        cache.cache_clear()
    assert np.abs(finer - here).max() <= 1e-6 * here.max()


@pytest.mark.parametrize("geometry", [BUCKET, DESCANNED], ids=lambda g: g.detection)
def test_gradient_against_finite_differences(float64, geometry):
    """Central differences of step h: error h^2 of the third derivative, 1e-6 relative at h = 1e-4 (p_m) and 1e-5 (c_n)."""
    geometry = replace(geometry, shape=(32, 32))
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32)))

    def probe(theta):
        return jnp.sum(weight * shg.psf(spec_of(0.0, 0.0, 0.0).__class__(theta[0], 0.0, theta[1]), geometry=geometry))

    at, steps = jnp.asarray([0.7, 0.01]), np.diag([1e-4, 1e-5])
    gradient = np.asarray(jax.jit(jax.grad(probe))(at))
    central = [float(probe(at + e) - probe(at - e)) / (2 * e.sum()) for e in steps]
    np.testing.assert_allclose(gradient, central, rtol=2e-5)


def test_forward_keeps_light_and_modulates_recorded_rows():
    x = np.zeros((32, 32), np.float32)
    x[16, 16] = 1.0
    geometry = replace(BUCKET, shape=(32, 32))
    still, moving = (shg.forward(spec_of(0.0, e, 0.0, dtype=jnp.float32), x, geometry=geometry)[0] for e in (0.0, 4.0))
    assert float(still.sum()) == pytest.approx(1.0, abs=1e-5)
    power = (1 + 0.04 * shg.power_trace(geometry)[0]) ** 2
    np.testing.assert_allclose(moving, still * power[:, None], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detection": "confocal"}, "detection is 'confocal'"),
        ({"excitation_na": None}, "excitation_na is None"),
        ({"excitation_na": 1.5}, "excitation_na is 1.5"),
    ],
)
def test_impossible_geometries_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BUCKET, **change)


def test_optics_file_states_the_detection():
    text = optics_template.template("shg").replace("detection: imaging  ", "detection: bucket\n  excitation_na: 0.9\n ")
    stated = optics_file.parse(text, name="optics.yaml", modality="shg")
    geometry = stated.bind((16, 16), (0.1, 0.1))
    assert (geometry.detection, geometry.excitation_na) == ("bucket", 0.9)
    with pytest.raises(ValueError, match=r"geometry.detection is 'x'; expected 'imaging', 'bucket' or 'descanned'"):
        optics_file.parse(text.replace("bucket", "x", 1), name="optics.yaml", modality="shg")


def test_hdf5_keeps_the_detection(tmp_path):
    geometry = replace(BUCKET, shape=(8, 8), power_trace=None)
    sample = hdf5.Sample(np.ones((1, 8, 8), np.float32), Detector(), None, None, "collagen")
    ranges = shg.default_ranges(geometry)
    hdf5.write_measurement(tmp_path / "a.h5", shg, geometry=geometry, samples={"sample_00": sample}, ranges=ranges)
    assert hdf5.read_measurement(tmp_path / "a.h5", sample="sample_00").geometry == geometry


DETECTOR = Detector(peak_photons=1000.0, background=20.0, read_sigma=1.0)


def measured(geometry, *, seed=3):
    x = shg.scene("collagen", shape=(96, 96), pixel_um=0.1, seed=seed)
    truth = spec_of(0.4, 2.0, 0.02, dtype=jnp.float32)
    y = diffphys.simulate(jax.random.key(seed), shg, truth, jnp.asarray(x, jnp.float32), geometry=geometry, detector=DETECTOR)
    return np.asarray(y)


def test_calibration_refuses_to_invent_and_returns_the_power_fluctuation():
    found = diffphys.calibrate(measured(BUCKET), "shg", geometry=BUCKET, detector=replace(DETECTOR, peak_photons=1.0))
    hidden = {"phase_matching_error", "collection_na_mismatch"}
    assert found.status == Status.NOT_IDENTIFIABLE
    assert set(found.undetermined) == hidden
    for name in hidden:
        low, high = found.ranges[name]
        assert found.values[name] == 0.0 and found.sigma[name] > high - low
        assert "blind bound sigma" in found.undetermined[name] and "held at its nominal value" in found.undetermined[name]
    sigma = found.sigma["excitation_power_fluctuation"]
    assert 0.02 < sigma < 0.5
    assert abs(found.values["excitation_power_fluctuation"] - 2.0) < 3 * sigma


def test_refusal_rests_on_the_bound_not_on_the_name():
    """Two commanded offsets: the ratio of the frames' fluxes tells the mismatch even where the blur does not."""
    ranges = shg.default_ranges(BUCKET)
    common = {"detector": replace(DETECTOR, peak_photons=1.0), "ranges": ranges}
    one = blind.hopeless(measured(BUCKET), shg, geometry=BUCKET, **common)
    pair = replace(BUCKET, phase_offsets_rad=(0.0, 1.5))
    two = blind.typical_bounds(measured(pair), shg, geometry=pair, **common)
    descanned = blind.hopeless(measured(DESCANNED), shg, geometry=DESCANNED, **common)
    assert set(one) == {"phase_matching_error", "collection_na_mismatch"} == set(descanned)
    assert two["phase_matching_error"] < one["phase_matching_error"] / 20
    imaging = replace(BUCKET, detection="imaging")
    assert blind.hopeless(measured(BUCKET), shg, geometry=imaging, **common) == {}
