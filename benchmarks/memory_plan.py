"""The memory plan against the measured peak: the command itself in its own process, several methods and tile sizes.

    python benchmarks/memory_plan.py

Peak: largest resident memory of the child (ru_maxrss). A volume of noise is enough: memory does not depend on the counts. Few
iterations: the peak is reached in the first ones. Result: benchmarks/results/memory_plan.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from environment import environment, write

from diffphys.scale.networks import FAMILIES

RESULTS = Path(__file__).parent / "results"
SHAPE = (64, 384, 384)
TILES = ((32, 128, 128), (64, 256, 256), (64, 384, 384))
OPTICS = """
modality: confocal_3d
geometry: {na: 1.2, immersion_index: 1.515, excitation_nm: 488, emission_nm: 520, pinhole_au: 1.0, depth_um: 3}
detector: {gain: 1, offset: 0, read_sigma: 0, background: 3, peak_photons: 1}
"""


def make_volume(path: Path, shape: tuple[int, ...], *, voxel_um: tuple[float, ...] = (1.0, 0.3, 0.3), seed: int = 0) -> None:
    """Bright points on a background, uint16, written plane of chunks by plane of chunks."""
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": list(voxel_um)}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group = zarr.open_group(str(path), mode="w", zarr_format=3, attributes={"ome": {"version": "0.5", "multiscales": [image]}})
    array = group.create_array(
        "0", shape=shape, chunks=tuple(min(c, n) for c, n in zip((32, 128, 128), shape, strict=True)), dtype="uint16"
    )
    rng = np.random.default_rng(seed)
    for z in range(0, shape[0], 32):
        slab = (min(32, shape[0] - z), *shape[1:])
        light = np.where(rng.random(slab, np.float32) < 0.003, np.float32(80), np.float32(5))
        array[z : z + 32] = rng.poisson(light).astype(np.uint16)


def one(folder: Path, method: str, tile: tuple[int, ...], iterations: int) -> dict[str, Any]:
    """Planned and measured peak of one run."""
    output = folder / f"{method}_{'_'.join(map(str, tile))}.zarr"
    command = [sys.executable, "-m", "diffphys", "reconstruct", "in.zarr", "-o", output.name, "--optics", "optics.yaml"]
    command += ["--spec", "z_step=0", "--method", method, "--memory", "12GiB"]
    command += [] if method in FAMILIES else ["--iterations", str(iterations)]
    command += ["--tile", *map(str, tile)]
    if method == "tv":
        command += ["--option", "weight=0.1"]
    child = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {status}")
    plan = json.loads(output.with_suffix(".run.json").read_text())["volume"]["plan"]
    measured = usage.ru_maxrss * 1024
    row = {"method": method, "tile": tile, "block": plan["block"], "grid": plan["grid"], "planned_bytes": plan["peak"]}
    row |= {"measured_bytes": measured, "error": plan["peak"] / measured - 1}
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=11)
    parser.add_argument("--methods", default="richardson_lucy,wiener,tv,unet")
    stated = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_volume(folder / "in.zarr", SHAPE)
        (folder / "optics.yaml").write_text(OPTICS)
        rows = [one(folder, m, t, stated.iterations) for m in stated.methods.split(",") for t in TILES]
    worst = max(abs(r["error"]) for r in rows)
    write(RESULTS / "memory_plan.json", {"environment": environment(), "shape": SHAPE, "worst_error": worst, "rows": rows})


if __name__ == "__main__":
    main()
