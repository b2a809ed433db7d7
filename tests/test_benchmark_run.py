"""Running a method: scenarios, resuming, gallery; and the rows that ship say what the definition asks of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import diffphys
from diffphys.benchmark import leaderboard, methods
from diffphys.benchmark.create import create
from diffphys.benchmark.gallery import gallery
from diffphys.benchmark.run import run
from diffphys.cli import main

SMALL = diffphys.shg.Geometry(shape=(64, 64), phase_offsets_rad=(0.0, 1.5))
SHIPPED = sorted((Path(diffphys.__file__).parent / "benchmark" / "results").glob("*.json"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two public samples, through all scenarios with the Wiener filter."""
    place = tmp_path_factory.mktemp("benchmark")
    create(place / "data", modalities=("shg",), wanted=("public",), samples=2, geometry=SMALL)
    told = run([methods.find("wiener", "shg")], "shg", data=place / "data", out=place / "out", wanted=("public",))[0]
    return place, told


def test_scenarios_are_ordered_as_they_must_be(finished):
    psnr = {s: tiers["public"]["psnr"] for s, tiers in finished[1]["scenarios"].items()}
    assert psnr["III"] > psnr["II"] + 0.5 and psnr["IV"] > psnr["II"]
    assert psnr["IV"] < psnr["III"] + 0.3


def test_a_second_run_repeats_nothing(finished):
    place, told = finished
    stored = {p: p.stat().st_mtime_ns for p in (place / "out" / "shg").rglob("*.npy")}
    assert len(stored) == 8
    again = run([methods.find("wiener", "shg")], "shg", data=place / "data", out=place / "out", wanted=("public",))[0]
    assert again["scenarios"] == told["scenarios"]
    assert stored == {p: p.stat().st_mtime_ns for p in stored}


def test_the_gallery_shows_every_scene_in_every_scenario(finished):
    place, told = finished
    path, rows = gallery(methods.find("wiener", "shg"), "shg", data=place / "data", out=place / "out")
    assert [(r["sample"], r["scenario"]) for r in rows] == [
        (f"sample_0{i}", s) for i in (0, 1) for s in ("I", "II", "III", "IV")
    ]
    mean = np.mean([r["psnr"] for r in rows if r["scenario"] == "IV"])
    assert mean == pytest.approx(told["scenarios"]["IV"]["public"]["psnr"])
    picture = imread(path)
    assert picture.shape[1] == 1600 and picture[..., :3].std() > 0.05


def test_the_gallery_needs_the_ideal_counts(finished, tmp_path, capsys):
    place, _ = finished
    name = "shg_challenge_public.h5"
    (tmp_path / name).write_bytes((place / "data" / name).read_bytes())
    stated = ["benchmark", "gallery", "wiener", "--data", tmp_path, "--modality", "shg", "-o", tmp_path / "out"]
    assert main([str(s) for s in stated]) == 2
    assert "lacks the truth file of the public tier" in capsys.readouterr().err


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_rows_hold_what_the_definition_asks(path):
    """No sample failed, a better spec gives a better image; the classical rows beat the printed ones, the trivial ones lose."""
    row = json.loads(path.read_text())
    assert all(t["n"] == 24 and t["failed"] == 0 for t in row["tiers"].values()) and len(row["tiers"]) == 3
    overall = np.mean([t["score"]["mean"] for t in row["tiers"].values()])
    if isinstance(methods.find(row["method"], row["modality"]), methods.Baseline):
        assert overall < 0.66
        return
    psnr = {s: f["psnr"] for s, f in row["scenarios"].items()}
    assert psnr["III"] >= psnr["IV"] - 0.01 and psnr["IV"] > psnr["II"]
    printed = {(r["modality"], r["method"]): r["overall"] for r in leaderboard.published()}
    if row["method"] in CLASSICAL:
        assert overall > printed[row["modality"], row["method"]]


CLASSICAL = ("Richardson-Lucy", "Wiener Filter", "Wiener-3D", "TV-Deconvolution", "PnP-FISTA")


def test_every_shipped_row_is_ours_and_no_classical_one_is_missing():
    found = {(r["modality"], r["method"]) for r in (json.loads(p.read_text()) for p in SHIPPED)}
    ours = {(modality, row.name) for modality, rows in methods.METHODS.items() for row in rows}
    assert {(m, n) for m, n in ours if n in CLASSICAL} <= found <= ours
