"""Run a stranger's solver on a tier and score it: what of it he may know, and what the organiser knows.

In: solver, challenge, truth. Every sample is one job in a fresh sandbox, given as a challenge of one sample without truth,
place or tier; the bytes it leaves are read in a jail; the scorer gets arrays that were checked twice. A job that fails
scores 0.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffphys.benchmark import rows, tiers
from diffphys.benchmark.runner import Code, Limits, Solver, jail, layout, probe
from diffphys.benchmark.runner.verdict import REMEDY, Verdict
from diffphys.benchmark.score import Report, contract, score_entries
from diffphys.io.challenge import Challenge, read_challenge, read_truth, write_challenge
from diffphys.io.hdf5 import Sample
from diffphys.io.provenance import device, git_commit, sha256
from diffphys.io.submission import Entry

BUCKETS_S = (60, 600, 3600, 21600)  # all that a contestant learns of the time
PER_DAY = 5  # submissions of a method to a tier whose truth is in use
SHOWN = "hidden"  # the tier that a job's input states, whatever tier it is from
SAMPLE = "sample_00"

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Job:
    """One sample's run, for the organiser."""

    sample: str
    code: Code
    detail: str
    seconds: float
    peak_bytes: int
    output_sha256: str | None
    log: str


@dataclass(frozen=True)
class Evaluation:
    """A solver on one tier.

    Attributes:
        report: the score of every sample (`score.Report`).
        jobs: how each run ended.
        backend: bwrap, docker or podman.
        row: measured row with this tier.
    """

    report: Report
    jobs: tuple[Job, ...]
    backend: str
    row: rows.Row

    def for_contestant(self) -> dict[str, Any]:
        """Status, score to 3 decimals and a coarse time; on public also the figures. No log, no job's own words."""
        seconds = sum(job.seconds for job in self.jobs)
        bucket = next((f"under {b // 60} min" for b in BUCKETS_S if seconds < b), f"over {BUCKETS_S[-1] // 60} min")
        codes = sorted({job.code for job in self.jobs} - {Code.OK})
        remedies = {str(code): REMEDY[code] for code in codes}
        return {**self.report.for_contestant(), "time": bucket, "failures": remedies}

    def full(self) -> dict[str, Any]:
        """Everything, for the organiser."""
        return {"backend": self.backend, "report": self.report.full(), "jobs": [vars(j) for j in self.jobs]}


def evaluate(
    solver: Solver,
    challenge: Path | str,
    *,
    truth: Path | str | None = None,
    method: str,
    limits: Limits | None = None,
    command: str = "diffphys.benchmark.evaluate",
    progress: Progress | None = None,
) -> Evaluation:
    """Run and score a solver on one tier.

    Args:
        solver: the contestant's code.
        challenge: challenge file of the tier.
        truth: its truth file; public needs none. It must not lie in a folder that jobs can read.
        method: name for the leaderboard, [A-Za-z0-9 +.-]{1,64}.
        limits: of one job.
        command: for the record.
        progress: called with (fraction done, what is being done).

    Raises:
        NoSandbox: no backend contains the solver here; nothing was run.
        ValueError: a file cannot be used.
    """
    limits, method = limits or Limits(), rows.method_name(method)
    layout.check_hidden([p for p in (truth, challenge) if p is not None])
    backend = probe.backend(solver)
    asked = read_challenge(challenge)
    known = None if truth is None else read_truth(truth, geometry=asked.held.geometry)
    entries, jobs = {}, []
    for number, (name, sample) in enumerate(asked.samples.items()):
        if progress is not None:
            progress(number / len(asked.samples), f"{asked.modality} {asked.tier} {number + 1}/{len(asked.samples)}")
        entry, job = _run_one(solver, name, sample, asked, limits)
        jobs.append(job)
        if entry is not None:
            entries[name] = entry
    report = score_entries(entries, asked, known, method=method)
    row = _row(report, jobs, asked, solver, command)
    return Evaluation(report, tuple(jobs), backend, row)


def _run_one(solver: Solver, name: str, sample: Sample, asked: Challenge, limits: Limits) -> tuple[Entry | None, Job]:
    held = asked.held
    with tempfile.TemporaryDirectory(prefix="job-") as place:
        folder = Path(place, "input")
        folder.mkdir(mode=0o755)
        file = folder / "challenge.h5"
        bare = {SAMPLE: Sample(sample.y, sample.detector)}
        ranges = tiers.ranges(held.modality, held.tier)
        write_challenge(file, held.modality, SHOWN, geometry=held.geometry, ranges=ranges, samples=bare)
        file.chmod(0o644)
        terms = contract(asked)._replace(tier=SHOWN, samples=(SAMPLE,), challenge_sha256=sha256(file))
        start = time.monotonic()
        ended = probe.run(solver, folder=folder, limits=limits, output_limit=terms.largest_file)
        read = jail.read(ended.output, terms) if ended.code is Code.OK else jail.Read(ended.code, detail=ended.detail)
        job = _job(name, ended, read, time.monotonic() - start)
    return (Entry(read.x_hat[SAMPLE], read.spec[SAMPLE]) if read.code is Code.OK else None), job


def _job(name: str, ended: Verdict, read: jail.Read, seconds: float) -> Job:
    digest = hashlib.sha256(ended.output).hexdigest() if ended.output else None
    return Job(name, read.code, read.detail, seconds, ended.peak_bytes, digest, ended.log)


def _row(report: Report, jobs: list[Job], asked: Challenge, solver: Solver, command: str) -> rows.Row:
    from diffphys import __version__

    seconds = sum(job.seconds for job in jobs) / len(jobs)
    result = rows.tier_result(
        report, challenge_sha256=asked.sha256, submission_sha256=fingerprint(solver), seconds_per_sample=seconds
    )
    return rows.check(
        {
            "format": rows.FORMAT,
            "version": tiers.VERSION,
            "modality": report.modality,
            "method": report.method,
            "created": rows.now(),
            "tiers": {report.tier: result.model_dump()},
            "standard": None,
            "scenarios": None,
            "recovery_ratio": None,
            "provenance": {
                "command": command,
                "code_version": f"diffphys {__version__}",
                "commit": git_commit(),
                "device": str(device()["kind"]),
                "seed": None,
            },
        }
    )


def fingerprint(solver: Solver) -> str:
    """sha256 of the code: of the script, of a folder's names and contents (links by their target), or of the image's name."""
    digest = hashlib.sha256((solver.image or "").encode())
    if solver.script is None:
        return digest.hexdigest()
    place = solver.script
    for path in [place] if place.is_file() else sorted(place.rglob("*")):
        digest.update(str(path.relative_to(place.parent)).encode() + b"\0")
        if path.is_symlink():
            digest.update(str(path.readlink()).encode())
        elif path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
