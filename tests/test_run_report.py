"""`diffphys report`: a finished run as one page. What it draws is compared with the arrays, what it says with the records."""

from __future__ import annotations

import base64
import io
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
import webdriver
from PIL import Image

from diffphys import confocal, shg
from diffphys.cli import main
from diffphys.cli.finished import read_run
from diffphys.io import provenance, results
from diffphys.io.hdf5 import Sample, write_measurement
from diffphys.io.tiff import write_image
from diffphys.noise import Detector
from diffphys.report import run_chart, run_images
from diffphys.report.run_page import collect
from diffphys.types import Calibration, Reconstruction, Status

DETECTOR = Detector(peak_photons=100.0, background=4.0, gain=2.0, offset=100.0, read_sigma=1.0)
SPOT = (2, 5, 30)  # of the stack: where one voxel of the measurement is 8 sigma above the model
EVIL = '</script><img src=x onerror="window.hacked=1">{{ 7 * 7 }}\''


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("DIFFPHYS_CACHE", "off")


def make_run(folder: Path, modality=confocal, *, shape=None, uncertainty=False, warnings=(), image=None) -> Path:
    """The folder of a run, its arrays made up: a flat model, a measurement equal to it but for one voxel."""
    volume = modality is confocal
    geometry = modality.Geometry(shape=shape or ((7, 16, 40) if volume else (16, 40)))
    recorded = geometry.shape if volume else (geometry.frames, *geometry.shape)
    pitch = geometry.voxel_um if volume else geometry.pixel_um
    model = np.full(recorded, 308.0, np.float32)  # variance 2 * 208 + 4 = 420
    y = model.copy()
    spot = (min(SPOT[0], recorded[0] - 1) if volume else 1, *SPOT[1:])
    y[spot] += 8 * 420**0.5
    if image is None:
        image = np.zeros(geometry.shape, np.float32)
        image[spot if volume else spot[1:]] = 3.0
    folder.mkdir()
    write_measurement(folder / "stack.h5", modality, geometry=geometry, samples={"sample_00": Sample(y, DETECTOR)})
    write_image(folder / "reconstruction.ome.tif", image, pitch)
    write_image(folder / "prediction.ome.tif", model, pitch)
    if uncertainty:
        write_image(folder / "uncertainty.ome.tif", np.full(geometry.shape, 0.1, np.float32), pitch)
    names = tuple(f.name for f in modality.FIELDS)
    covariance = np.diag([4e-4, 1e-6, 9e-6])
    covariance[0, 1] = covariance[1, 0] = -0.83 * 2e-5
    ranges = modality.default_ranges(geometry)
    values = {n: low + 0.25 * (high - low) for n, (low, high) in ranges.items()}
    spec = results.checked_spec(values, modality)
    found = Calibration(
        spec, names, covariance, ranges, {"c_tot": (0.1234, 0.0056)}, Status.MISFIT, {names[2]: "too dark"}, DETECTOR
    )
    results.write_calibration(folder / "calibration.json", found, modality)
    curve = np.array([9.0, 3.0, np.nan, 1.0])
    restored = Reconstruction(image, Status.CONVERGED, 40, curve, "held_out", model, warnings=tuple(warnings))
    record = provenance.run_record(
        command=["diffphys", "reconstruct", "a file.tif"],
        inputs={"stack": folder / "stack.h5"},
        optics={"modality": modality.NAME, "geometry": geometry, "sample": "sample_00"},
        options={"method": "wiener", "seed": 3},
        started=datetime.now(UTC),
        seconds={"read": 0.25, "reconstruct": 12.5},
    )
    results.write_json(
        folder / "run.json",
        {
            **record,
            "warnings": ["half is saturated"],
            "reconstruction": results.reconstruction_as_dict(restored, spec, DETECTOR),
        },
    )
    return folder


