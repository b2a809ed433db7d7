"""From a submission to its score, and what of it a contestant may be told.

In: what the strict readers let through. Out: one row per sample and their plain means; a failed or missing sample scores 0.
Dev and hidden tell a contestant the status and the tier score to three decimals, nothing else: finer figures, parameter errors
and times are oracles (a few dozen submissions would recover the truth from them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from diffphys.benchmark import figures, model, tiers
from diffphys.io.challenge import Challenge, Truth, TruthFile, expect_in_range
from diffphys.io.hdf5 import Sample
from diffphys.io.submission import Contract, Entry, Submission
from diffphys.noise import Detector

BASELINES = ("zeros", "best constant", "measurement")


@dataclass(frozen=True)
class Row:
    """One sample's figures; a failed sample keeps its reason in `status` and has 0 or None everywhere else.

    Attributes:
        sample: name.
        status: "ok", or why it failed.
        score: tier score, 0 to 1.
        standard_score: of the standard benchmark, 0 to 1.
        psnr, ssim, c: as defined in `figures`.
        c_ceiling: c of the true specimen and spec, which only noise keeps below 1.
        c_second: c against another noise draw; far below c for images that fit noise.
        error: name -> corrected minus true spec.
        error_cr: name -> |error| over its Cramer-Rao bound with the specimen known.
    """

    sample: str
    status: str
    score: float = 0.0
    standard_score: float = 0.0
    psnr: float | None = None
    ssim: float | None = None
    c: float | None = None
    c_ceiling: float | None = None
    c_second: float | None = None
    error: Mapping[str, float] = field(default_factory=dict)
    error_cr: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A tier's figures: plain means over all of its samples, and the rows."""

    modality: str
    tier: str
    method: str
    status: str
    score: float
    standard_score: float
    rows: tuple[Row, ...]

    def mean(self, figure: str) -> float | None:
        """Mean of psnr, ssim, c, ... over the samples that have it."""
        values = [v for row in self.rows if (v := getattr(row, figure)) is not None]
        return float(np.mean(values)) if values else None

    def full(self) -> dict[str, Any]:
        """Everything, for the organiser."""
        means = {n: self.mean(n) for n in ("psnr", "ssim", "c", "c_ceiling", "c_second")}
        return {**asdict(self), "means": means, "rows": [asdict(row) for row in self.rows]}

    def for_contestant(self) -> dict[str, Any]:
        """What may be sent back: everything but the second draw on public; status and score to 3 decimals elsewhere."""
        if self.tier == "public":
            content = self.full()
            del content["means"]["c_second"]
            return content | {"rows": [{k: v for k, v in row.items() if k != "c_second"} for row in content["rows"]]}
        status = "ok" if self.status == "ok" else "failed"
        return {"modality": self.modality, "tier": self.tier, "status": status, "score": round(self.score, 3)}


def contract(challenge: Challenge) -> Contract:
    """What a submission to this challenge must look like; the ranges are the benchmark's, not the file's."""
    held = challenge.held
    ranges = tiers.ranges(held.modality, held.tier)
    return Contract(held.modality, held.tier, held.names, tuple(held.geometry.shape), ranges, challenge.sha256)


def truths(challenge: Challenge, truth: TruthFile | None) -> dict[str, Truth]:
    """Sample -> truth, from the truth file or (public) from the challenge itself; ValueError where there is none."""
    if truth is not None:
        if truth.challenge_sha256 != challenge.sha256:
            raise ValueError(
                f"the truth belongs to another challenge ({truth.modality} {truth.tier}); pass the one made with it"
            )
        missing = sorted(set(challenge.samples) - set(truth.samples))
        if missing:
            raise ValueError(f"the truth lacks {missing[0]}; pass the file made with this challenge")
        return dict(truth.samples)
    if challenge.tier != "public":
        raise ValueError(f"tier {challenge.tier} is scored with its truth file; pass --truth (the organiser has it)")
    none = np.zeros(0, np.float32)
    return {n: Truth(s.x_true, s.true_spec, none, none, s.family) for n, s in challenge.samples.items()}  # type: ignore[arg-type]


def score_submission(submission: Submission, challenge: Challenge, *, truth: TruthFile | None = None) -> Report:
    """Score of a submission that `read_submission` let through.

    Args:
        submission: as read with `contract(challenge)`.
        challenge: the organiser's own copy.
        truth: of the tier; not needed for public (the second noise draw is then missing).
    """
    return score_entries(submission.samples, challenge, truth, method=submission.method)


def score_entries(entries: Mapping[str, Entry], challenge: Challenge, truth: TruthFile | None, *, method: str) -> Report:
    """The same from images and specs in memory; a sample that is missing or unusable scores 0."""
    known = truths(challenge, truth)
    rows = tuple(_row(name, entries.get(name), challenge, known[name]) for name in challenge.held.names)
    failed = sum(row.status != "ok" for row in rows)
    return Report(
        challenge.modality,
        challenge.tier,
        method,
        "ok" if not failed else f"{failed} of {len(rows)} samples failed",
        mean_score([row.score for row in rows]),
        mean_score([row.standard_score for row in rows]),
        rows,
    )


