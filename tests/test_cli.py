"""The command line on simulated measurements: files in, files out, the same numbers by every door."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import diffphys
from diffphys.cli import main, options, session
from diffphys.cli.app import _join_numbers
from diffphys.cli.show import number
from diffphys.io import hdf5, optics_file
from diffphys.io.provenance import sha256
from diffphys.io.tiff import read_stack, write_image
from diffphys.report.residual import in_sigmas

ROOT = Path(__file__).parents[1]
RESULTS = {"reconstruction.ome.tif", "prediction.ome.tif", "calibration.json", "figure.png", "run.json"}
SPECS = {"confocal_3d": "z_step=60,spherical_aberr=0.1", "shg": "phase_matching_error=0.8,collection_na_mismatch=0.02"}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("DIFFPHYS_CACHE", "off")


def run(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module", params=["confocal_3d", "shg"])
def simulated(request, tmp_path_factory) -> tuple[str, Path]:
    """A small simulated measurement of each modality, all its files."""
    os.environ["DIFFPHYS_CACHE"] = "off"
    out = tmp_path_factory.mktemp(request.param) / "sim"
    shape = ("16", "32", "32") if request.param == "confocal_3d" else ("64", "64")
    run("simulate", "--modality", request.param, "--spec", SPECS[request.param], "--shape", *shape, "--seed", 5, "-o", out)
    return request.param, out


@pytest.fixture(scope="module")
def reconstructed(simulated) -> tuple[str, Path, Path]:
    """The same measurement, calibrated and reconstructed from its HDF5 file."""
    modality, source = simulated
    out = source.parent / "result"
    run("reconstruct", source / "measurement.h5", "-o", out, "--seed", 3)
    return modality, source, out


def test_simulated_files_say_the_same(simulated):
    modality, out = simulated
    assert {p.name for p in out.iterdir()} == {"measurement.h5", "measurement.ome.tif", "truth.ome.tif", "optics.yaml"}
    held = hdf5.read_measurement(out / "measurement.h5")
    sample, optics = held.samples["sample_00"], optics_file.read(out / "optics.yaml")
    axes = "zyx" if modality == "confocal_3d" else "fyx"
    stack = read_stack(out / "measurement.ome.tif", modality=modality, axes=axes)
    np.testing.assert_array_equal(stack.data, sample.y)
    np.testing.assert_array_equal(tifffile.imread(out / "truth.ome.tif"), sample.x_true)
    assert optics.voxel_um == stack.voxel_um and optics.detector == sample.detector
    stated = dict(part.split("=") for part in SPECS[modality].split(","))
    assert {n: pytest.approx(float(v), rel=1e-6) for n, v in stated.items()}.items() <= sample.true_spec.items()
    assert 0.2 < sample.x_true.max() <= 1 and sample.y.min() > 0


def test_the_brightest_voxel_has_the_stated_photons(simulated):
    """1000 photons by default, above offset 100 and background 20; 6 sigma of shot noise on either side."""
    _, out = simulated
    y = hdf5.read_measurement(out / "measurement.h5").samples["sample_00"].y
    assert y.max() - 120 == pytest.approx(1000, abs=6 * 1020**0.5)


@pytest.mark.parametrize("modality", ["confocal_3d", "shg"])
def test_optics_init_writes_a_file_that_can_be_used(tmp_path, capsys, modality):
    path = tmp_path / "optics.yaml"
    run("optics", "--init", modality, "-o", path)
    assert optics_file.read(path).modality == modality
    run("optics", "--init", modality)
    assert capsys.readouterr().out == path.read_text()


def test_reconstruct_writes_its_five_files(reconstructed):
    modality, source, out = reconstructed
    assert {p.name for p in out.iterdir()} == RESULTS
    held = hdf5.read_measurement(source / "measurement.h5")
    restored = tifffile.imread(out / "reconstruction.ome.tif")
    assert restored.shape == held.geometry.shape and restored.dtype == np.float32 and np.isfinite(restored).all()
    voxel_um = getattr(held.geometry, "voxel_um", None) or held.geometry.pixel_um
    assert read_stack(out / "reconstruction.ome.tif", modality=modality).voxel_um == pytest.approx(voxel_um)
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_calibration_is_near_the_truth_with_its_error_bars(reconstructed):
    modality, source, out = reconstructed
    content = json.loads((out / "calibration.json").read_text())
    truth = hdf5.read_measurement(source / "measurement.h5").samples["sample_00"].true_spec
    name = "z_step" if modality == "confocal_3d" else "phase_matching_error"
    found = content["parameters"][name]
    assert found["sigma"] > 0 and found["range"][0] <= found["value"] <= found["range"][1]
    assert abs(found["value"] - truth[name]) < 5 * found["sigma"] + 0.02 * (found["range"][1] - found["range"][0])
    assert content["modality"] == modality and len(content["covariance"]) == 3


def test_the_reconstruction_is_better_than_the_measurement(reconstructed):
    """Nearer to the truth than the counts with offset and background removed, on the same scale."""
    _, source, out = reconstructed
    sample = hdf5.read_measurement(source / "measurement.h5").samples["sample_00"]
    d, x = sample.detector, sample.x_true
    raw = ((sample.y - d.offset) / d.gain - d.background) / d.peak_photons
    restored = tifffile.imread(out / "reconstruction.ome.tif")
    raw = raw[0] if raw.ndim > x.ndim or raw.shape != x.shape else raw
    assert np.mean((restored - x) ** 2) < 0.8 * np.mean((raw - x) ** 2)


def test_run_json_tells_how_to_repeat_the_run(reconstructed):
    modality, source, out = reconstructed
    content = json.loads((out / "run.json").read_text())
    assert content["inputs"]["stack"]["sha256"] == sha256(source / "measurement.h5")
    assert content["options"]["seed"] == 3 and content["options"]["method"] == "richardson_lucy"
    assert content["optics"]["modality"] == modality and content["optics"]["geometry"]["na"] > 0
    assert {"read", "calibrate", "reconstruct", "figure"} <= set(content["seconds"])
    restored = content["reconstruction"]
    assert len(restored["curve"]) >= 1 and restored["detector"]["gain"] == 1.0 and len(restored["spec"]) == 3
    assert content["versions"]["jax"] and content["device"]["platform"] and content["command"]


def test_report_of_the_run(reconstructed, tmp_path, capsys):
    """The model's counts are kept and fit: residuals of unit variance; the page shows all channels without a complaint."""
    modality, source, out = reconstructed
    held = hdf5.read_measurement(source / "measurement.h5").samples["sample_00"]
    left_over = in_sigmas(held.y, tifffile.imread(out / "prediction.ome.tif").reshape(held.y.shape), held.detector)
    assert 0.8 < left_over.std() < 1.1
    run("report", out, "-o", tmp_path / "page.html")
    assert not capsys.readouterr().err
    page = (tmp_path / "page.html").read_text()
    for key in ("measurement", "reconstruction", "residual"):
        assert f'data-key="{key}"' in page, key
    assert "calibrated" in page and "Convergence" in page and ("Maximum projections" in page) == (modality == "confocal_3d")


