"""Bias of the joint estimator against the evidence, on the same measurements.

    python benchmarks/joint_bias.py --draws 6

Each draw has its own scene, spec (uniform in the ranges) and noise, 1000 photons; all start at the nominal spec. The joint
estimator runs in both schemes with both optimisers, total variation as in reconstruction. Results: results/joint_bias.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from blind_calibration import FAMILIES
from environment import environment, write
from tqdm import tqdm

import diffphys
from diffphys import demo
from diffphys.calibrate.joint import OPTIMISERS, SCHEMES
from diffphys.types import resolve

RESULTS = Path(__file__).parent / "results"
GEOMETRY = {
    "confocal_3d": diffphys.confocal.Geometry(shape=(24, 48, 48)),
    "shg": diffphys.shg.Geometry(shape=(96, 96), phase_offsets_rad=(0.0, 1.5)),
}


def estimates(name: str, measured: Any, iterations: int) -> dict[str, tuple[Any, float]]:
    """Estimator -> spec and seconds."""
    given = {"geometry": GEOMETRY[name], "detector": measured.detector}
    out = {}
    started = time.perf_counter()
    out["evidence"] = (diffphys.calibrate(measured.y, name, **given).spec, time.perf_counter() - started)
    for scheme in SCHEMES:
        for optimiser in OPTIMISERS:
            started = time.perf_counter()
            found = diffphys.joint(measured.y, name, **given, scheme=scheme, optimiser=optimiser, iterations=iterations)
            out[f"joint, {scheme}, {optimiser}"] = (found.spec, time.perf_counter() - started)
    return out


def draw(name: str, number: int, *, first_seed: int, iterations: int) -> dict[str, Any]:
    """Errors of every estimator on one measurement; of c_tot, that of its magnitude."""
    modality, geometry, seed = resolve(name), GEOMETRY[name], first_seed + number
    family = FAMILIES[name][number % 3]
    truth = demo.random_spec(modality, geometry, seed)
    measured = demo.simulated(modality, truth, geometry=geometry, family=family, seed=seed, photons=1000.0, offset=0.0)
    row: dict[str, Any] = {"seed": seed, "family": family, "errors": {}, "seconds": {}}
    for label, (spec, seconds) in estimates(name, measured, iterations).items():
        error = {f.name: float(getattr(spec, f.name)) - float(getattr(truth, f.name)) for f in modality.FIELDS}
        for key, true in modality.derived(truth, geometry=geometry).items():
            error[key] = abs(float(modality.derived(spec, geometry=geometry)[key])) - abs(float(true))
        row["errors"][label], row["seconds"][label] = error, seconds
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Estimator -> parameter -> mean (bias) and rms error; median seconds."""
    out: dict[str, Any] = {}
    for label in rows[0]["errors"]:
        out[label] = {"median_seconds": float(np.median([r["seconds"][label] for r in rows]))}
        for name in rows[0]["errors"][label]:
            e = np.array([r["errors"][label][name] for r in rows])
            out[label][name] = {"bias": float(e.mean()), "rms": float(np.sqrt(np.mean(e**2)))}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=40_000)
    parser.add_argument("--iterations", type=int, default=200)
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "diffphys" / "xla"))
    record: dict[str, Any] = {"options": vars(options), "environment": environment()}
    for name in GEOMETRY:
        rows = []
        for number in tqdm(range(options.draws), desc=name):
            rows.append(draw(name, number, first_seed=options.first_seed, iterations=options.iterations))
            record[name] = {"summary": summary(rows), "rows": rows}
            write(RESULTS / "joint_bias.json", record)


if __name__ == "__main__":
    main()
