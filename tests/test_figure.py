"""Figures: written whole, right size, no text over text, honest content."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from diffphys import confocal, shg
from diffphys.noise import Detector
from diffphys.report import figure as report
from diffphys.report import gallery, panels
from diffphys.types import Calibration, Reconstruction, Status


def example(modality):
    """A plausible run: counts, calibration with one undetermined parameter, a reconstruction with its prediction."""
    rng = np.random.default_rng(0)
    small = {confocal: {"shape": (12, 32, 40)}, shg: {"shape": (32, 40)}}[modality]
    geometry = modality.Geometry(**small)
    detector = Detector(100.0, 2.0, 2.0, 100.0, 1.0)
    x = rng.uniform(0, 1, geometry.shape) ** 4
    prediction = np.asarray(100 + 2 * (100 * x + 2))
    if modality is shg:
        prediction = np.stack([prediction] * geometry.frames)
    y = prediction + np.sqrt(2 * (prediction - 100) + 4) * rng.normal(size=prediction.shape)
    names = tuple(f.name for f in modality.FIELDS)
    ranges = modality.default_ranges(geometry)
    sigma = [0.05 * (high - low) for low, high in ranges.values()]
    calibration = Calibration(
        modality.nominal(geometry),
        names,
        np.diag(np.square(sigma)),
        ranges,
        {"c_tot": (0.05, 0.003)},
        Status.NOT_IDENTIFIABLE,
        {names[-1]: "its error is as wide as the range"},
        detector,
        ("a warning that is long enough to need wrapping in the narrow column it is given, twice over, " * 24,),
    )
    restored = Reconstruction(x, Status.CONVERGED, 40, np.geomspace(3, 1, 40), "reduced_chi2", prediction, ())
    return y, geometry, calibration, restored, x


@pytest.fixture
def sheets(monkeypatch):
    """The figures that were saved, after their layout was computed."""
    kept = []
    original = report._save

    def save(sheet, path):
        original(sheet, path)
        kept.append(sheet)

    monkeypatch.setattr(report, "_save", save)
    return kept


def drawn_texts(ax):
    """Every text of one axes that is drawn; ticks outside the view are not."""
    yield from (*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label)
    if ax.get_legend() is not None:
        yield from ax.get_legend().get_texts()
    for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def visible_texts(sheet: Figure):
    renderer = sheet.canvas.get_renderer()
    texts = [t for ax in sheet.axes for t in drawn_texts(ax)] + sheet.texts
    return [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_visible() and t.get_text().strip()]


def overlapping(sheet):
    found = []
    for (a, first), (b, second) in itertools.combinations(visible_texts(sheet), 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        if width > 2 and height > 2:
            found.append((a, b))
    return found


def outside(sheet):
    """Texts that run over the edge of the sheet."""
    width, height = sheet.canvas.get_width_height()
    texts = visible_texts(sheet)
    return [t for t, box in texts if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]


@pytest.mark.parametrize("parts", ["all", "no reconstruction", "no calibration"])
def test_figure_is_readable(modality, parts, tmp_path, sheets):
    y, geometry, calibration, restored, x = example(modality)
    report.figure(
        tmp_path / "figure.png",
        y=y,
        modality=modality,
        geometry=geometry,
        calibration=None if parts == "no calibration" else calibration,
        reconstruction=None if parts == "no reconstruction" else restored,
        truth=x,
        truth_spec=modality.nominal(geometry),
        title="stack.tif",
    )
    picture = imread(tmp_path / "figure.png")
    assert picture.shape[1] == 1600 and picture[..., :3].std() > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    assert overlapping(sheets[0]) == []
    assert outside(sheets[0]) == []
    text = " ".join(t for t, _ in visible_texts(sheets[0]))
    assert "percentile" in text and "µm" in text and "stack.tif" in text
    if parts != "no calibration":
        assert "undetermined" in text and "not identifiable" in text
    if parts != "no reconstruction":
        assert "σ" in text and "stopping rule" in text


def test_residual_is_standardised(modality):
    y, _, calibration, restored, _ = example(modality)
    residual = report._residual(y, restored, calibration.detector)
    assert residual.shape == y.shape
    assert residual.std() == pytest.approx(1.0, abs=0.05)


def test_figure_goes_through_no_global_state(tmp_path):
    import sys

    y, geometry, calibration, _restored, _ = example(confocal)
    before = "matplotlib.pyplot" in sys.modules
    report.figure(tmp_path / "f.png", y=y, modality="confocal_3d", geometry=geometry, calibration=calibration)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_bad_input_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="expected the field"):
        report.figure(path, y=np.zeros((3, 4, 5)), modality=confocal, geometry=confocal.Geometry())
    assert path.read_bytes() == b"old"


def test_residual_figure(tmp_path, sheets):
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2 for n in (15, 24, 24)], indexing="ij")
    model = np.exp(-0.5 * ((z / 2.5) ** 2 + (y / 2) ** 2 + (x / 2) ** 2))
    bent = np.exp(-0.5 * ((z / 2.5) ** 2 + (y / 2) ** 2 + ((x - 0.1 * z) / 2) ** 2))
    report.residual_figure(tmp_path / "r.png", bent, model, voxel_um=(0.2, 0.08, 0.08), title="PSF", notes=["z_step = 3 ± 1"])
    assert imread(tmp_path / "r.png").shape[1] == 1600
    assert overlapping(sheets[0]) == []
    assert outside(sheets[0]) == []


def test_misfit_lowers_the_claims(tmp_path, sheets):
    """Error bars are called lower limits, and a converged reconstruction is not called fine."""
    y, geometry, calibration, restored, _ = example(confocal)
    calibration = replace(calibration, status=Status.MISFIT)
    report.figure(
        tmp_path / "f.png", y=y, modality=confocal, geometry=geometry, calibration=calibration, reconstruction=restored
    )
    text = " ".join(t for t, _ in visible_texts(sheets[0]))
    assert "lower limits" in text and "± at least 0.003" in text and "nothing to do" not in text and "it rests on" in text


def test_gallery(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(gallery, "FigureCanvasAgg", lambda sheet: kept.append(sheet) or FigureCanvasAgg(sheet))
    plane = np.random.default_rng(0).uniform(size=(20, 30))
    rows = [[("one", plane, (0.5, 0.1)), ("two", plane, (0.1, 0.1))], [("three", plane, (1.0, 1.0))]]
    gallery.gallery(tmp_path / "g.png", rows, title="planes", length="px", notes=["a note " * 60] * 20)
    assert imread(tmp_path / "g.png").shape[1] == 1600
    assert overlapping(kept[0]) == [] and outside(kept[0]) == []
    assert "µm" not in " ".join(t for t, _ in visible_texts(kept[0]))


@pytest.mark.parametrize("most, expected", [(1.0, 1.0), (4.9, 2.0), (0.07, 0.05), (30.0, 20.0)])
def test_scale_bars_are_round(most, expected):
    assert panels.nice_length(most) == pytest.approx(expected)
