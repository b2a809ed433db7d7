"""Peers on the same work on the CPU: Richardson-Lucy, PSF, joint gradient, total variation, network inference; in turns.

    pip install 'diffphys[dev,mkl]' RedLionfish sdeconv
    python benchmarks/peers.py --python scico=/venvs/scico/bin/python flowdec=... chromatix=... [--only psf joint] [--rounds 40]

Wall minimum and median of process CPU time over rounds in which all rows of a process take turns, in ms; on a shared machine
trust the CPU time first. What a row returns is compared with what it should return. A peer that cannot live beside diffphys has
its own interpreter (--python) and runs there beside the rows of scipy, the common yardstick, by whose CPU time all rows are
divided. A peer that is not there is named with the reason. Result: benchmarks/results/peers.json, part by part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peers_common as common
import peers_elsewhere  # sets how idle threads wait, before what has threads
from environment import environment, versions, write

RESULTS = Path(__file__).parent / "results"
SIZES = {"tiny": (8, 32, 32), "small": (32, 64, 64), "large": (64, 256, 256)}
PARTS = ("richardson_lucy", "total_variation", "psf", "joint", "networks")
NETWORKS = {"unet_2d": (512, 512), "resunet_2d": (512, 512), "unet_3d": (32, 128, 128)}
PACKAGES = ("mkl", "RedLionfish", "sdeconv", "deepinv", "torch", "psfmodels", "scikit-image")
Given = dict[str, np.ndarray]


def in_turns(part: str, shape: tuple[int, int, int], rounds: int, pythons: dict[str, str]) -> dict[str, Any]:
    """One table: the rows of this process, then those of the peers' own."""
    given, rows, absent = _here(part, shape)
    yard = peers_elsewhere.yardstick(part, given)
    table = _divided(common.measure(rows | yard, rounds), next(iter(yard)))
    elsewhere: dict[str, Any] = {}
    for name in (n for n, parts in peers_elsewhere.PARTS.items() if part in parts):
        try:
            found = _there(name, part, given, rounds, pythons)
        except RuntimeError as error:
            absent[name] = str(error)
            continue
        elsewhere[name] = found["versions"]
        theirs = _divided(found["rows"], next(iter(yard)))
        table |= {f"{row}, beside {name}" if row in yard else row: told | {"process": name} for row, told in theirs.items()}
    return {"rows": table, "rounds": rounds, "absent": absent, "elsewhere": elsewhere, "yardstick": next(iter(yard))}


def _here(part: str, shape: tuple[int, int, int]) -> tuple[Given, Any, dict[str, str]]:
    """What all processes are given, rows of this process, reasons of those that are absent."""
    if part in ("psf", "joint"):
        import peers_optics

        given = peers_optics.arrays(shape)
        return given, *(peers_optics.psf_rows if part == "psf" else peers_optics.joint_rows)(shape, given)
    import peers_deconvolution

    given = peers_deconvolution.problem(part, shape)
    return given, *peers_deconvolution.contenders(part, given)


def _there(name: str, part: str, given: Given, rounds: int, pythons: dict[str, str]) -> dict[str, Any]:
    """Rows and versions of a peer in its own interpreter; RuntimeError says why there are none."""
    if name not in pythons:
        raise RuntimeError(f"no interpreter: --python {name}=PATH")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "problem.npz", **given)
        script = str(Path(__file__).with_name("peers_elsewhere.py"))
        command = [pythons[name], script, name, part, folder, str(rounds)]
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        except OSError as error:
            raise RuntimeError(str(error)) from None
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1])
        return json.loads((Path(folder) / "rows.json").read_text())


def _divided(rows: dict[str, Any], yardstick: str) -> dict[str, Any]:
    """CPU time over that of the yardstick in the same process added to every row that has one."""
    unit = rows[yardstick]["cpu_median_ms"]
    return {n: r | ({"cpu_over_scipy": r["cpu_median_ms"] / unit} if "cpu_median_ms" in r else {}) for n, r in rows.items()}


def networks(rounds: int, *, tiny: bool) -> dict[str, Any]:
    """One table of each network."""
    import peers_networks

    tables = {}
    for name, shape in NETWORKS.items():
        shape = tuple(n // 8 for n in shape) if tiny else shape
        rows, source = peers_networks.contenders(name, shape)
        tables[f"{name} {'x'.join(map(str, shape))}"] = {
            "rows": common.measure(rows, rounds),
            "rounds": rounds,
            "weights": source,
            "size": dict(peers_networks.find(name).size),
        }
    return tables


def show(part: str, tables: dict[str, Any]) -> None:
    for size, table in tables.items():
        print(f"{part} {size}, n = {table['rounds']}")
        for name, row in table["rows"].items():
            if "failed" in row:
                print(f"  {name}: {row['failed']}")
                continue
            told = f"{row['wall_min_ms']:9.2f} {row['cpu_median_ms']:9.2f} {row.get('cpu_over_scipy', float('nan')):6.2f}"
            print(f"  {told}  {row.get('difference', float('nan')):8.1e}  {name}")
        for name, reason in table.get("absent", {}).items():
            print(f"  absent: {name}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="*", default=[], metavar="NAME=PATH", help="interpreters of the peers elsewhere")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=("small", "large"))
    parser.add_argument("--rounds", type=int, default=40, help="of the small sizes; the large ones take a quarter")
    parser.add_argument("--output", type=Path, default=RESULTS / "peers.json")
    stated = parser.parse_args()
    pythons = dict(item.split("=", 1) for item in stated.python)
    if unknown := set(pythons) - set(peers_elsewhere.PEERS):
        parser.error(f"--python knows {sorted(peers_elsewhere.PEERS)}, not {sorted(unknown)}")
    for part in stated.only:
        few = max(3, stated.rounds // 4)
        if part == "networks":
            tables = networks(few, tiny="tiny" in stated.sizes)
        else:
            tables = {}
            for size in stated.sizes:
                rounds = few if size == "large" else stated.rounds
                tables["x".join(map(str, SIZES[size]))] = in_turns(part, SIZES[size], rounds, pythons)
        show(part, tables)
        at = environment() | {"processor": common.processor(), "load_average": os.getloadavg()}
        at |= {"peers": versions(PACKAGES)}
        record = json.loads(stated.output.read_text()) if stated.output.exists() else {}
        write(stated.output, record | {part: {"environment": at, "tables": tables}})


if __name__ == "__main__":
    main()
