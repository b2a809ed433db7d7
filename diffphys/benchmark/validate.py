"""Is a file what the benchmark expects? Which kind it is, and every problem in one line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from diffphys.benchmark import tiers
from diffphys.benchmark.score import contract
from diffphys.io import h5strict
from diffphys.io.challenge import LARGEST_FILE, TRUTH_FORMAT, Challenge, read_challenge, read_truth
from diffphys.io.hdf5 import FORMAT as CHALLENGE_FORMAT
from diffphys.io.submission import FORMAT as SUBMISSION_FORMAT
from diffphys.io.submission import Contract, examine, read_identity

KINDS = {CHALLENGE_FORMAT: "challenge", SUBMISSION_FORMAT: "submission", TRUTH_FORMAT: "truth"}


class Verdict(NamedTuple):
    """Kind of the file (empty where unknown), what it holds in words, and its problems, one line each."""

    kind: str
    summary: str
    problems: tuple[str, ...]


def validate(path: Path | str, *, challenge: Path | str | None = None) -> Verdict:
    """Check a challenge, a truth or a submission.

    Args:
        path: HDF5 file.
        challenge: what a submission answers; without it, the benchmark's fixed shapes and ranges are expected.

    Raises:
        OSError: a file cannot be opened.
    """
    path, kind = Path(path), ""
    try:
        kind = kind_of(path)
        if kind == "submission":
            return _submission(path, None if challenge is None else read_challenge(challenge))
        if kind == "challenge":
            return _challenge(read_challenge(path), path)
        return _truth(path)
    except ValueError as error:
        return Verdict(kind, "", (str(error),))


def kind_of(path: Path | str) -> str:
    """ "challenge", "truth" or "submission"; ValueError for anything else."""
    with h5strict.staged(path, limit=LARGEST_FILE) as (file, _):
        told = h5strict.text(file, "format") if "format" in file.attrs else "nothing"
    if told not in KINDS:
        raise ValueError(f"{Path(path).name} says it is {told!r}; expected one of {list(KINDS)}")
    return KINDS[told]


def fixed_contract(modality: str, tier: str) -> Contract:
    """What a submission to the benchmark's own tier must look like, whatever its draw."""
    names = tuple(tiers.sample_name(i) for i in range(tiers.SAMPLES))
    return Contract(modality, tier, names, tuple(tiers.geometry(modality).shape), tiers.ranges(modality, tier))


def _submission(path: Path, challenge: Challenge | None) -> Verdict:
    if challenge is None:
        said = read_identity(path, limit=LARGEST_FILE)
        expected = fixed_contract(tiers.expect_modality(said["modality"]), tiers.expect_tier(said["tier"]))
    else:
        expected = contract(challenge)
    found, problems = examine(path, expected)
    if found is None:
        return Verdict("submission", "", tuple(problems))
    missing = [n for n in expected.samples if n not in found.samples]
    count = f"{len(found.samples)} of {len(expected.samples)} samples"
    note = f"; missing ones score 0: {', '.join(missing)}" if missing else ""
    return Verdict("submission", f"{found.modality} {found.tier}, method {found.method}, {count}{note}", ())


def _challenge(challenge: Challenge, path: Path) -> Verdict:
    held, problems = challenge.held, []
    if dict(held.ranges) != tiers.ranges(held.modality, held.tier):
        problems.append(f"{path.name}: the ranges are not those of {held.modality} {held.tier} in version {tiers.VERSION}")
    if _plain(held.modality, held.geometry) != _plain(held.modality, tiers.geometry(held.modality)):
        problems.append(f"{path.name}: the nominal instrument is not the benchmark's; expected {tiers.geometry(held.modality)}")
    if len(held.names) != tiers.SAMPLES:
        problems.append(f"{path.name} has {len(held.names)} samples; expected {tiers.SAMPLES}")
    return Verdict("challenge", f"{held.modality} {held.tier}, {len(held.names)} samples", tuple(problems))


def _plain(modality: str, geometry: object) -> object:
    """The geometry with its reference trace as the numbers it stands for, as the file holds it."""
    from dataclasses import replace

    from diffphys.types import resolve

    if modality != "shg":
        return geometry
    return replace(geometry, power_trace=resolve(modality).power_trace(geometry))  # type: ignore[type-var,attr-defined]


def _truth(path: Path) -> Verdict:
    with h5strict.staged(path, limit=LARGEST_FILE) as (file, _):
        modality = tiers.expect_modality(h5strict.text(file, "modality"))
    held = read_truth(path, geometry=tiers.geometry(modality))
    open_to = path.stat().st_mode & 0o077
    problems = (f"{path.name} can be read by others; make it private: chmod 600 {path}",) if open_to else ()
    return Verdict("truth", f"{held.modality} {held.tier}, {len(held.samples)} samples", problems)
