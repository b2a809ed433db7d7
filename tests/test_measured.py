"""Measured PSFs: distilling, centring, resampling, loading; against analytic Gaussians and on real beads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffphys import measured

DATA = Path(__file__).parents[2] / "shared" / "data"
VOXEL = (0.2, 0.1, 0.1)


def gaussian(shape, sigma, at=(0.0, 0.0, 0.0)):
    """Point samples around n//2 + at, unit sum; sigma in voxels per axis."""
    axes = [np.arange(n) - n // 2 - a for n, a in zip(shape, at, strict=True)]
    z, y, x = (np.exp(-0.5 * (a / s) ** 2) for a, s in zip(axes, sigma, strict=True))
    psf = z[:, None, None] * y[:, None] * x
    return psf / psf.sum()


def bead_stack(*, peak=400.0, background=5.0, seed=0):
    """Six beads at sub-voxel positions, one of them with a close neighbour, one on the border; Poisson noise."""
    rng = np.random.default_rng(seed)
    shape, sigma = (33, 120, 120), (2.0, 2.2, 1.8)
    at = [(0, -35, -30), (1, -30, 25), (-1, 10, -35), (0.5, 12, 12), (0, 40, 40), (0, 40, 31), (0, -57, 0)]
    expected = np.full(shape, background)
    for where in at:
        jitter = rng.uniform(-0.5, 0.5, 3)
        spot = gaussian(shape, sigma, np.array(where) + jitter)
        expected += peak * rng.uniform(0.6, 1.0) * spot / spot.max()
    return rng.poisson(expected), sigma


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_distil_finds_the_isolated_beads_and_their_shape():
    stack, sigma = bead_stack()
    psf = measured.distil(stack, voxel_um=VOXEL)
    assert psf.beads == 4  # not the pair, not the one on the border
    assert psf.psf.dtype == np.float32
    assert psf.psf.sum() == pytest.approx(1, abs=1e-5) and psf.psf.min() >= 0
    assert psf.background == pytest.approx(5.0, abs=0.15)
    truth = gaussian(psf.psf.shape, sigma)
    assert relative(psf.psf, truth) < 0.08  # shot noise of four beads alone: 0.05
    bright = measured.distil(bead_stack(peak=2e4)[0], voxel_um=VOXEL)
    assert relative(bright.psf, gaussian(bright.psf.shape, sigma)) < 0.02
    inside = truth > 0.05 * truth.max()
    score = (psf.psf - truth)[inside] / psf.sigma[inside]
    assert 0.6 < score.std() < 1.6  # the standard error is of the right size


def test_more_light_gives_less_scatter():
    dim, bright = (measured.distil(bead_stack(peak=p)[0], voxel_um=VOXEL) for p in (200.0, 5000.0))
    assert bright.spread < 0.4 * dim.spread


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.37, -0.45, 0.21), (-0.5, 0.5, 0.13)])
def test_centre_is_invariant_to_sub_voxel_shifts(shift):
    reference = gaussian((21, 31, 31), (2.0, 2.5, 2.0))
    centred = measured.centre(gaussian((21, 31, 31), (2.0, 2.5, 2.0), shift))
    assert relative(centred, reference) < 5e-3
    moments = [
        (centred.sum(tuple(b for b in range(3) if b != a)) * (np.arange(n) - n // 2)).sum() for a, n in enumerate((21, 31, 31))
    ]
    assert np.abs(moments).max() < 0.01


def test_distilling_a_shifted_stack_gives_the_same_psf():
    stack = bead_stack(peak=1e5)[0].astype(float)
    box = (4.0, 2.0, 2.0)
    one = measured.distil(stack, voxel_um=VOXEL, box_um=box)
    other = measured.distil(measured.shift(stack, np.array([0.3, 0.4, -0.3])), voxel_um=VOXEL, box_um=box)
    assert one.beads == other.beads
    assert relative(other.psf, one.psf) < 5e-3


def test_bead_size_is_divided_out():
    shape, sigma = (33, 64, 64), np.array([2.5, 2.5, 2.5])
    spot = gaussian(shape, sigma)
    voxel = (0.1, 0.1, 0.1)
    nu = np.meshgrid(*[np.fft.fftfreq(n, 0.1) for n in shape], indexing="ij")
    q = np.maximum(np.pi * 0.4 * np.sqrt(sum(a**2 for a in nu)), 1e-3)
    bead = np.fft.ifftn(np.fft.fftn(spot) * 3 * (np.sin(q) - q * np.cos(q)) / q**3).real
    stack = 1e6 * bead / bead.max() + 10.0
    plain, freed = (measured.distil(stack, voxel_um=voxel, bead_um=d) for d in (0.0, 0.4))
    truth = gaussian(plain.psf.shape, sigma)
    assert relative(freed.psf, truth) < 0.3 * relative(plain.psf, truth)


@pytest.mark.parametrize("to", [(0.2, 0.1, 0.1), (0.13, 0.077, 0.11), (0.1, 0.05, 0.05)])
def test_resampling_finer_matches_the_analytic_gaussian(to):
    sigma_um = np.array([0.45, 0.22, 0.25])
    psf = gaussian((25, 31, 31), sigma_um / VOXEL)
    result = measured.resample(psf, voxel_um=VOXEL, to_voxel_um=to, shape=(31, 40, 41))
    assert result.psf.shape == (31, 40, 41)
    assert result.psf.sum() == pytest.approx(1, abs=1e-5)
    assert relative(result.psf, gaussian((31, 40, 41), sigma_um / to)) < 5e-3
    assert result.clipped < 1e-3


def test_resampling_coarser_integrates_the_pixel():
    sigma_um = np.array([0.45, 0.3, 0.3])
    fine, coarse = np.array(VOXEL), np.array([0.3, 0.2, 0.2])
    result = measured.resample(gaussian((41, 51, 51), sigma_um / fine), voxel_um=fine, to_voxel_um=coarse)
    for axis in range(3):
        line = result.psf.sum(tuple(a for a in range(3) if a != axis))
        at = coarse[axis] * (np.arange(line.size) - line.size // 2)
        expected = sigma_um[axis] ** 2 + (coarse[axis] ** 2 - fine[axis] ** 2) / 12
        assert line @ at**2 == pytest.approx(expected, rel=0.01)


def test_resampling_there_and_back_returns():
    psf = gaussian((21, 31, 31), (2.0, 2.5, 2.5))
    there = measured.resample(psf, voxel_um=VOXEL, to_voxel_um=(0.15, 0.08, 0.08))
    back = measured.resample(there.psf, voxel_um=there.voxel_um, to_voxel_um=VOXEL, shape=psf.shape)
    # the coarser step averages over sqrt(b^2 - a^2) only; the Gaussian grows by a known amount
    grown = [np.sqrt(s**2 + (1 - (f / v) ** 2) / 12) for s, f, v in zip((2.0, 2.5, 2.5), there.voxel_um, VOXEL, strict=True)]
    assert relative(back.psf, gaussian(psf.shape, grown)) < 5e-3


def test_cropping_reports_what_is_lost():
    psf = gaussian((21, 31, 31), (2.0, 3.0, 3.0))
    lost = measured.resample(psf, voxel_um=VOXEL, to_voxel_um=VOXEL, shape=(21, 7, 31)).lost
    assert lost == pytest.approx(1 - gaussian((1, 31, 1), (1, 3.0, 1))[0, 12:19, 0].sum(), abs=0.01)


@pytest.mark.parametrize(
    "bad, needle",
    [
        ({"voxel_um": (0.2, 0.1)}, "three positive"),
        ({"voxel_um": (0.2, 0.1, -0.1)}, "three positive"),
        ({"voxel_um": VOXEL, "box_um": (50.0, 50.0, 50.0)}, "box_um"),
    ],
)
def test_distil_refuses_in_one_line(bad, needle):
    with pytest.raises(ValueError, match=needle) as caught:
        measured.distil(bead_stack()[0], **bad)
    assert "\n" not in str(caught.value)


def test_constant_stack_is_refused():
    with pytest.raises(ValueError, match="not constant"):
        measured.distil(np.ones((9, 32, 32)), voxel_um=VOXEL)


def test_load_brings_a_file_to_the_image(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    sigma_um = np.array([0.5, 0.25, 0.25])
    rng = np.random.default_rng(1)
    spot = gaussian((21, 41, 41), sigma_um / VOXEL, (1.0, 3.0, -2.0))
    counts = rng.poisson(100 + 2e4 * spot / spot.max()).astype(np.uint16)
    path = tmp_path / "psf.tif"
    tifffile.imwrite(path, counts, metadata={"axes": "ZYX"}, ome=False)
    with pytest.raises(ValueError, match="voxel") as caught:
        measured.load(path, voxel_um=(0.2, 0.08, 0.08))
    assert "psf_voxel_um" in str(caught.value)
    psf = measured.load(path, voxel_um=(0.2, 0.08, 0.08), shape=(17, 32, 32), psf_voxel_um=VOXEL)
    assert psf.psf.shape == (17, 32, 32) and psf.voxel_um == (0.2, 0.08, 0.08)
    assert psf.psf.sum() == pytest.approx(1, abs=1e-5)
    assert relative(psf.psf, gaussian((17, 32, 32), sigma_um / psf.voxel_um)) < 0.02
    off = rng.poisson(100 + 2e4 * gaussian((21, 41, 41), sigma_um / VOXEL, (0.0, 19.0, 0.0))).astype(np.uint16)
    tifffile.imwrite(tmp_path / "off.tif", off, metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match="crop it around the spot"):
        measured.load(tmp_path / "off.tif", voxel_um=VOXEL, psf_voxel_um=VOXEL)


@pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are absent")
def test_real_beads():
    import tifffile

    stack = tifffile.imread(DATA / "confocal" / "beads_41x150x150.tif")
    voxel = (0.125, 0.02249, 0.02249)
    psf = measured.distil(stack, voxel_um=voxel)
    assert psf.beads == 4
    z, y, x = measured.widths_um(psf.psf, voxel_um=voxel)
    assert 0.50 < z < 0.62 and 0.22 < y < 0.255 and 0.16 < x < 0.175
    profiles = [psf.psf.sum(tuple(b for b in range(3) if b != a)).astype(float) for a in (1, 2)]
    second = []
    for line in profiles:
        at = np.arange(line.size)
        mean = line @ at / line.sum()
        second.append(line @ (at - mean) ** 2 / line.sum())
    assert 1.2 < second[0] / second[1] < 1.55
    grid = measured.resample(psf.psf, voxel_um=voxel, to_voxel_um=(0.125, 0.02196, 0.02196))
    assert grid.clipped < 0.01
    assert measured.widths_um(grid.psf, voxel_um=grid.voxel_um)[2] == pytest.approx(x, rel=0.02)
