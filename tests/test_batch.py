"""Many stacks at once: same numbers as one by one, whatever the devices; one spec for many; a folder on the command line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import confocal, demo
from diffphys.calibrate import lanes as module
from diffphys.calibrate import shared
from diffphys.calibrate.lanes import ONE, Lanes, lanes, over
from diffphys.cli import main
from diffphys.cores import at_once
from diffphys.spec import parse

ROOT = Path(__file__).parents[1]
GEOMETRY = confocal.Geometry(shape=(16, 32, 32))
TRUTH = {"z_step": 40.0, "spherical_aberr": 0.12, "refractive_index": 1.52}


def _power(exponent, scale, x):
    return scale * x["a"] ** exponent, x["b"].sum()


def test_lanes_keep_the_order_and_join_equal_shapes():
    items = [(np.float32(s), {"a": np.full(n, 2.0, np.float32), "b": np.ones(3)}) for s, n in enumerate((4, 5, 4, 4, 5))]
    alone = over(_power, (3,), items, ONE)
    before = module._many._cache_size()
    for how in (Lanes(4), Lanes(2, tuple(jax.local_devices())), lanes(4)):
        for one, many in zip(alone, over(_power, (3,), items, how), strict=True):
            np.testing.assert_array_equal(one[0], many[0])
            assert one[1] == many[1] == 3
    for s, n, (a, _) in zip(range(5), (4, 5, 4, 4, 5), alone, strict=True):
        np.testing.assert_array_equal(a, np.full(n, 8.0 * s))
    assert module._many._cache_size() - before <= 4  # two shapes, four or two abreast; the third is one by one
    assert over(_power, (3,), [], ONE) == []


def test_items_at_once_keep_their_order_their_precision_and_their_errors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    names = []

    def tenth(n):
        names.append(threading.current_thread().name)
        time.sleep(0.02)
        return float(jnp.asarray(n) / 10), jnp.asarray(0.1).dtype

    for wide in (True, False):
        with jax.enable_x64(wide):
            found = at_once(tenth, range(9), "tenths")
        assert [value for value, _ in found] == pytest.approx([n / 10 for n in range(9)])
        assert {dtype for _, dtype in found} == {jnp.dtype("float64" if wide else "float32")}
    assert names[0] == threading.main_thread().name, "what is compiled is compiled once"
    assert len(set(names)) > 2
    with pytest.raises(ZeroDivisionError):
        at_once(lambda n: 1 / (3 - n), range(9), "divided")
    assert at_once(tenth, [], "nothing") == []


DEVICES = """
import json, sys
import jax
count, processes, rank = map(int, sys.argv[1:4])
jax.config.update("jax_num_cpu_devices", count)
if processes > 1:
    jax.distributed.initialize(sys.argv[4], processes, rank)
import jax.numpy as jnp, numpy as np
from diffphys import demo, shg
from diffphys.calibrate import fit
from diffphys.calibrate.lanes import lanes
from diffphys.calibrate.periodogram import periodogram
from diffphys.spec import Box

geometry = shg.Geometry(shape=(32, 32), phase_offsets_rad=(0.0, 1.5))
box = Box.of(shg.FIELDS, shg.default_ranges(geometry))
problems = []
for seed in range(4):
    made = demo.simulated(shg, demo.random_spec(shg, geometry, seed), geometry=geometry, family="wavy", seed=seed, offset=0.0)
    statistic = periodogram(made.y.astype(float), block=(32, 32), finer=(2, 2))
    problems.append(fit.Problem(shg, geometry, statistic, made.y.mean((1, 2)), 0.02, box, (2, 2)))
mine = range(4)[rank::processes]
theta = np.array([[0.2, 0.0, -0.1]])
guesses = [fit.first_guess(problems[i], fit.make(problems[i], "matern")[2], theta) for i in mine]
run = lambda how: [f.q[0].tolist() for f in fit.polish([problems[i] for i in mine], "matern", guesses, how=how)]
out = {"devices": run(lanes(8)), "local": jax.local_device_count(), "all": jax.device_count()}
if processes == 1:
    out["one"] = run(lanes(4, devices=jax.local_devices()[:1]))
