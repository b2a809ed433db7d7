"""The benchmark's files: what is written is read back; links, wrong shapes and numbers, mutations are refused in one line."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from diffphys.io import challenge as challenges
from diffphys.io import submission as submissions
from diffphys.io.submission import Contract, Entry

RANGES = {"z_step": (-60.0, 90.0), "spherical_aberr": (-0.12, 0.18), "refractive_index": (1.503, 1.533)}
SPEC = {"z_step": 1.0, "spherical_aberr": 0.1, "refractive_index": 1.51}
SHAPE = (12, 16, 16)
NAMES = ("sample_00", "sample_01")
CONTRACT = Contract("confocal_3d", "dev", NAMES, SHAPE, RANGES, "0" * 64)


@pytest.fixture
def file(tmp_path):
    """A valid submission of two samples."""
    path = tmp_path / "submission.h5"
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    entries = {n: Entry(x, SPEC) for n in NAMES}
    submissions.write_submission(
        path, modality="confocal_3d", tier="dev", method="ours", challenge_sha256="0" * 64, samples=entries
    )
    return path


def test_a_submission_comes_back_bit_by_bit(file):
    found = submissions.read_submission(file, CONTRACT)
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    np.testing.assert_array_equal(found.samples["sample_01"].x_hat, x)
    assert found.samples["sample_00"].spec == SPEC and found.method == "ours"


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file, file["sample_00"])


def replaced(value):
    def change(_, group):
        del group["x_hat"]
        group["x_hat"] = value

    return change


def outside(_, group):
    del group["x_hat"]
    group.create_dataset("x_hat", SHAPE, "<f4", external=[("/etc/passwd", 0, 4 * int(np.prod(SHAPE)))])


def virtual(_, group):
    del group["x_hat"]
    layout = h5py.VirtualLayout(SHAPE, "<f4")
    layout[:] = h5py.VirtualSource("truth.h5", "sample_00/x_true", SHAPE, "<f4")
    group.create_virtual_dataset("x_hat", layout)


def linked(_, group):
    del group["x_hat"]
    group["x_hat"] = h5py.ExternalLink("truth.h5", "/sample_00/x_true")


SMALL = np.zeros(SHAPE, np.float32)
HOSTILE = {
    "external storage": (outside, "outside the file"),
    "virtual": (virtual, "virtual"),
    "external link": (linked, "link"),
    "soft link": (lambda f, g: g.__setitem__("more", h5py.SoftLink("/sample_01")), "unknown member"),
    "group elsewhere": (lambda f, g: f.__setitem__("sample_07", h5py.ExternalLink("t.h5", "/")), "unknown member"),
    "NaN": (replaced(SMALL + np.nan), "NaN"),
    "infinite": (replaced(SMALL + np.inf), "NaN or infinite"),
    "huge": (replaced(SMALL + 3e38), "at most 1e"),
    "double": (replaced(SMALL.astype(float)), "little-endian float32"),
    "shape": (replaced(SMALL[:-1]), "shape"),
    "spec outside": (lambda f, g: g.attrs.__setitem__("z_step", 91.0), "range"),
    "spec NaN": (lambda f, g: g.attrs.__setitem__("z_step", np.nan), "finite"),
    "spec missing": (lambda f, g: g.attrs.__delitem__("z_step"), "lacks attribute 'z_step'"),
    "spec text": (lambda f, g: g.attrs.__setitem__("z_step", np.bytes_("1")), "float64"),
    "method of any length": (lambda f, g: f.attrs.__setitem__("method", "x"), "fixed-length"),
    "tier": (lambda f, g: f.attrs.__setitem__("tier", np.bytes_("public")), "expected 'dev'"),
    "challenge": (lambda f, g: f.attrs.__setitem__("challenge_sha256", np.bytes_("1" * 64)), "another challenge"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_submissions_are_refused_in_one_line(file, attack):
    change, said = HOSTILE[attack]
    edit(file, change)
    with pytest.raises(ValueError) as refusal:
        submissions.read_submission(file, CONTRACT)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_problem_is_named(file):
    edit(file, replaced(SMALL + np.nan))
    edit(file, lambda f, g: f["sample_01"].attrs.__setitem__("refractive_index", 2.0))
    found, problems = submissions.examine(file, CONTRACT)
    assert found is None and len(problems) == 2


def test_links_and_large_files_are_not_opened(file, tmp_path):
    soft, hard = tmp_path / "soft.h5", tmp_path / "hard.h5"
    soft.symlink_to(file)
    with pytest.raises(ValueError, match="symbolic link"):
        submissions.read_submission(soft, CONTRACT)
    with file.open("ab") as stream:
        stream.truncate(CONTRACT.largest_file + 1)
    with pytest.raises(ValueError, match="bytes"):
        submissions.read_submission(file, CONTRACT)
    os.link(file, hard)
    with pytest.raises(ValueError, match="hard links"):
        submissions.read_submission(file, CONTRACT)


def test_mutated_files_are_read_or_refused(file):
    content, rng = bytearray(file.read_bytes()), np.random.default_rng(5)
    refused = 0
    for _ in range(60):
        mutated = bytearray(content)
        for place in rng.integers(0, 4096, 4):
            mutated[place] = rng.integers(0, 256)
        file.write_bytes(mutated)
        try:
            submissions.read_submission(file, CONTRACT)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10


def test_the_truth_is_private_and_comes_back(tmp_path):
    from diffphys import confocal

    path, x = tmp_path / "truth.h5", np.random.default_rng(1).uniform(size=SHAPE).astype(np.float32)
    truth = challenges.Truth(x, SPEC, x + 1, x + 2, "beads")
    challenges.write_truth(path, "confocal_3d", "dev", challenge_sha256="0" * 64, samples={"sample_00": truth})
    assert path.stat().st_mode & 0o777 == 0o600
    back = challenges.read_truth(path, geometry=confocal.Geometry(shape=SHAPE)).samples["sample_00"]
    np.testing.assert_array_equal(back.y_ideal, x + 2)
    assert back.spec == SPEC and back.family == "beads"


def test_a_challenge_tells_the_truth_on_public_only(tmp_path):
    from diffphys import confocal
    from diffphys.io.hdf5 import Sample
    from diffphys.noise import Detector

    path, geometry = tmp_path / "challenge.h5", confocal.Geometry(shape=SHAPE)
    blind = Sample(SMALL, Detector())
    told = Sample(SMALL, Detector(), x_true=SMALL, true_spec=SPEC, family="beads")
    shared = {"geometry": geometry, "ranges": RANGES}
    for tier, sample in (("public", blind), ("dev", told)):
        with pytest.raises(ValueError, match="must hold"):
            challenges.write_challenge(path, "confocal_3d", tier, samples={"sample_00": sample}, **shared)
    challenges.write_challenge(path, "confocal_3d", "dev", samples={"sample_00": blind}, **shared)
    found = challenges.read_challenge(path)
    assert found.tier == "dev" and found.held.ranges == RANGES and found.samples["sample_00"].x_true is None