def test_tiff_with_its_optics_file_gives_the_same_image_as_hdf5(reconstructed, capsys):
    """Every number survives both ways into the program; with the calibration of the first run nothing else differs."""
    modality, source, out = reconstructed
    axes = ["--axes", "fyx"] if modality == "shg" else []
    common = ["--modality", modality, "--optics", source / "optics.yaml", "--spec", out / "calibration.json", *axes]
    run("reconstruct", source / "measurement.ome.tif", *common, "-o", source.parent / "tiff", "--seed", 3)
    capsys.readouterr()
    first, second = (tifffile.imread(f / "reconstruction.ome.tif") for f in (out, source.parent / "tiff"))
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-4 * first.max())
    assert {p.name for p in (source.parent / "tiff").iterdir()} == RESULTS - {"calibration.json"}


def test_calibrate_alone_gives_the_same_calibration(reconstructed, capsys):
    modality, source, out = reconstructed
    run("calibrate", source / "measurement.h5", "-o", source.parent / "cal", "--seed", 3)
    printed, err = capsys.readouterr()
    first, second = (json.loads((f / "calibration.json").read_text()) for f in (out, source.parent / "cal"))
    assert first["parameters"] == second["parameters"]
    assert {p.name for p in (source.parent / "cal").iterdir()} == RESULTS - {"reconstruction.ome.tif", "prediction.ome.tif"}
    for field in diffphys.types.resolve(modality).FIELDS:
        assert field.name in printed
    assert first["status"] in printed and "±" in printed
    assert all(line.startswith("diffphys: warning: ") for line in err.splitlines())  # no bars off the terminal


