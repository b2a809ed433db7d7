"""A volume larger than the memory it is given: restored within a budget, killed on the way, finished without repeating a tile.

    python benchmarks/beyond_memory.py [--shape 1024 1024 1024] [--memory 6GiB] [--kills 3] [--iterations 3]

Checks: every tile that was finished at a kill is in the record as the killed process left it; no voxel of the output was left
out; the largest resident memory of all attempts is within the budget. Result: benchmarks/results/beyond_memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zarr
from environment import environment, write
from memory_plan import OPTICS, make_volume

from diffphys.scale.memory import parse

RESULTS = Path(__file__).parent / "results"


def attempt(command: list[str], folder: Path, stop_at: int | None) -> dict[str, Any]:
    """Run until the end, or kill when `stop_at` tiles are finished; peak bytes, seconds and the markers that are left."""
    tiles, began = folder / "out.zarr.part" / "tiles", time.perf_counter()
    child = subprocess.Popen(command, cwd=folder)
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        if stop_at is not None and len(list(tiles.glob("[0-9]*.json"))) >= stop_at:
            os.kill(child.pid, signal.SIGKILL)
            stop_at = None
        time.sleep(0.05)
    left = {p.stem: json.loads(p.read_text()) for p in tiles.glob("[0-9]*.json")}
    killed = os.WIFSIGNALED(status)
    row = {"process": child.pid, "killed": killed, "seconds": round(time.perf_counter() - began, 1)}
    print(row | {"finished": len(left)}, flush=True)
    if status and not killed:
        raise RuntimeError(f"{command} ended with {status}")
    return row | {"peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime, "left": left}


def tiles_finished(folder: Path) -> int:
    return len(list((folder / "out.zarr.part" / "tiles").glob("[0-9]*.json")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(1024, 1024, 1024))
    parser.add_argument("--memory", default="6GiB")
    parser.add_argument("--method", default="richardson_lucy")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--kills", type=int, default=3)
    stated = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="beyond-"))
    try:
        write(RESULTS / "beyond_memory.json", measure(folder, stated))
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, stated: argparse.Namespace) -> dict[str, Any]:
    """Make the volume, run and kill the command, check what came out."""
    make_volume(folder / "in.zarr", tuple(stated.shape))
    (folder / "optics.yaml").write_text(OPTICS)
    command = [sys.executable, "-m", "diffphys", "reconstruct", "in.zarr", "-o", "out.zarr", "--optics", "optics.yaml"]
    command += ["--spec", "z_step=0", "--method", stated.method, "--iterations", str(stated.iterations)]
    command += ["--memory", stated.memory]
    tries = []
    for kill in range(stated.kills):
        # the first is killed at its second tile; every later one when it has finished two more
        tries.append(attempt(command, folder, tiles_finished(folder) + 2 if kill else 2))
    tries.append(attempt(command, folder, None))
    record = json.loads((folder / "out.run.json").read_text())["volume"]
    done = {str(t["task"]): t for t in record["tiles"]}
    repeated = [n for row in tries for n, facts in row["left"].items() if done[n] != facts]
    out = zarr.open_group(str(folder / "out.zarr"), mode="r")
    coarsest = out[str(len(list(out.array_keys())) - 1)]
    return {
        "environment": environment(),
        "shape": stated.shape,
        "voxels": stated.shape[0] * stated.shape[1] * stated.shape[2],
        "method": stated.method,
        "iterations": stated.iterations,
        "memory_bytes": parse(stated.memory),
        "plan": record["plan"],
        "tiles": len(done),
        "kills": sum(row["killed"] for row in tries),
        "tiles_repeated": len(repeated),
        "missing_voxels_in_the_coarsest_level": int((coarsest[:] != coarsest[:]).sum()),
        "peak_bytes": max(row["peak_bytes"] for row in tries),
        "seconds": sum(row["seconds"] for row in tries),
        "cpu_seconds": sum(row["cpu_seconds"] for row in tries),
        "attempts": [{k: v for k, v in row.items() if k != "left"} | {"finished": len(row["left"])} for row in tries],
    }


if __name__ == "__main__":
    main()
