"""Are the uncertainty maps true? Share of voxels whose error lies within 1 and 2 sigma, on the public tier.

    python benchmarks/uncertainty.py --data DATA --samples 12

DATA is what `diffphys benchmark create` filled. The true spec is used: the maps speak of noise and of the prior, not of the
calibration. A Laplace distribution holds 75.7 % within one of its standard deviations and 94.1 % within two, a normal one 68.3
and 95.4 %. Numbers: benchmarks/results/uncertainty.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from environment import environment, write

import diffphys
from diffphys.benchmark.run import read_tier
from diffphys.spec import parse
from diffphys.types import resolve

METHODS = {"shg": ("care", "diffdeconv"), "confocal_3d": ("care",)}


def covered(modality: str, data: Path, samples: int) -> dict[str, dict[str, float]]:
    """Method -> shares within 1 and 2 sigma, and rms error over rms sigma."""
    challenge, truths = read_tier(data, modality, "public")
    known, geometry = resolve(modality), challenge.held.geometry
    found: dict[str, list[tuple[float, float, float]]] = {m: [] for m in METHODS[modality]}
    for name in challenge.held.names[:samples]:
        sample, truth = challenge.samples[name], truths[name]
        spec = parse(known.Spec, known.FIELDS, dict(truth.spec))
        for method, rows in found.items():
            given = {"geometry": geometry, "detector": sample.detector, "method": method}
            r = diffphys.reconstruct(sample.y, known, spec, **given)
            error, sigma = np.abs(r.image - truth.x_true), np.maximum(r.uncertainty, 1e-9)
            ratio = float(np.sqrt(np.mean(error**2) / np.mean(sigma**2)))
            rows.append((float(np.mean(error < sigma)), float(np.mean(error < 2 * sigma)), ratio))
    names = ("within_1_sigma", "within_2_sigma", "rms_error_over_rms_sigma")
    return {m: dict(zip(names, np.mean(rows, 0).tolist(), strict=True)) for m, rows in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12)
    given = parser.parse_args()
    record = {m: covered(m, given.data, given.samples) for m in METHODS}
    print(record)
    write(
        Path(__file__).parent / "results" / "uncertainty.json",
        {**record, "samples": given.samples, "environment": environment()},
    )
