"""The instrument as a file's own metadata state it: filled in where stated, told where not, refused where contradictory."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from diffphys.cli import main
from diffphys.cli.load import load
from diffphys.io import ome_optics, optics_file, optics_filled, tiff, vendor

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
OBJECTIVE = '<Objective ID="Objective:0" LensNA="1.3" Immersion="Glycerol" NominalMagnification="63"/>'
PIXELS = 'PhysicalSizeX="80" PhysicalSizeXUnit="nm" PhysicalSizeY="800" PhysicalSizeYUnit="Å" PhysicalSizeZ="0.25"'
LIGHT = 'ExcitationWavelength="488" EmissionWavelength="0.52" EmissionWavelengthUnit="µm"'
COUNTS = (np.random.default_rng(0).poisson(40, (4, 12, 16)) + 1).astype(np.uint16)


def xml(objective=OBJECTIVE, settings='<ObjectiveSettings ID="Objective:0"/>', pixels=PIXELS, channels=(LIGHT,), inside=""):
    """OME-XML written by hand, as a microscope's software would."""
    lines = "".join(f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1" {c}>{inside}</Channel>' for i, c in enumerate(channels))
    size = f'SizeX="16" SizeY="12" SizeZ="4" SizeC="{len(channels)}" SizeT="1" DimensionOrder="XYZCT" Type="uint16"'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}"><Instrument ID="Instrument:0">'
        f'<Detector ID="Detector:0" Gain="700" Offset="2"/>{objective}</Instrument><Image ID="Image:0">{settings}'
        f'<Pixels ID="Pixels:0" {size} {pixels}>{lines}<TiffData/></Pixels></Image></OME>'
    )


def written(path, text, channels=1):
    """A TIFF whose header is that text."""
    data = np.concatenate([COUNTS] * channels)
    tifffile.imwrite(path, data, photometric="minisblack", description=text.encode(), metadata=None)
    return path


def filled(text, *, modality="confocal_3d", channel=None):
    return optics_filled.fill(modality, ome_optics.find(text, name="a.ome.tif", channel=channel))


def values(text, **options):
    """The stated values by key; what the file does not state is absent."""
    return {key: value for key, value, _ in filled(text, **options).rows if value}


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_from_the_file_to_the_job(tmp_path, capsys):
    """The whole way: header, table, optics file, checked job of `reconstruct --optics`."""
    pinhole = 'PinholeSize="30.74" AcquisitionMode="LaserScanningConfocalMicroscopy"'
    inside = '<DetectorSettings ID="Detector:0"/>'
    path = written(tmp_path / "a.ome.tif", xml(channels=(f"{LIGHT} {pinhole}",), inside=inside))
    code, table, err = run(capsys, "optics", "--init", "confocal_3d", "--from", path, "-o", tmp_path / "o.yaml")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert re.search(r"na +1\.3 +file: Instrument\[0\]/Objective\[0\]/@LensNA$", rows["na"])
    assert re.search(r"voxel_um +\[0\.25, 0\.08, 0\.08\] +file: ", rows["voxel_um"])
    assert re.search(r"immersion_index +1\.47 +assumed from .*@Immersion: Glycerol is taken as 1\.47", rows["immersion_index"])
    assert re.search(r"depth_um +not stated: please fill in$", rows["depth_um"])
    assert "assumed from" in rows["pinhole_au"] and "no relay" in rows["pinhole_au"]

    text = (tmp_path / "o.yaml").read_text()
    assert "emission_nm: 520  # from the file: Image[0]/Pixels/Channel[0]/@EmissionWavelength" in text
    assert re.search(r"depth_um: 10 .*The file does not say: fill in\.", text)
    assert re.search(r"gain: auto .*The file says Gain 700, on the detector's own scale\.", text)
    stated = optics_file.read(tmp_path / "o.yaml", modality="confocal_3d")
    expected = {"na": 1.3, "immersion_index": 1.47, "excitation_nm": 488, "emission_nm": 520, "voxel_um": [0.25, 0.08, 0.08]}
    assert {key: stated.geometry[key] for key in expected} == expected
    # Airy disc in the image plane: 1.22 lambda M / NA = 1.22 * 0.52 um * 63 / 1.3 = 30.74 um
    assert stated.geometry["pinhole_au"] == pytest.approx(1.0, abs=2e-3)

    job = load(path, modality=None, optics=tmp_path / "o.yaml", channel=None, voxel_um=None, axes=None, sample=None)
    np.testing.assert_array_equal(job.y, COUNTS)
    assert (job.geometry.na, job.geometry.emission_nm, job.voxel_um) == (1.3, 520, (0.25, 0.08, 0.08))


