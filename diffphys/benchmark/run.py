"""Methods of ours through the tiers: calibrate each sample once, reconstruct it in each scenario, score, write submissions.

Every finished sample is a file of its own, so a run that was stopped or killed goes on where it was. Layout of the results:

    calibrations/{modality}/{tier}/sample_00.json       shared by all methods
    {modality}/{method}/{scenario}/{tier}/sample_00.json, .npy
    {modality}_{method}_{tier}.h5                       the submission (scenario IV)
    {modality}_{method}.json                            summary
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from diffphys.benchmark import scenarios, score, summary, tiers
from diffphys.benchmark.methods import Method
from diffphys.io.atomic import replacing
from diffphys.io.challenge import Challenge, Truth, challenge_name, read_challenge, read_truth, truth_name
from diffphys.io.provenance import device, git_commit, versions
from diffphys.io.results import plain, write_json
from diffphys.io.submission import Entry, write_submission
from diffphys.spec import parse
from diffphys.types import resolve

Progress = Callable[[float, str], None]


def run(
    methods: Sequence[Method],
    modality: str,
    *,
    data: Path | str,
    out: Path | str,
    wanted: Sequence[str] = tiers.TIERS,
    chosen: Sequence[str] = scenarios.SCENARIOS,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Take methods through tiers and scenarios; finished samples in `out` are kept and not repeated.

    Args:
        methods: rows of `methods.METHODS`; sample after sample, so that they share what each starts from.
        modality: name.
        data: folder that `create` filled. Scenarios I and III of dev and hidden need the truth files in it, and so does
            scoring; without them only submissions are made (scenario IV).
        out: folder of the results.
        wanted, chosen: tiers and scenarios.
        progress: called with (fraction done, what is being done).

    Returns:
        The summary of each, as written to `{modality}_{method}.json`.
    """
    data, out = Path(data), Path(out)
    kept, now = scenarios.expect_scenarios(chosen), datetime.now(UTC)
    jobs = [Job(method, modality, out, kept, now) for method in methods]
    read = [read_tier(data, modality, tiers.expect_tier(tier)) for tier in wanted]
    work = [(c, t, n, s) for c, t in read for n in c.held.names for s in kept]
    for done, (challenge, truth, name, scenario) in enumerate(work):
        if progress is not None:
            progress(done / len(work), f"{challenge.tier} {name} {scenario}")
        for job in jobs:
            job.sample(challenge, truth, name, scenario)
    if "IV" in kept:
        for job in jobs:
            for challenge, _ in read:
                job.submit(challenge)
    return [job.summarise([challenge for challenge, _ in read]) for job in jobs]


def read_tier(data: Path, modality: str, tier: str) -> tuple[Challenge, Mapping[str, Truth] | None]:
    """Challenge of a tier and sample -> truth, None where that is not in `data`."""
    path = data / challenge_name(modality, tier)
    if not path.exists():
        raise ValueError(f"{data} has no {path.name}; `diffphys benchmark create -o {data}` makes it")
    challenge, kept = read_challenge(path), data / truth_name(modality, tier)
    if not kept.exists() and tier != "public":
        return challenge, None
    held = read_truth(kept, geometry=challenge.held.geometry) if kept.exists() else None
    return challenge, score.truths(challenge, held)


