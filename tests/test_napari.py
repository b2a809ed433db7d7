"""diffphys inside napari, off-screen: the manifest, reader and writer, and the widget pressed as a user would."""

from __future__ import annotations

import re
import time
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from test_run_report import make_run

from diffphys import confocal, demo, shg
from diffphys.io import optics_file
from diffphys.io.hdf5 import Sample, write_measurement
from diffphys.io.tiff import write_image
from diffphys.plugin.napari import job
from diffphys.plugin.napari.layers import KEY, layer, voxel_um
from diffphys.plugin.napari.read import reader
from diffphys.plugin.napari.write import writer
from diffphys.spec import parse

# napari, npe2 and app-model declare their models in pydantic's older words
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic", "ignore::DeprecationWarning:npe2")
ROOT = Path(__file__).parents[1]
SHAPE, PIXEL_UM = (64, 64), (0.1, 0.1)  # other test files calibrate the same: compiled once
LIMIT_S = 400  # of wall time, for a machine that does much else
TRUTH = {"phase_matching_error": 0.6, "excitation_power_fluctuation": 1.0, "collection_na_mismatch": 0.02}


@pytest.fixture
def plugin(monkeypatch):
    """npe2 with our manifest alone."""
    npe2 = pytest.importorskip("npe2", reason="napari is not installed: pip install 'diffphys[napari]'")
    manager = npe2.PluginManager()
    monkeypatch.setattr(npe2.PluginManager, "instance", lambda: manager)
    manager.register(npe2.PluginManifest.from_file(ROOT / "diffphys/plugin/napari/napari.yaml"))
    return manager


