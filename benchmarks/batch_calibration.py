"""Calibrations per second: one by one, and in batches, of the same stacks, after compilation.

    python benchmarks/batch_calibration.py [--stacks 32] [--rounds 2] [--output FILE]

Both ways take turns in one process. The estimates are compared.
"""

from __future__ import annotations

import argparse
import json
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


def timed(measured: list[Any], rounds: int) -> dict[str, Any]:
    """way -> seconds per stack, wall and CPU, and what it found; the ways take turns."""
    import jax

    import diffphys

    count, geometry = len(measured), diffphys.confocal.Geometry(shape=SHAPE)
    counts, detectors = [m.y for m in measured], [m.detector for m in measured]

    def single() -> list[Any]:
        return [
            diffphys.calibrate(y, "confocal_3d", geometry=geometry, detector=d) for y, d in zip(counts, detectors, strict=True)
        ]

    def batch() -> list[Any]:
        return diffphys.calibrate_batch(counts, "confocal_3d", geometry=geometry, detector=detectors, width=count)

    told: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for call in (single, batch):
            wall, cpu = time.perf_counter(), time.process_time()
            found = call()
            spent = (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count
            row = told.setdefault(call.__name__, {"wall_s_per_stack": [], "cpu_s_per_stack": []})
            row["found"] = [[*c.values.values(), *c.sigma.values()] for c in found]
            for name, seconds in zip(("wall_s_per_stack", "cpu_s_per_stack"), spent, strict=True):
                row[name] += [seconds] if turn else []  # the first turn compiles
    for row in told.values():
        row |= {name: min(row[name]) for name in ("wall_s_per_stack", "cpu_s_per_stack")}
    return told | {"devices": [str(d) for d in jax.local_devices()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stacks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "batch_calibration.json")
    options = parser.parse_args()
    told = timed(stacks(options.stacks), options.rounds)
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
