"""Detector numbers from data: photon transfer of repeated frames, noise level of single stacks."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage

import diffphys
from diffphys import confocal, shg
from diffphys.calibrate import detector as estimation
from diffphys.noise import Detector

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are absent")


def frames_of(seed, *, gain=3.0, offset=7.0, read=0.8, signal=(1.0, 1.2, 1.28), spread=False, photons=0.7):
    """Repeated frames of one sparse field; with `spread`, single photons have exponential heights (mean `gain`)."""
    rng = np.random.default_rng(seed)
    field = np.clip(ndimage.gaussian_filter(rng.normal(size=(112, 112)), 3), 0, None)
    field *= photons / field.mean()
    frames = []
    for s in signal:
        count = rng.poisson(field * s)
        height = rng.gamma(np.maximum(count, 1e-9), gain) if spread else gain * count
        frames.append(offset + height + read * rng.normal(size=field.shape))
    return np.array(frames)


@cache
def transferred(seed, frames, spread):
    """Photon transfer of the first frames; two tests look at the same ones."""
    return estimation.photon_transfer(frames_of(seed, spread=spread)[:frames], seed=seed)


@pytest.mark.parametrize("spread", [False, True], ids=["counting", "broad photo-electron peak"])
@pytest.mark.parametrize("frames", [2, 3])
def test_photon_transfer_recovers_gain_offset_and_brightness(spread, frames):
    results = [transferred(seed, frames, spread) for seed in range(3)]
    gain = 6.0 if spread else 3.0  # variance over mean of one exponential height is twice its mean
    offset = 7.0 - 0.8**2 / gain  # where the variance vanishes
    for name, truth, floor in (("gain", gain, 0.02 * gain), ("offset", offset, 0.02)):
        values, sigmas = np.array([getattr(r, name) for r in results]).T
        assert abs(values.mean() - truth) < 3 * sigmas.mean() / np.sqrt(3) + floor
        assert (sigmas > 0).all()
    for k, truth in ((1, 1.2), (2, 1.28))[: frames - 1]:
        values, sigmas = np.array([r.signal[k] for r in results]).T
        assert abs(values.mean() - truth) < 3 * sigmas.mean() / np.sqrt(3)
        assert (sigmas < 0.05).all()
    first = results[0]
    assert first.signal[0].tolist() == [1.0, 0.0]
    np.testing.assert_allclose(first.power[:, 0] ** 2, first.signal[:, 0])


def test_error_bars_match_the_scatter():
    results = [transferred(seed, 3, False) for seed in range(8)]
    scatter = np.std([r.gain[0] for r in results])
    assert 0.4 < np.mean([r.gain[1] for r in results]) / scatter < 2.5


def test_smoothed_frames_are_noticed():
    frames = np.array([ndimage.gaussian_filter(f, 0.7) for f in frames_of(0, photons=5.0)])
    assert any("correlated" in line for line in estimation.photon_transfer(frames).warnings)


def test_photon_transfer_is_repeatable_and_refuses_one_frame():
    frames = frames_of(1)
    assert estimation.photon_transfer(frames).gain == estimation.photon_transfer(frames).gain
    with pytest.raises(ValueError, match="two frames"):
        estimation.photon_transfer(frames[:1])


@real
def test_real_collagen_frames():
    """Gain and offset by neighbour bins. Bins by the pixel's own mean give 6.1-6.9 and 7.3 here: they select the noise of a
    broad single-photon peak, and their offset lies above the dark mode (6.6), which brightness ratios then inherit."""
    import tifffile

    frames = np.moveaxis(tifffile.imread(DATA / "shg" / "collagen_frames_200x200x3.tif"), -1, 0)
    result = estimation.photon_transfer(frames)
    assert 5.5 < result.gain[0] < 6.9 and 0 < result.gain[1] < 0.3
    assert 6.5 < result.offset[0] < 7.4 and 0 < result.offset[1] < 0.1
    for k, stated in ((1, 1.20), (2, 1.28)):
        value, sigma = result.signal[k]
        assert 0.003 < sigma < 0.03
        assert value == pytest.approx(stated, abs=0.04)
    assert max(map(abs, result.noise_correlation)) < 0.1


@cache
def clean(modality, family):
    """Geometry and noiseless signal."""
    if modality is confocal:
        geometry = confocal.Geometry()
        x = confocal.scene(family, shape=(40, 80, 80), voxel_um=geometry.voxel_um, seed=1)
    else:
        geometry = shg.Geometry()
        x = shg.scene(family, shape=(144, 144), pixel_um=geometry.pixel_um, seed=1)
    signal = np.asarray(modality.forward(modality.nominal(geometry), np.asarray(x, np.float32), geometry=geometry))
    return geometry, signal


def simulated(modality, family, detector, seed):
    geometry, signal = clean(modality, family)
    return geometry, signal, np.asarray(diffphys.noise.sample(jax.random.key(seed), detector, signal))


@pytest.mark.parametrize("modality, family", [(confocal, "beads"), (confocal, "cells"), (shg, "collagen"), (shg, "sparse")])
def test_noise_level_gain_and_dark_level_of_a_single_stack(modality, family):
    rows = []
    for seed, (gain, offset, (read, peak)) in enumerate(
        itertools.product((0.5, 1.0, 6.0), (0.0, 100.0), ((1.0, 100.0), (3.0, 1000.0)))
    ):
        truth = Detector(peak, 0.02 * peak, gain, offset, read)
        geometry, signal, y = simulated(modality, family, truth, seed)
        found, _ = estimation.estimate(y, modality, geometry=geometry)
        variance = gain**2 * ((peak * signal + truth.background).mean() + read**2)
        level = found.gain**2 * ((y.mean() - found.offset) / found.gain + found.read_sigma**2)
        dark = found.offset + found.gain * found.background - offset - gain * truth.background
        rows.append((level / variance - 1, found.gain / gain - 1, dark / (gain * peak)))
        assert all(np.isfinite([found.gain, found.offset, found.background, found.read_sigma]))
        assert found.gain > 0 and min(found.background, found.read_sigma) >= 0
    level, gains, dark = np.abs(np.array(rows)).T
    assert np.median(level) < 0.03 and level.max() < 0.10
    assert np.median(gains) < 0.10 and gains.max() < 0.25
    assert dark.max() < 0.05


def test_known_numbers_are_kept():
    truth = Detector(200.0, 4.0, 2.0, 100.0, 2.0)
    geometry, _, y = simulated(confocal, "filaments", truth, 0)
    found, _ = estimation.estimate(y, confocal, geometry=geometry, detector=Detector(200.0, np.nan, np.nan, 100.0, np.nan))
    assert (found.offset, found.peak_photons) == (100.0, 200.0)
    assert found.gain == pytest.approx(2.0, rel=0.15)
    found, _ = estimation.estimate(y, confocal, geometry=geometry, detector=Detector(200.0, np.nan, np.nan, np.nan, 2.0))
    assert found.offset == pytest.approx(100.0, abs=8.0)
    same, warnings = estimation.estimate(y, confocal, geometry=geometry, detector=truth)
    assert same is truth and warnings == ()


def test_photon_counting_data_get_gain_one():
    geometry, _, y = simulated(confocal, "filaments", Detector(60.0, 1.0, 1.0, 0.0, 0.0), 0)
    found, warnings = estimation.estimate(np.round(y), confocal, geometry=geometry)
    assert found.gain == 1.0
    assert found.offset == pytest.approx(0.0, abs=1.0)
    assert not any("clipped" in line for line in warnings)


def test_clipped_offset_and_saturation_are_reported():
    geometry, _, y = simulated(confocal, "beads", Detector(200.0, 0.5, 6.0, 0.0, 3.0), 0)
    found, warnings = estimation.estimate(
        np.clip(y - np.quantile(y, 0.3), 0, np.quantile(y, 0.95)), confocal, geometry=geometry
    )
    assert any("clipped" in line for line in warnings) and any("saturated" in line for line in warnings)
    assert np.isfinite(found.gain) and found.gain > 0


@pytest.mark.parametrize("y", [np.zeros((32, 64, 64)), np.full((32, 64, 64), np.nan)])
def test_estimate_refuses_what_has_no_noise(y):
    with pytest.raises(ValueError, match="constant or not finite"):
        estimation.estimate(y, confocal, geometry=confocal.Geometry())


@real
def test_real_stacks_are_plausible():
    import tifffile

    nucleus = tifffile.imread(DATA / "confocal" / "nucleus_confocal_widefield_45x2x130x133.tif").astype(float)
    shape, voxel = nucleus[:, 0].shape, (0.49941, 0.51188, 0.51188)
    water = {"shape": shape, "voxel_um": voxel, "na": 1.2, "immersion_index": 1.333, "emission_nm": 455.0, "depth_um": 0.0}
    scan, notes = estimation.estimate(nucleus[:, 0], confocal, geometry=confocal.Geometry(**water, excitation_nm=405.0))
    assert scan.offset == 0 and any("clipped" in line for line in notes) and any("upper bound" in line for line in notes)
    assert 5 < scan.gain < 40
    camera, _ = estimation.estimate(nucleus[:, 1], confocal, geometry=confocal.Geometry(**water, excitation_nm=None))
    assert 590 < camera.offset + camera.gain * camera.background < 700
    frame = np.moveaxis(tifffile.imread(DATA / "shg" / "collagen_frames_200x200x3.tif"), -1, 0)[:1]
    single, _ = estimation.estimate(frame, shg, geometry=shg.Geometry(shape=(200, 200), phase_offsets_rad=(0.0,)))
    assert 5 < single.gain < 8 and 6 < single.offset < 7.6  # structure leaks: above the 5.8 of the repeated frames
    grid = tifffile.imread(DATA / "confocal" / "grid_1au_21x150x150.tif").astype(float)
    starved, _ = estimation.estimate(
        grid, confocal, geometry=confocal.Geometry(shape=grid.shape, voxel_um=(0.125, 0.02196, 0.02196))
    )
    assert 0 < starved.gain < 1 and 0 <= starved.offset <= 2
