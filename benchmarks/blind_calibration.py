"""Blind calibration on fresh simulated measurements: accuracy, coverage of the error bars, reconstruction against the oracle.

    python benchmarks/blind_calibration.py confocal_3d --draws 102 --reconstruct-every 4

Each draw has its own scene (three families in turn), photon level (100, 1000 in turn), spec (uniform in the ranges) and noise.
Fields are crops of larger scenes: nothing is periodic. Results: benchmarks/results/blind_calibration_<name>.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from environment import environment, write
from tqdm import tqdm

import diffphys
from diffphys import demo
from diffphys.types import resolve

RESULTS = Path(__file__).parent / "results"
FAMILIES = {"confocal_3d": ("beads", "filaments", "cells"), "shg": ("collagen", "wavy", "sparse")}
GRAIN_UM = 0.4  # correlation length of the random field


def gaussian_field(*, shape: tuple[int, ...], seed: int, haze: float = 0.0, **pitch: tuple[float, ...]) -> np.ndarray:
    """A positive Gaussian random field (mean 1, sd 0.25) with a Matern spectrum: the prior that the evidence assumes."""
    (spacing,) = pitch.values()
    nu = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)], indexing="ij")
    amplitude = (GRAIN_UM**-2 + sum(n**2 for n in nu)) ** (-0.5 - len(shape) / 4)
    white = np.random.default_rng(seed).normal(size=shape)
    field = np.fft.ifftn(amplitude * np.fft.fftn(white)).real
    return np.maximum(1.0 + 0.25 * (field - field.mean()) / field.std(), 0.0) + haze


def geometry_of(name: str, frames: int) -> Any:
    if name == "confocal_3d":
        return diffphys.confocal.Geometry()
    offsets = {2: (0.0, 1.5), 3: (0.0, 1.5, 3.0)}[frames]
    return diffphys.shg.Geometry(shape=(128, 128), phase_offsets_rad=offsets)


def draw(
    name: str, geometry: Any, number: int, *, first_seed: int, haze: float, restore: bool, random_field: bool = False
) -> dict[str, Any]:
    """One simulated measurement, calibrated blind; with `restore` also reconstructed with three specs."""
    modality, seed = resolve(name), first_seed + number
    photons, family = (100.0, 1000.0)[number % 2], "gaussian" if random_field else FAMILIES[name][number // 2 % 3]
    truth = demo.random_spec(modality, geometry, seed)
    measured = demo.simulated(
        modality, truth, geometry=geometry, family=scene(family), seed=seed, photons=photons, offset=0.0, haze=haze
    )
    started = time.perf_counter()
    found = diffphys.calibrate(measured.y, modality, geometry=geometry, detector=measured.detector)
    seconds = time.perf_counter() - started
    derived = {k: float(v) for k, v in modality.derived(truth, geometry=geometry).items()}
    row: dict[str, Any] = {
        "seed": seed,
        "family": family,
        "photons": photons,
        "truth": {n: float(getattr(truth, n)) for n in found.names} | derived,
        "estimate": found.values | {k: v for k, (v, _) in found.derived.items()},
        "sigma": found.sigma | {k: s for k, (_, s) in found.derived.items()},
        "status": found.status.name,
        "undetermined": list(found.undetermined),
        "spectrum": found.diagnostics["spectrum"],
        "goodness_of_fit_sd": found.diagnostics["goodness_of_fit_sd"],
        "sign_margin_nats": found.diagnostics["sign_margin_nats"],
        "seconds": seconds,
    }
    if restore:
        specs = {"oracle": truth, "estimated": found.spec, "nominal": modality.nominal(geometry)}
        row["psnr"] = {
            key: demo.psnr(
                diffphys.reconstruct(measured.y, modality, spec, geometry=geometry, detector=measured.detector).image,
                measured.x,
            )
            for key, spec in specs.items()
        }
    return row


def scene(family: str) -> Any:
    """What `demo.simulated` takes."""
    return gaussian_field if family == "gaussian" else family


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and coverage per parameter, over all rows and per photon level."""
    out: dict[str, Any] = {}
    for name in rows[0]["sigma"]:
        error = np.array([r["estimate"][name] - r["truth"][name] for r in rows])
        size = (
            np.array([abs(abs(r["estimate"][name]) - abs(r["truth"][name])) for r in rows]) if name == "c_tot" else abs(error)
        )
        sigma, photons = np.array([r["sigma"][name] for r in rows]), np.array([r["photons"] for r in rows])
        out[name] = {
            "median_error": float(np.median(size)),
            **{f"median_error_{p}": float(np.median(size[photons == p])) for p in (100, 1000)},
            "p90_error": float(np.quantile(size, 0.9)),
            "within_1_sigma": float(np.mean(abs(error) < sigma)),
            "within_2_sigma": float(np.mean(abs(error) < 2 * sigma)),
        }
    if "c_tot" in rows[0]["truth"]:
        clear = [r for r in rows if abs(r["truth"]["c_tot"]) > 0.02]
        out["sign_right"] = float(np.mean([r["truth"]["c_tot"] * r["estimate"]["c_tot"] > 0 for r in clear]))
        out["sign_cases"] = len(clear)
    restored = [r for r in rows if "psnr" in r]
    if restored:
        loss = [r["psnr"]["oracle"] - r["psnr"]["estimated"] for r in restored]
        gain = [r["psnr"]["estimated"] - r["psnr"]["nominal"] for r in restored if large(r)]
        out["psnr"] = {
            "reconstructed": len(restored),
            "median_below_oracle_db": float(np.median(loss)),
            "large_mismatch": len(gain),
            "median_above_nominal_db": float(np.median(gain)) if gain else None,
            "share_above_2_db": float(np.mean(np.array(gain) >= 2)) if gain else None,
        }
    out["median_seconds"] = float(np.median([r["seconds"] for r in rows]))
    out["statuses"] = {s: sum(r["status"] == s for r in rows) for s in sorted({r["status"] for r in rows})}
    return out