def test_header_written_by_tifffile_and_the_channel_is_the_users_choice(tmp_path, capsys):
    path, channel = tmp_path / "two.ome.tif", {"Name": ["actin", "DNA"]}
    channel |= {"ExcitationWavelength": [488, 405], "EmissionWavelength": [5200, 4600], "EmissionWavelengthUnit": ["Å", "Å"]}
    metadata = {"axes": "CZYX", "Channel": channel, "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    tifffile.imwrite(path, np.stack([COUNTS, COUNTS]), ome=True, photometric="minisblack", metadata=metadata)
    code, _, err = run(capsys, "optics", "--init", "confocal_3d", "--from", path)
    assert code == 2 and "2 channels: 0 (actin), 1 (DNA); pick one with --channel" in err
    for wanted in ("1", "DNA"):
        code, text, table = run(capsys, "optics", "--init", "confocal_3d", "--from", path, "--channel", wanted)
        geometry = optics_file.parse(text, name="o").geometry
        assert code == 0 and (geometry["excitation_nm"], geometry["emission_nm"]) == (405, 460)
        assert re.search(r"voxel_um +not stated \(the file says Y 0\.1, X 0\.1 um only\)", table)
        assert "voxel_um" not in geometry  # z is not stated: not half guessed
    assert run(capsys, "optics", "--init", "confocal_3d", "--from", path, "--channel", "RFP")[0] == 2


@pytest.mark.parametrize(
    ("size", "unit", "um"),
    [("250", "nm", 0.25), ("0.25", "µm", 0.25), ("0.25", "μm", 0.25), ("2500", "Å", 0.25), ("2.5e-4", "mm", 0.25)],
)
def test_length_units(size, unit, um):
    pixels = "".join(f'PhysicalSize{a}="{size}" PhysicalSize{a}Unit="{unit}" ' for a in "XYZ")
    found = ome_optics.find(xml(pixels=pixels), name="a")
    assert found.values["voxel_um"].number == pytest.approx((um, um, um), rel=1e-12)


def test_what_is_not_stated_is_not_filled_in():
    assert values(xml(objective="", settings="", pixels="", channels=("",))) == {}
    assert optics_file.parse(filled(xml(objective="", settings="", pixels="")).text, name="o").geometry["na"] == 1.4
    without = OBJECTIVE.replace('NominalMagnification="63"', "")
    result = filled(xml(objective=without, channels=(f'{LIGHT} PinholeSize="30"',)))
    row = {key: (value, origin) for key, value, origin in result.rows}["pinhole_au"]
    assert row == ("", "not stated (the file says a diameter of 30 um, but Airy units need magnification too): please fill in")
    assert values(xml(objective=OBJECTIVE.replace("Glycerol", "Multi")))["na"] == "1.3"
    assert "immersion_index" not in values(xml(objective=OBJECTIVE.replace("Glycerol", "Other")))


def test_the_stated_index_goes_before_the_named_medium():
    settings = '<ObjectiveSettings ID="Objective:0" RefractiveIndex="1.4595"/>'
    result = filled(xml(settings=settings))
    row = {key: (value, origin) for key, value, origin in result.rows}["immersion_index"]
    assert row == ("1.4595", "file: Image[0]/ObjectiveSettings/@RefractiveIndex")


TWO = OBJECTIVE + OBJECTIVE.replace("Objective:0", "Objective:1").replace("1.3", "0.8")
CONTRADICTIONS = {
    "two objectives": ({"objective": TWO, "settings": ""}, "2 objectives and does not say which", {"na", "immersion_index"}),
    "no such objective": ({"settings": '<ObjectiveSettings ID="Objective:7"/>'}, "0 times", {"na", "immersion_index"}),
    "na above index": (
        {"objective": OBJECTIVE.replace("Glycerol", "Air")},
        "not below the immersion",
        {"na", "immersion_index"},
    ),
    "two media": ({"settings": '<ObjectiveSettings ID="Objective:0" Medium="Oil"/>'}, "two media", {"immersion_index"}),
    "index against medium": (
        {"settings": '<ObjectiveSettings ID="Objective:0" RefractiveIndex="1.333"/>'},
        "contradicts",
        {"immersion_index"},
    ),
    "na": ({"objective": OBJECTIVE.replace("1.3", "13")}, "LensNA is 13", {"na"}),
    "not a number": ({"objective": OBJECTIVE.replace("1.3", "nan")}, "LensNA is 'nan'", {"na"}),
    "wavelength": (
        {"channels": ('ExcitationWavelength="488" EmissionWavelength="52"',)},
        "EmissionWavelength is 52 nm",
        {"emission_nm"},
    ),
    "unit": ({"channels": (LIGHT.replace("µm", "pixel"),)}, "has unit 'pixel'", {"emission_nm"}),
    "two-photon": (
        {"channels": ('ExcitationWavelength="920" EmissionWavelength="520"',)},
        "920 nm is not below",
        {"excitation_nm", "emission_nm"},
    ),
    "wide field": ({"channels": (f'{LIGHT} AcquisitionMode="WideField"',)}, "AcquisitionMode is WideField", {"excitation_nm"}),
    "voxel": ({"pixels": PIXELS.replace('"80"', '"-80"')}, "PhysicalSizeX is -0.08 um", {"voxel_um"}),
    "pinhole": ({"channels": (f'{LIGHT} PinholeSize="9000"',)}, "Airy units; expected", {"pinhole_au"}),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_told_in_one_line_and_left_out(case):
    changed, problem, absent = CONTRADICTIONS[case]
    base = {"voxel_um", "na", "immersion_index", "excitation_nm", "emission_nm"}
    result = filled(xml(**changed))
    assert {key for key, value, _ in result.rows if value} == base - absent
    assert len(result.problems) == 1 and problem in result.problems[0] and "\n" not in result.problems[0]
    optics_file.parse(result.text, name="o")  # what is left out leaves a file that still loads
    told = {key: origin for key, _, origin in result.rows}
    assert all(told[key].startswith("left out: ") for key in absent)


def test_settings_choose_among_several_objectives():
    got = values(xml(objective=TWO, settings='<ObjectiveSettings ID="Objective:1"/>'))
    assert (got["na"], got["immersion_index"]) == ("0.8", "1.47")


def test_shg_takes_pixels_and_laser_only():
    text = xml(channels=('ExcitationWavelength="920"',))
    assert values(text, modality="shg") == {"pixel_um": "[0.08, 0.08]", "excitation_nm": "920"}
    result = filled(text, modality="shg")
    assert optics_file.parse(result.text, name="o").geometry["excitation_nm"] == 920
    assert "it does not say that this one collects" in result.text and result.problems == ()


BOMB = '<!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


def test_hostile_headers_are_refused_before_any_parser_sees_them(tmp_path, capsys, monkeypatch):
    bomb = written(tmp_path / "a.ome.tif", xml().replace("<OME ", f"{BOMB}<OME "))
    run(capsys, "optics", "--init", "confocal_3d", "-o", tmp_path / "o.yaml")
    stated = ["reconstruct", "-o", tmp_path / "out", "--optics", tmp_path / "o.yaml"]
    for command in (["optics", "--init", "confocal_3d", "--from"], stated):
        code, _, err = run(capsys, *command, bomb)
        assert code == 2 and "declares a document type or entities" in err and err.count("\n") == 1
    with pytest.raises(ValueError, match="declares a document type"):
        tiff.read_stack(bomb, modality="confocal_3d")
    # text in a header cannot put lines of its own into the optics file
    evil = xml(channels=(f"{LIGHT.replace('µm', 'x&#10;  na: 0.1')}",))
    result = filled(evil)
    assert optics_file.parse(result.text, name="o").geometry["na"] == 1.3 and len(result.problems[0].splitlines()) == 1
    with pytest.raises(ValueError, match="is damaged"):
        filled(xml()[:-20])
    monkeypatch.setattr("diffphys.io.ome_xml.MOST_TAGS", 5)
    with pytest.raises(ValueError, match="tags; expected at most 5"):
        filled(xml())
    monkeypatch.setattr("diffphys.io.ome_xml.MOST_CHARACTERS", 100)
    with pytest.raises(ValueError, match="expected at most 100"):
        filled(xml())


def test_the_error_without_optics_tells_how_the_header_helps(tmp_path, capsys):
    ome, plain = written(tmp_path / "my a.ome.tif", xml()), tmp_path / "b.tif"
    tifffile.imwrite(plain, COUNTS, photometric="minisblack")
    for command in ("reconstruct", "calibrate"):
        _, _, err = run(capsys, command, ome, "-o", tmp_path / "out")
        assert f"`diffphys optics --init confocal_3d --from '{ome}' -o optics.yaml`" in err
    assert "--from" not in run(capsys, "reconstruct", plain, "-o", tmp_path / "out")[2]
    code, _, err = run(capsys, "optics", "--init", "confocal_3d", "--from", plain)
    assert code == 2 and "b.tif has no OME-XML; leave out --from" in err
    code, _, err = run(capsys, "optics", "--init", "confocal_3d", "--channel", "0")
    assert code == 2 and "add --from" in err


class _Image:
    """What `vendor` uses of bioio's image; the readers themselves are not installed for the tests."""

    scenes = ("Image:0",)
    dims = SimpleNamespace(order="TCZYX", shape=(1, 2, *COUNTS.shape))
    channel_names = ("actin", "DNA")
    physical_pixel_sizes = SimpleNamespace(Z=0.25, Y=0.08, X=0.08)
    ome_metadata = SimpleNamespace(to_xml=lambda: xml(channels=(f'Name="actin" {LIGHT}', 'Name="DNA"')))

    def __init__(self, path, reader):
        assert reader is _Image

    def set_scene(self, number):
        self.scene = self.scenes[number]

    def get_image_data(self, order):
        assert order == "TCZYX" and self.scene in self.scenes
        return np.stack([COUNTS, 2 * COUNTS])[None]


def _no_ome(image):
    """As the LIF reader answers: it makes no OME-XML."""
    raise NotImplementedError


@pytest.fixture
def reader(monkeypatch):
    module = SimpleNamespace(BioImage=_Image, Reader=_Image)
    for name in ("bioio", "bioio_czi", "bioio_nd2", "bioio_lif"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vendor.util, "find_spec", lambda name: module)
    return monkeypatch


@pytest.mark.parametrize("suffix", [".czi", ".nd2", ".LIF"])
def test_makers_files_through_the_reader(tmp_path, capsys, reader, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    got = tiff.read_stack(path, modality="confocal_3d", channel="DNA")
    np.testing.assert_array_equal(got.data, 2 * COUNTS)
    assert (got.voxel_um, got.channels) == ((0.25, 0.08, 0.08), ("actin", "DNA"))
    code, text, _ = run(capsys, "optics", "--init", "confocal_3d", "--from", path, "--channel", "actin")
    assert code == 0 and optics_file.parse(text, name="o").geometry["emission_nm"] == 520
    reader.setattr(_Image, "ome_metadata", property(_no_ome))
    code, _, err = run(capsys, "optics", "--init", "confocal_3d", "--from", path)
    assert code == 2 and "has no OME-XML" in err
    reader.setattr(_Image, "dims", SimpleNamespace(order="TCZYXS", shape=(1, 2, *COUNTS.shape, 3)))
    with pytest.raises(ValueError, match=r"further axes \(S 3\)"):
        tiff.read_stack(path, modality="confocal_3d", channel=0)
    reader.setattr(_Image, "scenes", ("a", "b/c"))
    reader.setattr(_Image, "dims", SimpleNamespace(order="TCZYX", shape=(1, 2, *COUNTS.shape)))
    for wrong in (None, "c/DNA", 2):
        with pytest.raises(ValueError, match=r"has 2 scenes \(a, b/c\); pick one with --channel SCENE/CHANNEL"):
            tiff.read_stack(path, modality="confocal_3d", channel=wrong)
    for wanted, number in {"a/DNA": 0, "b/c/DNA": 1, "1/1": 1, "0/DNA": 0}.items():
        got = tiff.read_stack(path, modality="confocal_3d", channel=wanted)
        np.testing.assert_array_equal(got.data, 2 * COUNTS)
        assert got.metadata["scene"] == number
    for whole in ("b/c", 1):
        with pytest.raises(ValueError, match="channels"):
            tiff.read_stack(path, modality="confocal_3d", channel=whole)
    code, _, err = run(capsys, "optics", "--init", "confocal_3d", "--from", path)
    assert code == 2 and "has several scenes" in err


def test_a_real_czi(tmp_path, capsys):
    """Written by the maker's own library: counts, voxel size and channels come back; its bare metadata are one line."""
    czi = pytest.importorskip("pylibCZIrw.czi", reason="no CZI reader: pip install 'diffphys[czi]'")
    path, counts = tmp_path / "a.czi", np.arange(2 * 6 * 9 * 10, dtype=np.uint16).reshape(2, 6, 9, 10)
    with czi.create_czi(str(path)) as file:
        for c, z in np.ndindex(2, 6):
            file.write(counts[c, z][..., None], plane={"C": c, "Z": z, "T": 0})
        file.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=8e-8, scale_y=8e-8, scale_z=2e-7)
    got = tiff.read_stack(path, modality="confocal_3d", channel="GFP")
    np.testing.assert_array_equal(got.data, counts[1])
    assert got.voxel_um == pytest.approx((0.2, 0.08, 0.08)) and got.channels == ("DAPI", "GFP")
    code, _, err = run(capsys, "optics", "--init", "confocal_3d", "--from", path)
    assert code == 2 and "fill in the optics file by hand" in err and err.count("\n") == 1
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.czi"):
        tiff.read_stack(path, modality="confocal_3d", channel=0)


def test_an_absent_reader_is_one_line_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(vendor.util, "find_spec", lambda name: None)
    for suffix, extra in ((".czi", "czi"), (".nd2", "bio"), (".lif", "bio")):
        path = tmp_path / f"a{suffix}"
        with pytest.raises(FileNotFoundError):
            tiff.read_stack(path, modality="confocal_3d")
        path.write_bytes(b"x")
        with pytest.raises(ValueError, match=rf'pip install "diffphys\[{extra}\]"'):
            tiff.read_stack(path, modality="confocal_3d")
