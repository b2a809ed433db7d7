"""What the structure of one specimen does to the estimate, and how much of it is taken off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffphys import confocal, demo, shg
from diffphys.calibrate import bias, blind, explain, verdict
from diffphys.calibrate.estimate import estimates
from diffphys.calibrate.lanes import ONE
from diffphys.calibrate.periodogram import periodogram
from diffphys.spec import names, parse

GEOMETRY = confocal.Geometry(shape=(24, 48, 48))
SPEC = {"z_step": 40.0, "spherical_aberr": 0.15, "refractive_index": 1.515}
FIELDS = names(confocal.FIELDS)


def estimated(ranges=None, **values):
    """(estimate, sample) by the evidence alone of a simulated stack of filaments."""
    spec = parse(confocal.Spec, confocal.FIELDS, SPEC | values)
    data = demo.simulated(confocal, spec, geometry=GEOMETRY, family="filaments", seed=8, photons=1000.0)
    case = blind.prepare(data.y, confocal, GEOMETRY, data.detector, ranges)
    (found,) = estimates([case.sample], confocal, GEOMETRY, ONE, lambda fraction, text: None)
    return found, case.sample


@pytest.fixture(scope="module")
def inside():
    return estimated()


@pytest.fixture(scope="module")
def stopped():
    """One whose range ends before the truth."""
    return estimated(ranges={"z_step": (-30.0, 30.0)})


def test_expected_statistic_is_the_mean_of_drawn_ones(inside):
    estimate, _ = inside
    z, y, x = np.indices(GEOMETRY.shape)
    signal = (60.0 * np.exp(-((z - 11) ** 2 / 20 + (y - 20) ** 2 / 90 + (x - 25) ** 2 / 40)))[None]
    found = bias.expected(estimate.problem, signal, 7.0)
    rng = np.random.default_rng(3)
    options = {"block": found.block.shape, "finer": found.finer}
    drawn = np.mean([periodogram(rng.poisson(signal + 7.0) - 7.0, **options).cross for _ in range(200)], axis=0)
    used = found.statistic.weight > 0
    ratio = drawn[0, 0][used] / found.statistic.cross[0, 0][used]
    assert np.mean(ratio) == pytest.approx(1.0, abs=2e-3)
    assert np.std(ratio) < 0.11  # 200 draws, at least two degrees of freedom a bin


def test_an_estimate_that_an_edge_stopped_goes_on_beyond_it(stopped):
    estimate, _ = stopped
    assert float(estimate.spec.z_step) == pytest.approx(30.0)
    (case,) = bias._cases([0], [(estimate, estimate.spec, None)], confocal, GEOMETRY, ONE)
    beyond = 30.0 * case.theta[FIELDS.index("z_step")]
    assert 33.0 < beyond <= 45.0, "the truth is 40"


def test_the_answer_stays_in_its_range_and_the_rest_as_it_was(stopped):
    estimate, sample = stopped
    before = (estimate, estimate.spec, 12.0)
    ((after, spec, margin),) = bias.corrected([before], [sample], confocal, GEOMETRY, ONE)
    assert -30.0 <= float(spec.z_step) <= 30.0 and margin == 12.0
    assert float(spec.spherical_aberr) == float(estimate.spec.spherical_aberr)
    assert after.spec is spec


def test_a_rehearsal_of_the_truth_itself_shows_no_pull_worth_taking_off(inside):
    """Filaments at 1000 photons, where the evidence errs by a few nanometres: the correction may not do harm."""
    estimate, sample = inside
    ((_, spec, _),) = bias.corrected([(estimate, estimate.spec, None)], [sample], confocal, GEOMETRY, ONE)
    moved = float(spec.z_step) - float(estimate.spec.z_step)
    assert 0 < abs(moved) < 15.0
    assert abs(float(spec.z_step) - 40.0) < abs(float(estimate.spec.z_step) - 40.0) + 5.0


@pytest.mark.parametrize("pull", [0.05, -0.05, 3.0])
def test_a_share_of_the_pull_is_taken_off_at_most_some_sigma(inside, pull):
    estimate, _ = inside
    covariance, half = verdict.covariance_of(estimate, FIELDS), np.asarray(estimate.box.half)
    theta = np.asarray(estimate.fits[0].q[0, :3], np.float64)
    case = bias._Case(0, covariance, theta)
    after, spec, _ = bias._without((estimate, estimate.spec, None), case, np.full(3, pull), confocal)
    i = FIELDS.index("z_step")
    sigma = np.sqrt(covariance[i, i])
    seen = min(abs(pull) * half[i], bias.LIMIT * sigma) * np.sign(pull)
    noise = half[i] * np.sqrt(np.linalg.inv(np.asarray(estimate.fits[0].point.fisher, np.float64))[i, i])
    share = 20.0**2 / (20.0**2 + noise**2)
    assert 0.5 < share < 1.0
    assert float(spec.z_step) == pytest.approx(float(estimate.spec.z_step) - share * seen, abs=1e-3)
    left = verdict.covariance_of(after, FIELDS) + after.added
    assert np.sqrt(left[i, i]) == pytest.approx(bias.LEFT * sigma, rel=1e-5)
    assert np.linalg.eigvalsh(left).min() > 0
    others = [n for n in range(3) if n != i]
    np.testing.assert_allclose(left[np.ix_(others, others)], covariance[np.ix_(others, others)], rtol=1e-6)


def test_several_stacks_of_one_light_weigh_a_pull_as_one_does(inside):
    """Noise and the specimens' pull both fall with the number of stacks."""
    np.testing.assert_allclose(bias.photon_noise([inside[0]] * 4), bias.photon_noise([inside[0]]), rtol=1e-9)


def test_a_rehearsal_that_failed_changes_nothing(inside):
    one = (inside[0], inside[0].spec, None)
    case = bias._Case(0, verdict.covariance_of(inside[0], FIELDS), np.zeros(3))
    assert bias._without(one, case, np.full(3, np.nan), confocal) is one


def test_asked_where_a_network_knows_specimens_like_this(inside):
    estimate, _ = inside
    assert bias.asked(confocal, GEOMETRY, estimate)
    assert not bias.asked(confocal, replace(GEOMETRY, voxel_um=(0.1, 0.1, 0.1)), estimate)
    assert not bias.asked(confocal, replace(GEOMETRY, shape=(128, 256, 256)), estimate)
    assert not bias.asked(shg, shg.Geometry(shape=(64, 64)), estimate)
    held = estimate._replace(box=estimate.box._replace(half=np.zeros(3)))
    assert not bias.asked(confocal, GEOMETRY, held)


def test_the_reach_ends_where_the_model_does(inside):
    problem = inside[0].problem
    wide = bias.widened(problem, confocal, GEOMETRY)
    np.testing.assert_allclose(wide.reach, [bias.REACH if n == "z_step" else 1.0 for n in FIELDS])
    thin = replace(GEOMETRY, voxel_um=(0.1, 0.08, 0.08))  # 1.5 times the range would turn the z step round
    assert bias.widened(problem, confocal, thin) is problem


def test_nothing_is_taken_off_where_the_network_sees_a_gaussian_field(inside, monkeypatch):
    estimate, sample = inside
    monkeypatch.setattr(explain, "TELLING", np.inf)
    one = (estimate, estimate.spec, 3.0)
    assert bias.corrected([one], [sample], confocal, GEOMETRY, ONE) == [one]
