"""Do the methods hold on real stacks? Half of the photons is reconstructed, the Poisson likelihood of the other half judges.

    python benchmarks/held_out_counts.py --output out/held
    python benchmarks/held_out_counts.py --output out/held --only grid --seeds 1

Binomial thinning makes two independent Poisson halves of integer photons. No truth is needed; an image that invents or omits
structure predicts the other half worse. Nominal optics (the stacks cannot calibrate a PSF), one detector per stack. Numbers:
benchmarks/results/held_out_counts.json, in nats per photon below the Richardson-Lucy image's; figures in the output folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from environment import environment, write
from real_stacks import COLLAGEN_PIXEL_UM, DATA, GRID_VOXEL, HERE, NUCLEUS_OPTICS, NUCLEUS_VOXEL

import diffphys
from diffphys import confocal, shg
from diffphys.calibrate.detector import estimate
from diffphys.report.gallery import gallery
from diffphys.spec import pitch_um

RESULTS = HERE / "results" / "held_out_counts.json"
FLOOR = 0.02  # expected photons of the darkest voxel, share of the mean: an empty voxel must not cost infinity
SUPERVISED = ("care", "unet", "restormer")
METHODS = {
    "confocal_3d": ("richardson_lucy", "wiener", "ircnn", "noise2void", *SUPERVISED, "swinir"),
    "shg": ("richardson_lucy", "wiener", "tv", "pnp_fista", "pnp_dncnn", *SUPERVISED, "resunet", "restormer_plus",
            "deconvformer", "diffdeconv"),
}  # fmt: skip


def nucleus() -> tuple[Any, np.ndarray, Any]:
    y = tifffile.imread(DATA / "confocal" / "nucleus_confocal_widefield_45x2x130x133.tif")[:, 0].astype(np.float32)
    return confocal, y, confocal.Geometry(y.shape, NUCLEUS_VOXEL, excitation_nm=405.0, pinhole_au=1.24, **NUCLEUS_OPTICS)


def grid() -> tuple[Any, np.ndarray, Any]:
    y = tifffile.imread(DATA / "confocal" / "grid_1au_21x150x150.tif").astype(np.float32)
    return confocal, y, confocal.Geometry(y.shape, GRID_VOXEL, depth_um=0.0)


def collagen_frames() -> tuple[Any, np.ndarray, Any]:
    frames = tifffile.imread(DATA / "shg" / "collagen_frames_200x200x3.tif")
    y = np.ascontiguousarray(frames[..., 0][None]).astype(np.float32)  # one frame: the three are of one excitation angle
    return shg, y, shg.Geometry(y.shape[1:], (COLLAGEN_PIXEL_UM, COLLAGEN_PIXEL_UM), phase_offsets_rad=(0.0,), power_trace=None)


STACKS = {f.__name__: f for f in (nucleus, grid, collagen_frames)}


def judge(name: str, *, seeds: int, output: Path) -> dict[str, Any]:
    """Held-out negative log-likelihood of every method on one stack."""
    modality, y, geometry = STACKS[name]()
    found, doubts = estimate(y, modality, geometry=geometry)
    photons = np.round(np.maximum((y - float(found.offset)) / float(found.gain), 0)).astype(np.int64)
    half = diffphys.Detector(1.0, 0.5 * float(found.background), 1.0, 0.0, 0.0)
    losses: dict[str, list[float]] = {m: [] for m in METHODS[modality.NAME]}
    images: dict[str, np.ndarray] = {}
    for seed in range(seeds):
        kept = np.random.default_rng(seed).binomial(photons, 0.5)
        held = (photons - kept).astype(np.float64)
        floor = FLOOR * held.mean()
        for method in losses:
            given = {"geometry": geometry, "detector": half, "method": method}
            restored = diffphys.reconstruct(kept.astype(np.float32), modality, modality.nominal(geometry), **given)
            mean = np.maximum(restored.prediction.astype(np.float64), floor)
            losses[method].append(float(np.sum(mean - held * np.log(mean)) / held.sum()))
            images.setdefault(method, restored.image)
            print(
                name,
                seed,
                method,
                f"{losses['richardson_lucy'][-1] - losses[method][-1]:+.5f}",
                restored.status.name,
                flush=True,
            )
    plane = (lambda x: x[x.shape[0] // 2]) if y.ndim == 3 and modality is confocal else (lambda x: x)
    pitch = pitch_um(geometry)[-2:]
    cells = [("half of the photons", plane(kept if modality is confocal else kept[0]), pitch)]
    cells += [(m, plane(image), pitch) for m, image in images.items()]
    rows = [cells[i : i + 5] for i in range(0, len(cells), 5)]
    gallery(output / f"held_out_{name}.png", rows, title=f"{name}: reconstructed from half of the photons", notes=list(doubts))
    gains = {m: np.subtract(losses["richardson_lucy"], v) for m, v in losses.items()}
    return {
        "modality": modality.NAME,
        "photons": int(photons.sum()),
        "gain": float(found.gain),
        "doubts": list(doubts),
        "nats_per_photon_below_richardson_lucy": {m: {"mean": float(g.mean()), "all": g.tolist()} for m, g in gains.items()},
        "lose_to_richardson_lucy": [m for m, g in gains.items() if g.mean() < 0],
        "environment": environment(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for figures")
    parser.add_argument("--only", nargs="+", choices=STACKS, default=list(STACKS))
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"stacks": {}}
    for name in given.only:
        record["stacks"][name] = judge(name, seeds=given.seeds, output=given.output)
        write(RESULTS, record)
