"""Small versions of benchmarks/reliability: damaged files, kills, concurrent writers, full disks, hostile solvers."""

from __future__ import annotations

import importlib
import random
import struct
from pathlib import Path

import pytest
import tifffile

from diffphys.benchmark.runner import Solver, probe
from diffphys.benchmark.runner.verdict import NoSandbox
from diffphys.io.h5write import replacing_hdf5
from diffphys.io.tiff_chain import check_chain

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "reliability"


@pytest.fixture(scope="module")
def study():
    """A script of benchmarks/reliability by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module


# damaged files


def test_damaged_hdf5_is_refused_or_read(study):
    found = study("mutated_files").study(per_seed=30, trace=False, only=("challenge", "submission", "packed", "hostile_link"))
    assert found["files"] == 120 and found["accepted"] + found["refused"] + found["unclean_errors"] == 120
    assert (found["crashes"], found["hangs"]) == (0, 0)
    assert found["accepted"] > 5 and found["refused"] > 60  # the mutations are neither harmless nor all fatal
    assert (
        "hostile_link" in str(found["per_seed_file"]) and found["per_seed_file"]["submission hostile_link.h5"].get("ok", 0) == 0
    )


def test_damaged_tiff_is_refused_or_read(study):
    found = study("mutated_files").study(per_seed=15, trace=False, only=("ome", "imagej", "deflated"), seed=3)
    assert found["files"] == 45 and (found["crashes"], found["hangs"]) == (0, 0)
    assert found["unclean_errors"] == 0


def test_mutations_go_where_the_structure_is(study, tmp_path):
    mutate = study("mutate")
    content = b"\x89HDF\r\n\x1a\n" + b"\0" * 5000 + b"OHDR" + b"\0" * 5000
    places = mutate.structure(content)
    assert 5008 in places
    rng = random.Random(0)
    changed = [mutate.mutate(content, places, rng) for _ in range(200)]
    same_size = [m for m in changed if len(m) == len(content)]
    near = sum(any(m[i] != content[i] for i in [*range(140), *range(5008, 5110)]) for m in same_size)
    assert sum(m != content for m in changed) > 150 and near > 0.6 * sum(m != content for m in same_size)


@pytest.mark.parametrize("big", [False, True])
def test_circular_tiff_is_refused(big, tmp_path):
    """The last directory points back to the first: a reader that follows would never end."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, [[[1, 2], [3, 4]]] * 3, photometric="minisblack", dtype="uint16", bigtiff=big, contiguous=False)
    pages = check_chain(path)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        first = tif.pages[0].offset
        last = tif.pages[-1].offset
    count, entry, link = ("<Q", 20, "<Q") if big else ("<H", 12, "<I")
    after = last + struct.calcsize(count) + entry * struct.unpack_from(count, content, last)[0]
    assert struct.unpack_from(link, content, after)[0] == 0
    struct.pack_into(link, content, after, first)
    path.write_bytes(content)
    assert pages >= 1
    with pytest.raises(ValueError, match="leads back to itself"):
        check_chain(path)


def test_what_is_no_tiff_is_left_to_the_library(tmp_path):
    for content in (b"", b"II", b"PK\x03\x04", b"II*\0", b"II*\0\xff\xff\xff\xff"):
        (tmp_path / "x").write_bytes(content)
        assert check_chain(tmp_path / "x") == 0


# kills


def test_a_killed_writer_leaves_whole_files(study):
    found = study("kill_during_write").study(kills=30)
    assert (found["kills"], found["torn"], found["lost"]) == (30, 0, 0) and found["files_checked"] == 90


def test_writing_in_place_is_caught_by_the_same_test(study):
    found = study("kill_during_write").study(kills=30, how="in place")
    assert found["torn"] > 0


# the store


def test_concurrent_inserts_are_all_kept(study):
    found = study("concurrent_inserts").study(processes=3, inserts=150, kills=5)
    assert found["stored"] == 150 and found["processes_failed"] == 0
    assert (found["acknowledged_lost"], found["twice"], found["lost_by_kill"], found["integrity"]) == (0, 0, 0, "ok")


# full disks


def test_no_room_is_an_error_and_the_old_file_stays(study):
    script = study("full_disk")
    found = script.study(kinds=("hdf5", "store"))
    told = script.summary(found)
    assert told["handled"] == told["cases"] >= 1, found


def test_hdf5_is_replaced_whole_with_its_mode(tmp_path):
    path = tmp_path / "a.h5"
    with replacing_hdf5(path, mode=0o600) as file:
        file["x"] = 1.0
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stop"), replacing_hdf5(path) as file:
        file["x"] = 2.0
        raise RuntimeError("stop")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.h5"]


# hostile solvers

FEW = (
    *("network_tcp", "network_vsock", "read_truth", "read_environment", "processes", "memory", "symlink_truth"),
    *("directory", "kill_parent", "write_host_file", "disk", "wrong_shape"),
)
ON_PLAIN = ("network_tcp", "read_truth", "symlink_truth", "kill_parent", "directory", "nan", "external_link", "wrong_shape")


def test_every_attack_has_a_verdict_and_compiles(study):
    attacks = study("attacks").ATTACKS
    assert len(attacks) >= 60
    for name, attack in attacks.items():
        compile(attack.code, name, "exec")
        assert attack.expected


def test_hostile_solvers_are_contained(study):
    try:
        probe.backend(Solver(script=Path("solve.py")))
    except NoSandbox as reason:
        pytest.skip(str(reason))
    found = study("hostile_submissions").study(FEW, control=False)
    assert found["honest"]["verdict"] == "OK" and not found["honest"]["breaches"]
    assert found["contained"] == found["attacks"] == len(FEW), {n: j for n, j in found["jobs"].items() if j["breaches"]}


def test_the_attacks_breach_a_plain_runner(study):
    script, attacks = study("hostile_submissions"), study("attacks").ATTACKS
    with script.ground() as field:
        quiet = [n for n in ON_PLAIN if not script.plain(n, attacks[n], field)]
    assert quiet == []