def large(row: dict[str, Any]) -> bool:
    """Mismatch of at least half its range: c_tot above 0.1 waves, or (SHG) p_m or c_n beyond half of their larger bound."""
    truth = row["truth"]
    if "c_tot" in truth:
        return abs(truth["c_tot"]) >= 0.1
    return row["photons"] >= 1000 and (
        abs(truth["phase_matching_error"]) >= 1.15 or abs(truth["collection_na_mismatch"]) >= 0.023
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modality", choices=sorted(FAMILIES))
    parser.add_argument("--draws", type=int, default=102)
    parser.add_argument("--frames", type=int, default=2, choices=(2, 3), help="SHG frames")
    parser.add_argument("--first-seed", type=int, default=20_000)
    parser.add_argument("--haze", type=float, default=0.0, help="diffuse light of the scene, share of its peak")
    parser.add_argument("--random-field", action="store_true", help="Gaussian random fields instead of structured scenes")
    parser.add_argument("--reconstruct-every", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "diffphys" / "xla"))
    geometry = geometry_of(options.modality, options.frames)
    tag = (
        options.modality
        + (f"_k{options.frames}" if options.modality == "shg" else "")
        + ("_haze" if options.haze else "")
        + ("_gaussian" if options.random_field else "")
    )
    label = tag.replace("_", " ")
    rows: list[dict[str, Any]] = []
    for number in tqdm(range(options.draws), desc=label):
        every = options.reconstruct_every
        restore = bool(every) and number // 6 % every == 0  # whole rounds of families x photon levels
        chosen = {"first_seed": options.first_seed, "haze": options.haze, "random_field": options.random_field}
        rows.append(draw(options.modality, geometry, number, restore=restore, **chosen))
        record = {
            "label": label,
            "options": vars(options),
            "environment": environment(),
            "summary": summary(rows),
            "rows": rows,
        }
        write(RESULTS / f"blind_calibration_{tag}.json", record)
    print(json.dumps(summary(rows), indent=2))


if __name__ == "__main__":
    main()