def pixels(uri: str) -> np.ndarray:
    """Red, green, blue, alpha of a data URI."""
    raw = base64.b64decode(re.fullmatch(r"data:image/(?:png|jpeg);base64,(.+)", uri)[1])
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA")).astype(int)


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.inside = "", ""
        self.feed(file.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        self.inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.text += "" if self.inside else data


def report(*arguments: object, code: int = 0) -> None:
    assert main(["report", *map(str, arguments)]) == code


# what is drawn


@pytest.mark.parametrize("modality", [confocal, shg], ids=lambda m: m.NAME)
def test_slices_show_the_arrays(tmp_path, modality):
    """The one odd voxel is the one bright pixel of measurement, reconstruction and residual, in its own plane only."""
    shown = collect(read_run(make_run(tmp_path / "run", modality)))
    layers = {layer["key"]: layer for layer in shown["viewer"]["layers"]}
    planes, where, spot = (7, SPOT[0], SPOT[1:]) if modality is confocal else (2, 1, SPOT[1:])
    assert {n: len(layer["slices"]) for n, layer in layers.items()} == {
        "measurement": planes,
        "reconstruction": planes if modality is confocal else 1,
        "residual": planes,
    }
    for key in ("measurement", "residual"):
        for k, uri in enumerate(layers[key]["slices"]):
            drawn = pixels(uri)
            seen = drawn[..., 3] * drawn[..., :3].max(-1) > 0
            assert np.argwhere(seen).tolist() == ([list(spot)] if k == where else []), (key, k)
    red, _, blue, alpha = pixels(layers["residual"]["slices"][where])[spot]
    assert red > blue and alpha == 255
    restored = pixels(layers["reconstruction"]["slices"][min(where, len(layers["reconstruction"]["slices"]) - 1)])
    assert np.argwhere(restored[..., 0] > 0).tolist() == [list(spot)]
    assert layers["reconstruction"]["span"] == "black 0, white 300"  # 3 in units of 100 photons


def test_projections_are_maxima_in_true_proportions(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    measured = collect(run)["projections"][0]["views"]
    z, y, x = SPOT
    (dz, dy, dx), places = run.geometry.voxel_um, {"xy": [y, x], "xz": [z, x], "zy": [y, z]}
    for name, place in places.items():
        assert np.argwhere(pixels(measured[name]["uri"])[..., :3].sum(-1) > 200).tolist() == [place]
    aspects = {"xy": 40 * dx / (16 * dy), "xz": 40 * dx / (7 * dz), "zy": 7 * dz / (16 * dy)}
    assert {n: v["aspect"] for n, v in measured.items()} == pytest.approx(aspects)
    for view in measured.values():  # the bar is a round length, drawn as long as it says
        assert view["bar_percent"] * view["width_um"] == pytest.approx(100 * view["bar_um"])
        assert f"{view['bar_um']:.0e}"[0] in "125" and 9 < view["bar_percent"] <= 30.001


def test_the_psf_is_that_of_the_spec_beside_the_nominal(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    psf = collect(run)["psf"]
    assert [p["label"] for p in psf["pictures"]] == ["calibrated, xy", "calibrated, xz", "nominal, xy", "nominal, xz"]
    for name, spec in (("calibrated", run.spec), ("nominal", confocal.nominal(run.geometry))):
        h = np.asarray(confocal.psf(spec, geometry=run.geometry))
        z, y, x = np.unravel_index(np.argmax(h), h.shape)
        line, steps = h[z, y] / h.max(), np.arange(h.shape[2])  # falls on both sides of x
        left, right = np.interp(0.5, line[: x + 1], steps[: x + 1]), np.interp(-0.5, -line[x:], steps[x:])
        stated = {row[0]: row[1] for row in psf["widths"]["rows"]}
        assert float(stated[name].removesuffix(" µm")) == pytest.approx(0.08 * (right - left), abs=6e-4), name


def test_blocks_keep_means_and_residuals_keep_their_unit_variance():
    noise = np.random.default_rng(0).normal(size=(203, 301))
    means, sums = run_images.binned(noise, 4), run_images.binned(noise, 4, noise=True)
    assert means.shape == (51, 76) and means[3, 5] == pytest.approx(noise[12:16, 20:24].mean())
    assert means[-1, -1] == pytest.approx(noise[200:, 300:].mean())
    assert sums.std() == pytest.approx(1, abs=0.05)


def test_large_stacks_fit_the_budget():
    """Noise compresses worst: fewer and coarser slices, first and last among them, and the page can say so."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 600)).astype(np.float32)
    stack = np.broadcast_to(noise, (500, 300, 600))
    layers = [run_images.intensity("a", "A", "", stack), run_images.intensity("b", "B", "", stack)]
    found = run_images.viewer(layers, pitch_um=(0.1, 0.1), budget=1_500_000)
    total = sum(len(uri) for layer in found["layers"] for uri in layer["slices"])
    assert 300_000 < total < 1_500_000 and found["factor"] > 1 and found["jpeg"]
    assert found["planes"][0] == 0 and found["planes"][-1] == 499 and found["total"] == 500
    assert pixels(found["layers"][0]["slices"][0]).shape[1] == -(-600 // found["factor"])


@pytest.mark.parametrize("case", ["nan", "all nan", "constant", "one plane", "thin", "infinite"])
def test_odd_images_are_drawn(tmp_path, case):
    shape = {"one plane": (1, 16, 40), "thin": (3, 16, 700)}.get(case, (3, 16, 40))
    image = np.random.default_rng(1).random(shape).astype(np.float32)
    if case == "nan":
        image[0, 3, 4] = np.nan
    elif case == "infinite":
        image[0, 3, 4] = np.inf
    elif case in ("all nan", "constant"):
        image[:] = np.nan if case == "all nan" else 0.5
    folder = make_run(tmp_path / "run", shape=shape, image=image)
    shown = collect(read_run(folder))
    restored = next(layer for layer in shown["viewer"]["layers"] if layer["key"] == "reconstruction")
    drawn = pixels(restored["slices"][0])
    if case in ("nan", "infinite"):
        assert drawn[3, 4, :3].tolist() == [0, 0, 0] and drawn[..., 0].max() == 255
    elif case in ("all nan", "constant"):
        assert drawn[..., :3].max() == 0
    else:
        assert drawn[..., 0].max() > 200 and shown["viewer"]["aspect"] == pytest.approx(shape[2] / 16)
    report(folder)


def test_charts_place_values_between_their_ticks():
    line = run_chart.Line("a", np.array([0.0, 1.0, np.nan, 4.0]), np.array([1.0, np.nan, 2.0, 100.0]))
    drawn = run_chart.chart([line], xlabel="x", ylabel="y", log=True)
    points = [tuple(map(float, p.split(","))) for p in drawn["lines"][0]["points"].split()]
    assert points == [(drawn["left"], drawn["bottom"]), (drawn["right"], drawn["top"])]
    ticks = {text: at for at, text in drawn["y"]}
    assert ticks["10"] == pytest.approx((drawn["bottom"] + drawn["top"]) / 2, abs=0.1)
    assert run_chart.chart([run_chart.Line("a", np.arange(3.0), np.full(3, np.nan))], xlabel="", ylabel="") is None


# what is said


def test_the_page_says_what_the_records_say(tmp_path, capsys):
    folder = make_run(tmp_path / "run", warnings=["look twice"], uncertainty=True)
    report(folder, "-o", tmp_path / "page.html")
    page, told = Page(tmp_path / "page.html"), capsys.readouterr()
    assert str(tmp_path / "page.html") in told.out and not told.err
    sha = json.loads((folder / "run.json").read_text())["inputs"]["stack"]["sha256"]
    low, high = confocal.default_ranges(confocal.Geometry())["z_step"]
    for words in (
        "Calibration: misfit",
        "read the error bars as lower limits",
        "Reconstruction: converged after 40 iterations, but no better than the calibration it rests on",
        "half is saturated look twice",
        f"{low + 0.25 * (high - low):.3f} 0.020 nm",
        "-0.83",
        "0.1234 0.0056",
        "refractive_index is not determined: too dark",
        "diffphys reconstruct 'a file.tif'",
        "reconstruct 12.5 s",
        sha,
        "Uncertainty, 1 σ",
    ):
        assert words in page.text, words


def test_nothing_outside_the_file_and_all_without_javascript(tmp_path):
    """Pictures are in the file, their middle ones in the markup; controls that need JavaScript are hidden until it runs."""
    report(make_run(tmp_path / "run"))
    page = Page(tmp_path / "run" / "report.html")
    sources = [a["src"] for tag, a in page.tags if "src" in a]
    assert len(sources) == 3 + 6 + 4 and all(s.startswith("data:image/") for s in sources)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert [a["href"] for tag, a in page.tags if "href" in a] == ["data:,"]
    assert next(a for tag, a in page.tags if a.get("id") == "controls").keys() >= {"hidden"}
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert not re.search(r"url\((?!#)|@import|https?://", (tmp_path / "run" / "report.html").read_text())


def test_hostile_text_stays_text(tmp_path):
    folder = make_run(tmp_path / "run", warnings=[EVIL])
    record = json.loads((folder / "run.json").read_text())
    record["command"], record["options"]["method"], record["optics"]["note"] = [EVIL], EVIL, {EVIL: EVIL}
    (folder / "run.json").write_text(json.dumps(record))
    report(folder)
    page = Page(folder / "report.html")
    assert not any("onerror" in a for _, a in page.tags) and page.text.count(EVIL) >= 4
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2


# the measurement is looked up again


def test_a_measurement_gone_or_changed_is_said_in_one_line(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    stack = folder / "stack.h5"
    kept = stack.rename(tmp_path / "elsewhere.h5")
    report(folder)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and "is gone" in err[0] and "--measurement" in err[0]
    page = Page(folder / "report.html")
    keys = [a["data-key"] for _, a in page.tags if "data-key" in a]
    assert keys == ["reconstruction"] and "is gone" in page.text
    stack.write_bytes(kept.read_bytes()[:-1])
    report(folder)
    assert "has changed since the run" in capsys.readouterr().err
    report(folder, "--measurement", kept)
    assert not capsys.readouterr().err
    keys = [a["data-key"] for _, a in Page(folder / "report.html").tags if "data-key" in a]
    assert keys == ["measurement", "reconstruction", "residual"]


def test_another_measurement_is_used_with_a_word_or_refused(tmp_path, capsys):
    folder, same, other = (make_run(tmp_path / n, shape=s) for n, s in (("a", None), ("b", None), ("c", (8, 16, 40))))
    write_image(tmp_path / "y.tif", np.random.default_rng(0).random((7, 16, 40)).astype(np.float32), (0.2, 0.08, 0.08))
    report(folder, "--measurement", tmp_path / "y.tif")
    assert "not the file of the run" in capsys.readouterr().err
    before = (folder / "report.html").read_bytes()
    report(folder, "--measurement", other / "stack.h5", code=2)
    assert "(8, 16, 40)" in capsys.readouterr().err
    assert (folder / "report.html").read_bytes() == before and not list(folder.glob(".tmp*"))
    assert same.is_dir()


def test_runs_without_prediction_or_calibration(tmp_path, capsys):
    """An older run and one with --spec: no residual, no error bars, and no failure."""
    folder = make_run(tmp_path / "run")
    (folder / "prediction.ome.tif").unlink()
    (folder / "calibration.json").unlink()
    report(folder)
    assert "no prediction.ome.tif" in capsys.readouterr().err
    page = Page(folder / "report.html")
    assert "given, xy" in page.text and "not calibrated from this data" in page.text
    assert "Correlation" not in page.text and "Residual" not in page.text


def test_a_measured_psf_is_shown_beside_the_nominal(tmp_path, capsys):
    """A run with --psf has no spec: its PSF is read again, if the file is still the same."""
    folder = make_run(tmp_path / "run", shape=(15, 24, 33))
    (folder / "calibration.json").unlink()
    geometry = confocal.Geometry(shape=(15, 24, 33))
    write_image(folder / "psf.tif", np.asarray(confocal.psf(confocal.nominal(geometry), geometry=geometry)), geometry.voxel_um)
    record = json.loads((folder / "run.json").read_text())
    record["inputs"]["psf"] = {"path": "psf.tif", "sha256": provenance.sha256(folder / "psf.tif")}
    record["reconstruction"]["spec"] = None
    (folder / "run.json").write_text(json.dumps(record))
    psf = collect(read_run(folder))["psf"]
    assert [p["label"] for p in psf["pictures"]] == ["measured, xy", "measured, xz", "nominal, xy", "nominal, xz"]
    (_, *measured), (_, *nominal) = psf["widths"]["rows"]
    assert [float(w.split()[0]) for w in measured] == pytest.approx([float(w.split()[0]) for w in nominal], rel=0.05)
    (folder / "psf.tif").write_bytes(b"another")
    report(folder)
    assert "measured PSF psf.tif has changed" in capsys.readouterr().err
    assert "Point-spread function" not in Page(folder / "report.html").text


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", None, "holds no run.json"),
        ("run.json", b"{", "damaged"),
        ("run.json", b'{"format": "diffphys-run"}', "command: field required"),
        ("calibration.json", b"[]", "cannot be used"),
        ("calibration.json", (b'"names": [', b'"names": ["more", '), "correlation is not 4 x 4"),
        ("run.json", (b'"gain"', b'"pain"'), "reconstruction.detector.gain: field required"),
        ("run.json", (b'"na"', b'"bad"'), "a geometry that confocal_3d does not know"),
        ("reconstruction.ome.tif", b"II*\0", "cannot read"),
    ],
)
def test_damaged_folders_are_one_line(tmp_path, capsys, file, content, words):
    folder = make_run(tmp_path / "run")
    if isinstance(content, tuple):
        content = (folder / file).read_bytes().replace(*content)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    report(folder, code=2)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and words in err[0] and not (folder / "report.html").exists()


def test_an_image_of_another_size_is_refused(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    tifffile.imwrite(folder / "reconstruction.ome.tif", np.zeros((3, 3), np.float32))
    report(folder, code=2)
    assert "expected (7, 16, 40)" in capsys.readouterr().err
    report(folder, "-o", tmp_path / "absent" / "page.html", code=2)
    assert "choose another --output" in capsys.readouterr().err


# in a browser


@pytest.mark.skipif(bool(webdriver.missing()), reason=webdriver.missing() or "ready")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(tmp_path, width):
    """No console message, no sideways scrolling, slider by arrow keys, toggles by space, visible focus, both colour schemes."""
    folder = make_run(tmp_path / "run", uncertainty=True, warnings=[EVIL, "long" * 80])
    report(folder)
    visible = "return [...document.querySelectorAll('#stage figure')].filter(f => !f.hidden).map(f => f.dataset.key)"
    source = "return document.querySelector('[data-key=measurement] img').src"
    focus = "return document.activeElement.id || document.activeElement.dataset.show || document.activeElement.dataset.opacity"
    paper = "return getComputedStyle(document.body).backgroundColor"
    with webdriver.browser(width=width) as window:
        window.open((folder / "report.html").as_uri())
        assert window.run("return window.innerWidth") == width
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert window.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert window.run(visible) == ["measurement", "reconstruction", "residual", "uncertainty"]
        assert window.run("return window.hacked === undefined")
        window.press("Tab")
        assert window.run(focus) == "measurement"
        assert window.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        window.press("Space")
        assert window.run(visible) == ["reconstruction", "residual", "uncertainty"]
        window.press("Space", "Tab", "Tab", "Tab", "Tab")
        assert window.run(focus) == "overlay"
        window.press("Tab")
        assert window.run(focus) == "plane"
        first = window.run(source)
        window.press("Left")
        assert window.run("return document.getElementById('where').textContent") == "plane 3 of 7, z 0.40 µm"
        assert window.run("return document.activeElement.getAttribute('aria-valuetext')") == "plane 3 of 7, z 0.40 µm"
        assert window.run(source) != first  # plane 3 holds the bright voxel
        window.press("Right")
        assert window.run(source) == first
        window.run("document.getElementById('overlay').focus()")
        window.press("Space")
        places = "return new Set([...document.querySelectorAll('#stage .picture')].map(p => p.getBoundingClientRect().x)).size"
        assert (
            window.run(places) == 1
            and window.run("return document.getElementById('stage').className") == "stage overlay tinted"
        )
        window.run("document.querySelector('[data-opacity=reconstruction]').focus()")
        window.press("Left", "Left")
        strength = "return document.querySelector('[data-key=reconstruction] img').style.opacity"
        assert window.run(strength) == "0.9"
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        light = window.run(paper)
        window.prefer_dark()
        assert window.run(paper) != light == "rgb(255, 255, 255)"
        window.forbid_scripts()
        window.open((folder / "report.html").as_uri())
        assert window.run("return getComputedStyle(document.getElementById('controls')).display") == "none"
        assert window.run("return [...document.images].every(i => i.naturalWidth > 0 && i.getBoundingClientRect().width > 20)")
        assert "the other slices need JavaScript" in window.run("return document.body.innerText")
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert window.console() == []
        assert window.picture().startswith(b"\x89PNG")