@pytest.fixture(scope="module")
def window():
    """A viewer's model and the widget on it, drawn to memory."""
    pytest.importorskip("napari", reason="napari is not installed: pip install 'diffphys[napari]'")
    patch = pytest.MonkeyPatch()
    settings = {"QT_QPA_PLATFORM": "offscreen", "DIFFPHYS_CACHE": "off", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    for name, value in settings.items():
        patch.setenv(name, value)
    try:
        from qtpy.QtWidgets import QApplication
    except ImportError as error:  # no binding, or a library of the system is missing
        pytest.skip(f"Qt does not load: {error}")
    from napari.components import ViewerModel

    from diffphys.plugin.napari.widget import Widget

    app = QApplication.instance() or QApplication([])
    viewer = ViewerModel()
    yield app, viewer, Widget(viewer)
    patch.undo()


@pytest.fixture(scope="module")
def optics(window, tmp_path_factory):
    """The optics file that the widget's own button writes, filled in: power fluctuation and camera are known."""
    _, _, widget = window
    path = tmp_path_factory.mktemp("optics") / "optics.yaml"
    widget.modality.value, widget.optics.value = "shg", path
    widget.template.native.click()
    assert "holds typical values" in widget.text.value and widget.optics.value == path
    text = path.read_text().replace("# excitation_power_fluctuation: [-2.4, 4.6]", "excitation_power_fluctuation: [1, 1]")
    for name, value in {"gain": 1, "offset": 100, "read_sigma": 1}.items():
        text = text.replace(f"  {name}: auto", f"  {name}: {value}")
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def measured(optics):
    geometry = optics_file.read(optics).bind(SHAPE, PIXEL_UM)
    return demo.simulated(shg, parse(shg.Spec, shg.FIELDS, TRUTH), geometry=geometry, family="collagen", seed=0)


@pytest.fixture(scope="module")
def calibrated(window, optics, measured):
    """The layer `collagen`, calibrated by the button: how often the viewer's loop turned, what the bar showed."""
    place = {"scale": (1, 100, 100), "units": ("pixel", "nm", "nm"), "translate": (0, 500, 0)}
    return press(window, choose(window, measured.y, "collagen", optics=optics, **place).calibrate)


def press(window, button, *then):
    """Click, do `then` at once, and turn the event loop until the work is over; how often it turned, what the bar showed."""
    app, _, widget = window
    button.native.click()
    for more in then:
        more.native.click()
    turns, seen, end = 0, [], time.monotonic() + LIMIT_S
    while widget.busy and time.monotonic() < end:
        app.processEvents()
        seen += [widget.progress.value] if widget.progress.value not in seen else []
        turns += 1
        time.sleep(0.02)
    assert not widget.busy, widget.text.value
    return turns, seen


def choose(window, image, name, *, modality="shg", optics=None, **place):
    _, viewer, widget = window
    added = viewer.add_image(image, name=name, **place)
    widget.layer.value, widget.modality.value, widget.optics.value = added, modality, optics
    return widget


def pick(window, name, optics):
    _, viewer, widget = window
    widget.layer.value, widget.modality.value, widget.optics.value = viewer.layers[name], "shg", optics
    return widget


def photons(measured, image):
    """PSNR of a specimen in photons."""
    return demo.psnr(np.asarray(image) / measured.detector.peak_photons, measured.x)


def test_the_manifest_is_valid_and_complete(plugin):
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, file = stated["entry-points"]["napari.manifest"]["diffphys"].split(":")
    assert (ROOT / module.replace(".", "/") / file).is_file()
    assert [w.display_name for w in plugin.iter_widgets()] == ["Calibrate and reconstruct"]
    for path, readers in (("a.ome.tif", 1), ("a.TIFF", 1), ("a.h5", 1), ("a.png", 0)):
        assert len(list(plugin.iter_compatible_readers(path))) == readers, path
    assert plugin.get_writer("a.ome.tif", ["image"])[0].command == "diffphys.write"


def test_the_manifest_names_what_there_is(plugin, window):
    manifest = plugin.get_manifest("diffphys")
    manifest.validate_imports()
    made = next(plugin.iter_widgets()).get_callable()(window[1])  # as napari makes it
    assert type(made) is type(window[2]) and made.calibrate.enabled and not made.cancel.enabled


def test_the_window_is_needed_by_the_widget_alone():
    said = re.compile(r"^\s*(?:import|from)\s+(?:napari|npe2|magicgui|qtpy)\b", re.MULTILINE)
    found = [str(p.relative_to(ROOT)) for p in (ROOT / "diffphys").rglob("*.py") if said.search(p.read_text())]
    assert found == ["diffphys/plugin/napari/widget.py"]
    said = re.compile(r"^\s*(?:import|from)\s+diffphys\.plugin\.napari\b", re.MULTILINE)
    others = [p for p in (ROOT / "diffphys").rglob("*.py") if p.parent.name != "napari" and said.search(p.read_text())]
    assert not others


@pytest.mark.parametrize(
    "shape, place, size",
    [
        ((3, 8, 9), {"scale": (0.25, 0.1, 0.12), "units": ("um",) * 3}, (0.25, 0.1, 0.12)),
        ((3, 8, 9), {"scale": (250, 100, 120), "units": ("nanometer",) * 3}, (0.25, 0.1, 0.12)),
        ((2, 8, 9), {"scale": (1, 0.1, 0.12), "units": ("pixel", "um", "um")}, (0.1, 0.12)),
        ((8, 9), {"scale": (0.1, 0.12), "units": ("pixel", "pixel")}, (0.1, 0.12)),
    ],
)
def test_what_is_written_is_read_with_its_values_and_its_size(plugin, tmp_path, shape, place, size):
    image = np.random.default_rng(0).normal(size=shape)
    path = str(tmp_path / "a.ome.tif")
    import npe2

    assert npe2.write(path, [(image, {"name": "a", **place}, "image")]) == [path]
    with tifffile.TiffFile(path) as tif:  # another program's view of it
        assert f'PhysicalSizeX="{size[-1]}"' in tif.ome_metadata and tif.series[0].dtype == np.float32
    ((data, told, kind),) = npe2.read([path], stack=False)
    np.testing.assert_array_equal(data, image.astype(np.float32))
    assert kind == "image" and told["name"] == "a"
    assert told["scale"] == pytest.approx([1.0] * (image.ndim - len(size)) + list(size))
    assert told["units"][-2:] == ["um", "um"] and voxel_um(told["scale"][-2:], told["units"][-2:], name="a") == size[-2:]


def test_images_without_a_size_or_a_meaning_are_not_written(tmp_path):
    path, flat = str(tmp_path / "a.ome.tif"), np.ones((8, 8))
    for data, meta, message in [
        (flat, {"scale": (1, 1), "units": ("pixel",) * 2}, "has no voxel size"),
        (flat, {"scale": (1, -1), "units": ("um",) * 2}, "expected positive"),
        (flat, {"scale": (1, 1), "units": ("second",) * 2}, "expected a length"),
        (np.ones((2, 2, 8, 8)), {"scale": (1,) * 4}, "expected a grey image"),
    ]:
        with pytest.raises(ValueError, match=message):
            writer(path, data, {"name": "a", **meta})
    assert not list(tmp_path.iterdir())


def test_a_run_is_opened_with_its_error_bars(tmp_path, modality):
    folder = make_run(tmp_path / "run", modality, uncertainty=True)
    layers = {told["name"]: (data, told) for data, told, _ in reader(str(folder))(None)}
    pitch = list(confocal.Geometry().voxel_um if modality is confocal else shg.Geometry().pixel_um)
    assert set(layers) == {"run reconstruction", "run uncertainty", "run prediction"}
    for name, (data, told) in layers.items():
        assert told["scale"] == pytest.approx([1.0] * (data.ndim - len(pitch)) + pitch), name
        np.testing.assert_array_equal(data, tifffile.imread(folder / f"{name.split()[1]}.ome.tif"))
        first = told["metadata"][KEY]["calibration"]["parameters"][modality.FIELDS[0].name]
        assert first["sigma"] == pytest.approx(0.02) and first["unit"] == modality.FIELDS[0].unit
    (folder / "calibration.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged: not JSON"):
        reader(str(folder))(None)


def test_zarr_and_channels_become_layers(tmp_path):
    zarr = pytest.importorskip("zarr")
    steps = [{"type": "scale", "scale": [1, 250, 100, 100]}]
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "nanometer"} for n in "zyx")]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    group = zarr.open_group(
        tmp_path / "v.ome.zarr", mode="w", attributes={"ome": {"version": "0.5", "multiscales": [image], "omero": omero}}
    )
    y = np.random.default_rng(0).integers(0, 99, (2, 4, 8, 9)).astype(np.uint16)
    group.create_array("0", data=y)
    told = {"axes": "ZCYX", "spacing": 0.25, "unit": "um"}
    tifffile.imwrite(tmp_path / "c.tif", y.swapaxes(0, 1), imagej=True, resolution=(10, 10), metadata=told)
    for path, names in (("v.ome.zarr", ["v DAPI", "v GFP"]), ("c.tif", ["c 0", "c 1"])):
        found = reader(str(tmp_path / path))(None)
        assert [told["name"] for _, told, _ in found] == names
        for index, (data, told, _) in enumerate(found):
            np.testing.assert_array_equal(np.asarray(data), y[index])
            assert told["scale"] == pytest.approx([0.25, 0.1, 0.1]) and told["units"] == ["um"] * 3


