"""Reconstruction: likelihood, flux, borders, stopping, closed forms, optimality, real data."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_tv_chambolle

from diffphys import confocal, shg
from diffphys.noise import Detector
from diffphys.operator import bind, from_psf
from diffphys.reconstruct import METHODS, iterate, method_name, reconstruct, richardson_lucy, tv, wiener
from diffphys.reconstruct.differences import divergence, gradient, magnitude
from diffphys.reconstruct.held_out import SHARE, thin
from diffphys.reconstruct.iterate import Problem
from diffphys.spec import parse
from diffphys.types import Status

DATA = Path(__file__).parents[2] / "shared" / "data" / "confocal"
SPECS = {
    "confocal_3d": {"z_step": 50.0, "spherical_aberr": 0.05, "refractive_index": 1.52},
    "shg": {"phase_matching_error": 0.5, "excitation_power_fluctuation": 1.0, "collection_na_mismatch": 0.01},
}
MARGIN = {"confocal_3d": (8, 16, 16), "shg": (64, 64)}


def psnr(image, truth):
    """dB, larger is better; the data range is the truth's maximum."""
    return 10 * np.log10(truth.max() ** 2 / np.mean((np.asarray(image) - truth) ** 2))


def measure(modality, family, *, seed, peak, shape, background=0.02, read_sigma=0.0):
    """Counts of a specimen that continues outside the field, and the truth inside, both in photons."""
    geometry = modality.Geometry(shape=shape)
    size = tuple(n + m for n, m in zip(shape, MARGIN[modality.NAME], strict=True))
    pitch = {"voxel_um": geometry.voxel_um} if modality is confocal else {"pixel_um": geometry.pixel_um}
    x = modality.scene(family, shape=size, seed=seed, **pitch)
    spec = parse(modality.Spec, modality.FIELDS, SPECS[modality.NAME])
    signal = np.asarray(modality.forward(spec, jnp.asarray(x, jnp.float32), geometry=geometry))
    scale = peak / signal.max()
    rng = np.random.default_rng(seed)
    y = rng.poisson(scale * signal + background * peak) + read_sigma * rng.normal(size=signal.shape)
    truth = scale * x[tuple(slice((s - n) // 2, (s - n) // 2 + n) for s, n in zip(size, shape, strict=True))]
    detector = Detector(background=background * peak, read_sigma=read_sigma)
    return {"y": y, "modality": modality, "spec": spec, "geometry": geometry, "detector": detector}, truth


def run(data, **options):
    return reconstruct(
        data["y"], data["modality"], data["spec"], geometry=data["geometry"], detector=data["detector"], **options
    )


def toy(y, psf, *, background=0.0, margin=None, read_variance=0.0):
    y = jnp.asarray(y, jnp.float32)
    operator = from_psf(psf, field=y.shape, margin=margin)
    return Problem(operator, y, jnp.float32(background), jnp.float32(read_variance), jnp.ones(y.ndim))


def gaussian(shape, sigma):
    axes = [np.exp(-0.5 * ((np.arange(n) - n // 2) / sigma) ** 2) for n in shape]
    return np.einsum("i,j->ij", *axes) if len(axes) == 2 else np.einsum("i,j,k->ijk", *axes)


CASES = [(confocal, "filaments", (12, 32, 32)), (shg, "collagen", (64, 60))]


@pytest.mark.parametrize(("modality", "family", "shape"), CASES, ids=["confocal", "shg"])
def test_richardson_lucy_raises_the_likelihood_and_keeps_the_flux(modality, family, shape):
    data, _ = measure(modality, family, seed=1, peak=200, shape=shape, background=0.0)
    result = run(data, stopping="fixed", iterations=40)
    assert result.status == Status.CONVERGED and result.iterations == 40
    assert np.all(np.diff(result.curve) < 1e-6 * result.curve[0])  # expectation maximisation never descends
    assert result.prediction.shape == data["y"].shape
    np.testing.assert_allclose(result.prediction.sum(), data["y"].sum(), rtol=2e-3)  # exact but for the unseen far margin


def test_counts_scale_and_units():
    """Gain, offset and peak_photons change the units, not the image."""
    data, _ = measure(confocal, "cells", seed=2, peak=100, shape=(8, 24, 24))
    plain = run(data, stopping="fixed", iterations=10)
    scaled = data | {"y": 7.0 + 2.0 * data["y"]}
    scaled["detector"] = Detector(peak_photons=50.0, background=2.0, gain=2.0, offset=7.0)
    other = run(scaled, stopping="fixed", iterations=10)
    np.testing.assert_allclose(50.0 * other.image, plain.image, rtol=1e-4, atol=1e-4 * plain.image.max())
    np.testing.assert_allclose(other.prediction, 7.0 + 2.0 * plain.prediction, rtol=1e-4)


def test_richardson_lucy_recovers_a_noiseless_bead():
    truth = np.zeros((16, 32, 32), np.float32)
    truth[8, 15, 17] = 1e4
    geometry = confocal.Geometry(shape=truth.shape)
    y = np.asarray(confocal.forward(confocal.nominal(), jnp.asarray(truth), geometry=geometry))
    options = {"geometry": geometry, "detector": Detector(), "stopping": "fixed"}
    images = [
        reconstruct(y, confocal, confocal.nominal(), **options, iterations=n, accelerate=fast).image
        for n, fast in ((20, False), (300, False), (100, True))
    ]
    assert all(np.unravel_index(i.argmax(), i.shape) == (8, 15, 17) for i in images)
    peaks = [i.max() / 1e4 for i in images]
    assert peaks[1] > 0.9 > peaks[0] and peaks[2] > peaks[0]  # a hundred accelerated steps do more than twenty plain ones
    np.testing.assert_allclose(images[1].sum(), 1e4, rtol=5e-3)


def test_borders_are_as_good_as_the_middle():
    """Specimen larger than the field; the same without margin shows what the margin cures."""
    ratios = {None: [], 0: []}
    for seed in (3, 4, 5):
        data, truth = measure(shg, "collagen", seed=seed, peak=1000, shape=(72, 72))
        border = np.ones(truth.shape, bool)
        border[6:-6, 6:-6] = False
        for margin, found in ratios.items():
            error = (run(data, stopping="fixed", iterations=40, margin=margin).image - truth) ** 2
            power = np.mean(truth[border] ** 2) / np.mean(truth[~border] ** 2)
            found.append(error[border].mean() / error[~border].mean() / power)
    assert np.sqrt(np.mean(ratios[None])) < 1.5
    assert np.mean(ratios[None]) < np.mean(ratios[0])


def test_stopping_is_early_in_noise_late_in_light_and_near_the_best():
    stops, losses = {}, []
    for modality, family, shape in ((confocal, "cells", (12, 32, 32)), (shg, "collagen", (64, 60)), (shg, "wavy", (64, 60))):
        for peak, read_sigma in ((10, 0.0), (100, 1.0), (1000, 0.0)):
            data, truth = measure(modality, family, seed=peak, peak=peak, shape=shape, read_sigma=read_sigma)
            result = run(data)
            assert result.status == Status.CONVERGED and "held-out" in result.curve_name
            stops[family, peak] = result.iterations
            around = [run(data, stopping="fixed", iterations=n).image for n in trials(result.iterations)]
            losses.append(max(psnr(i, truth) for i in around) - psnr(result.image, truth))
        assert stops[family, 10] < stops[family, 100] < stops[family, 1000]
    assert np.mean(losses) < 0.25 and np.mean(np.array(losses) < 0.5) > 0.8 and max(losses) < 0.75, losses


def trials(n):
    """Iterations around n, from a third of it to three times."""
    return sorted({max(1, round(n * f)) for f in (0.33, 0.5, 0.66, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)})


def test_thinning_splits_counts_into_uncorrelated_parts():
    rng = np.random.default_rng(0)
    y = rng.poisson(20.0, (200, 200)) + 2.0 * rng.normal(size=(200, 200))
    problem = toy(y, np.ones((1, 1)), background=3.0, read_variance=4.0)
    less, held = thin(problem, seed=1)
    kept = np.asarray(less.photons + less.read_variance)
    np.testing.assert_allclose(kept + np.asarray(held), np.round(y + 4.0), atol=1e-3)
    assert abs(np.corrcoef(kept.ravel(), np.asarray(held).ravel())[0, 1]) < 0.02  # 4 sigma of 40 000 pairs
    np.testing.assert_allclose(np.mean(held) / np.mean(kept), SHARE, rtol=0.02)


def test_rules_other_than_held_out():
    data, _ = measure(confocal, "cells", seed=6, peak=100, shape=(8, 24, 24))
    by_residual = run(data, stopping="discrepancy")
    assert by_residual.status == Status.CONVERGED and by_residual.curve[by_residual.iterations] <= 1.0
    assert np.all(by_residual.curve[: by_residual.iterations] > 1.0)
    same = run(data, stopping="fixed", iterations=by_residual.iterations)
    np.testing.assert_allclose(by_residual.image, same.image, rtol=1e-4, atol=1e-3)
    uncounted = run(data | {"y": data["y"] * 1.37})  # no whole photons: thinning would be wrong
    assert uncounted.curve_name == by_residual.curve_name
    assert run(data, iterations=1).status == Status.OUT_OF_STEPS


def test_dey_weight_smooths_and_keeps_the_flux():
    data, truth = measure(confocal, "cells", seed=7, peak=30, shape=(12, 32, 32))
    plain = run(data, stopping="fixed", iterations=40)
    smooth = run(data, stopping="fixed", iterations=40, tv_weight=0.1)
    assert psnr(smooth.image, truth) > psnr(plain.image, truth) + 1
    np.testing.assert_allclose(smooth.image.sum(), plain.image.sum(), rtol=0.05)


def test_wiener_is_the_closed_form_on_a_torus():
    rng = np.random.default_rng(8)
    psfs = np.stack([gaussian((24, 30), 1.2), 1.4 * gaussian((24, 30), 2.0)])
    y = rng.poisson(50.0 + 20.0 * rng.random((2, 24, 30))).astype(float)
    operator = from_psf(psfs, field=(24, 30), margin=0)
    problem = Problem(operator, jnp.asarray(y, jnp.float32), jnp.float32(5.0), jnp.float32(0.0), jnp.ones(2))
    got = wiener.wiener(problem, noise_to_signal=0.05).x
    h = np.fft.fft2(np.fft.ifftshift(psfs, axes=(1, 2)) / psfs[0].sum())
    precision = 1 / y.mean((1, 2), keepdims=True)
    z = (np.conj(h) * np.fft.fft2(y - 5.0) * precision).sum(0)
    prior = np.full((24, 30), 0.05 * precision.mean())
    prior[0, 0] = 0.0  # the mean is not regularised
    expected = np.fft.ifft2(z / ((np.abs(h) ** 2 * precision).sum(0) + prior)).real
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_wiener_finds_the_spectrum_of_its_own_prior():
    """Data drawn from the power law: the estimate is within 3 % of the error that the true spectrum gives."""
    rng, shape = np.random.default_rng(9), (128, 128)
    nu2 = np.fft.fftfreq(128)[:, None] ** 2 + np.fft.fftfreq(128)[None] ** 2
    s = 2e-2 * (0.02**2 + nu2) ** -1.6
    x = 1000.0 + np.fft.ifft2(np.sqrt(s) * np.fft.fft2(rng.normal(size=shape))).real
    psf = gaussian(shape, 1.5)
    h = np.fft.fft2(np.fft.ifftshift(psf / psf.sum())).real
    y = rng.poisson(np.maximum(np.fft.ifft2(h * np.fft.fft2(x)).real, 0)).astype(float)
    best = np.fft.ifft2(h / (h**2 + y.mean() / s) * np.fft.fft2(y - y.mean())).real + y.mean()
    got = np.asarray(wiener.wiener(toy(y, psf, margin=0)).x)
    assert np.mean((got - x) ** 2) < 1.03 * np.mean((best - x) ** 2) < 0.5 * np.mean((y - x) ** 2)


def test_wiener_of_a_cropped_field_is_the_solution_of_its_normal_equations():
    """Against a dense solve: two frames, a specimen larger than the field; the filter alone is far from it."""
    rng = np.random.default_rng(12)
    psfs = np.stack([gaussian((11, 9), 1.5), 0.7 * gaussian((11, 9), 0.8)])
    y = rng.poisson(30.0 + 20.0 * rng.random((2, 11, 9))).astype(np.float32)
    operator = from_psf(psfs, field=(11, 9), margin=2)
    problem = Problem(operator, jnp.asarray(y), jnp.float32(4.0), jnp.float32(1.0), jnp.ones(2))
    size = int(np.prod(operator.specimen))
    columns = jax.vmap(lambda e: operator.apply(e.reshape(operator.specimen)))(jnp.eye(size))
    a = np.asarray(columns, np.float64).reshape(size, -1).T
    variance = y.mean((1, 2)) + 1.0
    precision = np.repeat(1 / variance, 99)
    power = np.full(operator.grid, 0.05 * (1 / variance).mean())
    power[0, 0] = 0.0
    prior = np.fft.ifft2(power[None] * np.fft.fft2(np.eye(size).reshape(-1, *operator.grid))).real.reshape(size, size)
    expected = np.linalg.solve(a.T @ (precision[:, None] * a) + prior, a.T @ (precision * (y.ravel() - 4.0)))
    got, first = (
        np.asarray(wiener.wiener(problem, noise_to_signal=0.05, iterations=n).x, np.float64).ravel() for n in (200, 0)
    )
    scale = np.linalg.norm(expected)
    assert np.linalg.norm(got - expected) < 0.02 * scale < 0.2 * np.linalg.norm(first - expected)


def test_wiener_continuation_is_periodic_and_keeps_the_data():
    y = jnp.asarray(np.random.default_rng(10).random((3, 7)), jnp.float32)
    longer = wiener.extend(y, axis=1, before=4, length=30)
    np.testing.assert_array_equal(longer[:, 4:11], y)
    ramp = wiener.extend(jnp.arange(20.0)[None], axis=1, before=6, length=32)[0]
    assert float(jnp.max(jnp.abs(ramp - jnp.roll(ramp, 1)))) < 8  # the bare ramp would jump by 19


def test_differences_are_adjoint_and_know_the_pitch():
    pitch = jnp.array([2.5, 1.0, 1.0])
    rng = np.random.default_rng(11)
    x, p = jnp.asarray(rng.normal(size=(4, 5, 6))), tuple(jnp.asarray(rng.normal(size=(3, 4, 5, 6))))
    dots = sum(jnp.vdot(g, q) for g, q in zip(gradient(x, pitch), p, strict=True))
    np.testing.assert_allclose(dots, -jnp.vdot(x, divergence(p, pitch)), rtol=1e-4)
    rise = gradient(5.0 * jnp.arange(4.0)[:, None, None] * jnp.ones((4, 5, 6)), pitch)
    np.testing.assert_allclose(rise[0][:3], 2.0)


def test_total_variation_solves_the_known_denoising_problem():
    """No blur, constant variance: the problem of Chambolle's algorithm, min |x - y|^2 / 2 + v w TV(x)."""
    rng = np.random.default_rng(12)
    clean = np.full((40, 45), 100.0)  # 5-smooth: the torus is the field
    clean[10:30, 12:35] = 160.0
    y = clean + 15.0 * rng.normal(size=clean.shape)
    problem, weight = toy(y, np.ones((1, 1)), margin=0), 0.08
    fit, state = tv.prepare(problem, weight)
    fit = fit._replace(variance=jnp.full(y.shape, 225.0))
    result = tv.run(tv.Step("gaussian"), fit, state, iterations=10_000)
    peer = denoise_tv_chambolle(y, weight=225.0 * weight, eps=1e-9, max_num_iter=5000)
    objective = jax.jit(lambda x: tv.Step("gaussian").objective(fit, x))
    ours, theirs = float(objective(result.state.x)), float(objective(jnp.asarray(peer, jnp.float32)))
    assert abs(ours - theirs) < 2e-4 * theirs
    assert np.sqrt(np.mean((np.asarray(result.state.x) - peer) ** 2)) < 0.5  # of a noise of 15


def test_total_variation_satisfies_its_optimality_conditions():
    """Poisson data, blur: A^T q - div p is 0 where x > 0 and not negative elsewhere, q = 1 - y / m, |p| <= w."""
    data, _ = measure(shg, "wavy", seed=13, peak=50, shape=(48, 48))
    problem = make_problem(data)
    fit, state = tv.prepare(problem, 0.05)
    state = tv.run(tv.Step(), fit, state, iterations=4000).state
    mean = fit.operator.apply(state.x) + fit.pedestal
    slope = np.asarray(fit.operator.adjoint(1 - fit.counts / mean) - divergence(state.slope, fit.pitch))
    x, scale = np.asarray(state.x), 0.05
    assert np.sqrt(np.mean(slope[x > 1] ** 2)) < 0.02 * scale
    assert slope.min() > -0.1 * scale
    assert float(jnp.max(magnitude(state.slope))) <= 0.05 * (1 + 1e-5)


def make_problem(data):
    operator = bind(data["modality"], data["spec"], geometry=data["geometry"])
    y, detector = jnp.asarray(data["y"], jnp.float32), data["detector"]
    return Problem(
        operator, y, jnp.float32(detector.background), jnp.float32(detector.read_sigma**2), jnp.ones(len(operator.field))
    )


def test_total_variation_beats_richardson_lucy_on_blocks_in_noise():
    truth = np.full((12, 32, 32), 2.0)
    truth[3:9, 8:20, 6:16], truth[4:8, 18:28, 18:28] = 20.0, 10.0
    geometry = confocal.Geometry(shape=truth.shape)
    signal = np.asarray(confocal.forward(confocal.nominal(), jnp.asarray(truth, jnp.float32), geometry=geometry))
    y = np.random.default_rng(14).poisson(signal)
    images = {
        m: reconstruct(y, confocal, confocal.nominal(), geometry=geometry, detector=Detector(), method=m).image
        for m in ("tv", "richardson_lucy")
    }
    assert psnr(images["tv"], truth) > psnr(images["richardson_lucy"], truth) + 1


NOT_HERE = {"swinir", "ircnn", "noise2void", "diffusionmicro"}  # stacks alone


@pytest.mark.parametrize("method", sorted(set(METHODS) - NOT_HERE))
@pytest.mark.parametrize("level", [0.0, 1e-3, 1e6])
def test_extreme_data_give_finite_images(method, level):
    y = np.full((2, 24, 20), level)
    y[:, 5, 5] *= 3
    geometry = shg.Geometry(shape=(24, 20))
    detector = Detector(background=1.0)
    result = reconstruct(y, "shg", shg.nominal(geometry), geometry=geometry, detector=detector, method=method)
    assert np.isfinite(result.image).all() and np.isfinite(result.prediction).all() and np.isfinite(result.curve).all()
    assert result.image.shape == (24, 20) and result.image.dtype == np.float32
    assert result.status in (Status.CONVERGED, Status.OUT_OF_STEPS)


class Grow(NamedTuple):
    x: jax.Array


def test_overflow_ends_with_a_status_and_the_last_finite_state():
    def step(factor, state):
        return Grow(factor * state.x), state.x[0]

    result = iterate.run(step, jnp.float32(100.0), Grow(jnp.ones(3)), iterations=40)
    assert result.status == Status.NONFINITE
    np.testing.assert_allclose(result.state.x, 100.0**10, rtol=1e-5)  # the second chunk of ten passes float32's largest number
    assert len(result.values) == 10
    with pytest.raises(ValueError, match="expected counts below"):
        reconstruct(np.full((8, 8), 3e38), None, None, geometry=None, detector=Detector(), psf=np.ones((3, 3)))


def test_callback_and_interrupt_return_the_best_so_far():
    data, _ = measure(confocal, "cells", seed=15, peak=100, shape=(8, 24, 24))
    seen = []

    def stop(iteration, value):
        seen.append((iteration, value))
        return len(seen) < 2

    result = run(data, stopping="fixed", iterations=100, callback=stop)
    assert result.status == Status.INTERRUPTED and result.iterations == 20 and [s[0] for s in seen] == [10, 20]
    np.testing.assert_allclose(result.image, run(data, stopping="fixed", iterations=20).image, rtol=1e-5)

    def interrupt(iteration, value):
        raise KeyboardInterrupt

    for method in ("richardson_lucy", "tv"):
        result = run(data, method=method, callback=interrupt)
        assert result.status == Status.INTERRUPTED and result.iterations == 10 and result.image.max() > 0


@pytest.mark.parametrize("method", ["richardson_lucy", "tv"])
def test_callback_counts_on_through_both_passes(method):
    data, _ = measure(confocal, "cells", seed=15, peak=100, shape=(8, 24, 24))
    seen = []
    result = run(data, method=method, iterations=20, callback=lambda iteration, value: seen.append(iteration))
    assert np.all(np.diff(seen) > 0) and seen[-1] > result.iterations  # the thinned pass came first


def test_names_and_options_are_checked():
    spellings = {
        "richardson_lucy": ("Richardson-Lucy", "richardson lucy", "RL"),
        "wiener": ("Wiener-3D", "Wiener Filter", "WIENER"),
        "tv": ("TV-Deconvolution", "tv"),
    }
    for name, given in spellings.items():
        assert {method_name(s) for s in given} == {name}
    data, _ = measure(confocal, "cells", seed=16, peak=10, shape=(4, 12, 12))
    for options, message in (
        ({"method": "richardson_luci"}, "did you mean 'richardson_lucy'"),
        ({"itarations": 3}, "did you mean 'iterations'"),
        ({"method": "wiener", "tolerance": 3}, "wiener has no option 'tolerance'"),
        ({"stopping": "oracle"}, "expected one of"),
        ({"iterations": 0}, "at least 1"),
        ({"method": "tv", "data_term": "laplace"}, "expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            run(data, **options)
    with pytest.raises(ValueError, match="y has shape"):
        run(data | {"y": data["y"][1:]})
    with pytest.raises(ValueError, match="1 values that are not finite"):
        run(data | {"y": np.where(np.arange(data["y"].size).reshape(data["y"].shape) == 7, np.nan, data["y"])})
    with pytest.raises(ValueError, match="without a psf"):
        reconstruct(data["y"], None, None, geometry=None, detector=Detector())


def test_profile_likelihood_tells_twins_apart_and_batches():
    geometry = confocal.Geometry(shape=(16, 32, 32))
    ranges = confocal.default_ranges(geometry)
    spec = parse(confocal.Spec, confocal.FIELDS, {"z_step": 50.0, "spherical_aberr": 0.1, "refractive_index": 1.52})
    twin = confocal.twin(spec, geometry=geometry, ranges=ranges)
    x = 300.0 * confocal.scene("filaments", shape=(24, 48, 48), voxel_um=geometry.voxel_um, seed=17)
    signal = np.asarray(confocal.forward(spec, jnp.asarray(x, jnp.float32), geometry=geometry))
    y = jnp.asarray(np.random.default_rng(17).poisson(signal + 3.0), jnp.float32)
    specimen = (20, 40, 40)
    operators = [bind(confocal, s, geometry=geometry, specimen=specimen) for s in (spec, twin)]
    one = [float(richardson_lucy.profile_likelihood(op, y, jnp.float32(3.0), iterations=30)) for op in operators]
    assert one[0] < one[1] - 10  # nats
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *operators)
    batch = jax.jit(jax.vmap(lambda op: richardson_lucy.profile_likelihood(op, y, jnp.float32(3.0), iterations=30)))(stacked)
    np.testing.assert_allclose(batch, one, rtol=1e-4)


@pytest.fixture(scope="module")
def bars():
    """Truth, data and kernel of the hollow bars, the data on the truth's scale.

    The data's gain and offset are unknown and the triple is not self-consistent, so they are the best straight line from
    the blurred truth to the data; what is left is model error.
    """
    tifffile = pytest.importorskip("tifffile")
    files = [DATA / f"bars_{name}_32x64x64.tif" for name in ("actual", "data", "kernel")]
    if not all(f.exists() for f in files):
        pytest.skip("the bars stacks are not on this machine")
    truth, data, kernel = (tifffile.imread(f).astype(np.float64) for f in files)
    operator = from_psf(kernel, field=truth.shape, specimen=truth.shape)
    blurred = np.asarray(operator.apply(jnp.asarray(truth, jnp.float32)), np.float64)
    gain, offset = np.polyfit(blurred.ravel(), data.ravel(), 1)
    return truth / truth.max(), np.maximum((data - offset) / gain, 0) / truth.max(), kernel


def bars_image(bars, method, kernel, **options):
    """Image on the truth's scale; 500 photons at its peak."""
    y = np.round(500 * bars[1])
    return reconstruct(
        y, None, None, geometry=None, detector=Detector(peak_photons=500.0), psf=kernel, method=method, **options
    )


def ssim(image, truth):
    return structural_similarity(truth, np.asarray(image, np.float64), data_range=1.0)


@pytest.mark.parametrize(("method", "decibels"), [("richardson_lucy", 2.0), ("tv", 0.7)])
def test_bars_improve(bars, method, decibels):
    truth, blurred, kernel = bars
    options = {"iterations": 80} if method == "tv" else {}  # short of its solution, which is better still
    image = bars_image(bars, method, kernel, **options).image
    assert psnr(image, truth) > psnr(blurred, truth) + decibels
    assert ssim(image, truth) > ssim(blurred, truth) + 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("by", [-1, 1])
def test_bars_kernel_is_centred(bars, axis, by):
    """The bars are several voxels wide, so a shift costs little, but it always costs."""
    truth, _, kernel = bars
    here, one, two = (
        psnr(bars_image(bars, "richardson_lucy", np.roll(kernel, n * by, axis), stopping="fixed", iterations=20).image, truth)
        for n in (0, 1, 2)
    )
    assert here > one > two
