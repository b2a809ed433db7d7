"""Calibrations per second: one by one, and in batches over this machine's devices, of the same stacks, after compilation.

    python benchmarks/batch_calibration.py [--stacks 32] [--rounds 2] [--output FILE]

Both ways take turns in one process; each core is a device of its own for the batch, one device of all cores for single calls,
so the two run in processes of their own when --alone is given. The estimates are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHAPE = (32, 64, 64)


def stacks(count: int) -> list[Any]:
    """Filaments in mismatched instruments, 300 photons at the brightest voxel."""
    from diffphys import confocal, demo

    geometry = confocal.Geometry(shape=SHAPE)
    return [
        demo.simulated(
            confocal, demo.random_spec(confocal, geometry, seed), geometry=geometry, family="filaments", seed=seed,
            photons=300.0, offset=0.0,
        )
        for seed in range(count)
    ]  # fmt: skip


def timed(way: str, count: int, rounds: int) -> dict[str, Any]:
    """Seconds per stack of one way in this process, wall and CPU, and what it found."""
    import jax

    if way == "batch":
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    import diffphys

    measured, geometry = stacks(count), diffphys.confocal.Geometry(shape=SHAPE)

    def run() -> list[Any]:
        if way == "single":
            return [diffphys.calibrate(m.y, "confocal_3d", geometry=geometry, detector=m.detector) for m in measured]
        return diffphys.calibrate_batch(
            [m.y for m in measured], "confocal_3d", geometry=geometry, detector=[m.detector for m in measured], width=count
        )

    started = time.perf_counter()
    found, first, rows = run(), time.perf_counter() - started, []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        rows.append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
    return {
        "first_call_s": first,
        "wall_s_per_stack": min(w for w, _ in rows),
        "cpu_s_per_stack": min(c for _, c in rows),
        "devices": [str(d) for d in jax.local_devices()],
        "found": [[*c.values.values(), *c.sigma.values()] for c in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stacks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=("single", "batch"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "batch_calibration.json")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(timed(options.way, options.stacks, options.rounds)))
        return
    told: dict[str, Any] = {}
    for way in ("single", "batch"):  # devices are chosen before jax starts: a process each, one after the other
        command = [sys.executable, __file__, "--way", way, "--stacks", str(options.stacks), "--rounds", str(options.rounds)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        told[way] = json.loads(out.splitlines()[-1])
    found = [told[way].pop("found") for way in ("single", "batch")]
    half = len(found[0][0]) // 2
    told["largest_difference_in_sigma"] = max(
        abs(a - b) / max(s, 1e-12)
        for one, many in zip(*found, strict=True)
        for a, b, s in zip(one[:half], many[:half], one[half:], strict=True)
    )
    told["throughput_ratio"] = told["single"]["wall_s_per_stack"] / told["batch"]["wall_s_per_stack"]
    from environment import environment, write

    record = {"label": "batch calibration", "stacks": options.stacks, "shape": SHAPE, **told}
    write(options.output, {**record, "environment": environment()})
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
