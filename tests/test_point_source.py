"""Fit of the modality's PSF to the image of a point: recovery, error bars, refusals, real PSFs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.optimize import least_squares

import diffphys
from diffphys import confocal, measured, shg
from diffphys.calibrate.point_source import fit_psf, predict
from diffphys.noise import Detector
from diffphys.types import Status

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are absent")
GEOMETRY = confocal.Geometry(shape=(15, 24, 24), voxel_um=(0.2, 0.08, 0.08), depth_um=10.0)
DETECTOR = Detector(2e5, 2.0, 2.0, 100.0, 1.0)


def spec_of(modality, *values):
    return modality.spec.parse(
        modality.Spec, modality.FIELDS, dict(zip((f.name for f in modality.FIELDS), values, strict=True))
    )


def point(spec, *, geometry=GEOMETRY, detector=DETECTOR, seed=0, quarters=(0, 0, 0)):
    """Counts of a point, off the grid by quarters of a voxel: every fourth sample of a PSF computed four times finer."""
    nz, ny, nx = (n + 2 for n in geometry.shape)
    fine = replace(geometry, shape=(4 * nz, 4 * ny, 4 * nx), voxel_um=tuple(v / 4 for v in geometry.voxel_um))
    psf = np.asarray(confocal.psf(replace(spec, z_step=spec.z_step / 4), geometry=fine))
    cut = [slice(2 * n + 4 - 4 * ((n - 2) // 2) - 4 - q, None, 4) for n, q in zip((nz, ny, nx), quarters, strict=True)]
    signal = psf[tuple(cut)][tuple(slice(0, n) for n in geometry.shape)]
    return np.asarray(diffphys.noise.sample(jax.random.key(seed), detector, signal / signal.sum()))


@pytest.fixture(scope="module")
def fits():
    """Three noisy points of either sign of aberration, fitted with the known detector."""
    out = []
    for seed, truth in enumerate([(30.0, -0.06, 1.52), (-20.0, 0.10, 1.515), (60.0, 0.04, 1.51)]):
        y = point(spec_of(confocal, *truth), seed=seed, quarters=(1, -2, 1))
        out.append((truth, y, fit_psf(y, confocal, geometry=GEOMETRY, detector=DETECTOR)))
    return out


def test_spec_and_position_are_recovered_within_their_errors(fits):
    for truth, _, fit in fits:
        assert fit.status in (Status.CONVERGED, Status.NOT_IDENTIFIABLE)
        assert 0.8 < fit.diagnostics["reduced_chi2"] < 1.2
        assert abs(fit.values["z_step"] - truth[0]) < 4 * fit.sigma["z_step"] < 20
        goal = float(confocal.derived(spec_of(confocal, *truth), geometry=GEOMETRY)["c_tot"])
        value, sigma = fit.derived["c_tot"]
        assert abs(value - goal) < 4 * sigma + 1e-4 and sigma < 5e-3
        assert np.sign(value) == np.sign(goal)
        np.testing.assert_allclose(fit.diagnostics["position_voxels"], (0.25, -0.5, 0.25), atol=0.03)


def test_prediction_is_the_fitted_image(fits):
    _, y, fit = fits[0]
    model = predict(fit, confocal, geometry=GEOMETRY, shape=y.shape)
    assert 1 - ((y - model) ** 2).sum() / ((y - y.mean()) ** 2).sum() == pytest.approx(fit.diagnostics["r2"], abs=1e-4)


def test_no_better_point_nearby_by_scipy(fits):
    """scipy's least squares, started at the estimate and free of our Jacobian, stays there."""
    _, y, fit = fits[0]
    noise = np.sqrt(2.0 * np.clip(y - 100, 4.0, None) + 4.0)
    fine = replace(GEOMETRY, shape=(60, 36, 36), voxel_um=(0.1, 0.08, 0.08))
    shift = np.array(fit.diagnostics["position_voxels"]) * (2, 1, 1)
    scale, index = np.array([10.0, 0.05]), fit.values["refractive_index"]
    render = jax.jit(lambda z, c: confocal.psf(spec_of(confocal, z / 2, c, index), geometry=fine))

    def residual(q):
        psf = np.asarray(render(q[0] * scale[0], q[1] * scale[1]), float)
        model = measured.shift(psf, shift)[16:46:2, 6:-6, 6:-6]
        basis = np.stack([model.ravel(), np.ones(model.size)], 1) / noise.ravel()[:, None]
        best = np.linalg.lstsq(basis, y.ravel() / noise.ravel(), rcond=None)[0]
        return y.ravel() / noise.ravel() - basis @ best

    start = np.array([fit.values["z_step"], fit.values["spherical_aberr"]]) / scale
    found = least_squares(residual, start, diff_step=1e-3).x * scale
    assert found[0] == pytest.approx(fit.values["z_step"], abs=1.5 * fit.sigma["z_step"] + 1)
    assert found[1] == pytest.approx(fit.values["spherical_aberr"], abs=fit.sigma["spherical_aberr"] + 2e-3)


