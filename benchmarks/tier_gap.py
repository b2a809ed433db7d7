"""Does a method hold on the hidden tier, and does blind calibration cost anything? From the results of `benchmark run`.

    python benchmarks/tier_gap.py OUT

OUT is the output folder of `diffphys benchmark run`. For every row: hidden minus public score on the scene families that both
tiers have, on the family that hidden alone has, and the median loss in dB from the true to the blind spec (scenario III less
IV). Numbers: benchmarks/results/tier_gap.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment, write

from diffphys.benchmark import tiers


def kept(folder: Path, scenario: str) -> list[dict[str, Any]]:
    paths = sorted((folder / scenario).glob("*/*.json"))
    return [told for p in paths if (told := json.loads(p.read_text()))["row"] is not None]


def figures(modality: str, folder: Path) -> dict[str, float]:
    """Means per tier over shared families, their difference with a bootstrap interval, and the loss by calibration."""
    blind, oracle = kept(folder, "IV"), {(r["tier"], r["sample"]): r for r in kept(folder, "III")}
    shared = set(tiers.families(modality, "public"))

    def scores(tier: str, *, common: bool) -> np.ndarray:
        return np.array([r["row"]["score"] for r in blind if r["tier"] == tier and (r["family"] in shared) == common])

    public, hidden, alone = scores("public", common=True), scores("hidden", common=True), scores("hidden", common=False)
    rng = np.random.default_rng(0)
    gaps = [rng.choice(hidden, len(hidden)).mean() - rng.choice(public, len(public)).mean() for _ in range(4000)]
    loss = [oracle[k]["row"]["psnr"] - r["row"]["psnr"] for r in blind if (k := (r["tier"], r["sample"])) in oracle]
    low, high = np.percentile(gaps, (2.5, 97.5))
    return {
        "public": float(public.mean()),
        "hidden": float(hidden.mean()),
        "hidden_less_public": float(hidden.mean() - public.mean()),
        "low": float(low),
        "high": float(high),
        "hidden_own_family": float(alone.mean()),
        "median_loss_db": float(np.median(loss)) if loss else float("nan"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    record: dict[str, Any] = {"environment": environment()}
    for modality in tiers.MODALITIES:
        for folder in sorted(p for p in (given.out / modality).glob("*") if (p / "IV" / "hidden").is_dir()):
            told = json.loads((given.out / f"{modality}_{folder.name}.json").read_text())
            record.setdefault(modality, {})[told["method"]] = figures(modality, folder)
            print(modality, told["method"], {k: round(v, 4) for k, v in record[modality][told["method"]].items()})
    if len(record) == 1:
        parser.error(f"{given.out} holds no results of scenario IV; give the output folder of `diffphys benchmark run`")
    write(Path(__file__).parent / "results" / "tier_gap.json", record)
