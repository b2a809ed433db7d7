"""Learned methods: better than what they start from, on fresh specimens through the calibrated operator; and their parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import confocal, demo, shg
from diffphys.networks import tiled, weights
from diffphys.networks.inputs import measured
from diffphys.reconstruct import METHODS, learned, problem_of, sampling, splitting
from diffphys.types import Status, resolve

GEOMETRY = {"shg": shg.Geometry(shape=(128, 128)), "confocal_3d": confocal.Geometry(shape=(16, 48, 48))}
FAMILY = {"shg": "sparse", "confocal_3d": "filaments"}
ROWS = {
    "shg": ("unet", "care", "resunet", "restormer", "restormer_plus", "deconvformer", "pnp_dncnn", "diffdeconv", "scoremicro"),
    "confocal_3d": ("unet", "care", "restormer", "swinir", "ircnn", "diffusionmicro"),
}
MARGIN = {"ircnn": 0.975, "diffdeconv": 0.975}  # trained least of all, see the README's table
QUICK = {"scoremicro": {"samples": 2, "steps": 5}, "diffusionmicro": {"samples": 1, "steps": 5}}
NEEDS = {
    "restormer_plus": ("restormer", "restormer_plus"),
    "pnp_dncnn": ("dncnn",),
    "scoremicro": ("score",),
    "diffusionmicro": ("score",),
    "ircnn": tuple(f"ircnn_{n}" for n in range(4)),
}


def made(name, *, seed=3, photons=300.0):
    """A fresh specimen, mismatched and measured."""
    geometry = GEOMETRY[name]
    spec = demo.random_spec(resolve(name), geometry, seed)
    return spec, demo.simulated(name, spec, geometry=geometry, family=FAMILY[name], seed=seed, photons=photons)


def problem(name):
    spec, sample = made(name)
    return problem_of(sample.y, name, spec, geometry=GEOMETRY[name], detector=sample.detector)


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, methods in ROWS.items() for m in methods])
def test_it_beats_the_wiener_image_it_starts_from(name, method):
    ndim = len(GEOMETRY[name].shape)
    for family in NEEDS.get(method, (method,)):
        assert (weights.FOLDER / f"{family}_{ndim}d.safetensors").exists(), f"{family}: no weights shipped"
    spec, sample = made(name)
    given = {"geometry": GEOMETRY[name], "detector": sample.detector}
    start = diffphys.reconstruct(sample.y, name, spec, method="wiener", **given)
    found = diffphys.reconstruct(sample.y, name, spec, method=method, **given, **QUICK.get(method, {}))
    x = np.asarray(sample.x)
    assert found.status == Status.CONVERGED and found.image.min() >= 0 and np.isfinite(found.image).all()
    before, after = (np.mean((np.maximum(r.image, 0) - x) ** 2) for r in (start, found))
    assert after < MARGIN.get(method, 0.93) * before, f"{10 * np.log10(before / after):.2f} dB"


@pytest.mark.parametrize("photons", [10.0, 100.0])
def test_noise2void_ends_where_the_light_does(photons):
    """It sees no truth in training and is deconvolved by Richardson-Lucy: held to that on the measured counts, within 1 dB."""
    name, (spec, sample) = "confocal_3d", made("confocal_3d", photons=photons)
    given = {"geometry": GEOMETRY[name], "detector": sample.detector}
    plain, found = (diffphys.reconstruct(sample.y, name, spec, method=m, **given) for m in ("richardson_lucy", "noise2void"))
    before, after = (np.mean((r.image - np.asarray(sample.x)) ** 2) for r in (plain, found))
    assert found.status == plain.status == Status.CONVERGED
    assert after < 1.26 * before, f"{10 * np.log10(before / after):.2f} dB"


def test_the_scale_does_not_matter():
    """Ten times the gain, offset moved: the same image, for networks see one unit."""
    spec, sample = made("shg")
    d = sample.detector
    bright = type(d)(peak_photons=d.peak_photons, background=d.background, gain=7.0, offset=40.0, read_sigma=d.read_sigma)
    moved = (np.asarray(sample.y) - float(d.offset)) / float(d.gain) * 7.0 + 40.0
    one = diffphys.reconstruct(sample.y, "shg", spec, geometry=GEOMETRY["shg"], detector=d, method="unet")
    two = diffphys.reconstruct(moved, "shg", spec, geometry=GEOMETRY["shg"], detector=bright, method="unet")
    np.testing.assert_allclose(two.image, one.image, atol=2e-3)


def test_the_measured_image_has_the_noise_its_map_says():
    """Two noise draws of a specimen: their difference over the map has unit variance."""
    spec, sample = made("shg")
    geometry = GEOMETRY["shg"]
    images = []
    for key in jax.random.split(jax.random.key(0)):
        y = diffphys.simulate(key, "shg", spec, sample.x, geometry=geometry, detector=sample.detector)
        p = problem_of(y, "shg", spec, geometry=geometry, detector=sample.detector)
        images.append(measured(p))
    ratio = (images[0][0] - images[1][0]) / np.sqrt(2) / images[0][1]
    assert 0.9 < ratio.std() < 1.1


@pytest.mark.parametrize("name", ["shg", "confocal_3d"])
def test_the_data_step_solves_its_equations(name):
    p = problem(name)
    data = splitting.data_of(p)
    z = 5.0 * jax.random.uniform(jax.random.key(0), p.operator.specimen)
    weight = jnp.asarray(0.05)
    x = splitting.data_step(data, z, towards=z, weight=weight, gradients=200)
    residual = data.operator.adjoint(data.precision * (data.operator.apply(x) - data.signal)) + weight * (x - z)
    start = data.operator.adjoint(data.precision * (data.operator.apply(z) - data.signal))
    assert float(jnp.linalg.norm(residual.ravel())) < 1e-3 * float(jnp.linalg.norm(start.ravel()))


def test_sampling_with_the_exact_prior_has_the_exact_posterior():
    """White Gaussian prior, no blur to speak of: the mean of the samples and their spread have closed forms."""
    estimates, truth, noise = [], 0.4, 0.3

    def estimate(x, sigma):  # posterior mean of N(0, 1) seen once with `noise` and once, as x, with sigma
        estimates.append(sigma)
        precision = 1 + 1 / noise**2 + 1 / sigma**2
        return (truth / noise**2 + x / sigma**2) / precision

    path = sampling.Path(5.0, 0.01, 0.3)
    images, status = sampling._samples(estimate, jnp.zeros((400, 400)), 1.0, path, 1, 60, 0, None)
    assert status == Status.CONVERGED and len(estimates) == 60
    mean, spread = truth / noise**2 / (1 + 1 / noise**2), (1 + 1 / noise**2) ** -0.5
    assert float(images[0].mean()) == pytest.approx(mean, abs=0.01)
    assert float(images[0].std()) == pytest.approx(spread, rel=0.15)


def test_an_image_that_is_not_finite_is_not_handed_out(monkeypatch):
    monkeypatch.setattr(tiled, "apply", lambda call, images, like: [np.full((*i.shape[:-1], 1), np.nan) for i in images])
    spec, sample = made("shg")
    found = diffphys.reconstruct(sample.y, "shg", spec, geometry=GEOMETRY["shg"], detector=sample.detector, method="unet")
    assert found.status == Status.NONFINITE and np.isfinite(found.image).all() and found.image.max() > 0


def test_methods_without_a_network_for_the_data_say_which_have_one():
    with pytest.raises(ValueError, match=r"swinir has no network for 2-D data; networks that have one: .*unet"):
        METHODS["swinir"](problem("shg"))


def test_voxels_of_another_shape_are_warned_of():
    p = problem("shg")
    assert learned.prepare(p).warnings == ()
    assert "trained on voxels" in learned.unfamiliar(p._replace(pitch=jnp.asarray([2.0, 1.0])))[0]


def test_a_network_that_is_not_trained_says_so(monkeypatch, tmp_path):
    """One line with the remedy, never an image of untrained weights."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    weights.pretrained.cache_clear()
    with pytest.raises(ValueError, match="diffphys train unet_2d"):
        METHODS["unet"](problem("shg"))
    weights.pretrained.cache_clear()
