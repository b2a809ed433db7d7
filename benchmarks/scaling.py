"""Time and memory against the size of a volume, calibrations against the batch and the devices, volumes against Dask workers.

    python benchmarks/scaling.py --output FOLDER [--only volume batch devices workers]

volume   Richardson-Lucy per iteration, 2^18 to 2^27 voxels; time is fitted by a + b N log2 N, memory by a + b N
batch    calibrations per second of `calibrate_batch`, 1 to 64 stacks at a time (--batch-to 4096), on one device
devices  the same, 16 at a time on 1, 2, 4 and 8 simulated XLA devices, which share this machine's cores
workers  `diffphys reconstruct --cluster local` of an OME-Zarr volume with 1, 2 and 4 workers, and without a cluster

Each point runs in a process of its own, so its peak memory is its own. FOLDER receives scaling.png. Result:
benchmarks/results/scaling.json, part by part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scaling_points
from environment import environment, write
from memory_plan import OPTICS, make_volume
from peers_common import processor
from scipy.optimize import least_squares

RESULTS = Path(__file__).parent / "results"


def point(part: str, *arguments: Any, env: dict[str, str] | None = None) -> dict[str, Any]:
    """One point in its own process, with its peak memory."""
    script = str(Path(scaling_points.__file__))
    with tempfile.TemporaryFile("w+") as out:
        command = [sys.executable, script, part, *map(str, arguments)]
        child = subprocess.Popen(command, stdout=out, env=os.environ | (env or {}))
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise RuntimeError(f"{command} ended with {status}")
        out.seek(0)
        row = json.loads(out.read().splitlines()[-1]) | {"peak_bytes": usage.ru_maxrss * 1024}
    print(part, row, flush=True)
    return row


def volume(stated: argparse.Namespace) -> dict[str, Any]:
    """Every size with both FFTs where the accelerator is there; the cost model of each."""
    engines, found = scaling_points.engines(), {}
    for engine in engines:
        env = {"DIFFPHYS_FFT": engine}
        idle = point("volume", 9, stated.seconds, env=env)["peak_bytes"]
        rows = [point("volume", k, stated.seconds, env=env) for k in range(stated.volume[0], stated.volume[1] + 1)]
        n = np.array([r["voxels"] for r in rows], float)
        found[engine] = {
            "rows": rows,
            "idle_bytes": idle,
            "time_s": fit(n * np.log2(n), np.array([r["seconds"] for r in rows])),
            "memory_bytes": fit(n, np.array([r["peak_bytes"] for r in rows], float)),
        }
    return found


def fit(work: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """a, b >= 0 of a + b work by least squares of the logarithms, and the largest relative deviation."""
    scale = np.median(measured / work)

    def misfit(log: np.ndarray) -> np.ndarray:
        return np.log(np.exp(log[0]) + np.exp(log[1]) * work) - np.log(measured)

    a, b = np.exp(least_squares(misfit, np.log([measured.min() / 2, scale])).x)
    return {"a": float(a), "b": float(b), "worst": float(np.abs((a + b * work) / measured - 1).max())}


def batch(stated: argparse.Namespace) -> dict[str, Any]:
    """Batches of powers of two on one device, as a user has it; the cores take a stack each."""
    counts = [2**k for k in range(stated.batch_to.bit_length()) if 2**k <= stated.batch_to]
    return {"rows": [point("batch", c, 1, *stated.stack) for c in counts], "stack": stated.stack}


def devices(stated: argparse.Namespace) -> dict[str, Any]:
    """One batch over simulated devices."""
    rows = [point("batch", stated.batch, n, *stated.stack) for n in stated.devices]
    return {"rows": rows, "stack": stated.stack, "cores": len(os.sched_getaffinity(0))}


def workers(stated: argparse.Namespace) -> dict[str, Any]:
    """The command on a volume; 0 workers: without a cluster, whose processes have all cores for one tile at a time."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_volume(folder / "in.zarr", tuple(stated.field))
        (folder / "optics.yaml").write_text(OPTICS)
        for count in (0, *stated.workers):
            command = [sys.executable, "-m", "diffphys", "reconstruct", "in.zarr", "-o", f"out{count}.zarr"]
            command += ["--optics", "optics.yaml", "--spec", "z_step=0", "--method", "richardson_lucy"]
            command += ["--iterations", str(stated.iterations), "--tile", *map(str, stated.tile)]
            command += ["--cluster", "local", "--workers", str(count)] if count else []
            began = time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - began
            record = json.loads((folder / f"out{count}.run.json").read_text())["volume"]
            rows.append({"workers": count, "seconds": seconds, "tiles": len(record["tiles"])})
            print("workers", rows[-1], flush=True)
    return {"rows": rows, "shape": stated.field, "tile": stated.tile, "iterations": stated.iterations}


PARTS = {"volume": volume, "batch": batch, "devices": devices, "workers": workers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the figure")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--volume", type=int, nargs=2, default=(18, 27), metavar=("FIRST", "LAST"), help="powers of two")
    parser.add_argument("--seconds", type=float, default=10.0, help="volume: spent on each point, at least two calls")
    parser.add_argument("--stack", type=int, nargs=3, default=(32, 64, 64), help="batch, devices: shape of a stack")
    parser.add_argument("--batch-to", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="devices: stacks")
    parser.add_argument("--devices", type=int, nargs="*", default=(1, 2, 4, 8))
    parser.add_argument("--workers", type=int, nargs="*", default=(1, 2, 4))
    parser.add_argument("--field", type=int, nargs=3, default=(64, 512, 512), help="workers: shape of the volume")
    parser.add_argument("--tile", type=int, nargs=3, default=(64, 128, 128), help="workers: shape of a tile")
    parser.add_argument("--iterations", type=int, default=30, help="workers: of Richardson-Lucy")
    parser.add_argument("--result", type=Path, default=RESULTS / "scaling.json")
    stated = parser.parse_args()
    for part in stated.only:
        found = PARTS[part](stated)
        found["environment"] = environment() | {"processor": processor(), "load_average": os.getloadavg()}
        record = json.loads(stated.result.read_text()) if stated.result.exists() else {}
        write(stated.result, record | {part: found})
    from scaling_figure import draw

    stated.output.mkdir(parents=True, exist_ok=True)
    draw(json.loads(stated.result.read_text()), stated.output / "scaling.png")


if __name__ == "__main__":
    main()
