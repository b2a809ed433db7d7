"""Blind calibration: the statistic, the evidence and its derivatives, the sign test, the modulation, and whole runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import confocal, demo, shg
from diffphys.calibrate import evidence, explain, fit, modulation, sign, spectra, verdict
from diffphys.calibrate.covariance import larger, score_covariance
from diffphys.calibrate.periodogram import (
    Frequencies,
    block_shape,
    blocks,
    frequencies,
    multiplicity,
    periodogram,
    smoothing_matrix,
    taper,
)
from diffphys.spec import Box
from diffphys.types import Status

TINY = confocal.Geometry(shape=(8, 16, 16))
SMALL = confocal.Geometry(shape=(16, 32, 32))
FRAMES = shg.Geometry(shape=(64, 64), phase_offsets_rad=(0.0, 1.5))


def problem_of(modality, geometry, cross, weight_of=None):
    """A fit problem whose statistic is given; unit noise."""
    finer = (2, 1, 1) if len(geometry.shape) == 3 else (2, 2)
    frames = cross.shape[0]
    statistic = periodogram(np.random.default_rng(0).normal(size=(frames, *geometry.shape)), block=geometry.shape, finer=finer)
    box = Box.of(modality.FIELDS, modality.default_ranges(geometry))
    return fit.Problem(modality, geometry, statistic._replace(cross=cross), np.ones(frames), 0.02, box, finer)


def truth_of(problem, family, theta):
    """q with a plausible spectrum, and the covariance it implies."""
    model, data, spectrum = fit.make(problem, family)
    psi = spectrum.start + 7.0 * spectrum.amplitude
    q = jnp.asarray(np.concatenate([theta, np.zeros(len(problem.noise)), psi]), problem.dtype)
    return model, data, q, evidence.covariance(model, data, q)


def test_white_noise_has_its_variance_in_every_bin():
    y = 3.0 * np.random.default_rng(1).normal(size=(1, 32, 64, 64)) + 5.0
    statistic = periodogram(y, block=(32, 64, 64), finer=(2, 1, 1))
    used = statistic.weight > 0
    level = np.average(statistic.cross[0, 0][used], weights=statistic.bin_dof[used])
    assert level == pytest.approx(9.0, rel=0.01)  # 131072 samples: 0.4 % standard error
    assert statistic.mean[0] == pytest.approx(5.0, abs=0.05)


def test_poisson_noise_level_is_the_mean():
    rate = np.broadcast_to(np.linspace(2.0, 30.0, 64), (1, 64, 64))
    rng = np.random.default_rng(2)
    y = rng.poisson(rate) - rate  # noise alone: its spectrum is white at the mean rate
    statistic = periodogram(y, block=(64, 64), finer=(2, 2))
    used = statistic.weight > 0
    expected = float((rate[0] @ (taper(64) ** 2 / 64)).mean())
    assert np.average(statistic.cross[0, 0][used], weights=statistic.bin_dof[used]) == pytest.approx(expected, rel=0.04)


def test_smoothed_spectrum_is_the_expected_periodogram_of_a_crop():
    """Crops of a long stationary series are not periodic; the smoothed model must be their mean periodogram."""
    rng, n, length = np.random.default_rng(3), 32, 4096
    nu = np.fft.fftfreq(length)
    power = 50.0 / (0.02 + nu**2) ** 1.2 / 100 + 1.0
    crops = []
    for _ in range(40):
        series = np.fft.ifft(np.fft.fft(rng.normal(size=length)) * np.sqrt(power)).real
        crops.append(series.reshape(-1, n))
    windowed = np.concatenate(crops) * taper(n)
    measured = (np.abs(np.fft.rfft(windowed)) ** 2 / n).mean(0)
    folded = np.interp(np.arange(n + 1) / (2 * n), np.fft.fftshift(nu), np.fft.fftshift(power))
    np.testing.assert_allclose(measured, smoothing_matrix(n, 2) @ folded, rtol=0.06)  # 5120 crops: 1.4-2 % per bin


def test_smoothing_matrices_keep_a_flat_spectrum():
    for n in (8, 9, 32, 45):
        for finer in (1, 2):
            size = finer * n // 2 + 1
            np.testing.assert_allclose(smoothing_matrix(n, finer) @ np.ones(size), 1.0, rtol=1e-12)


@pytest.mark.parametrize("front", [(), (3, 2, 2), (0, 1, 1)])
def test_smoothing_is_the_sum_over_each_axis(front):
    """Axes of different lengths, whatever stands in front of them, nothing included."""
    rng = np.random.default_rng(0)
    matrices = tuple(rng.normal(size=size).astype(np.float32) for size in ((3, 5), (4, 4), (2, 6)))
    spectrum = rng.normal(size=(*front, 5, 4, 6)).astype(np.float32)
    data = SimpleNamespace(smoothing=matrices)
    expected = np.einsum("...zyx,kz,ly,mx->...klm", spectrum, *matrices)
    np.testing.assert_allclose(evidence.smooth(data, jnp.asarray(spectrum)), expected, rtol=1e-4, atol=1e-4)


def test_blocks_cover_the_field_and_count_every_sample():
    assert block_shape((45, 130, 133), (0.5, 0.5, 0.5)) == (45, 64, 64)
    assert block_shape((512, 512), (0.1, 0.1)) == (512, 512)
    assert block_shape((45, 130, 133), (0.2, 0.08, 0.04), least=32) == (32, 32, 60), "63 is not quick to transform"
    frames = np.arange(100.0)[None, :, None] * np.ones((1, 1, 40))
    cut = blocks(frames, (32, 40))
    assert cut.shape[1:] == (1, 32, 40) and cut.min() == 0.0 and cut.max() == 99.0
    assert multiplicity((32, 64)).sum() == 32 * 64


@pytest.mark.parametrize(
    ("modality", "geometry", "family"), [(confocal, TINY, "spline"), (shg, FRAMES, "matern")], ids=["confocal", "shg"]
)
def test_gradient_and_fisher_are_the_derivatives_of_the_value(modality, geometry, family, float64):
    """Central differences of the value give the gradient; where C = M, those of the gradient give the Fisher matrix."""
    frames = 1 if modality is confocal else 2
    shape = tuple(n // 2 + 1 for n in geometry.shape)
    problem = problem_of(modality, geometry, np.ones((frames, frames, *shape)))
    problem = problem._replace(box=Box(*(np.asarray(b, np.float64) for b in problem.box)))
    model, data, spectrum = fit.make(problem, family)
    data = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), data)
    q = jnp.asarray(np.concatenate([[0.3, 0.2, 0.1], np.zeros(frames), spectrum.start + 7.0 * spectrum.amplitude]))
    data = data._replace(cross=evidence.covariance(model, data, q))
    value = jax.jit(lambda p: evidence.value(model, data, p))
    evaluate = jax.jit(lambda p: evidence.evaluate(model, data, p)[:3])

    def differences(function, at, step):
        return np.stack([(function(at + e) - function(at - e)) / (2 * step) for e in step * np.eye(len(q))])

    fisher = np.asarray(evaluate(q)[2])
    scale = np.sqrt(np.outer(np.diag(fisher), np.diag(fisher)))
    hessian = differences(lambda p: np.asarray(evaluate(p)[1]), q, 1e-4)
    np.testing.assert_allclose(hessian / scale, fisher / scale, atol=1e-5)  # third derivatives times step squared
    away = q + 0.05
    got, gradient, _ = evaluate(away)
    np.testing.assert_allclose(gradient, differences(value, away, 1e-5), atol=1e-5 * np.abs(gradient).max())
    assert float(got) == pytest.approx(float(value(away)), rel=1e-10)


@pytest.mark.parametrize(("modality", "geometry"), [(confocal, SMALL), (shg, FRAMES)], ids=["confocal", "shg"])
def test_saturated_likelihood_of_data_from_the_model(modality, geometry):
    """Cross-periodograms drawn from the model lie within 4 standard deviations of the expected saturated NLL."""
    frames = 1 if modality is confocal else 2
    shape = tuple(n // 2 + 1 for n in geometry.shape)
    problem = problem_of(modality, geometry, np.ones((frames, frames, *shape)))
    with problem.precision():
        _, _, q, matrix = truth_of(problem, "matern", [0.2, 0.3, 0.0])
        matrix, q = np.asarray(matrix, np.float64), np.asarray(q)
    root = np.linalg.cholesky(np.moveaxis(matrix, (0, 1), (-2, -1)))
    dof = multiplicity(geometry.shape)
    rng = np.random.default_rng(4)
    draws = np.zeros((*dof.shape, frames, frames))
    for level in np.unique(dof).astype(int):
        at = dof == level
        z = rng.normal(size=(int(at.sum()), level, frames))
        draws[at] = np.einsum("bnj,bnk->bjk", z, z) / level
    cross = np.moveaxis(root @ draws @ np.swapaxes(root, -1, -2), (-2, -1), (0, 1))
    problem = problem._replace(statistic=problem.statistic._replace(cross=cross, weight=problem.statistic.bin_dof))
    (found,) = fit.polish([problem], "matern", [q[None]])
    deviation, ratio = verdict.goodness_of_fit(found, problem.statistic)
    assert abs(deviation) < 4 and 0.9 < ratio < 1.1
    error = (found.q[0, :2] - [0.2, 0.3]) / np.sqrt(np.diag(np.linalg.inv(found.point.fisher))[:2])
    assert np.abs(error).max() < 4


def test_matern_has_its_level_in_the_middle_and_falls_by_its_power():
    spectrum = spectra.matern(1.0)
    psi = jnp.asarray(spectrum.start) + 2.0 * spectrum.amplitude

    def log_s(square):
        return float(spectrum.log(psi, Frequencies(jnp.float32(square), jnp.zeros(()), jnp.ones(()))))

    level, power = float(psi[-3]), float(psi[-2])
    assert log_s(spectra.MIDDLE) == pytest.approx(level, abs=1e-3)
    assert log_s(4e4) - log_s(4e2) == pytest.approx(-power * np.log(100.0), rel=1e-3)


def test_finalists_are_the_best_and_the_farthest_that_has_not_lost():
    thetas = np.array([[0.5, 0.1], [0.52, 0.0], [0.5, 0.3], [-0.2, 0.1], [-0.9, 0.1]])
    np.testing.assert_array_equal(fit._spread(thetas, np.array([7.0, 7.1, 8.0, 9.0, 20.0])), thetas[[0, 3]])
    np.testing.assert_array_equal(fit._spread(thetas, np.array([7.0, 7.1, 30.0, np.nan, np.inf])), thetas[:1])
    np.testing.assert_array_equal(fit._spread(thetas, np.full(5, np.inf)), thetas[:1], "a search that failed ends somewhere")


def test_either_family_goes_on_from_where_the_other_ended(monkeypatch):
    """Each is only as good as its starts; the better of its two ends stands."""
    known = problem_of(confocal, TINY, np.ones((1, 1, 5, 9, 9)))

    def ended(family, theta, value):
        return SimpleNamespace(family=family, q=np.array([[theta, 0.0, 0.0, 1.0]]), value=np.array([value]))

    def settle(problems, family, thetas, how):
        return [ended(family, *{"matern": (0.2, 5.0), "spline": (0.7, 9.0)}[family])]

    def restart(problems, found, thetas, how):
        return [ended(found[0].family, thetas[0][0], {"matern": 8.0, "spline": 4.0}[found[0].family])]

    monkeypatch.setattr(fit, "settle", settle)
    monkeypatch.setattr(fit, "restart", restart)
    (one,), (two,) = fit.settle_both([known], [np.zeros((1, 3))])
    assert (one.family, float(one.value[0]), one.q[0, 0]) == ("matern", 5.0, 0.2)
    assert (two.family, float(two.value[0]), two.q[0, 0]) == ("spline", 4.0, 0.2)


def test_sandwich_equals_fisher_for_independent_bins_and_grows_with_correlation():
    rng = np.random.default_rng(5)
    u = rng.normal(size=(2, 12, 40, 40))
    plain = score_covariance(u, bandwidth=0.0) / u[0].size
    np.testing.assert_allclose(plain, np.eye(2), atol=0.03)
    coherent = np.repeat(np.repeat(rng.normal(size=(2, 12, 10, 10)), 4, 2), 4, 3)
    assert score_covariance(coherent, bandwidth=2.0)[0, 0] > 5 * score_covariance(coherent, bandwidth=0.0)[0, 0]
    a, b = np.diag([1.0, 4.0]), np.diag([2.0, 1.0])
    np.testing.assert_allclose(larger(a, b), np.diag([2.0, 4.0]), atol=1e-12)


def test_twin_reverses_the_total_aberration_and_keeps_the_otf():
    geometry = confocal.Geometry()
    ranges = confocal.default_ranges(geometry)
    spec = confocal.Spec(jnp.float32(30.0), jnp.float32(0.06), jnp.float32(1.52))
    twin = confocal.twin(spec, geometry=geometry, ranges=ranges)
    total = [float(confocal.derived(s, geometry=geometry)["c_tot"]) for s in (spec, twin)]
    assert total[0] == pytest.approx(-total[1], abs=1e-3)
    power = [np.hypot(*confocal.otf_quadrant(s, geometry=geometry)) for s in (spec, twin)]
    assert np.abs(power[0] - power[1]).max() < 0.01  # equal but for the part of the index path that is not Z11
    strong = confocal.Spec(jnp.float32(30.0), jnp.float32(0.22), jnp.float32(1.535))
    assert confocal.twin(strong, geometry=geometry, ranges=ranges) is None


@pytest.mark.parametrize("aberration", [0.1, -0.08])
def test_positivity_finds_the_sign(aberration):
    geometry = confocal.Geometry(shape=(24, 48, 48))
    spec = confocal.Spec(jnp.float32(20.0), jnp.float32(aberration), jnp.float32(1.515))
    measured = demo.simulated(confocal, spec, geometry=geometry, family="filaments", seed=3, photons=100.0, offset=0.0)
    twin = confocal.twin(spec, geometry=geometry, ranges=confocal.default_ranges(geometry))
    background = float(measured.detector.background) + 1.0
    (margin,) = sign.margins([sign.Contest(measured.y + 1.0, background, (spec, twin))], confocal, geometry)
    assert margin.nats > 100 and margin.contrast > explain.TELLING


def test_row_modulation_is_recovered_on_a_known_covariance():
    """Row means of white noise around a constant: the amplitude has a closed-form standard error."""
    geometry = replace(FRAMES, shape=(128, 128))
    spec = shg.Spec(jnp.float32(0.0), jnp.float32(2.0), jnp.float32(0.0))
    clean = 50.0 * np.asarray(shg.transfer(spec, geometry=geometry).modulation)
    rng, errors = np.random.default_rng(6), []
    column = np.broadcast_to(25.0 * np.eye(2)[..., None], (2, 2, 65))
    for _ in range(40):
        signal = np.broadcast_to(clean, (2, 128, 128)) + 5.0 * rng.normal(size=(2, 128, 128))
        start = shg.Spec(jnp.float32(0.0), jnp.float32(0.0), jnp.float32(0.0))
        found = modulation.estimate(signal, column, shg, geometry, start, name="excitation_power_fluctuation", block=(128, 128))
        errors.append((found.value - 2.0) / found.sigma)
    assert np.abs(np.mean(errors)) < 0.6 and 0.6 < np.std(errors) < 1.4
    ideal = 100 * 5.0 / (2 * 50.0) / np.sqrt(2 * 128 * 128)  # percent, no taper
    assert found.sigma == pytest.approx(ideal, rel=0.25)


def test_confocal_blind_calibration_and_what_it_reports():
    geometry = confocal.Geometry(shape=(24, 48, 48))
    spec = confocal.Spec(jnp.float32(50.0), jnp.float32(0.1), jnp.float32(1.525))
    measured = demo.simulated(confocal, spec, geometry=geometry, family="beads", seed=41, photons=1000.0, offset=0.0)
    steps = []
    found = diffphys.calibrate(
        measured.y, "confocal_3d", geometry=geometry, detector=measured.detector, progress=lambda f, t: steps.append(f)
    )
    assert found.status in (Status.CONVERGED, Status.AT_BOUND)
    assert found.values["z_step"] == pytest.approx(50.0, abs=10.0)
    total = float(confocal.derived(spec, geometry=geometry)["c_tot"])
    assert found.derived["c_tot"][0] == pytest.approx(total, abs=0.01)
    for value, sigma, truth in (
        (found.values["z_step"], found.sigma["z_step"], 50.0),
        (*found.derived["c_tot"], total),
    ):
        assert abs(value - truth) < 4 * sigma
    assert found.derived["c_tot"][1] < 0.5 * found.sigma["spherical_aberr"]  # the combination is the better known
    assert found.correlation[1, 2] < -0.5
    assert any("Nyquist" in line and "λ/(4n(1-cos α))" in line for line in found.warnings)
    assert steps == sorted(steps) and steps[-1] == 1.0


@pytest.mark.parametrize("offsets", [(0.0, 1.5), (0.0, 1.5, 3.0)], ids=["two frames", "three frames"])
def test_shg_blind_calibration(offsets):
    geometry = shg.Geometry(shape=(64, 64), phase_offsets_rad=offsets)
    spec = shg.Spec(jnp.float32(1.0), jnp.float32(2.0), jnp.float32(0.02))
    measured = demo.simulated(shg, spec, geometry=geometry, family="wavy", seed=5, photons=3000.0, offset=0.0)
    found = diffphys.calibrate(measured.y, shg, geometry=geometry, detector=measured.detector)
    limits = {"phase_matching_error": 0.1, "excitation_power_fluctuation": 0.3, "collection_na_mismatch": 0.01}
    for name, limit in limits.items():
        error = found.values[name] - float(getattr(spec, name))
        assert abs(error) < limit and abs(error) < 4 * found.sigma[name], name


def test_one_shg_frame_does_not_pretend():
    """K = 1 leaves the phase mismatch to the prior amplitude; without a monitored trace there is no fluctuation either."""
    geometry = shg.Geometry(shape=(64, 64), phase_offsets_rad=(0.0,), power_trace=None)
    spec = shg.Spec(jnp.float32(0.5), jnp.float32(0.0), jnp.float32(0.01))
    measured = demo.simulated(shg, spec, geometry=geometry, family="collagen", seed=6, photons=300.0, offset=0.0)
    found = diffphys.calibrate(measured.y, shg, geometry=geometry, detector=measured.detector)
    assert found.status in (Status.NOT_IDENTIFIABLE, Status.MISFIT)
    assert "excitation_power_fluctuation" in found.undetermined
    assert "one frame" in found.undetermined["phase_matching_error"]


def test_fixed_parameters_stay_and_are_named():
    held = {"refractive_index": 1.515, "spherical_aberr": 0.02}
    found = diffphys.calibrate(
        np.asarray(demo.simulated(confocal, confocal.nominal(), geometry=SMALL, family="beads", seed=8, offset=0.0).y),
        confocal,
        geometry=SMALL,
        detector=diffphys.Detector(background=20.0, read_sigma=1.0),
        ranges={name: (value, value) for name, value in held.items()},
    )
    for name, value in held.items():
        assert found.values[name] == pytest.approx(value, abs=1e-6)
        assert found.sigma[name] == 0.0 and name in found.undetermined
    assert found.sigma["z_step"] > 0


@pytest.mark.parametrize(
    ("change", "ranges", "message"),
    [
        (lambda y: y[:-1], None, "shape"),
        (lambda y: np.where(y == y.max(), np.nan, y), None, "NaN"),
        (lambda y: np.ones_like(y), None, "constant"),
        (lambda y: y, {"z_step": (50.0, -50.0)}, "low 50 > high -50"),
        (lambda y: y, {"z_stepp": (0.0, 1.0)}, "did you mean 'z_step'"),
        (lambda y: y, {"refractive_index": (1.30, 1.54)}, "na"),
    ],
)
def test_unusable_input_is_refused_in_one_line(change, ranges, message):
    y = np.random.default_rng(9).poisson(5.0, SMALL.shape).astype(float)
    with pytest.raises(ValueError, match=message) as caught:
        diffphys.calibrate(change(y), confocal, geometry=SMALL, detector=diffphys.Detector(), ranges=ranges)
    assert "\n" not in str(caught.value)


def test_frequencies_are_cycles_per_pixel():
    at = frequencies((16, 32, 32), (0.2, 0.08, 0.08), finer=(2, 1, 1))
    assert at.axial2.shape == (17, 1, 1) and at.lateral2.shape == (1, 17, 17)
    assert at.axial2.max() == pytest.approx(0.25) and at.lateral2.max() == pytest.approx(0.5)
    assert at.turn[0, 0, 5] == 1.0 and at.turn[0, 5, 0] == -1.0