def test_what_is_not_known_is_left_to_others(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "plate.zarr").mkdir()
    (tmp_path / "plate.zarr" / "zarr.json").write_text('{"attributes": {"ome": {"plate": {}}}}')
    (tmp_path / "a.tif").write_bytes(b"II*\0 no image")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["y"] = np.zeros(3)
    (tmp_path / "text.h5").write_text("no")
    for name in ("empty", "plate.zarr", "a.tif", "rgb.tif", "other.h5", "text.h5", "absent.tif", "absent.h5"):
        assert reader(str(tmp_path / name)) is None, name
    assert reader([str(tmp_path / "a.tif")] * 2) is None


def test_calibrate_then_reconstruct_improves_the_image(window, calibrated, measured):
    (_, viewer, widget), (turns, seen) = window, calibrated
    assert turns > 20 and len(seen) > 3 and seen == sorted(seen) and seen[-1] == 100  # the viewer lived, the bar moved
    calibration = widget._calibrated[2]
    assert "excitation_power_fluctuation = 1 percent rms (fixed)" in widget.text.value
    for name, value in calibration.values.items():
        assert f"{name} = " in widget.text.value and "±" in widget.text.value
        assert abs(value - TRUTH[name]) < 4 * calibration.sigma[name] + 1e-6
    assert f"calibration: {calibration.status.name}" in widget.text.value and calibration.remedy in widget.text.value

    press(window, widget.reconstruct)
    assert widget._calibrated[2] is calibration  # the same counts and optics: not calibrated again
    assert "reconstruction: CONVERGED" in widget.text.value, widget.text.value
    image, residual = viewer.layers["collagen reconstruction"], viewer.layers["collagen residual (sigma)"]
    assert image.scale == pytest.approx(PIXEL_UM) and [str(u) for u in image.units] == ["micrometer"] * 2
    assert image.translate == pytest.approx((0.5, 0.0)) and residual.data.shape == measured.y.shape
    assert 0.8 < residual.data.std() < 1.2  # what the model leaves is noise
    known = image.metadata[KEY]["calibration"]["parameters"]["collection_na_mismatch"]
    assert known["sigma"] == pytest.approx(calibration.sigma["collection_na_mismatch"])
    detector = measured.detector  # the measurement at its best: offset, gain and background known
    recorded = (measured.y[0] - detector.offset) / detector.gain - detector.background
    assert photons(measured, image.data) > photons(measured, recorded) + 3


def test_iterations_are_capped_and_the_method_is_the_chosen_one(window, calibrated, optics):
    pick(window, "collagen", optics).iterations.value = 20
    widget = window[2]
    press(window, widget.reconstruct)
    assert "reconstruction: OUT_OF_STEPS after 20 iterations" in widget.text.value
    widget.method.value = "unet"
    press(window, widget.reconstruct)
    assert widget.text.value.startswith("error: unet has no option 'iterations'")
    widget.method.value, widget.iterations.value = "richardson_lucy", 0


