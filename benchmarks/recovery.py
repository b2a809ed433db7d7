"""What blind calibration wins back, and how true its error bars are, on one draw of the benchmark.

    python benchmarks/recovery.py OUT --label "new draw" --tiers dev hidden

OUT is the output folder of `diffphys benchmark run` with scenarios II, III and IV; the public tier is the same in every draw.
For every method that the mismatch costs anything: mean PSNR, and the share rho of the loss from III to II that calibration wins
back, with a bootstrap interval over samples. For every parameter: errors and coverage of the stored calibrations. Numbers:
benchmarks/results/recovery.json, one record per label.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tier_gap
from environment import environment, write

from diffphys.benchmark import tiers
from diffphys.spec import names, parse
from diffphys.types import resolve

RESULTS = Path(__file__).parent / "results" / "recovery.json"
SCENARIOS = ("II", "III", "IV")
COSTS = 0.1  # dB from III to II


def kept(folder: Path, scenario: str, chosen: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(t["tier"], t["sample"]): t for t in tier_gap.kept(folder, scenario) if t["tier"] in chosen}


def ratio(folder: Path, chosen: Sequence[str]) -> dict[str, Any] | None:
    """PSNR of the three scenarios and rho over the samples that have all of them; None where the mismatch costs nothing."""
    found = {s: kept(folder, s, chosen) for s in SCENARIOS}
    common = sorted(set.intersection(*[set(f) for f in found.values()]))
    if not common:
        return None
    psnr = np.array([[found[s][key]["row"]["psnr"] for s in SCENARIOS] for key in common])
    if psnr[:, 1].mean() - psnr[:, 0].mean() < COSTS:
        return None
    picks = np.random.default_rng(0).integers(len(common), size=(4000, len(common)))
    low, high = np.percentile([rho(psnr[pick]) for pick in picks], (2.5, 97.5))
    by_tier = {t: rho(psnr[[key[0] == t for key in common]]) for t in sorted({key[0] for key in common})}
    return {
        "samples": len(common),
        "psnr": dict(zip(SCENARIOS, psnr.mean(0).tolist(), strict=True)),
        "rho": rho(psnr),
        "low": float(low),
        "high": float(high),
        "rho_by_tier": by_tier,
        "median_loss_db": float(np.median(psnr[:, 1] - psnr[:, 2])),
        "blind_score": float(np.mean([found["IV"][key]["row"]["score"] for key in common])),
    }


def rho(psnr: np.ndarray) -> float:
    two, three, four = psnr.mean(0)
    return float((four - two) / (three - two))


def calibrations(modality: str, folder: Path, calibrated: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Errors and coverage per parameter, from the errors that one method's blind rows carry."""
    rows = []
    for (tier, sample), told in kept(folder, "IV", chosen).items():
        stored = json.loads((calibrated / tier / f"{sample}.json").read_text())
        truth = {name: value - told["row"]["error"][name] for name, value in stored["spec"].items()}
        errors = dict(told["row"]["error"])
        sigma = dict(stored["sigma"])
        for name, (value, one_sigma) in stored["derived"].items():
            errors[name], sigma[name] = value - derived(modality, truth)[name], one_sigma
        rows.append((errors, sigma, stored["seconds"]))
    out: dict[str, Any] = {"stacks": len(rows), "median_seconds": float(np.median([seconds for _, _, seconds in rows]))}
    for name in rows[0][0]:
        error, sigma = (np.array([row[part][name] for row in rows]) for part in (0, 1))
        out[name] = {
            "median_error": float(np.median(np.abs(error))),
            "rms_error": float(np.sqrt(np.mean(error**2))),
            "bias": float(np.mean(error)),
            "within_1_sigma": float(np.mean(np.abs(error) < sigma)),
            "within_2_sigma": float(np.mean(np.abs(error) < 2 * sigma)),
        }
    return out


def derived(modality: str, values: dict[str, float]) -> dict[str, float]:
    used = resolve(modality)
    assert set(values) == set(names(used.FIELDS))
    spec = parse(used.Spec, used.FIELDS, values)
    return {name: float(v) for name, v in used.derived(spec, geometry=tiers.geometry(modality)).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--label", required=True, help="of this draw")
    parser.add_argument("--tiers", nargs="+", default=list(tiers.TIERS), choices=tiers.TIERS)
    given = parser.parse_args()
    record: dict[str, Any] = {"environment": environment()}
    for modality in tiers.MODALITIES:
        folders = sorted(p for p in (given.out / modality).glob("*") if all((p / s).is_dir() for s in SCENARIOS))
        methods = {p.name: found for p in folders if (found := ratio(p, given.tiers)) is not None}
        if methods:
            rows, calibrated = given.out / modality / next(iter(methods)), given.out / "calibrations" / modality
            errors = calibrations(modality, rows, calibrated, given.tiers)
            record[modality] = {"methods": methods, "calibrations": errors}
            print(modality, json.dumps(record[modality], indent=1))
    if len(record) == 1:
        parser.error(f"{given.out} holds no method with scenarios {', '.join(SCENARIOS)}; run `diffphys benchmark run` first")
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write(RESULTS, stored | {given.label: record})


if __name__ == "__main__":
    main()
