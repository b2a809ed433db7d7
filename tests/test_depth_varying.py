"""A blur that changes with depth: the windows' statistic, their evidence, what it gains, both signs, the restorations."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import confocal, demo
from diffphys.calibrate import estimate, evidence, fit
from diffphys.calibrate.periodogram import block_starts, multiplicity, periodogram, window_mean, window_shape
from diffphys.primitives.convolve import convolve
from diffphys.spec import Box
from diffphys.types import Status

TINY = confocal.Geometry(shape=(12, 16, 16), depth_anchors=2)
STACK = confocal.Geometry(shape=(32, 32, 32), depth_anchors=3)


def spec_of(z_step, spherical, index):
    return confocal.Spec(jnp.float32(z_step), jnp.float32(spherical), jnp.float32(index))


def problem_of(geometry, y, *, finer=(2, 1, 1)):
    """The evidence's problem of a stack in photons without background."""
    block, local, depths = estimate._windows(confocal, geometry)
    y = np.asarray(y, np.float64)[None]
    statistic = periodogram(y, block=block, finer=finer, windowed=depths is not None)
    level = estimate.noise_level(y, np.ones(1), 0.0, block if depths else None)
    box = Box.of(confocal.FIELDS, confocal.default_ranges(geometry))
    return fit.Problem(confocal, local, statistic, level, 0.02, box, finer, depths)


def noise(geometry, seed=0):
    return np.random.default_rng(seed).poisson(20.0, geometry.shape).astype(float)


def test_windows_share_the_samples_and_keep_the_level():
    geometry = confocal.Geometry(shape=(48, 32, 32), depth_anchors=3)
    rate = np.broadcast_to(np.linspace(5.0, 50.0, 48)[:, None, None], geometry.shape)
    y = np.random.default_rng(1).poisson(rate) - rate
    block = window_shape(geometry.shape, geometry.voxel_um)
    statistic = periodogram(y[None], block=block, finer=(2, 1, 1), windowed=True)
    starts = block_starts(48, block[0])
    assert statistic.cross.shape == (1, 1, len(starts), *(n // 2 + 1 for n in block)) and len(starts) == 2
    assert 0.6 * y.size < statistic.weight.sum() < y.size < len(starts) * multiplicity(block).sum()
    expected = window_mean(rate[None], block)[0]
    middle = rate[(starts + (block[0] - 1) / 2).astype(int), 0, 0]
    np.testing.assert_allclose(expected, middle, rtol=0.06)
    for window, level in enumerate(expected):  # each window has the noise of its own depth
        dof = statistic.bin_dof[window]
        assert np.average(statistic.cross[0, 0, window], weights=dof) == pytest.approx(level, rel=0.05)


def test_gradient_and_fisher_are_the_derivatives_of_the_value(float64):
    """Central differences of the value give the gradient; where C = M, those of the gradient give the Fisher matrix."""
    problem = problem_of(TINY, noise(TINY))
    problem = problem._replace(box=Box(*(np.asarray(b, np.float64) for b in problem.box)))
    model, data, spectrum = fit.make(problem, "matern")
    data = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), data)
    psi = spectrum.start + 7.0 * spectrum.amplitude
    psi[-2:] = 0.3, -0.2
    q = jnp.asarray(np.concatenate([[0.3, 0.2, 0.1, 0.0], psi]))
    data = data._replace(cross=evidence.covariance(model, data, q))
    value = jax.jit(lambda p: evidence.value(model, data, p))
    evaluate = jax.jit(lambda p: evidence.evaluate(model, data, p)[:3])

    def differences(function, at, step):
        return np.stack([(function(at + e) - function(at - e)) / (2 * step) for e in step * np.eye(len(q))])

    fisher = np.asarray(evaluate(q)[2])
    scale = np.sqrt(np.outer(np.diag(fisher), np.diag(fisher)))
    hessian = differences(lambda p: np.asarray(evaluate(p)[1]), q, 1e-4)
    np.testing.assert_allclose(hessian / scale, fisher / scale, atol=1e-5)
    away = q + 0.05
    got, gradient, _ = evaluate(away)
    np.testing.assert_allclose(gradient, differences(value, away, 1e-5), atol=1e-5 * np.abs(gradient).max())
    assert float(got) == pytest.approx(float(value(away)), rel=1e-10)