class Job:
    """One method on one modality, and where its results are."""

    def __init__(self, method: Method, modality: str, out: Path, chosen: tuple[str, ...], started: datetime) -> None:
        self.method, self.modality, self.out, self.chosen, self.started = method, modality, out, chosen, started

    def place(self, scenario: str, tier: str, name: str) -> Path:
        return self.out / self.modality / self.method.slug / scenario / tier / f"{name}.json"

    def identity(self, challenge: Challenge, name: str, scenario: str) -> dict[str, Any]:
        """What a stored result must have been made from to be kept."""
        settings = {"solver": self.method.solver, **self.method.settings}
        said = {"modality": self.modality, "tier": challenge.tier, "sample": name, "scenario": scenario}
        made = {"method": self.method.name, "settings": settings, "challenge_sha256": challenge.sha256}
        return plain({"version": tiers.VERSION, **said, **made})

    def sample(self, challenge: Challenge, truths: Mapping[str, Truth] | None, name: str, scenario: str) -> None:
        """Reconstruct and score one sample in one scenario, unless that is done."""
        path, identity = self.place(scenario, challenge.tier, name), self.identity(challenge, name, scenario)
        if stored(path, identity) is not None and path.with_suffix(".npy").exists():
            return
        truth = None if truths is None else truths[name]
        found = calibrated(self.out, challenge, name) if scenario == "IV" else None
        spec = scenarios.spec(scenario, challenge, truth, found and found["spec"])
        y = scenarios.counts(scenario, challenge, name, truth)
        known, geometry, sample = resolve(self.modality), challenge.held.geometry, challenge.samples[name]
        start = time.perf_counter()
        restored = self.method.restore(
            y, self.modality, parse(known.Spec, known.FIELDS, spec), geometry=geometry, detector=sample.detector
        )
        seconds = {"reconstruct": time.perf_counter() - start, "calibrate": found["seconds"] if found else 0.0}
        row = None
        if truth is not None:
            row = score.row(
                name, Entry(restored.image, spec), sample, truth, modality=self.modality, geometry=geometry,
                y=y if scenario == "I" else None, bounds=scenario == "IV",
            )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
            np.save(file, restored.image.astype(np.float32), allow_pickle=False)
        outcome = {"status": restored.status, "iterations": restored.iterations, "warnings": restored.warnings}
        family = None if truth is None else truth.family
        extra = {"family": family, "peak_photons": float(sample.detector.background) / tiers.BACKGROUND}
        write_json(path, {**identity, "spec": spec, "seconds": seconds, **outcome, **extra, "row": row and asdict(row)})

    def submit(self, challenge: Challenge) -> None:
        """Write the submission of a tier from its stored samples."""
        entries = {}
        for name in challenge.held.names:
            path = self.place("IV", challenge.tier, name)
            content = json.loads(path.read_text(encoding="utf-8"))
            entries[name] = Entry(np.load(path.with_suffix(".npy"), allow_pickle=False), content["spec"])
        write_submission(
            self.out / f"{self.modality}_{self.method.slug}_{challenge.tier}.h5", modality=self.modality,
            tier=challenge.tier, method=self.method.name, challenge_sha256=challenge.sha256, samples=entries,
        )  # fmt: skip

    def summarise(self, challenges: Sequence[Challenge]) -> dict[str, Any]:
        """Means per tier and scenario, with everything needed to repeat them."""
        results: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for challenge in challenges:
            for scenario in scenarios.SCENARIOS:
                paths = [self.place(scenario, challenge.tier, n) for n in challenge.held.names]
                kept = [stored(p, self.identity(challenge, p.stem, scenario)) for p in paths]
                if all(k is not None and k["row"] is not None for k in kept):
                    results.setdefault(scenario, {})[challenge.tier] = kept  # type: ignore[assignment]
        content = {
            "format": "diffphys-benchmark-results",
            "version": tiers.VERSION,
            "modality": self.modality,
            "method": self.method.name,
            "settings": {"solver": self.method.solver, **self.method.settings},
            "note": self.method.note,
            "challenges": {c.tier: c.sha256 for c in challenges},
            "scenarios": summary.by_scenario(results),
            "recovery_ratio": summary.recovery_ratio(results),
            "command": sys.argv,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "git_commit": git_commit(),
            "device": device(),
        }
        write_json(self.out / f"{self.modality}_{self.method.slug}.json", content)
        return plain(content)


def calibrated(out: Path, challenge: Challenge, name: str) -> dict[str, Any]:
    """The calibration of a sample from its counts alone, made once and shared by all methods."""
    from diffphys.calibrate import calibrate

    held, sample = challenge.held, challenge.samples[name]
    path = out / "calibrations" / held.modality / held.tier / f"{name}.json"
    identity = {"version": tiers.VERSION, "sample": name, "challenge_sha256": challenge.sha256}
    kept = stored(path, identity)
    if kept is not None:
        return kept
    start = time.perf_counter()
    found = calibrate(sample.y, held.modality, geometry=held.geometry, detector=sample.detector, ranges=held.ranges)
    determined = set(found.names) - set(found.undetermined)
    spec = found.values if determined else score.nominal_in_range(challenge)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = plain(
        {
            **identity,
            "spec": spec,
            "sigma": found.sigma,
            "derived": found.derived,
            "status": found.status,
            "undetermined": found.undetermined,
            "warnings": found.warnings,
            "seconds": time.perf_counter() - start,
            "git_commit": git_commit(),
        }
    )
    write_json(path, kept)
    return kept


def stored(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """A result that was made from exactly this; None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if all(content.get(k) == v for k, v in identity.items()) else None