def test_cancel_keeps_the_best_image_so_far(window, calibrated, optics, measured):
    viewer, widget = window[1], pick(window, "collagen", optics)
    before = len(viewer.layers)
    press(window, widget.reconstruct, widget.cancel)
    assert "reconstruction: INTERRUPTED after" in widget.text.value and "best so far" in widget.text.value
    assert len(viewer.layers) == before + 2
    image = viewer.layers[-1]
    assert np.isfinite(image.data).all() and image.metadata[KEY]["reconstruction"]["status"] == "INTERRUPTED"
    recorded = (measured.y[0] - measured.detector.offset) / measured.detector.gain - measured.detector.background
    assert photons(measured, image.data) > photons(measured, recorded)


def test_cancel_before_the_calibration_changes_nothing(window, optics, measured):
    widget = choose(window, measured.y + 1, "again", optics=optics, scale=(1, *PIXEL_UM))
    kept, before = widget._calibrated, len(window[1].layers)
    press(window, widget.reconstruct, widget.cancel)
    assert widget.text.value == "stopped before the calibration was done; nothing was changed"
    assert widget._calibrated is kept and len(window[1].layers) == before and widget.progress.value == 0


def test_what_cannot_be_used_is_one_line(window, optics, measured, tmp_path):
    other = tmp_path / "confocal.yaml"
    job.write_optics(other, "confocal_3d", None)
    flat, um = measured.y[0], {"scale": (0.1, 0.1), "units": ("um", "um")}
    cases = [
        (flat, {"modality": "confocal_3d", "optics": other, **um}, "is a 2-D image, a single plane"),
        (flat, {**um}, "needs an optics file"),
        (flat, {"optics": tmp_path / "gone.yaml", **um}, "does not exist"),
        (flat, {"optics": other, **um}, "is for modality confocal_3d, but shg is picked"),
        (flat, {"optics": optics}, "has no voxel size"),
        (flat, {"optics": optics, **um}, "1 frames, but optics.yaml states 2"),
        (np.ones((2, 2, 8, 8), np.float32), {"optics": optics, "scale": (1, 1, 0.1, 0.1)}, "slice the layer first"),
        (np.full_like(measured.y, np.nan), {"optics": optics, "scale": (1, *PIXEL_UM)}, "NaN or infinite"),
        (measured.y, {"optics": optics, "scale": (1, 1, 1), "units": ("s",) * 3}, "expected a length"),
    ]
    for number, (image, told, message) in enumerate(cases):
        widget = choose(window, image, f"bad {number}", **told)
        before = len(window[1].layers)
        press(window, widget.reconstruct)
        assert widget.text.value.startswith("error: ") and message in widget.text.value
        assert "\n" not in widget.text.value and len(window[1].layers) == before and widget.calibrate.enabled


def test_a_challenge_layer_knows_its_instrument(window, tmp_path, measured, optics):
    geometry = optics_file.read(optics).bind(SHAPE, PIXEL_UM)
    sample = Sample(measured.y, measured.detector, measured.x, TRUTH, "collagen")
    write_measurement(tmp_path / "c.h5", shg, geometry=geometry, samples={"sample_00": sample})
    (y, told, _), (x, truth, _) = reader(str(tmp_path / "c.h5"))(None)
    np.testing.assert_array_equal(y, measured.y)
    np.testing.assert_array_equal(x, measured.x)
    assert told["scale"] == [1.0, *PIXEL_UM] and truth["metadata"][KEY]["true_spec"] == pytest.approx(TRUTH)
    _, viewer, widget = window
    widget.modality.value = "confocal_3d"
    widget.layer.value = viewer.add_image(y, **told)
    assert widget.modality.value == "shg"
    counts = job.Counts("c", y, PIXEL_UM, known=told["metadata"][KEY])
    made = job.prepare(counts, "shg", None)
    assert (
        made.geometry.na == geometry.na
        and made.detector == measured.detector
        and made.ranges == told["metadata"][KEY]["ranges"]
    )
    for wrong, message in ((("confocal_3d", None), "pick shg"), (("shg", optics), "clear the optics file")):
        with pytest.raises(ValueError, match=message):
            job.prepare(counts, *wrong)


def test_the_template_is_filled_from_the_image(tmp_path):
    write_image(tmp_path / "a.ome.tif", np.ones((4, 8, 8), np.float32), (0.3, 0.09, 0.09))
    said = job.write_optics(tmp_path / "o.yaml", "confocal_3d", tmp_path / "a.ome.tif")
    assert "voxel_um: [0.3, 0.09, 0.09] (file:" in said
    assert optics_file.read(tmp_path / "o.yaml").voxel_um == (0.3, 0.09, 0.09)


def test_layers_keep_what_they_are_told():
    _, told, kind = layer(np.zeros((2, 4, 4)), "a", (0.1, None), known={"a": 1}, visible=False)
    assert told["scale"] == [1.0, 0.1, 1.0] and told["units"] == ["pixel", "um", "pixel"] and kind == "image"
    assert voxel_um(told["scale"], told["units"], name="a") is None and told["metadata"] == {KEY: {"a": 1}}
