"""Volumes in tiles: seams, OME-Zarr, resuming after a kill, workers that die, the memory plan."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage

from diffphys import confocal
from diffphys.cli import main
from diffphys.io import omezarr, optics_file
from diffphys.noise import Detector
from diffphys.reconstruct import METHODS, problem_of
from diffphys.scale import cluster, job, plan, slurm, volume
from diffphys.scale.methods import TILED
from diffphys.scale.solve import Solver
from diffphys.scale.tiles import cut, halo_of, halves

SHAPE, TILE = (36, 60, 32), (12, 32, 32)
GEOMETRY = confocal.Geometry(shape=SHAPE, voxel_um=(1.0, 0.3, 0.3), na=1.2, depth_um=3.0)
SPEC = confocal.nominal(GEOMETRY)
DETECTOR = Detector(background=3.0)
OPTICS = """
modality: confocal_3d
geometry: {na: 1.2, immersion_index: 1.515, excitation_nm: 488, emission_nm: 520, pinhole_au: 1.0, depth_um: 3}
detector: {gain: 1, offset: 0, read_sigma: 0, background: 3, peak_photons: 1}
"""
HALO = (8, 11, 9)
QUIET = {"progress": lambda title: Silent(), "tell": lambda line: None}


class Silent:
    def __enter__(self):
        return lambda fraction, text="": None

    def __exit__(self, *_):
        return None


def write_volume(path, y, *, version="0.5", unit="micrometer", axes="zyx"):
    """An OME-Zarr image by zarr's own means, as another program would write it."""
    factor = {"micrometer": 1.0, "nanometer": 1e3}[unit]
    kind = {"t": {"type": "time"}, "c": {"type": "channel"}}
    listed = [{"name": a, **kind.get(a, {"type": "space", "unit": unit})} for a in axes]
    scale = [*(1.0 for _ in axes[:-3]), *(factor * v for v in GEOMETRY.voxel_um)]
    steps = [{"type": "scale", "scale": scale}]
    image = {"axes": listed, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    attributes = (
        {"ome": {"version": "0.5", "multiscales": [image]}}
        if version == "0.5"
        else {"multiscales": [{**image, "version": "0.4"}]}
    )
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    chunks = (*(1 for _ in axes[:-3]), 16, 32, 32)
    group.create_array("s0", shape=y.shape, chunks=chunks, dtype="uint16")[...] = y.astype(np.uint16)
    return path


@pytest.fixture(scope="module")
def counts():
    """Blurred points, some 150 photons at the peak, on a background of 3; uint16."""
    rng = np.random.default_rng(0)
    light = ndimage.gaussian_filter((rng.random(SHAPE) < 0.01) * rng.random(SHAPE), (0.9, 1.2, 1.2))
    return rng.poisson(3 + 150 * light / light.max()).astype(np.uint16)


@pytest.fixture(scope="module", autouse=True)
def one_thread_each():
    """Child processes leave the cores to each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory, counts):
    """Folder with the volume and its optics file."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volume(folder / "in.zarr", counts)
    (folder / "optics.yaml").write_text(OPTICS)
    return folder


def request(home, **changes):
    asked = {
        "spec": {"z_step": 0.0},
        "options": {"iterations": 4},
        "tile": TILE,
        "budget": 64 * 2**30,
    } | changes  # other tests' programs
    return volume.Request(source=home / "in.zarr", optics=optics_file.parse(OPTICS, name="optics.yaml"), **asked)


@pytest.fixture(scope="module")
def uninterrupted(home):
    """The volume restored in one go by four iterations of Richardson-Lucy."""
    record = volume.restore(request(home), home / "whole.zarr", **QUIET)
    return record, omezarr.open_volume(home / "whole.zarr")


@pytest.mark.parametrize("lattice", [(1, 1, 1), (4, 8, 8)])
def test_tiles_partition_the_volume_and_share_one_shape(lattice):
    shape, halo = (70, 131, 64), (5, 9, 20)
    tiles, seen = cut(shape, (32, 40, 64), halo, lattice=lattice), np.zeros(shape, int)
    for tile in tiles:
        seen[tile.core] += 1
        for core, block, n, h in zip(tile.core, tile.block, shape, halo, strict=True):
            assert block.start == 0 or core.start - block.start >= h
            assert block.stop == n or block.stop - core.stop >= h
        assert all(block.start % a == 0 for block, a in zip(tile.block, lattice, strict=True))
    assert (seen == 1).all() and len({tuple(b.stop - b.start for b in t.block) for t in tiles}) == 1
    parts = halves(tiles[4], shape, halo, lattice=lattice)
    assert [p.core[0] for p in parts] == [slice(32, 48), slice(48, 64)]
    assert halves(tiles[4], shape, (99, 99, 99), lattice=lattice) == []  # a halo that fills the volume leaves nothing to gain


@pytest.mark.parametrize(
    ("method", "options"),
    [("richardson_lucy", {"iterations": 12, "stopping": "fixed", "level": 5.0}), ("wiener", {})],
)
def test_seams_are_below_a_thousandth_of_the_peak(counts, method, options):
    problem = problem_of(counts, confocal, SPEC, geometry=GEOMETRY, detector=DETECTOR)
    fixed = TILED[method].settle(problem, options, None) if method == "wiener" else options
    whole = np.asarray(problem.operator.crop(METHODS[method](problem, **fixed).x))
    halo = halo_of(confocal, SPEC, GEOMETRY)
    assert halo == HALO

    def error(tile, reach):
        solver = Solver(confocal, SPEC, GEOMETRY, DETECTOR, method, fixed, reach)
        return np.abs(solver.solve(tile, lambda window: counts[window]) - whole[tile.core]).max() / whole.max()

    worst = max(error(tile, halo) for tile in cut(SHAPE, TILE, halo))
    assert worst < 1e-3
    if method == "wiener":  # without a halo the same comparison fails
        assert error(cut(SHAPE, TILE, (0, 0, 0))[3], (0, 0, 0)) > 5e-3


def test_a_network_in_tiles_makes_no_seams():
    """Blocks that begin anywhere do: the network's folds have a lattice."""
    shape, core = (14, 131, 28), (14, 50, 28)
    geometry, rng = replace(GEOMETRY, shape=shape), np.random.default_rng(1)
    light = ndimage.gaussian_filter((rng.random(shape) < 0.01) * rng.random(shape), (0.9, 1.2, 1.2))
    y = rng.poisson(3 + 150 * light / light.max()).astype(np.uint16)
    problem = problem_of(y, confocal, SPEC, geometry=geometry, detector=DETECTOR)
    known = TILED["unet"]
    options = known.settle(problem, {"seed": 0}, None)
    whole = np.asarray(problem.operator.crop(known.restore(problem, **options).x))
    image = np.asarray(problem.operator.crop(METHODS["unet"](problem).x))
    assert np.corrcoef(whole.ravel(), image.ravel())[0, 1] > 0.99  # the method itself, which also turns the plane

    halo = tuple(h + m for h, m in zip(HALO, known.margin, strict=True))
    solver = Solver(confocal, SPEC, geometry, DETECTOR, "unet", options, halo)

    def error(tile):
        return np.abs(solver.solve(tile, lambda window: y[window]) - whole[tile.core]).max() / whole.max()

    tiles = cut(shape, core, halo, lattice=known.lattice)
    assert len(tiles) == 3 and max(map(error, tiles)) < 1e-3
    assert error(cut(shape, core, halo)[1]) > 1e-2


def test_a_tile_has_the_psf_and_the_attenuation_of_its_own_depth():
    geometry = replace(GEOMETRY, depth_anchors=2, attenuation_per_um=0.01)
    spec = replace(SPEC, refractive_index=SPEC.refractive_index * 0 + 1.45)
    tile = cut(SHAPE, TILE, (8, 10, 10))[-1]
    operator = Solver(confocal, spec, geometry, DETECTOR, "wiener", {}, (8, 10, 10)).operator(tile.block)
    first, size = tile.block[0].start, tuple(b.stop - b.start for b in tile.block)
    assert first > 0
    x = np.zeros(operator.specimen, np.float32)
    at = [w.start + n // 2 for w, n in zip(operator.window, size, strict=True)]
    x[operator.window[0].start, at[1], at[2]] = 1  # a point in the block's first plane
    seen = np.asarray(operator.apply(x))
    own = replace(geometry, shape=size, depth_anchors=1)
    psf = np.asarray(confocal.psf(spec, geometry=own, depth_um=3.0 + first * 1.0))
    middle = size[0] // 2
    expected = psf[middle : middle + 3] * np.exp(-0.01 * (first + np.arange(3)))[:, None, None]
    assert np.abs(seen[:3] - expected).max() < 0.02 * expected.max()
    surface = np.asarray(confocal.psf(spec, geometry=own, depth_um=3.0))[middle : middle + 3]
    assert np.abs(surface - expected).max() > 0.1 * expected.max()


def test_out_of_memory_is_answered_with_halves(counts, monkeypatch):
    asked: list[int] = []

    def small_only(self, tile, block):
        asked.append(block.size)
        if block.size > 40_000:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
        return block[tile.inside]

    monkeypatch.setattr(Solver, "_solve", small_only)
    solver = Solver(confocal, SPEC, GEOMETRY, DETECTOR, "wiener", {}, HALO)
    for tile in cut(SHAPE, TILE, HALO)[:2]:
        found = solver.solve(tile, lambda window: counts[window])
        np.testing.assert_array_equal(found, counts[tile.core])
    assert [size > 40_000 for size in asked] == [True, False, False, False, False]  # the second tile starts with halves
    monkeypatch.setattr(Solver, "_solve", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError, match="cannot be halved"):
        solver.solve(tile, lambda window: counts[window])


def test_the_volume_is_valid_ome_zarr_with_a_pyramid_of_means(uninterrupted):
    from ome_zarr_models.v05.image import Image

    record, out = uninterrupted
    image = Image.from_zarr(zarr.open_group(out.array.store_path.store.root, mode="r"))
    assert [a.unit for a in image.attributes.ome.multiscales[0].axes] == ["micrometer"] * 3
    assert out.shape == SHAPE and out.voxel_um == GEOMETRY.voxel_um and not np.isnan(out.array[:]).any()
    assert [t["task"] for t in record["tiles"]] == list(range(6))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_both_versions_are_read_and_downsampled_chunk_by_chunk(tmp_path, version):
    y = np.random.default_rng(1).integers(0, 999, (2, 3, 9, 70, 131)).astype(np.uint16)
    held = omezarr.open_volume(write_volume(tmp_path / "in.zarr", y, version=version, unit="nanometer", axes="tczyx"))
    assert (held.version, held.axes, held.shape, len(held.batch)) == (version, "tczyx", (9, 70, 131), 6)
    np.testing.assert_allclose(held.voxel_um, GEOMETRY.voxel_um)
    one = held.only_channel(2)
    window = (slice(1, 4), slice(0, 9), slice(60, 70))
    assert one.lead == (2, 1) and (one.read((1, 0), window) == y[1, 2][window]).all()
    fine, middle, coarse = omezarr.create(tmp_path / "out.zarr", held, voxel_um=held.voxel_um, name="a", chunk=(8, 16, 32))
    assert (middle.shape, coarse.shape) == ((2, 3, 9, 35, 66), (2, 3, 9, 35, 33))
    fine[...] = y
    omezarr.downsample(fine, middle)
    omezarr.downsample(middle, coarse)
    even = y[..., :70, :130].reshape(2, 3, 9, 35, 2, 65, 2).mean((-1, -3))
    np.testing.assert_allclose(middle[..., :65], even, rtol=1e-6)
    np.testing.assert_allclose(middle[..., 65], y[..., 130].reshape(2, 3, 9, 35, 2).mean(-1), rtol=1e-6)
    steps = zarr.open_group(str(tmp_path / "out.zarr")).attrs["ome"]["multiscales"][0]["datasets"][2]
    np.testing.assert_allclose(steps["coordinateTransformations"][0]["scale"], [1, 1, 1.0, 0.6, 1.2])
    np.testing.assert_allclose(steps["coordinateTransformations"][1]["translation"], [0, 0, 0, 0.15, 0.45])


def test_a_damaged_chunk_is_an_error(tmp_path, counts):
    like = omezarr.open_volume(write_volume(tmp_path / "in.zarr", counts))
    array = omezarr.create(tmp_path / "out.zarr", like, voxel_um=like.voxel_um, name="a", chunk=(36, 60, 32))[0]
    assert np.isnan(array[0, 0, 0])
    array[...] = counts
    chunk = tmp_path / "out.zarr/0/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(Exception, match="checksum"):
        array[...]


def test_a_killed_run_is_finished_by_workers_that_are_killed_and_repeats_nothing(home, uninterrupted, monkeypatch):
    command = [sys.executable, "-m", "diffphys", "reconstruct", "in.zarr", "-o", "killed.zarr", "--optics", "optics.yaml"]
    command += ["--spec", "z_step=0", "--iterations", "4", "--tile", *map(str, TILE)]
    folder = job.Folder.of(home / "killed.zarr")
    with folder.locked():  # planned already: the command has only to compute
        job.start(folder, {name: part for name, part in uninterrupted[0].items() if name != "tiles"})
    child = subprocess.Popen(command, cwd=home, stderr=subprocess.DEVNULL)
    while child.poll() is None and not folder.finished():
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not (home / "killed.zarr").exists()
    before = {n: json.loads(folder.marker(n).read_text()) for n in folder.finished()}
    assert 1 <= len(before) < 5
    asked = request(home, cluster="local", workers=4, budget=None)
    with pytest.raises(ValueError, match="unfinished work with another method"):
        volume.restore(replace(asked, method="wiener"), home / "killed.zarr", **QUIET)
    killed: list[int] = []
    monkeypatch.setattr(cluster, "make_cluster", murderous(cluster.make_cluster, killed))
    record = volume.restore(asked, home / "killed.zarr", **QUIET)
    facts = {t["task"]: t for t in record["tiles"]}
    assert len(killed) == 2 and len(facts) == 6 and not folder.path.exists()
    assert {n: f for n, f in facts.items() if f["process"] == child.pid} == before
    assert os.getpid() not in {f["process"] for f in facts.values()}
    np.testing.assert_array_equal(omezarr.open_volume(home / "killed.zarr").array[:], uninterrupted[1].array[:])


def murderous(make, killed):
    """The cluster's maker, followed by the death of two random workers as soon as they live."""

    def made(*arguments, **options):
        local = make(*arguments, **options)
        rng, first = random.Random(0), [w.pid for w in local.workers.values()]

        def murder():
            for delay in (0.5, 2.0):  # one while it imports, one while it computes
                time.sleep(delay)
                killed.append(rng.choice([p for p in first if p not in killed]))
                os.kill(killed[-1], signal.SIGKILL)

        threading.Thread(target=murder, daemon=True).start()
        return local

    return made


def test_slurm_jobs_ask_for_what_the_plan_and_the_user_say(tmp_path):
    made = slurm.make("slurm:partition=short,time=01:00:00,nodelist=a,b", memory=6 * 2**30, logs=tmp_path / "logs")
    script = made.job_script()
    made.close()
    stated = ("--partition=short", "--time=01:00:00", "--nodelist=a,b", f'--output="{tmp_path}/logs/%j.log"')
    for line in ("-n 1", "--cpus-per-task=1", "--mem=6G", *stated):
        assert f"#SBATCH {line}\n" in script, script
    assert "--nthreads 1" in script and sys.executable in script and (tmp_path / "logs").is_dir()


def test_the_plan_keeps_its_budget_and_says_when_it_cannot():
    asked = {"method": "richardson_lucy", "options": {}, "halo": (8, 10, 10), "held": 400 * 2**20, "chunk": (32, 128, 128)}
    found = [plan.make_plan((1024, 1024, 1024), budget=b * 2**30, **asked) for b in (2, 6)]
    assert found[0].tiles > found[1].tiles
    for one in found:
        assert one.peak <= one.budget and all(c % k == 0 or c == 1024 for c, k in zip(one.core, one.chunk, strict=True))
    with pytest.raises(ValueError, match="smallest tile needs"):
        plan.make_plan((1024, 1024, 1024), budget=500 * 2**20, **asked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out"], "ends in .zarr"),
        (["-o", "out.zarr", "--memory", "lots"], "expected a size"),
        (["-o", "out.zarr", "--psf", "psf.tif"], "not available"),
        (["-o", "out.zarr", "--method", "pnp_fista"], "not available for volumes"),
        (["-o", "out.zarr", "--channel", "1"], "0 channels"),
        (["-o", "out.zarr", "--cluster", "cloud"], "--cluster is"),
        (["-o", "out.zarr", "--cluster", "slurm"], "needs --memory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(home, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(home)
    assert main(["reconstruct", "in.zarr", "--optics", "optics.yaml", *arguments]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1 and message in said[0]
    assert not Path("out.zarr").exists()
    assert not Path("out.zarr.part").exists()