def test_index_at_depth_zero_is_named_undetermined():
    surface = confocal.Geometry(shape=(15, 24, 24), voxel_um=(0.2, 0.08, 0.08), depth_um=0.0)
    few = Detector(3e4, 2.0, 2.0, 100.0, 1.0)
    y = point(spec_of(confocal, 20.0, 0.05, 1.515), geometry=surface, detector=few)
    fit = fit_psf(y, confocal, geometry=surface, detector=few)
    assert set(fit.undetermined) == {"refractive_index"}
    assert fit.status is Status.NOT_IDENTIFIABLE
    assert fit.values["z_step"] == pytest.approx(20.0, abs=4 * fit.sigma["z_step"] + 1)


def test_an_astigmatic_point_is_a_misfit_and_is_called_asymmetric():
    larger = confocal.block(GEOMETRY, (15, 24, 48))
    psf = np.asarray(confocal.psf(confocal.nominal(GEOMETRY), geometry=larger), float)
    wide = np.stack(
        [
            0.5 * (measured.shift(p[None], np.array([0, 0, 1.2])) + measured.shift(p[None], np.array([0, 0, -1.2])))[0]
            for p in psf
        ]
    )
    y = np.asarray(diffphys.noise.sample(jax.random.key(0), DETECTOR, np.clip(wide[:, :, 12:-12], 0, None).astype(np.float32)))
    fit = fit_psf(y, confocal, geometry=GEOMETRY, detector=DETECTOR)
    assert fit.status is Status.MISFIT and "optics" in fit.remedy
    assert fit.diagnostics["reduced_chi2_radial"] > 2
    assert any("radially symmetric" in line for line in fit.warnings)


def test_shg_point():
    geometry = shg.Geometry(shape=(48, 48))
    detector = Detector(3e5, 2.0, 1.0, 20.0, 1.0)
    truth = spec_of(shg, 0.8, 0.0, 0.02)
    x = np.zeros((48, 48), np.float32)
    x[24, 24] = 1.0
    y = np.asarray(diffphys.simulate(jax.random.key(1), shg, truth, x, geometry=geometry, detector=detector))
    fit = fit_psf(y, shg, geometry=geometry, detector=detector, ranges={"excitation_power_fluctuation": (0.0, 0.0)})
    assert fit.values["phase_matching_error"] == pytest.approx(0.8, abs=4 * fit.sigma["phase_matching_error"] + 1e-3)
    assert fit.values["collection_na_mismatch"] == pytest.approx(0.02, abs=4 * fit.sigma["collection_na_mismatch"] + 1e-4)


def test_wrong_voxel_size_is_refused():
    psf = np.asarray(confocal.psf(confocal.nominal(GEOMETRY), geometry=GEOMETRY))
    wrong = confocal.Geometry(shape=GEOMETRY.shape, voxel_um=(0.2, 0.04, 0.04))
    with pytest.raises(ValueError, match="voxel size"):
        fit_psf(psf, confocal, geometry=wrong, sigma=1e-5)
    given = measured.Measured(psf, (0.2, 0.08, 0.08), 1, 0.0, np.full(psf.shape, 1e-5), 0.0)
    with pytest.raises(ValueError, match="geometry"):
        fit_psf(given, confocal, geometry=wrong)


@real
@pytest.mark.slow
def test_measured_widefield_psf():
    """One factor of the model (detection): z-step and spherical aberration of a real PSF that also has coma."""
    import tifffile

    stack = tifffile.imread(DATA / "psf" / "widefield_520nm_na0.85_25x256x256.tif").astype(float)
    y = stack[:, 108:148, 111:151]

    def geometry(lateral):
        return confocal.Geometry(
            shape=y.shape,
            voxel_um=(0.3, lateral, lateral),
            na=0.85,
            immersion_index=1.0,
            excitation_nm=None,
            emission_nm=520.0,
            depth_um=0.0,
        )

    ranges = {"z_step": (-100.0, 150.0), "spherical_aberr": (-0.5, 0.5), "refractive_index": (1.0, 1.0)}
    fit = fit_psf(y, confocal, geometry=geometry(0.13), ranges=ranges)
    assert fit.diagnostics["r2"] > 0.93
    assert abs(fit.values["z_step"]) < 80 and 0.5 < fit.sigma["z_step"] < 20
    assert abs(fit.values["spherical_aberr"]) < 0.1
    assert fit.status is Status.MISFIT and fit.diagnostics["reduced_chi2_radial"] > 2  # coma: no radial model explains it
    with pytest.raises(ValueError, match="voxel size"):
        fit_psf(y, confocal, geometry=geometry(0.054), ranges=ranges)


@real
@pytest.mark.slow
def test_real_beads_are_not_radially_symmetric():
    import tifffile

    stack = tifffile.imread(DATA / "confocal" / "beads_41x150x150.tif")
    voxel = (0.125, 0.02249, 0.02249)
    psf = measured.distil(stack, voxel_um=voxel)
    geometry = confocal.Geometry(shape=psf.psf.shape, voxel_um=voxel, depth_um=0.0)
    fit = fit_psf(psf, confocal, geometry=geometry)
    assert fit.status is Status.MISFIT
    assert fit.diagnostics["reduced_chi2_radial"] > 2 and fit.diagnostics["width_ratio_yx"] > 1.1
    assert any("radially symmetric" in line for line in fit.warnings)
    assert "refractive_index" in fit.undetermined