def test_windows_at_one_depth_have_the_covariance_of_one_blur():
    """Without a change of depth every window's model is that of the plain block, up to its own power."""
    problem = problem_of(TINY, noise(TINY), finer=(1, 1, 1))
    problem = problem._replace(
        block=replace(problem.block, depth_um=TINY.depth_um), depth_um=(TINY.depth_um,) * len(problem.depth_um)
    )
    model, data, _ = fit.make(problem, "matern")
    plain, one, own = fit.make(
        problem._replace(
            depth_um=None,
            statistic=periodogram(noise(TINY)[None], block=problem.block.shape, finer=(1, 1, 1))._replace(
                smoothing=problem.statistic.smoothing
            ),
            noise=problem.noise[:, 0],
        ),
        "matern",
    )
    q = np.concatenate([[0.3, 0.2, 0.1, 0.0], own.start + 7.0 * own.amplitude]).astype(np.float32)
    offsets = np.log([1.0, 2.0]).astype(np.float32)
    got = evidence.covariance(model, data, jnp.asarray(np.append(q, offsets))) - data.noise[:, :, None, None, None]
    expected = evidence.covariance(plain, one, jnp.asarray(q)) - one.noise[:, None, None, None]
    np.testing.assert_allclose(got[0, 0, 0], expected[0, 0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got[0, 0, 1], 2 * expected[0, 0], rtol=1e-3, atol=1e-4)


def test_depth_windows_break_the_trade_off():
    """Fisher matrix at theta = (50 nm, 0.1, 1.525), 48 planes from 10 um: c_s is bound 1.2 and n_s 1.8 times closer."""
    sigma = {}
    for anchors in (1, 3):
        geometry = confocal.Geometry(shape=(48, 32, 32), depth_anchors=anchors)
        problem = problem_of(geometry, noise(geometry))
        model, data, spectrum = fit.make(problem, "matern")
        theta = problem.box.encode(jnp.asarray([50.0, 0.1, 1.525]))
        q = jnp.asarray(np.concatenate([theta, [0.0], spectrum.start + 7.0 * spectrum.amplitude]), jnp.float32)
        fisher = jax.jit(evidence.evaluate, static_argnums=0)(model, data, q).fisher
        sigma[anchors] = np.sqrt(np.diag(np.linalg.inv(np.asarray(fisher, np.float64))))[1:3]
    assert np.all(sigma[1] / sigma[3] > [1.2, 1.8])


def test_the_twin_is_reversed_at_every_depth():
    ranges = confocal.default_ranges(STACK)
    spec = spec_of(20.0, 0.08, 1.522)
    twin = confocal.twin(spec, geometry=STACK, ranges=ranges)
    for depth in (10.0, 16.4):
        here = replace(STACK, depth_um=depth)
        total, reverse = (float(confocal.derived(s, geometry=here)["c_tot"]) for s in (spec, twin))
        assert reverse == pytest.approx(-total, abs=2e-3)
    assert confocal.twin(spec, geometry=STACK, ranges=ranges | {"spherical_aberr": (0.05, 0.2)}) is None


def test_blind_calibration_starts_on_the_wrong_sign(monkeypatch):
    """One start and one spectrum, to be quick: the other sign is fitted too and found to be the right one."""
    truth = (40.0, -0.1, 1.51)
    spec = spec_of(*truth)
    measured = demo.simulated(confocal, spec, geometry=STACK, family="beads", seed=4, photons=1000.0, offset=0.0)
    monkeypatch.setattr(fit, "FAMILIES", ("matern", "matern"))
    monkeypatch.setattr(confocal, "starts", lambda ranges, geometry: np.array([[30.0, 0.1, 1.52]]))
    found = diffphys.calibrate(measured.y, confocal, geometry=STACK, detector=measured.detector)
    assert found.status in (Status.CONVERGED, Status.AT_BOUND)
    limits = {"z_step": 20.0, "spherical_aberr": 0.03, "refractive_index": 0.015}
    for (name, limit), value in zip(limits.items(), truth, strict=True):
        error = found.values[name] - value
        assert abs(error) < limit and abs(error) < 4 * found.sigma[name], name
    assert found.diagnostics["sign_margin_nats"] > 0


@pytest.mark.parametrize("method", ["richardson_lucy", "wiener"])
def test_anchors_improve_the_restoration(method):
    """One PSF per plane, n_s 1.535, 5 to 17 um: three anchors beat the first plane's PSF, and that of the middle."""
    geometry = confocal.Geometry(shape=(24, 24, 24), voxel_um=(0.5, 0.1, 0.1), depth_um=5.0)
    spec = spec_of(0.0, 0.05, 1.535)
    x = jnp.asarray(confocal.scene("beads", shape=geometry.shape, voxel_um=geometry.voxel_um, seed=0, haze=0.0), jnp.float32)
    signal = jnp.zeros_like(x)
    for j in range(24):
        plane = jnp.zeros_like(x).at[j].set(x[j])
        signal += convolve(confocal.psf(spec, geometry=geometry, depth_um=5.0 + 0.5 * j), plane)
    detector = diffphys.Detector(peak_photons=1000 / float(signal.max()), background=10.0)
    y = np.random.default_rng(0).poisson(detector.peak_photons * np.asarray(signal) + 10.0).astype(float)
    options = {"iterations": 40, "stopping": "fixed"} if method == "richardson_lucy" else {}
    score = {}
    for name, anchors, depth in (("first", 1, 5.0), ("middle", 1, 11.0), ("three", 3, 5.0)):
        varying = replace(geometry, depth_anchors=anchors, depth_um=depth)
        image = diffphys.reconstruct(y, confocal, spec, geometry=varying, detector=detector, method=method, **options).image
        score[name] = demo.psnr(image, np.asarray(x))
    assert score["three"] > score["first"] + 0.3 and score["three"] > score["middle"] + 0.1, score
