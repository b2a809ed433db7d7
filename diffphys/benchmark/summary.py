"""Means over samples and tiers, and how much of the mismatch's loss a blind calibration wins back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffphys.benchmark.score import mean_score

Kept = Mapping[str, Any]  # one sample's stored result, with its "row"
Results = Mapping[str, Mapping[str, Sequence[Kept]]]  # scenario -> tier -> samples


def by_scenario(results: Results) -> dict[str, Any]:
    """Scenario -> tier -> means and standard errors; "overall" is the mean of the tiers."""
    out: dict[str, Any] = {}
    for scenario, per_tier in results.items():
        told = {tier: tier_means(samples) for tier, samples in per_tier.items()}
        overall = {n: float(np.mean([t[n] for t in told.values()])) for n in ("score", "standard_score", "psnr", "ssim", "c")}
        out[scenario] = {**told, "overall": {**overall, "tiers": sorted(told)}}
    return out


def tier_means(samples: Sequence[Kept]) -> dict[str, Any]:
    """Plain means of a tier; a failed sample has score 0 and counts with the figures of a dark image's floor, 0."""
    rows = [s["row"] for s in samples]
    scores = [r["score"] for r in rows]
    means = {n: float(np.mean([r[n] or 0.0 for r in rows])) for n in ("psnr", "ssim", "c")}
    ceilings = [r["c"] / r["c_ceiling"] for r in rows if r["c"] is not None and r["c_ceiling"]]
    second = [r["c_second"] for r in rows if r["c_second"] is not None]
    errors = {n: [r["error"][n] for r in rows if r["error"]] for n in (rows[0]["error"] or {})}
    bounds = {n: [r["error_cr"][n] for r in rows if r["error_cr"]] for n in (rows[0]["error_cr"] or {})}
    return {
        "samples": len(rows),
        "failed": sum(r["status"] != "ok" for r in rows),
        "score": mean_score(scores),
        "score_sem": float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None,
        "standard_score": mean_score([r["standard_score"] for r in rows]),
        **means,
        "c_second": float(np.mean(second)) if second else None,
        "c_over_ceiling": float(np.mean(ceilings)) if ceilings else None,
        "median_abs_error": {n: float(np.median(np.abs(v))) for n, v in errors.items()},
        "median_error_cr": {n: float(np.median(v)) for n, v in bounds.items()},
        "seconds": {n: float(np.mean([s["seconds"][n] for s in samples])) for n in ("calibrate", "reconstruct")},
    }


def recovery_ratio(results: Results) -> dict[str, float]:
    """Tier (and "overall") -> rho = (PSNR_IV - PSNR_II) / (PSNR_III - PSNR_II) of the mean PSNRs; {} without the scenarios."""
    if not {"II", "III", "IV"} <= set(results):
        return {}
    common = [t for t in results["IV"] if t in results["II"] and t in results["III"]]
    psnr = {s: [float(np.mean([k["row"]["psnr"] or 0.0 for k in results[s][t]])) for t in common] for s in ("II", "III", "IV")}
    pairs = dict(zip(common, zip(psnr["II"], psnr["III"], psnr["IV"], strict=True), strict=True))
    if common:
        pairs["overall"] = (float(np.mean(psnr["II"])), float(np.mean(psnr["III"])), float(np.mean(psnr["IV"])))
    return {t: (four - two) / (three - two) for t, (two, three, four) in pairs.items() if three != two}
