"""The standard benchmark (operator known) against light: mean standard score at five photon levels, per method.

    python benchmarks/photon_levels.py shg
    python benchmarks/photon_levels.py confocal_3d --scenes 6 --methods richardson_lucy,wiener,unet

Fresh specimens of the public families at benchmark.md's settings, but for the light, which is fixed; the nominal instrument
made the counts and is used to reconstruct. Numbers: benchmarks/results/photon_levels_{modality}.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from environment import environment, write

import diffphys
from diffphys.benchmark import draw, figures, tiers
from diffphys.noise import Detector, sample
from diffphys.types import resolve

KEY = b"diffphys photon levels"
LEVELS = (100.0, 300.0, 1000.0, 3000.0, 10000.0)
PRINTED = {"shg": 0.882, "confocal_3d": 0.896}  # best standard scores of the seed pages
METHODS = {
    "shg": "richardson_lucy,wiener,richardson_lucy_tv,pnp_fista,unet,resunet,restormer,restormer_plus",
    "confocal_3d": "richardson_lucy,wiener,unet,care,restormer,swinir",
}


def run(modality: str, methods: list[str], scenes: int) -> dict[str, Any]:
    """Rows (method, photons, scene) and their means."""
    geometry, known = tiers.geometry(modality), resolve(modality)
    nominal, rows = known.nominal(geometry), []
    for index in range(scenes):
        families = tiers.families(modality, "public")
        family = families[index % len(families)]
        x = jnp.asarray(draw.accepted_scene(KEY, modality, "public", index, family, geometry)[0], jnp.float32)
        signal = draw.forward_of(modality, geometry)(nominal, x)
        truth = np.asarray(x[draw.field_of(geometry.shape, x.shape)], np.float64)
        for level in LEVELS:
            peak = float(level / jnp.max(signal))
            detector = Detector(peak, tiers.BACKGROUND * level, tiers.GAIN, tiers.OFFSET, tiers.READ_SIGMA)
            key = jax.random.fold_in(draw.key_of(KEY, modality, "public", index, "noise"), int(level))
            y = np.asarray(sample(key, detector, signal), np.float32)
            for method in methods:
                image = diffphys.reconstruct(y, known, nominal, geometry=geometry, detector=detector, method=method).image
                psnr, ssim = figures.psnr(image.astype(np.float64), truth), figures.ssim(image.astype(np.float64), truth)
                score = figures.standard_score(psnr, ssim)
                rows.append({"method": method, "photons": level, "family": family, "psnr": psnr, "ssim": ssim, "score": score})
        print(index, family, flush=True)
    table = {}
    for method in methods:
        for level in LEVELS:
            mine = [r for r in rows if (r["method"], r["photons"]) == (method, level)]
            table.setdefault(method, {})[f"{level:g}"] = {
                k: float(np.mean([r[k] for r in mine])) for k in ("score", "psnr", "ssim")
            }
    return {"modality": modality, "printed_best": PRINTED[modality], "scenes": scenes, "table": table, "rows": rows,
            "environment": environment()}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", choices=list(METHODS))
    parser.add_argument("--methods", help="names, separated by commas")
    parser.add_argument("--scenes", type=int, default=6)
    given = parser.parse_args()
    found = run(given.modality, (given.methods or METHODS[given.modality]).split(","), given.scenes)
    write(Path(__file__).parent / "results" / f"photon_levels_{given.modality}.json", found)
    for method, levels in found["table"].items():
        print(method.ljust(20), "  ".join(f"{v['score']:.3f}" for v in levels.values()))
