"""Bad input: one clear line on stderr, exit code 2, no traceback, nothing half-written. (Ctrl-C: test_cli.py.)"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

import diffphys
from diffphys.cli import main
from diffphys.io import hdf5, optics_template

VOXEL = ("--voxel-um", "0.2", "0.08", "0.08")
COUNTS = np.random.default_rng(0).poisson(60, (6, 16, 18)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("DIFFPHYS_CACHE", "off")


@pytest.fixture
def optics(tmp_path) -> Path:
    path = tmp_path / "optics.yaml"
    path.write_text(optics_template.CONFOCAL)
    return path


def refused(capsys, arguments: list[object]) -> str:
    """The one line with which the program refuses; checks that it is one, and the exit code."""
    code = main([str(a) for a in arguments])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("diffphys: warning: ")]
    assert code == 2, err
    assert "Traceback" not in err
    assert len(lines) == 1 and lines[0].startswith("diffphys: error: "), err
    return lines[0]


def _nan() -> np.ndarray:
    image = COUNTS.copy()
    image[1, 2, 3] = np.nan
    return image


def _infinite() -> np.ndarray:
    return np.where(COUNTS.max() == COUNTS, np.inf, COUNTS).astype(np.float32)


IMAGES: dict[str, tuple[np.ndarray, dict[str, object], tuple[str, ...], str]] = {
    # name: image, how it is written, extra arguments, what the line must say
    "missing voxel size": (
        COUNTS,
        {},
        (),
        "does not state the voxel size along z, y, x; give it in micrometres with --voxel-um Z Y X",
    ),
    "RGB": (np.zeros((16, 18, 3), np.uint8) + 7, {"photometric": "rgb"}, VOXEL, "is an RGB image"),
    "RGB stack": (np.zeros((6, 16, 18, 3), np.uint8) + 7, {"photometric": "rgb"}, VOXEL, "is an RGB image"),
    "2-D": (COUNTS[0], {}, VOXEL, "a single plane of shape (16, 18); the confocal model needs a stack (z, y, x)"),
    "NaN": (_nan(), {}, VOXEL, "holds 1 NaN or infinite values"),
    "infinite": (_infinite(), {}, VOXEL, "NaN or infinite values"),
    "beyond float32": (COUNTS.astype(np.float64) * 1e38, {}, VOXEL, "NaN or infinite values"),
    "all zero": (np.zeros_like(COUNTS), {}, VOXEL, "is zero everywhere"),
    "negative": (COUNTS - 70, {}, VOXEL, "has negative values (minimum -"),
    "constant": (np.full_like(COUNTS, 3), {}, VOXEL, "has the constant value 3"),
    "one plane": (COUNTS[:1], {}, VOXEL, "a single plane"),
    "one plane of a stack": (COUNTS[:1].repeat(2, 0)[:, :, :1], {}, (*VOXEL, "--axes", "yxz"), "has a single plane"),
    "time axis": (COUNTS, {"imagej": True, "metadata": {"axes": "TYX"}}, VOXEL, "has a time axis of 6"),
    "two channels": (
        COUNTS[:, None].repeat(2, 1),
        {"imagej": True, "metadata": {"axes": "ZCYX"}},
        VOXEL,
        "pick one with --channel",
    ),
    "no such channel": (COUNTS, {}, (*VOXEL, "--channel", "2"), "channel is '2'; image.tif has 0"),
    "wrong number of axes": (COUNTS, {}, (*VOXEL, "--axes", "yx"), "axes is 'yx'"),
    "wrong axes": (COUNTS, {}, (*VOXEL, "--axes", "zzx"), "expected 3 different letters"),
    "frames for confocal": (COUNTS, {}, (*VOXEL, "--axes", "fyx"), "expected z, y and x"),
    "five axes": (COUNTS[None, :, None].repeat(2, 0), {"metadata": {"axes": "QZRYX"}}, VOXEL, "expected z, y and x"),
    "complex": (COUNTS.astype(np.complex64), {}, VOXEL, "holds complex64 values"),
    "voxel size of two": (COUNTS, {}, ("--voxel-um", "0.2", "0.1"), "expected 3 positive micrometres"),
    "voxel size of zero": (COUNTS, {}, ("--voxel-um", "0", "0.1", "0.1"), "expected 3 positive micrometres"),
    "voxel size no number": (COUNTS, {}, ("--voxel-um", "big"), "--voxel-um is 'big'; expected numbers"),
}


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("command", ["calibrate", "reconstruct"])
def test_unusable_images(tmp_path, capsys, optics, case, command):
    image, written, extra, message = IMAGES[case]
    path, out = tmp_path / "image.tif", tmp_path / "out"
    tifffile.imwrite(path, image, **{"photometric": "minisblack"} | written)
    before = sorted(tmp_path.iterdir())
    line = refused(capsys, [command, path, "--modality", "confocal_3d", "--optics", optics, "-o", out, *extra])
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


OPTICS: dict[str, tuple[Callable[[str], str], str]] = {
    "na above the immersion": (lambda t: t.replace("na: 1.4 ", "na: 1.6 "), "na is 1.6; expected more than 0 and less than"),
    "na above the specimen": (lambda t: t + "  refractive_index: [1.33, 1.5]\n", "is not above na 1.4"),
    "low above high": (lambda t: t + "  z_step: [50, -50]\n", "range of z_step has low 50 > high -50"),
    "unknown key": (lambda t: t.replace("pinhole_au", "pinhole"), "unknown key 'geometry.pinhole'; allowed: "),
    "nearest name": (lambda t: t.replace("emission_nm", "emision_nm"), "did you mean 'emission_nm'?"),
    "unknown section": (lambda t: t + "detectors:\n  gain: 1\n", "did you mean 'detector'?"),
    "unknown parameter": (lambda t: t + "  zstep: [1, 2]\n", "did you mean 'z_step'?"),
    "text for a number": (lambda t: t.replace("na: 1.4 ", "na: high "), "geometry.na is 'high'; expected a finite number"),
    "truth for a number": (lambda t: t.replace("na: 1.4 ", "na: yes "), "geometry.na is True; expected a finite number"),
    "missing number": (lambda t: t.replace("  na: 1.4 ", "  # na: "), "geometry.na is missing"),
    "wavelength in um": (lambda t: t.replace("excitation_nm: 488", "excitation_nm: 0.488"), "expected a wavelength of 200"),
    "negative gain": (lambda t: t.replace("gain: auto", "gain: -2"), "detector.gain is -2; expected more than 0, or auto"),
    "given twice": (lambda t: t + "modality: shg\n", "key 'modality' is given twice"),
    "no YAML": (lambda t: "a: [1, 2", "is not valid YAML at line 1"),
    "code": (lambda t: "!!python/object/apply:os.system ['true']", "is not valid YAML"),
    "empty": (lambda t: "", "holds no sections"),
    "other modality": (lambda t: optics_template.SHG, "is for modality shg, but --modality is confocal_3d"),
    "unknown modality": (lambda t: t.replace("confocal_3d", "widefield"), "modality is 'widefield'; expected one of"),
}


@pytest.mark.parametrize("case", OPTICS)
def test_unusable_optics_files(tmp_path, capsys, optics, case):
    change, message = OPTICS[case]
    text = change(optics_template.CONFOCAL)
    assert text != optics_template.CONFOCAL
    optics.write_text(text)
    path, out = tmp_path / "image.tif", tmp_path / "out"
    tifffile.imwrite(path, COUNTS, photometric="minisblack")
    before = sorted(tmp_path.iterdir())
    line = refused(capsys, ["calibrate", path, "--modality", "confocal_3d", "--optics", optics, "-o", out, *VOXEL])
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_unreadable_files(tmp_path, capsys, optics):
    good = tmp_path / "good.tif"
    tifffile.imwrite(good, COUNTS, photometric="minisblack")
    whole = good.read_bytes()
    cases = {"cut.tif": whole[: len(whole) // 2], "text.tif": b"not a TIFF", "empty.tif": b"", "text.h5": b"not HDF5"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        given = [] if name.endswith("h5") else ["--optics", optics, *VOXEL]
        line = refused(capsys, ["calibrate", tmp_path / name, *given, "-o", tmp_path / "out"])
        assert name in line and ("cannot read" in line or "is not HDF5" in line), line
    assert "No such file" in refused(capsys, ["calibrate", tmp_path / "no.tif", "--optics", optics, "-o", tmp_path / "out"])
    assert "No such file" in refused(capsys, ["calibrate", good, "--optics", tmp_path / "no.yaml", "-o", tmp_path / "out"])
    assert "directory" in refused(capsys, ["reconstruct", tmp_path, "--optics", optics, "-o", tmp_path / "out"])
    assert not (tmp_path / "out").exists()


def test_unusable_output_folders(tmp_path, capsys, optics):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, COUNTS, photometric="minisblack")
    (tmp_path / "file").write_text("here first")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for out, message in {"file": "is a file", "file/under/it": "is a file", "old": "already holds run.json"}.items():
        line = refused(capsys, ["calibrate", path, "--optics", optics, "-o", tmp_path / out, *VOXEL])
        assert message in line
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_folder(tmp_path, capsys, optics):
    path, out = tmp_path / "image.tif", tmp_path / "out"
    tifffile.imwrite(path, COUNTS, photometric="minisblack")
    out.mkdir(mode=0o500)
    assert "is not writable" in refused(capsys, ["calibrate", path, "--optics", optics, "-o", out, *VOXEL])


def test_a_full_or_forbidden_disk(tmp_path, capsys, optics):
    """/proc takes no new folder from anybody, root included."""
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, COUNTS, photometric="minisblack")
    line = refused(capsys, ["calibrate", path, "--optics", optics, "-o", "/proc/diffphys/out", *VOXEL])
    assert "is not writable" in line


def test_contradicting_or_unknown_arguments(tmp_path, capsys, optics):
    path, h5 = tmp_path / "image.tif", _measurement(tmp_path, shape=(6, 16, 18), samples=2)
    tifffile.imwrite(path, COUNTS, photometric="minisblack")
    tiff = ["reconstruct", path, "-o", tmp_path / "out", *VOXEL]
    stated = [*tiff, "--optics", optics]
    from_h5 = ["reconstruct", h5, "-o", tmp_path / "out"]
    cases: list[tuple[list[object], str]] = [
        (tiff, "needs --optics FILE; `diffphys optics --init"),
        ([*tiff, "--modality", "confocal"], "modality is 'confocal'; expected one of"),
        ([*stated, "--method", "lucy"], "method is 'lucy'; expected one of"),
        ([*stated, "--option", "tv_wait=1"], "did you mean 'tv_weight'?"),
        ([*stated, "--option", "tv_weight"], "expected NAME=NUMBER"),
        ([*stated, "--method", "wiener", "--option", "tolerance=5"], "unknown name 'tolerance'"),
        ([*stated, "--spec", "z_stop=5"], "did you mean 'z_step'?"),
        ([*stated, "--spec", tmp_path / "no.json"], "No such file"),
        ([*stated, "--spec", optics], "is not a calibration.json"),
        ([*stated, "--spec", "z_step=1", "--psf", path], "--psf and --spec exclude each other"),
        ([*stated, "--ranges", "z_stop=5:6"], "did you mean 'z_step'?"),
        ([*stated, "--ranges", "z_step=50:-50"], "low 50 > high -50"),
        ([*stated, "--ranges", "z_step=wide"], "expected NAME=LOW:HIGH"),
        ([*stated, "--ranges", "refractive_index=1.33:1.5"], "is not above na 1.4"),
        ([*stated, "--sample", "sample_00"], "--sample is for HDF5 files"),
        ([*stated, "--iterations", "0"], "--iterations"),
        ([*stated, "--chanel", "0"], "No such option: --chanel"),
        (from_h5, "has samples sample_00, sample_01; pick one with --sample"),
        ([*from_h5, "--sample", "sample_09"], "sample is 'sample_09'"),
        ([*from_h5, "--optics", optics], "states its own optics and axes; leave out --optics"),
        ([*from_h5, "--sample", "sample_00", "--modality", "shg"], "is of modality confocal_3d"),
        (["rekonstruct"], "No such command 'rekonstruct'"),
        (["optics", "--init", "widefield"], "modality is 'widefield'; expected one of"),
        (["optics", "--init", "shg", "-o", optics], "exists; choose another"),
        (["optics", "--init", "shg", "-o", tmp_path / "no" / "o.yaml"], "is not a folder"),
        (["simulate", "--modality", "shg", "-o", tmp_path / "out", "--scene", "cats"], "family is 'cats'; expected one of"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, message in cases:
        assert message in refused(capsys, arguments), (arguments, message)
    assert sorted(tmp_path.iterdir()) == before


def test_shg_frames_must_match_the_commanded_offsets(tmp_path, capsys):
    path, optics = tmp_path / "image.tif", tmp_path / "shg.yaml"
    optics.write_text(optics_template.SHG)
    tifffile.imwrite(path, COUNTS[:3], photometric="minisblack")
    arguments = ["calibrate", path, "--optics", optics, "-o", tmp_path / "out", "--voxel-um", "0.1", "0.1"]
    assert "has 3 frames, but shg.yaml states 2 phase_offsets_rad" in refused(capsys, arguments)
    tifffile.imwrite(path, COUNTS, imagej=True, metadata={"axes": "ZYX"})
    assert "the SHG model takes frames of one plane" in refused(capsys, arguments)
    assert not (tmp_path / "out").exists()


def _measurement(folder: Path, *, shape: tuple[int, int, int], samples: int = 1) -> Path:
    geometry = diffphys.confocal.Geometry(shape=shape)
    rng = np.random.default_rng(1)
    detector = diffphys.Detector(1.0, 5.0, 1.0, 100.0, 1.0)
    scene = 400 * diffphys.confocal.scene("beads", shape=shape, voxel_um=geometry.voxel_um, seed=3)
    made = {f"sample_{i:02d}": hdf5.Sample(rng.poisson(105 + scene).astype(np.float32), detector) for i in range(samples)}
    path = folder / "measured.h5"
    hdf5.write_measurement(path, "confocal_3d", geometry=geometry, samples=made)
    return path
