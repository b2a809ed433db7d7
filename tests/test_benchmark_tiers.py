"""Tiers: the draw does not tell the answer, every parameter matters, no specimen is dull, the key decides."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import kstest

from diffphys import confocal, shg
from diffphys.benchmark import draw, keys, model, tiers
from diffphys.noise import Detector
from diffphys.types import resolve

PAIRS = [(m, t) for m in tiers.MODALITIES for t in tiers.TIERS]
SMALL = {"confocal_3d": confocal.Geometry(shape=(24, 40, 40)), "shg": shg.Geometry(shape=(96, 96))}
KEY = b"a key of the tests"
DRAWS = 240


def drawn_shares(modality, tier):
    """(draw, parameter): place of each drawn spec in its range, 0 to 1."""
    ranges = tiers.ranges(modality, tier)
    low, high = np.array(list(ranges.values())).T
    specs = [list(draw.draw_spec(KEY, modality, tier, i).values()) for i in range(DRAWS)]
    return (np.array(specs) - low) / (high - low)


@pytest.mark.parametrize(("modality", "tier"), PAIRS)
def test_specs_are_uniform_in_their_range(modality, tier):
    shares = drawn_shares(modality, tier)
    assert (shares >= 0).all() and (shares <= 1).all()
    for column in shares.T:
        assert kstest(column, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(shares.T)[np.triu_indices(3, 1)]).max() < 0.2


@pytest.mark.parametrize(("modality", "tier"), PAIRS)
def test_no_fixed_guess_knows_the_answer(modality, tier):
    """The midpoint, the thirds and a random guess of the range miss by what a uniform draw makes them miss."""
    shares = drawn_shares(modality, tier).ravel()
    rng = np.random.default_rng(1)
    for guess in (1 / 3, 1 / 2, 2 / 3):
        miss = (shares - guess) ** 2
        expected = 1 / 12 + (guess - 0.5) ** 2
        assert abs(miss.mean() - expected) < 3 * miss.std() / np.sqrt(miss.size)
        assert (np.abs(shares - guess) < 0.01).mean() < 0.04  # chance: 0.02
    hits = {g: (np.abs(shares - g) < 0.05).mean() for g in (0.5, *rng.uniform(0.05, 0.95, 20))}
    middle = hits.pop(0.5)
    assert middle <= max(hits.values()), "the midpoint is hit no more often than random places"


@pytest.mark.parametrize("modality", tiers.MODALITIES)
def test_ranges_are_those_of_the_definition_and_hold_the_nominal_spec(modality):
    known = resolve(modality)
    nominal = known.nominal(tiers.geometry(modality))
    hull = known.default_ranges(tiers.geometry(modality))
    for tier in tiers.TIERS:
        for name, (low, high) in tiers.ranges(modality, tier).items():
            assert low < float(getattr(nominal, name)) < high
            assert hull[name][0] <= low and high <= hull[name][1]
    assert list(tiers.ranges("confocal_3d", "hidden").values()) == [(-35.0, 115.0), (-0.07, 0.23), (1.508, 1.538)]
    assert list(tiers.ranges("shg", "dev").values()) == [(-1.2, 1.8), (-2.4, 3.6), (-0.024, 0.036)]


def test_families_are_mixed_evenly_and_each_later_tier_has_one_of_its_own():
    for modality in tiers.MODALITIES:
        public, dev, hidden = (set(tiers.families(modality, t)) for t in tiers.TIERS)
        assert all(tiers.SAMPLES % len(tiers.families(modality, t)) == 0 for t in tiers.TIERS)
        assert len(dev - public - hidden) == 1 and len(hidden - public - dev) == 1
        scenes = __import__(f"diffphys.{'shg' if modality == 'shg' else 'confocal'}.scenes", fromlist=["x"])
        assert not public & set(scenes.RESERVED) and public == set(scenes.FAMILIES)


@pytest.mark.parametrize(("modality", "tier"), PAIRS)
def test_every_parameter_changes_y(modality, tier):
    geometry = SMALL[modality]
    spec = draw.draw_spec(KEY, modality, tier, 0)
    scene, _ = draw.accepted_scene(KEY, modality, tier, 0, tiers.families(modality, tier)[-1], geometry)
    x = scene[draw.field_of(geometry.shape, scene.shape)]
    detector = Detector(peak_photons=300.0, background=6.0, read_sigma=1.0)
    bound = model.cramer_rao(modality, spec, x, geometry=geometry, detector=detector)
    assert all(np.isfinite(v) and v > 0 for v in bound.values()), "a parameter without effect has no finite bound"
    inside = (..., *model.interior(modality, geometry))
    ranges = tiers.ranges(modality, tier)

    def mean(at):
        return model.prediction(modality, at, x, geometry=geometry, detector=detector)[inside]

    for name, (low, high) in ranges.items():
        change = mean({**spec, name: low}) - mean({**spec, name: high})
        assert np.sqrt(np.sum(change**2 / (mean(spec) + 1))) > 3, f"{name} must show above the noise"


@pytest.mark.parametrize("modality", tiers.MODALITIES)
def test_each_family_is_accepted_as_the_definition_says(modality):
    for number, family in enumerate((*tiers.families(modality, "dev"), tiers.families(modality, "hidden")[-1])):
        scene, attempts = draw.accepted_scene(KEY, modality, "hidden", number, family, SMALL[modality])
        x = scene[draw.field_of(SMALL[modality].shape, scene.shape)]
        assert x.max() == pytest.approx(1.0) and x.min() >= 0 and attempts < 50
        levels = np.linspace(0, 1, 41)
        assert max(draw.flat_terms(x, level) for level in levels) <= tiers.DULLEST + 0.005
        assert draw.flat_terms(x, 0.0) <= 0.2
        assert scene.shape[0] > x.shape[0]


def test_a_sample_is_a_function_of_its_key_alone():
    first, again = (draw.draw(KEY, "shg", "dev", 3, geometry=SMALL["shg"]) for _ in range(2))
    other = draw.draw(KEY + b".", "shg", "dev", 3, geometry=SMALL["shg"])
    np.testing.assert_array_equal(first.y, again.y)
    assert first.spec == again.spec and first.spec != other.spec and not np.array_equal(first.x, other.x)
    assert not np.array_equal(first.y, first.y_second)
    assert 100 <= float(first.detector.background) / tiers.BACKGROUND <= 1000
    signal = (first.y - tiers.OFFSET - float(first.detector.background)).max()
    assert signal == pytest.approx(float(first.detector.background) / tiers.BACKGROUND, rel=0.5)


def test_streams_of_different_purposes_tiers_and_samples_differ():
    labels = [("shg", t, i, p, a) for t in tiers.TIERS for i in (0, 1) for p in ("spec", "noise") for a in (0, 1)]
    firsts = {keys.stream(KEY, *label[:4], attempt=label[4]).integers(0, 2**63) for label in labels}
    assert len(firsts) == len(labels)


def test_the_secret_is_private_and_never_overwritten(tmp_path):
    path = tmp_path / "secret.key"
    secret = keys.make_secret(path)
    assert keys.read_secret(path) == secret and len(secret) == 32
    assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="never overwritten"):
        keys.make_secret(path)
    assert keys.read_secret(path) == secret
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        keys.read_secret(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        keys.read_secret(path)
