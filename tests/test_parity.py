"""Small aberrations: positivity measures what second-order statistics see only the square of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffphys import confocal, demo, shg
from diffphys.calibrate import explain, near_zero, parity, sign
from diffphys.calibrate.covariance import doubled, propagated
from diffphys.noise import to_photons
from diffphys.operator import bind
from diffphys.spec import Box, parse

GEOMETRY = confocal.Geometry(shape=(24, 48, 48))
FLAT = {"z_step": 20.0, "spherical_aberr": 0.0, "refractive_index": 1.515}
RANGES = confocal.default_ranges(GEOMETRY)


def spec_of(**values):
    return parse(confocal.Spec, confocal.FIELDS, FLAT | values)


def gaussian_field(*, shape, seed, haze=0.0, voxel_um):
    """Mean 1, standard deviation 0.25, correlated over 0.4 um."""
    nu = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(shape, voxel_um, strict=True)], indexing="ij")
    amplitude = (0.4**-2 + sum(n**2 for n in nu)) ** -1.25
    field = np.fft.ifftn(amplitude * np.fft.fftn(np.random.default_rng(seed).normal(size=shape))).real
    return np.maximum(1.0 + 0.25 * (field - field.mean()) / field.std(), 0.0) + haze


@pytest.mark.parametrize(
    ("family", "value", "judge"),
    [("filaments", 0.025, "network"), ("beads", -0.025, "network"), ("beads", -0.025, "positivity")],
)
def test_value_and_sign_of_a_small_aberration(family, value, judge, monkeypatch):
    """From a spec that has everything right but the aberration; 2 sigma of the stated error."""
    monkeypatch.setattr(explain, "judge_of", lambda pitch: judge)
    data = demo.simulated(confocal, spec_of(spherical_aberr=value), geometry=GEOMETRY, family=family, seed=8, photons=1000.0)
    photons = np.asarray(to_photons(data.detector, data.y), np.float64) + 1.0
    background = float(data.detector.background) + 1.0
    question = parity.Question(photons, background, spec_of(spherical_aberr=0.03))
    (found,) = parity.small([question], confocal, GEOMETRY)
    assert abs(found.value - value) < 2 * found.sigma < 0.03
    assert found.nats > 10 and found.value * value > 0


def test_noise_of_a_margin_is_its_scatter_and_zero_between_equals():
    """A fixed image under two specs, on many draws of the counts."""
    two = [bind(confocal, spec_of(spherical_aberr=c), geometry=GEOMETRY) for c in (0.05, -0.05)]
    x = np.full(two[0].specimen, 2.0, np.float32)
    x[tuple(n // 2 for n in x.shape)] = 3000.0
    mean = np.asarray(two[0].apply(x)) + 5.0
    drawn = [np.random.default_rng(seed).poisson(mean).astype(np.float32) for seed in range(100)]
    told = np.array([explain._told(*two, x, x, y, np.float32(5.0)) for y in drawn])
    assert np.std(told[:, 0]) == pytest.approx(np.mean(told[:, 1]), rel=0.25)
    assert np.mean(told[:, 0]) > 0, "the spec that made the counts explains them better"
    assert explain._told(two[0], two[0], x, x, drawn[0], np.float32(5.0)) == (0.0, 0.0)


def test_the_better_known_value_weighs_more():
    assert parity.merged((0.05, 0.001), (0.045, 0.01))[0] == pytest.approx(0.05, abs=1e-3)
    value, sigma = parity.merged((0.05, 0.1), (-0.03, 0.008))
    assert value == pytest.approx(-0.03, abs=2e-4) and sigma == pytest.approx(0.008, rel=0.01)
    assert parity.merged((0.03, 0.01), (float("nan"), float("nan"))) == (0.03, 0.01)
    unsure = parity.merged((0.09, 0.01), (-0.02, 0.2))
    assert unsure[0] > 0.08, "the evidence's sign stands where the measurement knows none"
    assert parity.pooled([(0.02, 0.01), (0.05, 1.0), (float("nan"), 1.0)]) == pytest.approx((0.02, 0.01), abs=1e-4)
    assert np.isnan(parity.pooled([(float("nan"), float("nan"))])[0])


def margin(nats, contrast=1.2):
    return explain.Margin(nats, 5.0, contrast)


def test_value_and_nats_of_three_margins():
    """Margins that are 1e5 nats per wave at the probe and 300 off at zero; without contrast nothing tells a sign."""
    scale = parity.SCALES["network"]
    ends = [margin(300.0 + 1e5 * end) for end in (-scale.simulated, scale.simulated)]
    told = parity._value(margin(300.0 + 1e5 * -0.02), *ends, scale)
    assert told.value == pytest.approx(-0.02) and told.nats == pytest.approx(1e5 * 0.02**2 / scale.probe)
    assert parity._value(margin(-1700.0, contrast=1.0), *ends, scale).nats == 0.0
    assert np.isnan(parity._value(margin(0.0), *ends[::-1], scale).value), "two aberrations that look the wrong way round"


def test_a_measured_sign_replaces_the_one_that_the_evidence_drew():
    """The evidence knows c^2; where the specimen tells no sign, twice the value counts as an error."""
    case = near_zero._Case(0, None, np.eye(3), (0.03, 0.02))
    sure = near_zero._measured(case, parity.Measured(-0.02, 0.01, 50.0))
    assert -0.03 < sure.goal[0] < -0.02 and sure.goal[1] < 0.01 and sure.nats == 50.0
    unsure = near_zero._measured(case, parity.Measured(-0.02, 0.01, 0.0))
    assert unsure.goal[0] == sure.goal[0]
    assert unsure.goal[1] == pytest.approx(np.hypot(sure.goal[1], np.sqrt(2) * sure.goal[0]))


def test_asked_only_for_one_small_free_aberration():
    box = Box.of(confocal.FIELDS, RANGES)
    fixed = Box.of(confocal.FIELDS, RANGES | {"spherical_aberr": (0.0, 0.0)})
    coma = confocal.with_zernike((8,))
    with_coma = parse(coma.Spec, coma.FIELDS, FLAT | {"z8": 0.05})
    small, large = {"c_tot": (0.02, 0.02)}, {"c_tot": (0.13, 0.02)}
    assert parity.asked(confocal, spec_of(), small, box, geometry=GEOMETRY)
    assert not parity.asked(confocal, spec_of(), large, box, geometry=GEOMETRY)
    squat = replace(GEOMETRY, voxel_um=(0.1, 0.1, 0.1))  # no network knows such voxels: positivity reaches less far
    assert [parity.asked(confocal, spec_of(), {"c_tot": (0.09, 0.02)}, box, geometry=g) for g in (GEOMETRY, squat)] == [
        True,
        False,
    ]
    assert not parity.asked(confocal, spec_of(), {"c_tot": (0.02, 0.0)}, box, geometry=GEOMETRY)
    assert not parity.asked(confocal, spec_of(), small, fixed, geometry=GEOMETRY)
    assert not parity.asked(
        shg, shg.nominal(), {}, Box.of(shg.FIELDS, shg.default_ranges(shg.Geometry())), geometry=shg.Geometry()
    )
    own = Box.of(coma.FIELDS, coma.default_ranges(GEOMETRY))
    assert not parity.asked(coma, with_coma, small, own, geometry=GEOMETRY)


def test_it_is_measured_at_a_matched_index_where_that_is_free():
    def index(**ranges):
        box = Box.of(confocal.FIELDS, RANGES | ranges)
        return float(parity.matched(confocal, spec_of(refractive_index=1.53), GEOMETRY, box).refractive_index)

    assert index() == pytest.approx(GEOMETRY.immersion_index)
    assert index(refractive_index=(1.52, 1.54)) == pytest.approx(1.52), "as matched as the box allows"
    assert index(refractive_index=(1.53, 1.53)) == pytest.approx(1.53), "a known index stands"


def test_the_link_holds_the_combination_and_moves_along_its_valley():
    box, covariance = Box.of(confocal.FIELDS, RANGES), np.diag([25.0, 4e-4, 1e-4])
    link, start, response = parity.link(confocal, GEOMETRY, spec_of(refractive_index=1.52), (0.01, 0.004), box, covariance)
    assert link.slope @ start == pytest.approx(link.value, abs=1e-4)

    def c_tot(spec):
        return float(confocal.derived(spec, geometry=GEOMETRY)["c_tot"])

    at = box.decode(np.asarray(start, np.float32))
    here = spec_of(z_step=at[0], spherical_aberr=at[1], refractive_index=at[2])
    assert c_tot(here) == pytest.approx(0.01, abs=1e-5)
    step = 1e-3 * response
    there = replace(here, spherical_aberr=at[1] + step[1], refractive_index=at[2] + step[2])
    assert c_tot(there) - c_tot(here) == pytest.approx(1e-3, rel=0.05)


def test_an_unknown_sign_is_an_error_of_twice_the_value():
    spec = spec_of(spherical_aberr=0.06)
    covariance = np.diag([4.0, 1e-4, 1e-5])
    value, sigma = propagated(confocal, GEOMETRY, spec, covariance)["c_tot"]
    both = covariance + doubled(confocal, GEOMETRY, spec, covariance)
    assert propagated(confocal, GEOMETRY, spec, both)["c_tot"] == pytest.approx((value, np.hypot(sigma, np.sqrt(2) * value)))
    assert both[0, 0] == covariance[0, 0], "what has no part in the aberration keeps its error"


@pytest.mark.parametrize(("family", "tells"), [("filaments", True), (gaussian_field, False)])
def test_a_gaussian_field_tells_no_sign(family, tells):
    """The network adds contrast to a structured specimen and none to a random field; only the one tells a sign."""
    spec = spec_of(spherical_aberr=0.12)
    twin = confocal.twin(spec, geometry=GEOMETRY, ranges={f.name: (-np.inf, np.inf) for f in confocal.FIELDS})
    data = demo.simulated(confocal, spec, geometry=GEOMETRY, family=family, seed=8, photons=1000.0, offset=0.0)
    contest = sign.Contest(np.asarray(data.y) + 1.0, float(data.detector.background) + 1.0, (spec, twin))
    (margin,) = sign.margins([contest], confocal, GEOMETRY)
    assert (margin.contrast > explain.TELLING) == tells
    assert not tells or margin.nats > 100


def test_what_is_held_is_held_exactly_as_far_as_the_box_allows():
    """The link is linear in the parameters; an index far from the one it was made at leaves a hundredth of a wave."""
    box = Box.of(confocal.FIELDS, RANGES)
    off = spec_of(spherical_aberr=0.03, refractive_index=1.51)
    held = parity.held(confocal, off, GEOMETRY, -0.02, box)
    assert float(confocal.derived(held, geometry=GEOMETRY)["c_tot"]) == pytest.approx(-0.02, abs=1e-5)
    assert float(held.z_step) == pytest.approx(20.0, abs=1e-3) and float(held.refractive_index) == pytest.approx(1.51, abs=1e-5)
    edge = parity.held(confocal, off, GEOMETRY, 5.0, box)
    assert float(edge.spherical_aberr) == pytest.approx(RANGES["spherical_aberr"][1])


def test_models_that_compete_share_one_torus_whatever_their_specs():
    """A wider PSF would be given a wider margin, and a model with more unknowns explains anything better."""
    near, far, geometry = spec_of(), spec_of(spherical_aberr=0.2), replace(GEOMETRY, shape=(24, 96, 96))
    own, wide = (bind(confocal, spec, geometry=geometry) for spec in (near, far))
    assert own.specimen != wide.specimen
    case = explain.models(np.ones(geometry.shape), 0.0, near, confocal, geometry)
    one, other = (case(at).operator for at in (near, far))
    assert one.specimen == one.grid == other.specimen == other.grid == own.specimen
    np.testing.assert_allclose(one.spectrum, own.spectrum, atol=1e-5)