def mean_score(scores: list[float]) -> float:
    """Plain mean; every number must lie in [0, 1]."""
    if not scores or not all(math.isfinite(s) and 0 <= s <= 1 for s in scores):
        raise ValueError(f"scores are {scores}; expected numbers from 0 to 1")
    return math.fsum(scores) / len(scores)


def _row(name: str, entry: Entry | None, challenge: Challenge, truth: Truth) -> Row:
    if entry is None:
        return Row(name, "missing")
    try:
        _expect_spec(entry.spec, contract(challenge).ranges)
    except ValueError as error:
        return Row(name, str(error))
    shared = {"modality": challenge.modality, "geometry": challenge.held.geometry}
    return row(name, entry, challenge.samples[name], truth, **shared)


def _expect_spec(spec: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> None:
    if set(spec) != set(ranges) or not all(math.isfinite(v) for v in spec.values()):
        raise ValueError(f"corrected spec is {dict(spec)}; expected finite numbers for exactly {list(ranges)}")
    expect_in_range("corrected spec", spec, ranges)


def row(
    name: str,
    entry: Entry,
    sample: Sample,
    truth: Truth,
    *,
    modality: str,
    geometry: Any,
    y: np.ndarray | None = None,
    bounds: bool = True,
) -> Row:
    """Figures of one sample; an image that cannot be scored gives a failed row with its reason.

    Args:
        name: of the sample.
        entry: image and the spec it was made with.
        sample: counts and detector.
        truth: specimen, spec, and the second draw (empty where it is not known).
        modality, geometry: nominal instrument.
        y: counts of the nominal instrument that were reconstructed instead of the sample's own (scenario I).
        bounds: whether to work out the Cramer-Rao bounds too.
    """
    try:
        x_hat = figures.expect_image(entry.x_hat, tuple(geometry.shape))
    except ValueError as error:
        return Row(name, str(error))
    x = np.asarray(truth.x_true, np.float64)
    inside: Any = (..., *model.interior(modality, geometry))
    shared: dict[str, Any] = {"geometry": geometry, "detector": sample.detector}
    counts = photons(sample.y if y is None else y, sample.detector)[inside]
    expected = model.prediction(modality, entry.spec, x_hat, **shared)[inside]
    c = figures.consistency(counts, expected)
    psnr, ssim = figures.psnr(x_hat, x), figures.ssim(x_hat, x)
    made_by = truth.spec if y is None else entry.spec
    ceiling = figures.consistency(counts, model.prediction(modality, made_by, x, **shared)[inside])
    second = None
    if truth.y_second.size and y is None:
        second = figures.consistency(photons(truth.y_second, sample.detector)[inside], expected)
    missed = {n: entry.spec[n] - made_by[n] for n in made_by}
    bound = model.cramer_rao(modality, truth.spec, x, **shared) if bounds else {}
    return Row(
        name, "ok", figures.tier_score(psnr, ssim, c), figures.standard_score(psnr, ssim), psnr, ssim, c, ceiling, second,
        missed, {n: abs(missed[n]) / bound[n] for n in bound},
    )  # fmt: skip


def photons(y: np.ndarray, detector: Detector) -> np.ndarray:
    """y' = (y - offset) / gain in float64: an offset would buy consistency."""
    return (np.asarray(y, np.float64) - float(detector.offset)) / float(detector.gain)


def baseline(kind: str, challenge: Challenge, *, truth: TruthFile | None = None) -> Report:
    """A trivial submission with the nominal spec: zeros, the constant that scores best (it looks at the truth), or y itself."""
    if kind not in BASELINES:
        raise ValueError(f"baseline is {kind!r}; expected one of {BASELINES}")
    known = truths(challenge, truth)
    entries = {n: _trivial(kind, challenge, n, known[n].x_true) for n in challenge.held.names}
    return score_entries(entries, challenge, truth, method=kind)


def _trivial(kind: str, challenge: Challenge, name: str, x: np.ndarray) -> Entry:
    sample, spec = challenge.samples[name], nominal_in_range(challenge)
    if kind == "measurement":
        image = (photons(sample.y, sample.detector) - float(sample.detector.background)) / float(sample.detector.peak_photons)
        return Entry((image[0] if image.ndim > x.ndim else image).astype(np.float32), spec)
    return Entry(np.full(x.shape, best_constant(x) if kind == "best constant" else 0.0, np.float32), spec)


def best_constant(x: np.ndarray) -> float:
    """The level at which a constant image has the largest image terms."""

    def loss(level: float) -> float:
        flat = np.full(x.shape, level)
        return -figures.image_terms(figures.psnr(flat, x), figures.ssim(flat, x))

    return float(minimize_scalar(loss, bounds=(0.0, float(x.max())), method="bounded", options={"xatol": 1e-3}).x)


def nominal_in_range(challenge: Challenge) -> dict[str, float]:
    """The nominal spec (every tier's ranges contain it)."""
    from diffphys.types import resolve

    nominal = resolve(challenge.modality).nominal(challenge.held.geometry)
    return {n: float(getattr(nominal, n)) for n in tiers.ranges(challenge.modality, challenge.tier)}