def _staged(out: Path, name: str) -> bool:
    """Whether the run that will fill `out` has got as far as the file `name`."""
    return any((p / name).exists() for p in out.parent.glob(".tmp-diffphys-*"))


def _one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if not line.startswith("diffphys: warning: ")]
    assert len(lines) == 1 and lines[0].startswith("diffphys: interrupted: ") and "Traceback" not in err, err
    return lines[0]


def _heed_ctrl_c():
    """A job started in the background of a shell inherits a deaf SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_during_the_calibration_writes_nothing(simulated, tmp_path):
    _, source = simulated
    out = tmp_path / "out"
    command = [sys.executable, "-m", "diffphys", "reconstruct", source / "measurement.h5", "-o", out]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=_heed_ctrl_c,
    )
    try:
        deadline = time.monotonic() + 100
        while not _staged(out, "."):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the run never began"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "nothing was written" in _one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_lost_in_a_callback_of_the_interpreter_stops_the_next_stage(request, monkeypatch):
    class Pressed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    reports: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits a deaf one
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with session.heeding_ctrl_c():
        pressed = Pressed()
        del pressed  # Python drops the KeyboardInterrupt and goes on
        with pytest.raises(KeyboardInterrupt), session.Clock().stage("next"):
            pass
        session.heed()  # raised once only
    assert reports == []
    assert sys.unraisablehook == reports.append
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_during_the_reconstruction_keeps_what_is_finished(reconstructed, tmp_path, capsys):
    """The calibration is finished, so it is kept, and the image is the best so far."""
    _, source, first = reconstructed
    out = tmp_path / "out"

    def press_when_calibrated() -> None:
        deadline = time.monotonic() + 100
        while not _staged(out, "calibration.json") and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press_when_calibrated)
    finger.start()
    arguments = ["reconstruct", source / "measurement.h5", "-o", out, "--method", "tv", "--seed", 3]
    assert main([str(a) for a in arguments]) == 130
    finger.join()
    assert "is the best after" in _one_line(capsys.readouterr().err)
    assert {p.name for p in out.iterdir()} == RESULTS
    record = json.loads((out / "run.json").read_text())
    assert record["reconstruction"]["status"] == "INTERRUPTED"
    assert np.isfinite(tifffile.imread(out / "reconstruction.ome.tif")).all()
    kept, whole = (json.loads((f / "calibration.json").read_text()) for f in (out, first))
    assert kept["parameters"] == whole["parameters"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_measured_psf_replaces_the_calibration(simulated, tmp_path):
    modality, source = simulated
    held = hdf5.read_measurement(source / "measurement.h5")
    if modality == "shg":
        assert main(["reconstruct", str(source / "measurement.h5"), "-o", str(tmp_path / "o"), "--psf", str(source)]) == 2
        return
    spec = diffphys.confocal.Spec(**{n: np.float32(v) for n, v in held.samples["sample_00"].true_spec.items()})
    psf = np.asarray(diffphys.confocal.psf(spec, geometry=held.geometry))
    write_image(tmp_path / "psf.ome.tif", 1e5 * psf, held.geometry.voxel_um)
    run("reconstruct", source / "measurement.h5", "-o", tmp_path / "o", "--psf", tmp_path / "psf.ome.tif", "--method", "wiener")
    assert {p.name for p in (tmp_path / "o").iterdir()} == RESULTS - {"calibration.json"}
    by_model = tmp_path / "model"
    text = ",".join(f"{n}={v}" for n, v in held.samples["sample_00"].true_spec.items())
    run("reconstruct", source / "measurement.h5", "-o", by_model, "--spec", text, "--method", "wiener")
    a, b = (tifffile.imread(f / "reconstruction.ome.tif") for f in (tmp_path / "o", by_model))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


def test_distil_finds_the_psf_of_simulated_beads(tmp_path, capsys):
    geometry = diffphys.confocal.Geometry(shape=(24, 96, 96), voxel_um=(0.15, 0.06, 0.06))
    x = np.zeros(geometry.shape, np.float32)
    for at in ((12, 24, 24), (12, 24, 70), (12, 70, 26), (12, 72, 72)):
        x[at] = 2e4
    blurred = np.asarray(diffphys.confocal.forward(diffphys.confocal.nominal(), x, geometry=geometry))
    counts = np.random.default_rng(0).poisson(blurred + 5).astype(np.float32)
    write_image(tmp_path / "beads.ome.tif", counts, geometry.voxel_um)
    run("distil", tmp_path / "beads.ome.tif", "-o", tmp_path / "psf.tif")
    assert "beads: 4" in capsys.readouterr().out
    psf = read_stack(tmp_path / "psf.tif", modality="confocal_3d")
    assert psf.voxel_um == geometry.voxel_um
    assert psf.data.sum() == pytest.approx(1, rel=1e-3)
    assert np.unravel_index(psf.data.argmax(), psf.data.shape) == tuple(n // 2 for n in psf.data.shape)


def test_point_source_calibration_recovers_an_aberration(tmp_path):
    geometry = diffphys.confocal.Geometry(shape=(24, 32, 32), voxel_um=(0.15, 0.06, 0.06))
    spec = diffphys.confocal.Spec(*map(np.float32, (30.0, 0.12, 1.515)))
    psf = np.asarray(diffphys.confocal.psf(spec, geometry=geometry))
    counts = np.random.default_rng(0).poisson(2e4 * psf / psf.max() + 10).astype(np.float32)
    sample = hdf5.Sample(counts, diffphys.Detector(1.0, 10.0, 1.0, 0.0, 0.0))
    path = tmp_path / "point.h5"
    hdf5.write_measurement(path, "confocal_3d", geometry=geometry, samples={"sample_00": sample})
    run("calibrate", path, "--point-source", "--ranges", "refractive_index=1.515", "-o", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())["parameters"]
    assert found["z_step"]["value"] == pytest.approx(30, abs=4)
    assert found["spherical_aberr"]["value"] == pytest.approx(0.12, abs=0.01)


def test_version_and_help_are_quick_and_quiet(capsys):
    run("--version")
    assert capsys.readouterr().out == f"diffphys {diffphys.__version__}\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", "diffphys", "reconstruct", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert "--optics" in done.stdout
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & {"matplotlib", "h5py", "tifffile", "flax", "yaml", "optax"}


def test_the_program_sets_its_cache_and_memory_policy_only_when_asked(tmp_path):
    code = "import sys, jax, diffphys.cli.session as s; s.use_cache(); print(jax.config.jax_compilation_cache_dir)"
    environment = {k: v for k, v in os.environ.items() if k not in ("DIFFPHYS_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    for chosen, expected in {
        "": str(tmp_path / "diffphys" / "xla"),
        "off": "None",
        str(tmp_path / "x"): str(tmp_path / "x"),
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment | {"DIFFPHYS_CACHE": chosen},
        )
        assert done.stdout.strip() == expected


def test_ranges_are_read_and_one_number_fixes_a_parameter():
    stated = options.ranges("z_step=-20:35.5, refractive_index=1.515")
    assert stated == {"z_step": (-20.0, 35.5), "refractive_index": (1.515, 1.515)}
    assert options.ranges(None) == {}


def test_several_numbers_after_one_option():
    given = ["calibrate", "a.tif", "--voxel-um", "0.2", "0.1", "0.1", "-o", "out"]
    assert _join_numbers(given) == ["calibrate", "a.tif", "--voxel-um", "0.2,0.1,0.1", "-o", "out"]
    assert _join_numbers(["--shape", "8", "9", "--seed", "3"]) == ["--shape", "8,9", "--seed", "3"]
    assert _join_numbers(["--voxel-um", "0.2,0.1,0.1", "-o"]) == ["--voxel-um", "0.2,0.1,0.1", "-o"]
    assert _join_numbers(["--voxel-um"]) == ["--voxel-um"]


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (51.2345, 3.21, "51.2"),
        (51.2345, 0.0321, "51.234"),
        (1234.5, 321.0, "1234"),
        (0.1234567, None, "0.1235"),
        (1.5, 0.0, "1.5"),
    ],
)
def test_a_number_is_printed_as_well_as_it_is_known(value, sigma, text):
    assert number(value, sigma) == text
