"""`diffphys score`: a submission against its challenge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from diffphys.cli import show
from diffphys.cli.session import say

Submission = Annotated[Path, typer.Argument(help="Submission (HDF5).", show_default=False)]
ChallengePath = Annotated[Path, typer.Option("--challenge", help="The challenge it answers.", show_default=False)]
TruthPath = Annotated[Path | None, typer.Option("--truth", help="Truth file; needed for dev and hidden.")]
ReportPath = Annotated[Path | None, typer.Option("--report", help="Write everything as JSON (organiser only).")]
Contestant = Annotated[bool, typer.Option("--contestant", help="Print only what a contestant may be told.")]


def score(
    submission: Submission,
    challenge: ChallengePath,
    truth: TruthPath = None,
    report: ReportPath = None,
    contestant: Contestant = False,
) -> None:
    """Score a submission: 0.4 PSNR term + 0.4 SSIM + 0.2 consistency, the mean over all samples of the tier."""
    from diffphys.benchmark.score import contract, score_submission
    from diffphys.io.challenge import read_challenge, read_truth
    from diffphys.io.results import plain, write_json
    from diffphys.io.submission import examine

    held = read_challenge(challenge)
    found, problems = examine(submission, contract(held))
    for line in problems:
        say("error", line)
    if found is None:
        raise typer.Exit(2)
    told = score_submission(found, held, truth=None if truth is None else read_truth(truth, geometry=held.held.geometry))
    if report is not None:
        write_json(report, told.full())
    if contestant:
        print(json.dumps(plain(told.for_contestant()), indent=2))
        return
    rows = [("sample", "score", "standard", "PSNR", "SSIM", "c", "status")]
    for r in told.rows:
        figures = (f"{r.psnr:.2f}", f"{r.ssim:.3f}", f"{r.c:.3f}") if r.psnr is not None else ("", "", "")
        rows.append((r.sample, f"{r.score:.3f}", f"{r.standard_score:.3f}", *figures, r.status))
    print(show.table(rows))
    print(
        f"{told.modality} {told.tier} {told.method}: score {told.score:.3f}, standard {told.standard_score:.3f} ({told.status})"
    )
