"""Detector: counts have the right law, the likelihood is that law."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffphys import confocal, shg
from diffphys.noise import Detector, expected_counts, log_likelihood, sample, to_photons
from diffphys.simulate import simulate


@pytest.mark.parametrize(
    "detector",
    [Detector(peak_photons=300.0), Detector(peak_photons=8.0, background=2.0, gain=2.5, offset=100.0, read_sigma=1.5)],
    ids=["Poisson", "Poisson-Gaussian"],
)
def test_mean_and_variance_of_samples(detector):
    """200 000 draws: five standard errors of the mean and of the variance (kurtosis of a Poisson law at least 3 + 1/mean)."""
    n = 200_000
    signal = jnp.full(n, 0.5)
    counts = np.array(sample(jax.random.key(0), detector, signal), np.float64)
    photons = 0.5 * detector.peak_photons + detector.background
    variance = detector.gain**2 * (photons + detector.read_sigma**2)
    assert abs(counts.mean() - float(expected_counts(detector, signal)[0])) <= 5 * np.sqrt(variance / n)
    assert abs(counts.var() / variance - 1) <= 5 * np.sqrt((2 + 1 / photons) / n)


def test_sampling_is_reproducible_and_needs_a_new_key_for_new_noise():
    detector, signal = Detector(peak_photons=50.0, read_sigma=1.0), jnp.ones((8, 8))
    first = sample(jax.random.key(1), detector, signal)
    np.testing.assert_array_equal(first, sample(jax.random.key(1), detector, signal))
    assert (first != sample(jax.random.key(2), detector, signal)).any()
    assert first.dtype == signal.dtype


def test_likelihood_is_poisson_without_read_noise(float64):
    """Integer photons, against scipy; density of counts: one photon is `gain` counts."""
    detector = Detector(peak_photons=40.0, background=1.0, gain=0.25, offset=10.0)
    signal = jnp.asarray(np.random.default_rng(0).random(50))
    photons = stats.poisson.rvs(np.array(40 * signal + 1), random_state=1)
    ours = log_likelihood(detector, signal, jnp.asarray(10 + 0.25 * photons))
    theirs = stats.poisson.logpmf(photons, np.array(40 * signal + 1)).sum() - 50 * np.log(0.25)
    assert float(ours) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(("gain", "mean"), [(1.0, 0.3), (2.5, 7.0), (0.5, 60.0)])
def test_likelihood_is_normalised_over_counts(float64, gain, mean):
    """Sum over integer photons of the density times the spacing of counts is 1; 400 photons hold all of it."""
    detector = Detector(peak_photons=mean, gain=gain, offset=5.0)
    counts = 5.0 + gain * jnp.arange(400.0)
    density = jax.vmap(lambda y: jnp.exp(log_likelihood(detector, jnp.ones(1), y[None])))(counts)
    assert float(gain * density.sum()) == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize(("mean", "tolerance"), [(20.0, 0.01), (200.0, 0.002)])
def test_likelihood_with_read_noise_is_nearly_normalised_and_unbiased(float64, mean, tolerance):
    """Shifted Poisson: an approximation whose mean and variance are exact. Its error falls with the mean."""
    detector = Detector(peak_photons=mean, read_sigma=2.0)
    y = jnp.arange(mean - 9 * np.sqrt(mean + 4), mean + 12 * np.sqrt(mean + 4), 0.05)
    y = y[y > -4.0]  # photons + read_sigma^2 >= 0
    density = np.array(jax.vmap(lambda v: jnp.exp(log_likelihood(detector, jnp.ones(1), v[None])))(y))
    total = 0.05 * density.sum()
    assert total == pytest.approx(1.0, abs=tolerance)
    centre = 0.05 * (density * np.array(y)).sum() / total
    assert centre == pytest.approx(mean, abs=0.6)  # a continuous Poisson density sits up to half a photon off
    assert 0.05 * (density * (np.array(y) - centre) ** 2).sum() / total == pytest.approx(mean + 4, rel=0.03)


def test_score_vanishes_on_average(float64):
    """E d/dsignal log p = 0 at the truth: within five standard errors, sqrt(information)."""
    detector = Detector(peak_photons=30.0, background=2.0, gain=1.7, offset=4.0, read_sigma=1.5)
    signal = jnp.full(50_000, 0.8)
    y = sample(jax.random.key(3), detector, signal)
    score = jax.grad(lambda s: log_likelihood(detector, s * signal, y))(jnp.float64(1.0))
    information = 50_000 * (30 * 0.8) ** 2 / (30 * 0.8 + 2 + 1.5**2)
    assert abs(float(score)) <= 5 * np.sqrt(information)


def test_dark_pixels_have_a_finite_likelihood_and_gradient():
    detector = Detector(peak_photons=10.0, read_sigma=1.0)
    signal, y = jnp.zeros(3), jnp.array([-5.0, 0.0, 2.0])
    value, gradient = jax.value_and_grad(lambda s: log_likelihood(detector, s, y))(signal)
    assert bool(jnp.isfinite(value)) and bool(jnp.isfinite(gradient).all())


def test_white_noise_level_in_fourier_space_is_the_mean_count():
    """Poisson noise of an uneven image is white on average: mean |DFT|^2 / N = mean(y).

    64 draws of 64^2 bins (half of them independent): standard error 1 / sqrt(64 * 2048) = 0.3 %; five of them.
    """
    x = jnp.asarray(shg.scene("collagen", shape=(64, 64), pixel_um=0.1, seed=0), jnp.float32)
    detector = Detector(peak_photons=100.0, background=3.0)
    mean = np.array(expected_counts(detector, x), np.float64)
    keys = jax.random.split(jax.random.key(5), 64)
    noise = np.array(jax.vmap(lambda k: sample(k, detector, x))(keys), np.float64) - mean
    power = np.abs(np.fft.fft2(noise)) ** 2 / mean.size
    assert power.mean() == pytest.approx(mean.mean(), rel=0.015)
    low, high = power[:, :8, :8].mean(), power[:, 24:40, 24:40].mean()
    assert low == pytest.approx(high, rel=0.1)  # white: 64 bins x 64 draws scatter by 1.6 %, five times that


def test_simulate_is_forward_then_noise(modality):
    """Against the noiseless counts: residuals of unit variance, five standard errors."""
    geometry = confocal.Geometry(shape=(8, 32, 32)) if modality is confocal else shg.Geometry(shape=(64, 64))
    spec, x = modality.nominal(geometry), jnp.ones(geometry.shape)
    detector = Detector(peak_photons=400.0, background=5.0, gain=2.0, offset=100.0, read_sigma=1.0)
    y = simulate(jax.random.key(0), modality.NAME, spec, x, geometry=geometry, detector=detector)
    signal = modality.forward(spec, x, geometry=geometry)
    assert y.shape == signal.shape
    residual = to_photons(detector, y) - (400 * signal + 5)
    score = np.array(residual / jnp.sqrt(400 * signal + 6))
    assert abs(score.mean()) <= 5 / np.sqrt(score.size) and abs(score.var() - 1) <= 5 * np.sqrt(2 / score.size)
