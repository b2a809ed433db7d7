"""How near the estimator comes to the Cramer-Rao bound: RMSE over draws against the bound at each draw's own truth.

    python benchmarks/bound_ratio.py

Reads benchmarks/results/blind_calibration_*.json, draws the same scenes again, and takes the bound of an unknown image whose
power spectrum is known (`diffphys.identify`). The ratio of a group is RMSE / rms of the bounds, and beside it the median over
draws of |error| / bound divided by 0.6745 (1 for an estimator that attains its bound). Draws whose estimate of a parameter
was refused (undetermined and returned as such) count like all others. Results: benchmarks/results/bound_ratio.json.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from blind_calibration import geometry_of, scene
from environment import environment, write
from tqdm import tqdm

import diffphys
from diffphys import demo
from diffphys.spec import parse
from diffphys.types import resolve

RESULTS = Path(__file__).parent / "results"
SETS = ("confocal_3d", "shg_k2", "shg_k3", "confocal_3d_gaussian", "shg_k2_gaussian")
HALF = 0.6745  # median of |N(0, 1)|


def bounds(name: str, geometry: Any, row: dict[str, Any]) -> dict[str, float]:
    """Parameter -> 1 sigma bound at the row's truth, its specimen's spectrum known."""
    modality = resolve(name)
    truth = parse(modality.Spec, modality.FIELDS, {f.name: row["truth"][f.name] for f in modality.FIELDS})
    light = {"photons": row["photons"], "offset": 0.0}
    measured = demo.simulated(modality, truth, geometry=geometry, family=scene(row["family"]), seed=row["seed"], **light)
    found = diffphys.identify(
        modality, geometry=geometry, spec=truth, photons=row["photons"], scene=measured.x, suggest_changes=False
    )
    return found.bounds | {k: sigma for k, (_, sigma) in found.derived.items()}


def group(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Figures of one parameter over some draws."""
    error = np.array([r["estimate"][name] - r["truth"][name] for r in rows])
    if name == "c_tot":  # its sign is another question (positivity's), asked in blind_calibration
        error = np.array([abs(r["estimate"][name]) - abs(r["truth"][name]) for r in rows])
    bound = np.array([r["bound"][name] for r in rows])
    rmse, size = float(np.sqrt(np.mean(error**2))), float(np.sqrt(np.mean(bound**2)))
    return {
        "draws": len(rows),
        "bound": size,
        "median_bound": float(np.median(bound)),
        "rmse": rmse,
        "ratio": rmse / size,
        "median_ratio": float(np.median(abs(error) / bound)) / HALF,
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter x photons (all families), then parameter x photons x family."""
    names, levels = list(rows[0]["bound"]), sorted({r["photons"] for r in rows})
    families = (None, *sorted({r["family"] for r in rows}))
    out = []
    for family, name, photons in product(families, names, levels):
        chosen = [r for r in rows if r["photons"] == photons and family in (None, r["family"])]
        out.append({"parameter": name, "photons": photons, "family": family or "all"} | group(chosen, name))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "diffphys" / "xla"))
    path = RESULTS / "bound_ratio.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    for tag in (t for t in options.sets if (RESULTS / f"blind_calibration_{t}.json").exists()):
        source = json.loads((RESULTS / f"blind_calibration_{tag}.json").read_text())
        name, frames = source["options"]["modality"], source["options"]["frames"]
        geometry, rows = geometry_of(name, frames), source["rows"]
        rows = [r | {"bound": bounds(name, geometry, r)} for r in tqdm(rows, desc=tag)]
        ratios = [entry["median_ratio"] for entry in table(rows) if entry["family"] != "all"]
        record[tag] = {
            "environment": environment(),
            "calibrations_of": source["environment"]["commit"],
            "table": table(rows),
            "median_ratio": float(np.median(ratios)),
            "p90_ratio": float(np.quantile(ratios, 0.9)),
            "bounds": [r["bound"] for r in rows],
        }
        write(path, record)
        for entry in record[tag]["table"]:
            print(tag, *(f"{v:.3g}" if isinstance(v, float) else v for v in entry.values()))


if __name__ == "__main__":
    main()
