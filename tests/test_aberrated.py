"""Aberrations beyond the spec, fitted: from an image of a point, blind, and from real beads; confocal and SHG."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import confocal, measured, shg
from diffphys.calibrate import fit
from diffphys.calibrate.point_source import fit_psf, predict
from diffphys.confocal.aberrated import with_zernike
from diffphys.noise import Detector
from diffphys.shg.aberrated import with_zernike as shg_with_zernike
from diffphys.spec import from_vector, parse
from diffphys.types import Status

pytestmark = pytest.mark.usefixtures("optimised")
DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are absent")
DETECTOR = Detector(1e5, 2.0, 2.0, 100.0, 1.0)
POINT = confocal.Geometry(shape=(7, 12, 12), voxel_um=(0.25, 0.08, 0.08), depth_um=0.0)
MATCHED = {"refractive_index": (1.515, 1.515)}


def spec_of(modality, dtype=jnp.float32, **values):
    base = {f.name: float(getattr(modality.nominal(), f.name)) for f in modality.FIELDS}
    return parse(modality.Spec, modality.FIELDS, base | values, dtype=dtype)


def test_coma_astigmatism_and_trefoil_of_a_point():
    """Known aberrations of either sign come back within their error bars, and BIC prefers them to spherical alone."""
    modality = with_zernike((5, 7, 10), limit=0.08)
    truth = {"z_step": 25.0, "spherical_aberr": 0.04, "z5": 0.05, "z7": -0.06, "z10": 0.03}
    psf = jax.jit(partial(modality.psf, geometry=POINT))(spec_of(modality, **truth))
    y = np.asarray(diffphys.noise.sample(jax.random.key(3), DETECTOR, psf))
    fit = fit_psf(y, modality, geometry=POINT, detector=DETECTOR, ranges=MATCHED)
    assert fit.status is Status.CONVERGED and 0.6 < fit.diagnostics["reduced_chi2"] < 1.2  # few voxels, smoothed noise
    for name, value in truth.items():
        assert abs(fit.values[name] - value) < 4 * fit.sigma[name], name
        assert fit.sigma[name] < (5.0 if name == "z_step" else 0.01), name
    model = predict(fit, modality, geometry=POINT, shape=y.shape)
    assert np.linalg.norm(model - y) < 0.2 * np.linalg.norm(y - y.mean())
    plain = fit_psf(y, confocal, geometry=POINT, detector=DETECTOR, ranges=MATCHED)
    assert plain.status is Status.MISFIT
    assert plain.diagnostics["bic"] - fit.diagnostics["bic"] > 100


@pytest.mark.slow
def test_astigmatism_is_found_blind(monkeypatch):
    """One stack of an unknown Gaussian field: the size of z6 to 0.03 waves; its sign is the twin's."""
    monkeypatch.setattr(fit, "FAMILIES", ("matern", "matern"))  # another spectrum is three more programs, 9 s each
    modality = with_zernike((6,), limit=0.15)
    geometry = confocal.Geometry(shape=(12, 24, 24), voxel_um=(0.2, 0.08, 0.08), depth_um=0.0)
    rng = np.random.default_rng(1)
    x = np.clip(0.3 + 0.15 * rng.normal(size=(18, 36, 36)), 0, None).astype(np.float32)
    signal = modality.forward(spec_of(modality, z6=0.12), jnp.asarray(x), geometry=geometry)
    detector = Detector(peak_photons=2000.0)
    y = np.asarray(diffphys.noise.sample(jax.random.key(1), detector, signal))
    found = diffphys.calibrate(
        y,
        modality,
        geometry=geometry,
        detector=detector,
        ranges={**MATCHED, "z_step": (0.0, 0.0), "spherical_aberr": (-0.05, 0.05)},
    )
    assert abs(found.values["z6"]) == pytest.approx(0.12, abs=0.03)


@pytest.mark.slow
def test_zernike_on_the_command_line(tmp_path):
    """`--zernike` names the coefficients in calibration.json, and `reconstruct` reads them back."""
    import json

    import tifffile

    from diffphys.cli import main as command
    from diffphys.io.results import read_spec

    modality = with_zernike((8,))
    psf = jax.jit(partial(modality.psf, geometry=POINT))(spec_of(modality, z8=0.08))
    y = np.asarray(diffphys.noise.sample(jax.random.key(3), DETECTOR, psf))
    tifffile.imwrite(tmp_path / "point.tif", np.round(y).astype(np.uint16), metadata={"axes": "ZYX"}, ome=True)
    (tmp_path / "optics.yaml").write_text(
        "modality: confocal_3d\ngeometry:\n  voxel_um: [0.25, 0.08, 0.08]\n  na: 1.4\n  immersion_index: 1.515\n"
        "  excitation_nm: 488\n  emission_nm: 520\n  pinhole_au: 1.0\n  depth_um: 0\n"
        "detector:\n  gain: 2\n  offset: 100\n  background: 2\n  read_sigma: 1\n  peak_photons: 100000\n"
    )
    common = [str(tmp_path / "point.tif"), "--optics", str(tmp_path / "optics.yaml"), "--output", str(tmp_path / "out")]
    assert command(["calibrate", *common, "--point-source", "--zernike", "8", "--ranges", "refractive_index=1.515:1.515"]) == 0
    stated = json.loads((tmp_path / "out" / "calibration.json").read_text())["parameters"]["z8"]
    assert stated["value"] == pytest.approx(0.08, abs=4 * stated["sigma"] + 1e-3) and stated["sigma"] > 0
    assert float(read_spec(tmp_path / "out" / "calibration.json", modality).z8) == pytest.approx(stated["value"])