print(json.dumps(out))
"""


def _on_devices(*arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", DEVICES, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _result(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_eight_devices_and_two_processes_give_the_numbers_of_one_device():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    eight = _result(_on_devices(8, 1, 0))
    assert eight["local"] == 8
    np.testing.assert_allclose(eight["devices"], eight["one"], rtol=1e-5, atol=1e-5)
    pair = [_on_devices(2, 2, rank, address) for rank in range(2)]
    both = [_result(process) for process in pair]
    for rank, part in enumerate(both):
        assert part["all"] == 4 and part["local"] == 2
        np.testing.assert_allclose(part["devices"], eight["one"][rank::2], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def stacks():
    spec = parse(confocal.Spec, confocal.FIELDS, TRUTH)
    return [
        demo.simulated(confocal, spec, geometry=GEOMETRY, family=family, seed=seed, photons=150.0, offset=0.0)
        for seed, family in enumerate(("filaments", "filaments"))
    ]


@pytest.fixture(scope="module")
def together(stacks):
    told = []
    found = diffphys.calibrate_batch(
        [s.y for s in stacks], "confocal_3d", geometry=GEOMETRY, detector=[s.detector for s in stacks],
        progress=lambda fraction, text: told.append((fraction, text)),
    )  # fmt: skip
    assert [f for f, _ in told] == sorted(f for f, _ in told) and told[-1][0] == 1.0
    return found


def test_a_batch_gives_what_single_calibrations_give(stacks, together):
    for one, found in zip(stacks, together, strict=True):
        alone = diffphys.calibrate(one.y, confocal, geometry=GEOMETRY, detector=one.detector)
        for name, sigma in alone.sigma.items():
            assert found.values[name] == pytest.approx(alone.values[name], abs=0.02 * sigma), name
            assert found.sigma[name] == pytest.approx(sigma, rel=0.02), name
        assert found.status is alone.status and found.ranges == alone.ranges


def test_one_spec_for_both_is_better_known_and_true(stacks, together):
    found = diffphys.calibrate_batch(
        np.stack([s.y for s in stacks]), confocal, geometry=GEOMETRY, detector=stacks[0].detector, shared=True
    )
    assert found[0].values == found[1].values and np.array_equal(found[0].covariance, found[1].covariance)
    c_tot = float(confocal.derived(parse(confocal.Spec, confocal.FIELDS, TRUTH), geometry=GEOMETRY)["c_tot"])
    value, sigma = found[0].derived["c_tot"]
    assert abs(value - c_tot) < 3 * sigma
    assert abs(found[0].values["z_step"] - TRUTH["z_step"]) < 3 * found[0].sigma["z_step"]
    assert sigma < min(c.derived["c_tot"][1] for c in together)


def test_the_shared_fisher_matrix_is_that_of_the_joint_parameters():
    """Against the Hessian of a sum of quadratics of (theta, own part)."""
    rng = np.random.default_rng(0)
    halves = rng.normal(size=(3, 5, 5)).astype(np.float32)
    each = np.einsum("nij,nkj->nik", halves, halves)

    def total(q):
        own = q[2:].reshape(3, 3)
        return sum(0.5 * (v := jnp.concatenate([q[:2], own[n]])) @ each[n] @ v for n in range(3))

    np.testing.assert_allclose(shared.arrow(jnp.asarray(each), 2), jax.hessian(total)(jnp.zeros(11)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"stacks": []}, "there are 0 stacks"),
        ({"detector": [None]}, "there are 1 detectors for 2 stacks"),
        ({"stacks": [np.zeros((16, 32, 32)), np.ones((3, 3, 3))]}, "stack 0: y is constant"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_bad_batches_are_refused_in_one_line(stacks, change, line):
    given = {"stacks": [s.y for s in stacks], "detector": None, "width": 4} | change
    with pytest.raises(ValueError, match=line):
        diffphys.calibrate_batch(given.pop("stacks"), confocal, geometry=GEOMETRY, **given)


def test_a_folder_is_calibrated_and_gone_on_with(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DIFFPHYS_CACHE", "off")
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for seed in (1, 2):
        made = tmp_path / f"made{seed}"
        words = [
            "simulate",
            "--modality",
            "confocal_3d",
            "--spec",
            "z_step=40,spherical_aberr=0.12",
            "--shape",
            "16",
            "32",
            "32",
        ]
        assert main([*words, "--photons", "150", "--seed", str(seed), "-o", str(made)]) == 0
        (made / "measurement.h5").rename(folder / f"stack{seed}.h5")
    (folder / "broken.h5").write_bytes(b"no HDF5")
    (folder / "notes.txt").write_text("not a stack")
    capsys.readouterr()
    command = ["calibrate", str(folder), "-o", str(out)]
    assert main(command) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("diffphys: error: 1 of 3 stacks cannot be calibrated (broken.h5:") and "others are finished" in err
    rows = list(csv.DictReader((out / "calibrations.csv").read_text().splitlines()))
    assert [r["stack"] for r in rows] == ["stack1", "stack2"]
    for row in rows:
        held = json.loads((out / row["stack"] / "calibration.json").read_text())
        assert {p.name for p in (out / row["stack"]).iterdir()} == {"calibration.json", "figure.png", "run.json"}
        assert float(row["z_step"]) == held["parameters"]["z_step"]["value"] and row["status"] == held["status"]
        assert abs(float(row["z_step"]) - 40.0) < 4 * float(row["z_step_sigma"])
    (folder / "broken.h5").unlink()
    written = {p: p.stat().st_mtime_ns for p in out.glob("*/*")}
    assert main(command) == 0
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*")} == written
    told = capsys.readouterr()
    assert "2 stacks were calibrated before and are kept" in told.err and "stack2" in told.out
    assert main([*command, "--shared"]) == 2 and "add --overwrite" in capsys.readouterr().err


def test_bad_folders_are_refused(tmp_path, capsys):
    assert main(["calibrate", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "holds no stack" in capsys.readouterr().err
    (tmp_path / "a.tif").touch()
    (tmp_path / "a.ome.tif").touch()
    assert main(["calibrate", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "two stacks named a" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "a.tif"), "--shared", "-o", str(tmp_path / "out")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "a.zarr"), "-o", str(tmp_path / "out")]) == 2
    assert "is a volume" in capsys.readouterr().err
