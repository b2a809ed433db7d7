"""From the folder that `benchmark run` filled to measured rows: what the leaderboard shows, with intervals over the samples."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from diffphys.benchmark import rows, tiers
from diffphys.io.provenance import sha256

FORMAT = "diffphys-benchmark-results"
_FIGURES = {"score": "score", "psnr": "psnr", "ssim": "ssim", "consistency": "c"}
STANDARD = "I"  # the scenario in which the operator is known and right


def collect(folder: Path | str, *, seed: int | None = 0) -> list[rows.Row]:
    """The rows of every method that was run there.

    Args:
        folder: `--output` of `diffphys benchmark run`.
        seed: of the run, for the record.

    Raises:
        ValueError: nothing was run there, or a result is incomplete.
    """
    place = Path(folder)
    found = [row for p in sorted(place.glob("*.json")) if (row := _row(place, p, seed)) is not None]
    if not found:
        raise ValueError(f"{place} holds no results; `diffphys benchmark run METHOD -o {place}` makes them")
    return found


def _row(folder: Path, path: Path, seed: int | None) -> rows.Row | None:
    said = json.loads(path.read_text(encoding="utf-8"))
    if said.get("format") != FORMAT or "IV" not in said["scenarios"]:
        return None
    per_tier = {t: _tier(folder, path.stem, said, t) for t in tiers.TIERS if t in said["scenarios"]["IV"]}
    overall = {s: told["overall"] for s, told in said["scenarios"].items()}
    ideal = overall.get(STANDARD)
    return rows.check(
        {
            "format": rows.FORMAT,
            "version": said["version"],
            "modality": said["modality"],
            "method": said["method"],
            "created": said["finished"],
            "tiers": per_tier,
            "standard": ideal and {"score": ideal["standard_score"], "psnr": ideal["psnr"], "ssim": ideal["ssim"]},
            "scenarios": {s: {"psnr": o["psnr"], "ssim": o["ssim"]} for s, o in overall.items()},
            "recovery_ratio": said["recovery_ratio"].get("overall"),
            "provenance": {
                "command": shlex.join(["diffphys", *said["command"][1:]])[:500],
                "code_version": f"diffphys {said['versions']['diffphys']}",
                "commit": said["git_commit"],
                "device": str(said["device"]["kind"]),
                "seed": seed,
            },
        }
    )


def _tier(folder: Path, stem: str, said: dict[str, Any], tier: str) -> dict[str, Any]:
    modality, slug = said["modality"], stem.removeprefix(f"{said['modality']}_")
    samples = [
        json.loads(p.read_text(encoding="utf-8")) for p in sorted((folder / modality / slug / "IV" / tier).glob("*.json"))
    ]
    kept = [s["row"] for s in samples if s["challenge_sha256"] == said["challenges"][tier]]
    if len(kept) != said["scenarios"]["IV"][tier]["samples"]:
        raise ValueError(f"{folder}: {modality} {said['method']} {tier} has {len(kept)} samples on disk; run the method again")
    figures = {name: rows.interval([r[key] or 0.0 for r in kept]).model_dump() for name, key in _FIGURES.items()}
    return {
        **figures,
        "n": len(kept),
        "failed": sum(r["status"] != "ok" for r in kept),
        "seconds_per_sample": sum(sum(s["seconds"].values()) for s in samples) / len(samples),
        "challenge_sha256": said["challenges"][tier],
        "submission_sha256": sha256(folder / f"{modality}_{slug}_{tier}.h5"),
    }