@pytest.mark.parametrize("text", ["coma", "5;6", "", "4", "11", "slant,x"])
def test_bad_zernike_is_one_line(text):
    from diffphys.cli.load import Job

    geometry = confocal.Geometry(depth_um=0.0)
    job = Job(confocal, np.zeros((2, 2, 2)), geometry, DETECTOR, confocal.default_ranges(geometry), (1.0, 1.0, 1.0), {}, ())
    with pytest.raises(ValueError, match=r"Zernike|--zernike") as error:
        job.with_zernike(text)
    assert "\n" not in str(error.value)


SHG = shg.Geometry(shape=(24, 23))
SHG_VALUES = {"phase_matching_error": 0.7, "excitation_power_fluctuation": 1.0, "collection_na_mismatch": 0.02}


def test_shg_without_aberration_equals_the_radial_route(float64):
    modality = shg_with_zernike((5, 8))
    ours = jax.jit(partial(modality.transfer, geometry=SHG))(spec_of(modality, jnp.float64, **SHG_VALUES))
    theirs = shg.transfer(spec_of(shg, jnp.float64, **SHG_VALUES), geometry=SHG)
    np.testing.assert_allclose(ours.psfs, theirs.psfs, atol=1e-6 * float(theirs.psfs.max()))  # its Bessel functions: 1e-7
    np.testing.assert_array_equal(ours.modulation, theirs.modulation)
    pairs = [
        real[:, None] * real[None] + imag[:, None] * imag[None]
        for real, imag in (
            jax.jit(partial(modality.otf_quadrant, geometry=SHG))(spec_of(modality, jnp.float64, **SHG_VALUES)),
            shg.otf_quadrant(spec_of(shg, jnp.float64, **SHG_VALUES), geometry=SHG),
        )
    ]
    np.testing.assert_allclose(pairs[0], pairs[1], atol=1e-5)


def test_shg_gradient_of_every_parameter(float64):
    modality = shg_with_zernike((4, 6, 7, 11))
    geometry = shg.Geometry(shape=(12, 11))
    at = jnp.asarray([0.5, 1.0, 0.01, 0.05, -0.08, 0.1, 0.04])
    probe = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 11)))

    @jax.jit
    def value(v):
        parts = modality.transfer(from_vector(modality.Spec, modality.FIELDS, v), geometry=geometry)
        return jnp.vdot(probe, parts.psfs[:, 0] * parts.modulation)

    gradient = jax.grad(value)(at)
    for i in range(at.size):
        far = [float(value(at.at[i].add(s * 1e-4))) for s in (-2, -1, 1, 2)]
        numeric = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / 12e-4
        assert float(gradient[i]) == pytest.approx(numeric, rel=1e-6, abs=1e-9), modality.FIELDS[i].name


def test_shg_three_frames_are_not_folded():
    modality = shg_with_zernike((6,))
    geometry = shg.Geometry(shape=(12, 12), phase_offsets_rad=(0.0, -1.5, 1.5))
    with pytest.raises(ValueError, match="one or two frames"):
        modality.otf_quadrant(modality.nominal(), geometry=geometry)


@real
@pytest.mark.slow
def test_real_beads_have_coma_and_astigmatism():
    """Four bent beads, pixels binned 4 x 4: astigmatism and coma beat spherical alone by far more than BIC asks."""
    import tifffile

    stack = tifffile.imread(DATA / "confocal" / "beads_41x150x150.tif")
    bead = measured.distil(stack, voxel_um=(0.125, 0.02249, 0.02249))
    y = bead.psf[6:19, 2:42, :32].astype(float).reshape(13, 10, 4, 8, 4).sum((2, 4))
    sigma = np.sqrt((bead.sigma[6:19, 2:42, :32].astype(float) ** 2).reshape(13, 10, 4, 8, 4).sum((2, 4)))
    geometry = confocal.Geometry(y.shape, (0.125, 4 * 0.02249, 4 * 0.02249), depth_um=0.0)
    known = {"geometry": geometry, "sigma": sigma, "ranges": MATCHED, "iterations": 16}
    fits = [fit_psf(y, modality, **known) for modality in (confocal, with_zernike((5, 6, 7, 8)))]
    plain, bent = (fit.diagnostics for fit in fits)
    assert bent["reduced_chi2"] < 0.7 * plain["reduced_chi2"]
    assert plain["bic"] - bent["bic"] > 1000
    coma = np.hypot(fits[1].values["z7"], fits[1].values["z8"])
    assert coma > 5 * max(fits[1].sigma["z7"], fits[1].sigma["z8"])
