"""Real stacks, small: the pipeline runs on them and claims no more than they hold. All of them: benchmarks/real_stacks.py."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = [pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are absent"), pytest.mark.slow]


@pytest.fixture(scope="module")
def stacks():
    """The benchmark's functions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("real_stacks")


def test_nucleus_is_not_claimed_to_be_calibrated(stacks, tmp_path):
    crop = (slice(8, 24), slice(32, 80), slice(20, 68))
    found = stacks.nucleus(DATA, tmp_path, crop=crop)
    assert found["status"] in ("MISFIT", "NOT_IDENTIFIABLE", "AT_BOUND")
    told = " ".join(found["warnings"])
    assert "coarser than Nyquist" in told and "clipped" in told
    agreement = found["widefield_agreement"]
    assert all(view["correlation"] > 0.8 for view in agreement.values())  # the same nucleus, registered
    assert (tmp_path / "nucleus" / "figure.png").is_file() and (tmp_path / "nucleus_widefield.png").is_file()


def test_bead_psf_explains_the_grid_better_than_a_nominal_model(stacks, tmp_path):
    found = stacks.grid(DATA, tmp_path, crop=64, seeds=2, iterations=60)
    assert min(found["nats_for_bead_psf"]) > 0
    assert found["resampling"]["clipped"] < 0.01 and found["resampling"]["lost"] < 0.01
    assert any("noise does not grow" in line for line in found["doubts"])  # coarse grey levels, not photons


def test_bars_are_restored_in_place(stacks, tmp_path):
    found = stacks.bars(DATA, tmp_path, iterations=60)["images"]
    for name in ("RL", "TV"):
        assert found[name]["shift_voxels"] == [0, 0, 0]
        assert found[name]["psnr_db"] > found["data"]["psnr_db"] + 0.5
        assert found[name]["ssim"] > found["data"]["ssim"] + 0.1
        assert max(found[name]["correlation_mirrored_zyx"][:2]) < 0.5 * found[name]["correlation"]  # symmetric in x only
    assert found["kernel ⊛ truth against data"]["correlation"] < 0.99  # the triple contradicts itself


def test_frames_agree_with_total_least_squares(stacks, tmp_path):
    found = stacks.collagen_frames(DATA, tmp_path)
    for k, stated in ((1, 1.18), (2, 1.24)):
        (signal, sigma), (power, error) = found["signal"][k], found["power"][k]
        assert signal == pytest.approx(stated, abs=3 * sigma) and 0.003 < sigma < 0.03
        assert signal == pytest.approx(found["signal_total_least_squares"][k], abs=3 * sigma)
        assert power**2 == pytest.approx(signal) and error == pytest.approx(0.5 * sigma / power)
    assert found["gain"][1] < 0.05 * found["gain"][0]


@pytest.fixture(scope="module")
def collagen(stacks, tmp_path_factory):
    return stacks.collagen(DATA, tmp_path_factory.mktemp("collagen"), crop=160)


def test_one_frame_of_collagen_is_not_claimed_to_be_calibrated(collagen):
    assert collagen["status"] in ("MISFIT", "NOT_IDENTIFIABLE", "AT_BOUND")
    assert "collection_na_mismatch" in collagen["undetermined"]
    assert any("clipped" in line for line in collagen["warnings"])
    assert any("saturated" in line for line in collagen["warnings"])
