"""The doors: every file format is read back as it was written, and every real stack with its published voxel size."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import diffphys
from diffphys.io import atomic, hdf5, optics_file, optics_template, results, tiff
from diffphys.io.output_folder import OutputFolder
from diffphys.io.provenance import run_record, sha256
from diffphys.types import Calibration, Status, resolve

DATA = Path(__file__).parents[2] / "shared" / "data"
MODALITIES = ("confocal_3d", "shg")


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).poisson(50, (5, 12, 14)).astype(np.uint16)


# --- real files -------------------------------------------------------------------------------------------------------

REAL = [  # file, options, shape, voxel size (data/README.md), part of a warning
    ("confocal/beads_41x150x150.tif", {}, (41, 150, 150), (0.125, 0.02249, 0.02249), None),
    ("confocal/grid_1au_21x150x150.tif", {}, (21, 150, 150), (0.125, 0.02196, 0.02196), None),
    (
        "confocal/nucleus_confocal_widefield_45x2x130x133.tif",
        {"channel": 0},
        (45, 130, 133),
        (0.49941, 0.51188, 0.51188),
        None,
    ),
    (
        "confocal/nucleus_confocal_widefield_45x2x130x133.tif",
        {"channel": "1"},
        (45, 130, 133),
        (0.49941, 0.51188, 0.51188),
        None,
    ),
    ("confocal/bars_actual_32x64x64.tif", {"voxel_um": (0.2, 0.1, 0.1)}, (32, 64, 64), (0.2, 0.1, 0.1), "taken as z"),
    ("confocal/bars_data_32x64x64.tif", {"voxel_um": (0.2, 0.1, 0.1)}, (32, 64, 64), (0.2, 0.1, 0.1), "taken as z"),
    ("confocal/bars_kernel_32x64x64.tif", {"voxel_um": (0.2, 0.1, 0.1)}, (32, 64, 64), (0.2, 0.1, 0.1), "taken as z"),
    (
        "psf/widefield_520nm_na0.85_25x256x256.tif",
        {"voxel_um": (0.3, 0.13, 0.13)},
        (25, 256, 256),
        (0.3, 0.13, 0.13),
        "contradicts the header",
    ),
    ("shg/collagen_512x512.tif", {"voxel_um": (0.2, 0.2)}, (1, 512, 512), (0.2, 0.2), "371 voxels"),
    ("shg/collagen_frames_200x200x3.tif", {"voxel_um": (0.2, 0.2), "axes": "yxf"}, (3, 200, 200), (0.2, 0.2), None),
    ("shg/fibre_stack_30x256x256.tif", {"voxel_um": (0.2, 0.2), "axes": "fyx"}, (30, 256, 256), (0.2, 0.2), None),
]


@pytest.mark.parametrize(("name", "given", "shape", "voxel_um", "warning"), REAL)
def test_real_stacks_are_read_with_their_published_voxel_size(name, given, shape, voxel_um, warning):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    got = tiff.read_stack(path, modality="shg" if name.startswith("shg") else "confocal_3d", **given)
    assert got.data.shape == shape and got.data.dtype == np.float32
    np.testing.assert_allclose(got.voxel_um, voxel_um, rtol=5e-4)  # the README rounds to 4-5 digits
    raw = tifffile.imread(path)
    assert got.data.max() <= raw.max() and got.data.min() >= raw.min()
    assert (warning is None and not got.warnings) or any(warning in line for line in got.warnings)


def test_real_channels_and_frames_are_the_right_ones():
    nucleus = DATA / "confocal" / "nucleus_confocal_widefield_45x2x130x133.tif"
    frames = DATA / "shg" / "collagen_frames_200x200x3.tif"
    if not (nucleus.exists() and frames.exists()):
        pytest.skip("real stacks are absent")
    widefield = tiff.read_stack(nucleus, modality="confocal_3d", channel=1)
    np.testing.assert_array_equal(widefield.data, tifffile.imread(nucleus)[:, 1])
    np.testing.assert_array_equal(
        tiff.read_stack(frames, modality="shg", axes="yxf", voxel_um=(1, 1)).data, tifffile.imread(frames).transpose(2, 0, 1)
    )


def test_the_widefield_psf_header_is_read_as_a_box_between_voxel_centres():
    path = DATA / "psf" / "widefield_520nm_na0.85_25x256x256.tif"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    got = tiff.read_stack(path, modality="confocal_3d")
    np.testing.assert_allclose(got.voxel_um, (0.3, 0.054, 0.054), rtol=5e-3)


# --- TIFF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_um", [(0.2, 0.08, 0.09), (0.08, 0.09)])
def test_written_images_come_back_bit_for_bit_with_their_voxel_size(tmp_path, voxel_um):
    shape = (4, 6, 7) if len(voxel_um) == 3 else (6, 7)
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32) + 9
    path = tmp_path / "x.ome.tif"
    tiff.write_image(path, image, voxel_um, description="a <b> & c")
    got = tiff.read_stack(path, modality="confocal_3d" if len(voxel_um) == 3 else "shg")
    np.testing.assert_array_equal(got.data.reshape(shape), image)
    assert got.voxel_um == voxel_um and got.metadata["kind"] == "OME-TIFF" and not got.warnings
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == ("ZYX" if len(voxel_um) == 3 else "YX")


def test_a_set_of_frames_is_written_as_frames(tmp_path):
    frames = np.random.default_rng(1).normal(9, 1, (2, 6, 7)).astype(np.float32)
    tiff.write_image(tmp_path / "x.ome.tif", frames, (0.1, 0.1))
    got = tiff.read_stack(tmp_path / "x.ome.tif", modality="shg", axes="fyx")
    np.testing.assert_array_equal(got.data, frames)


@pytest.mark.parametrize(("unit", "scale"), [("um", 1.0), ("micron", 1.0), ("nm", 1e3), ("mm", 1e-3), ("\\u00B5m", 1.0)])
def test_imagej_units(tmp_path, stack, unit, scale):
    path = tmp_path / "x.tif"
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 0.3 * scale}
    tifffile.imwrite(path, stack, imagej=True, resolution=(1 / (0.1 * scale), 1 / (0.2 * scale)), metadata=metadata)
    got = tiff.read_stack(path, modality="confocal_3d")
    np.testing.assert_allclose(got.voxel_um, (0.3, 0.2, 0.1), rtol=1e-5)
    np.testing.assert_array_equal(got.data, stack)


def test_ome_units_and_channel_names(tmp_path, stack):
    path = tmp_path / "x.ome.tif"
    metadata = {"axes": "CZYX", "Channel": {"Name": ["actin", "DNA"]}, "PhysicalSizeX": 90, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": 0.08, "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2e-4, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(path, np.stack([stack, 2 * stack]), ome=True, photometric="minisblack", metadata=metadata)
    got = tiff.read_stack(path, modality="confocal_3d", channel="DNA")
    np.testing.assert_array_equal(got.data, 2 * stack)
    np.testing.assert_allclose(got.voxel_um, (0.2, 0.08, 0.09), rtol=1e-6)
    assert got.channels == ("actin", "DNA")
    with pytest.raises(ValueError, match=r"2 channels: 0 \(actin\), 1 \(DNA\); pick one with --channel"):
        tiff.read_stack(path, modality="confocal_3d")


def test_resolution_tags_give_the_lateral_size_and_printing_resolutions_do_not(tmp_path, stack):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, stack[0], resolution=(1e5, 1e5), resolutionunit="CENTIMETER", metadata=None)
    assert tiff.read_stack(path, modality="shg").voxel_um == pytest.approx((0.1, 0.1))
    tifffile.imwrite(path, stack[0], resolution=(72, 72), resolutionunit="INCH", metadata=None)
    with pytest.raises(ValueError, match="does not state the voxel size"):
        tiff.read_stack(path, modality="shg")


def test_axes_can_be_named_and_are_transposed(tmp_path, stack):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, stack.transpose(1, 2, 0), photometric="minisblack")
    got = tiff.read_stack(path, modality="confocal_3d", axes="yxz", voxel_um=(0.2, 0.1, 0.1))
    np.testing.assert_array_equal(got.data, stack)


def test_stated_offset_allows_the_negative_values_it_explains(tmp_path, stack):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, stack.astype(np.float32) - 60, photometric="minisblack")
    options = {"modality": "confocal_3d", "axes": "zyx", "voxel_um": (0.2, 0.1, 0.1)}
    low = tiff.read_stack(path, detector=diffphys.Detector(offset=-60.0, gain=math.nan), **options).data.min()
    assert low < 0
    for offset in (math.nan, 0.0):
        with pytest.raises(ValueError, match="negative values"):
            tiff.read_stack(path, detector=diffphys.Detector(offset=offset, gain=math.nan), **options)


# --- optics file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
def test_templates_parse_and_state_every_field_of_the_geometry(modality):
    text = optics_template.template(modality)
    optics = optics_file.parse(text, name="t", modality=modality)
    pitch = (0.2, 0.08, 0.08) if modality == "confocal_3d" else (0.1, 0.1)
    shape = (32, 64, 64) if modality == "confocal_3d" else (128, 128)
    assert optics.bind(shape, pitch) == resolve(modality).Geometry()
    assert all(math.isnan(getattr(optics.detector, n)) for n in ("gain", "offset", "background", "read_sigma", "peak_photons"))
    for field in resolve(modality).Geometry.__dataclass_fields__:
        assert field == "shape" or f"{field}:" in text
    for field in resolve(modality).FIELDS:
        assert f"{field.name}: [" in text


@pytest.mark.parametrize("modality", MODALITIES)
def test_dumped_optics_parse_to_the_same(modality):
    text = optics_template.template(modality).replace("gain: auto ", "gain: 2.5 ").replace("read_sigma: auto", "read_sigma: 1")
    first = resolve(modality).FIELDS[0].name
    optics = optics_file.parse(text + f"  {first}: [0.5, 1.5]\n", name="t")
    assert optics.detector.gain == 2.5 and optics.ranges == {first: (0.5, 1.5)}
    again = optics_file.parse(optics_file.dump(optics), name="t")
    assert again.as_dict() == optics.as_dict()


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_power_trace_comes_from_a_file_beside_the_optics_file(tmp_path, suffix):
    trace = np.random.default_rng(0).normal(size=(16, 2))
    name = tmp_path / f"trace{suffix}"
    np.save(name, trace) if suffix == ".npy" else np.savetxt(name, trace, delimiter=",")
    path = tmp_path / "optics.yaml"
    path.write_text(optics_template.SHG.replace("power_trace: reference", f"power_trace: trace{suffix}"))
    geometry = optics_file.read(path).bind((16, 20), (0.1, 0.1))
    want = (trace - trace.mean(0)) / trace.std(0)
    np.testing.assert_allclose(diffphys.shg.power_trace(geometry), want.T, atol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(16, 2\); expected one column per frame and one line per image row"):
        optics_file.read(path).bind((17, 20), (0.1, 0.1))


# --- HDF5 -------------------------------------------------------------------------------------------------------------


def _sample(modality: str, seed: int = 0, truth: bool = True) -> tuple[object, hdf5.Sample]:
    known = resolve(modality)
    geometry = known.Geometry(shape=(4, 8, 9) if modality == "confocal_3d" else (8, 9))
    rng = np.random.default_rng(seed)
    y_shape, x_shape = hdf5.frame_shapes(known, geometry)
    spec = {f.name: float(getattr(known.nominal(geometry), f.name)) for f in known.FIELDS}
    y = rng.poisson(90, y_shape).astype(np.float32)
    extra = {"x_true": rng.random(x_shape).astype(np.float32), "true_spec": spec, "family": "beads"} if truth else {}
    return geometry, hdf5.Sample(y, diffphys.Detector(500.0, 10.0, 2.0, 100.0, 1.0), **extra)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("truth", [True, False])
def test_measurements_come_back_from_hdf5(tmp_path, modality, truth):
    path = tmp_path / "m.h5"
    geometry, first = _sample(modality, 0, truth)
    _, second = _sample(modality, 1, truth)
    name, nominal = resolve(modality).FIELDS[0].name, 0.25
    hdf5.write_measurement(
        path, modality, geometry=geometry, samples={"sample_00": first, "sample_01": second}, ranges={name: (0.0, nominal)}
    )
    got = hdf5.read_measurement(path)
    assert got.names == ("sample_00", "sample_01") and got.modality == modality and got.ranges[name] == (0.0, nominal)
    assert replace(got.geometry, **_no_trace(got.geometry)) == replace(geometry, **_no_trace(geometry))
    for sample, wrote in zip(got.samples.values(), (first, second), strict=True):
        np.testing.assert_array_equal(sample.y, wrote.y)
        assert sample.detector == wrote.detector and sample.true_spec == wrote.true_spec and sample.family == wrote.family
        assert (sample.x_true is None) == (not truth)
    assert list(hdf5.read_measurement(path, sample="sample_01").samples) == ["sample_01"]
    with pytest.raises(ValueError, match=r"sample is 'sample_07'; m\.h5 has sample_00, sample_01"):
        hdf5.read_measurement(path, sample="sample_07")


def _no_trace(geometry: object) -> dict[str, None]:
    return {"power_trace": None} if hasattr(geometry, "power_trace") else {}


def test_the_power_trace_and_a_missing_wavelength_survive_hdf5(tmp_path):
    shg, sample = _sample("shg")
    hdf5.write_measurement(tmp_path / "s.h5", "shg", geometry=shg, samples={"sample_00": sample})
    got = hdf5.read_measurement(tmp_path / "s.h5").geometry
    np.testing.assert_array_equal(diffphys.shg.power_trace(got), diffphys.shg.power_trace(shg))
    confocal, sample = _sample("confocal_3d")
    confocal = replace(confocal, excitation_nm=None)
    hdf5.write_measurement(tmp_path / "c.h5", "confocal_3d", geometry=confocal, samples={"sample_00": sample})
    assert hdf5.read_measurement(tmp_path / "c.h5").geometry == confocal


def test_text_is_of_fixed_length_and_numbers_are_float64(tmp_path):
    geometry, sample = _sample("confocal_3d")
    hdf5.write_measurement(tmp_path / "m.h5", "confocal_3d", geometry=geometry, samples={"sample_00": sample})

    def check(item: h5py.HLObject) -> None:
        for name in item.attrs:
            kind = item.attrs.get_id(name).dtype
            assert kind.kind == "S" or kind == np.float64, (item.name, name, kind)

    with h5py.File(tmp_path / "m.h5") as file:
        check(file)
        file.visititems(lambda _, item: check(item))
        assert file["sample_00/y"].fletcher32


def _external_link(file: h5py.File) -> None:
    del file["sample_00"]
    file["sample_00"] = h5py.ExternalLink("other.h5", "/sample_00")


def _soft_link(file: h5py.File) -> None:
    del file["sample_00/y"]
    file["sample_00/y"] = h5py.SoftLink("/sample_00/x_true")


def _swap(name: str, **options: object):
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 8, 9), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "y", (4, 8, 9))
    del file["sample_00/y"]
    file.create_virtual_dataset("sample_00/y", layout)


def _attribute(where: str, name: str, value: object):
    def change(file: h5py.File) -> None:
        file[where].attrs[name] = value

    return change


HOSTILE = {
    "external link": (_external_link, "soft or external link"),
    "soft link": (_soft_link, "soft or external link"),
    "virtual": (_virtual, "outside the file or virtual"),
    "external storage": (
        _swap("sample_00/y", shape=(4, 8, 9), dtype="<f4", external=[("raw.bin", 0, 4 * 288)]),
        "outside the file or virtual",
    ),
    "unknown member": (lambda f: f.create_group("extra"), "unknown member 'extra'"),
    "unknown in sample": (lambda f: f["sample_00"].create_group("x_hat"), "unknown member 'x_hat'"),
    "unknown attribute": (_attribute("geometry", "colour", 1.0), "unknown attributes"),
    "missing": (lambda f: f.__delitem__("geometry"), "lacks 'geometry'"),
    "shape": (_swap("sample_00/y", data=np.ones((8, 4, 9), "<f4")), r"shape \(8, 4, 9\); expected \(4, 8, 9\)"),
    "dtype": (_swap("sample_00/y", data=np.ones((4, 8, 9))), "type float64"),
    "nan": (_swap("sample_00/y", data=np.full((4, 8, 9), np.nan, "<f4")), "NaN or infinite"),
    "nothing stored": (_swap("sample_00/y", shape=(4, 8, 9), dtype="<f4", chunks=(4, 8, 9)), "stores 0 bytes"),
    "huge": (
        lambda f: (
            _attribute("geometry", "shape", [5e5, 5e5, 5e5])(f),
            _swap("sample_00/y", shape=(500000,) * 3, dtype="<f4")(f),
        ),
        "declares",
    ),
    "chunk": (
        _swap("sample_00/y", shape=(4, 8, 9), maxshape=(None, 8, 9), chunks=(400, 8, 9), dtype="<f4"),
        "chunks .* larger",
    ),
    "filter": (_swap("sample_00/y", data=np.ones((4, 8, 9), "<f4"), compression="lzf"), "uses filters"),
    "text": (lambda f: f.attrs.__setitem__("tier", "public"), "not fixed-length text"),
    "infinite": (_attribute("sample_00", "gain", np.inf), "not finite"),
    "version": (_attribute("/", "version", np.bytes_("9")), "version '9'; expected"),
    "modality": (_attribute("/", "modality", np.bytes_("widefield")), "modality is 'widefield'"),
    "range": (_attribute("spec_ranges/z_step", "max", 7.0), "do not match their sha256"),
    "unit": (_attribute("spec_ranges/z_step", "unit", np.bytes_("um")), "unit 'um'; expected 'nm'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_foreign_hdf5_is_refused_with_one_line(tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    geometry, sample = _sample("confocal_3d")
    path = tmp_path / "m.h5"
    for name in (path, tmp_path / "other.h5"):
        hdf5.write_measurement(name, "confocal_3d", geometry=geometry, samples={"sample_00": sample})
    change, message = HOSTILE[case]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        hdf5.read_measurement(path)
    assert "\n" not in str(caught.value)


def test_damaged_hdf5_is_refused(tmp_path):
    geometry, sample = _sample("confocal_3d")
    path = tmp_path / "m.h5"
    hdf5.write_measurement(path, "confocal_3d", geometry=geometry, samples={"sample_00": sample})
    whole = path.read_bytes()
    for name, content in {"cut.h5": whole[: len(whole) // 2], "text.h5": b"no HDF5 at all"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            hdf5.read_measurement(tmp_path / name)
    at = whole.index(sample.y.tobytes()[:64])
    path.write_bytes(whole[: at + 5] + bytes([whole[at + 5] ^ 255]) + whole[at + 6 :])  # fletcher32 notices
    with pytest.raises(ValueError, match="damaged"):
        hdf5.read_measurement(path)
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(ValueError, match="not a regular file"):
        hdf5.read_measurement(tmp_path / "pipe.h5")


# --- results ----------------------------------------------------------------------------------------------------------


def _calibration() -> Calibration:
    spec = diffphys.confocal.nominal()
    return Calibration(
        spec=replace(spec, z_step=np.float32(42.5)),
        names=("z_step", "spherical_aberr", "refractive_index"),
        covariance=np.diag([4.0, 1e-4, 1e-6]),
        ranges=diffphys.confocal.default_ranges(),
        derived={"c_tot": (0.01, 0.002)},
        status=Status.MISFIT,
        undetermined={"refractive_index": "too shallow"},
        detector=diffphys.Detector(gain=math.nan),
        warnings=("careful",),
        diagnostics={"nll": np.float32(3.5), "bad": math.inf, "curve": np.arange(3), "sign": {"margin": (1, 2)}},
    )


def test_calibration_json_is_complete_and_gives_the_spec_back(tmp_path):
    path, calibration = tmp_path / "calibration.json", _calibration()
    results.write_calibration(path, calibration, "confocal_3d")
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert content["status"] == "MISFIT" and content["remedy"] == calibration.remedy
    assert content["parameters"]["z_step"] == {"value": 42.5, "sigma": 2.0, "unit": "nm", "range": [-60.0, 115.0]}
    assert content["derived"]["c_tot"] == {"value": 0.01, "sigma": 0.002}
    np.testing.assert_array_equal(content["covariance"], calibration.covariance)
    np.testing.assert_array_equal(content["correlation"], np.eye(3))
    assert content["undetermined"] == {"refractive_index": "too shallow"} and content["warnings"] == ["careful"]
    assert content["detector"]["gain"] is None and content["diagnostics"]["bad"] is None
    assert content["diagnostics"]["curve"] == [0, 1, 2] and content["diagnostics"]["sign"] == {"margin": [1, 2]}
    assert results.read_spec(path, "confocal_3d") == calibration.spec
    with pytest.raises(ValueError, match="of modality confocal_3d; expected"):
        results.read_spec(path, "shg")


def test_spec_text_keeps_nominal_values_and_names_mistakes():
    geometry = diffphys.confocal.Geometry()
    spec = results.parse_spec("z_step=50, refractive_index = 1.52", "confocal_3d", geometry)
    assert [float(v) for v in (spec.z_step, spec.spherical_aberr)] == [50.0, 0.0]
    assert float(spec.refractive_index) == pytest.approx(1.52)
    for text, message in {"z_stop=1": "did you mean 'z_step'", "z_step=x": "name=number", "z_step=nan": "finite"}.items():
        with pytest.raises(ValueError, match=message):
            results.parse_spec(text, "confocal_3d", geometry)


def test_run_record_names_input_versions_and_device(tmp_path):
    from datetime import UTC, datetime

    path = tmp_path / "in.tif"
    path.write_bytes(b"abc")
    record = run_record(
        command=["diffphys", "x"], inputs={"stack": path, "psf": None}, optics={"na": 1.4}, options={"seed": 3, "o": path},
        started=datetime.now(UTC), seconds={"read": 0.5},
    )  # fmt: skip
    results.write_json(tmp_path / "run.json", record)
    got = json.loads((tmp_path / "run.json").read_text())
    assert got["inputs"] == {"stack": {"path": str(path), "sha256": sha256(path)}}
    assert sha256(path).startswith("ba7816bf")  # of "abc", FIPS 180
    assert got["options"] == {"seed": 3, "o": str(path)} and got["versions"]["diffphys"] == diffphys.__version__
    assert got["device"]["platform"] in ("cpu", "gpu", "tpu", "cuda") and got["peak_memory_bytes"]["process"] > 1e6


# --- writing without loss ---------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    atomic.write_text(path, "old")

    def fail() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_output_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a" / "out"

    def interrupted() -> None:
        with OutputFolder(target) as out:
            out.path("calibration.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with OutputFolder(target) as out:
        for name in ("run.json", "calibration.json", "figure.png"):
            out.path(name).write_text("1")
        out.publish()
    assert sorted(p.name for p in target.iterdir()) == ["calibration.json", "figure.png", "run.json"]
    with (
        pytest.raises(ValueError, match=r"already holds calibration.json; choose another, or add --overwrite"),
        OutputFolder(target),
    ):
        pass
    with OutputFolder(target, overwrite=True) as out:
        out.path("run.json").write_text("2")
        out.publish()
    assert [p.name for p in target.iterdir()] == ["run.json"]  # results of the earlier run do not linger
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_output_folder_keeps_the_users_own_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with OutputFolder(tmp_path) as out:
        out.path("run.json").write_text("1")
        out.publish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "run.json"]
