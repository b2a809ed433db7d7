"""The measured row: what `run` and `evaluate` produce, the store keeps, `results/*.json` ships and the leaderboard shows.

One row is one method on one modality. Its JSON (every key present, no other):

    format            "diffphys-row"
    version           version of the benchmark; another version is another competition
    modality, method  "shg" or "confocal_3d"; the seed's name for the row, [A-Za-z0-9 +.-]{1,64}
    created           UTC, ISO 8601 to the second with "+00:00"
    tiers             of "public", "dev", "hidden" those that were run, each
                      {score, psnr, ssim, consistency: {mean, low, high},   95 % bootstrap interval of the mean over samples
                       n, failed, seconds_per_sample, challenge_sha256, submission_sha256}
    standard          {score, psnr, ssim: mean, operator known} or null
    scenarios         {"I", "II", "III", "IV": {psnr, ssim}} or null
    recovery_ratio    rho over the samples' mean PSNR, or null
    provenance        {command, code_version, commit, device, seed}; the seed null for code that is not ours

A failed sample counts 0 in the score and is left out of psnr, ssim and consistency (all 0 where every sample failed).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from diffphys.benchmark.score import Report

FORMAT: Literal["diffphys-row"] = "diffphys-row"
METHOD = r"^[A-Za-z0-9 +.\-]{1,64}$"
MAX_BYTES = 2**20

Tier = Literal["public", "dev", "hidden"]
Modality = Literal["shg", "confocal_3d"]
Unit = Annotated[float, Field(ge=0, le=1)]
Decibel = Annotated[float, Field(ge=-200, le=200)]
Share = Annotated[float, Field(ge=-1, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Interval(_Strict):
    """A mean over samples and the bounds of its bootstrap interval."""

    mean: Annotated[float, Field(ge=-200, le=200)]
    low: Annotated[float, Field(ge=-200, le=200)]
    high: Annotated[float, Field(ge=-200, le=200)]

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if not self.low - 1e-9 <= self.mean <= self.high + 1e-9:
            raise ValueError(f"interval [{self.low}, {self.high}] does not hold its mean {self.mean}")
        return self


class TierResult(_Strict):
    """Figures of one tier."""

    score: Interval
    psnr: Interval
    ssim: Interval
    consistency: Interval
    n: Annotated[int, Field(ge=1, le=100)]
    failed: Annotated[int, Field(ge=0, le=100)]
    seconds_per_sample: Annotated[float, Field(ge=0, le=1e6)]
    challenge_sha256: Sha256
    submission_sha256: Sha256

    @model_validator(mode="after")
    def _score_in_range(self) -> TierResult:
        if not 0 <= self.score.low <= self.score.high <= 1:
            raise ValueError("score lies outside [0, 1]")
        return self


class Standard(_Strict):
    score: Unit
    psnr: Decibel
    ssim: Share


class Quality(_Strict):
    psnr: Decibel
    ssim: Share


class Provenance(_Strict):
    command: Line
    code_version: Line
    commit: Line | None
    device: Line
    seed: int | None


class Row(_Strict):
    """One measured row, see the head of this file."""

    format: Literal["diffphys-row"] = FORMAT
    version: Line
    modality: Modality
    method: Annotated[str, Field(pattern=METHOD)]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    tiers: Annotated[dict[Tier, TierResult], Field(min_length=1)]
    standard: Standard | None
    scenarios: dict[Literal["I", "II", "III", "IV"], Quality] | None
    recovery_ratio: Annotated[float, Field(ge=-1e6, le=1e6)] | None
    provenance: Provenance

    @property
    def overall(self) -> float | None:
        """Mean of the three tiers; None while one is missing."""
        scores = [t.score.mean for t in self.tiers.values()]
        return sum(scores) / 3 if len(scores) == 3 else None


def parse(raw: bytes | str) -> Row:
    """A row from JSON, strictly.

    Raises:
        ValueError: one line that names the field.
    """
    if len(raw) > MAX_BYTES:
        raise ValueError(f"row has {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        content = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"row is not JSON: {error}") from None
    return check(content)


def check(content: Any) -> Row:
    """A row from a mapping, strictly; ValueError names the field."""
    try:
        return Row.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"row: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}") from None


def interval(values: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Interval:
    """Mean over samples with its 95 % bootstrap interval (percentiles); for scores, PSNR, SSIM and consistency of a tier."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"values have shape {array.shape} or are not finite; expected a finite number per sample")
    chosen = np.random.default_rng(seed).integers(array.size, size=(draws, array.size))
    low, high = np.percentile(array[chosen].mean(1), (2.5, 97.5))
    mean = float(array.mean())
    return Interval(mean=mean, low=min(float(low), mean), high=max(float(high), mean))


def tier_result(report: Report, *, challenge_sha256: str, submission_sha256: str, seconds_per_sample: float) -> TierResult:
    """What a row holds of a tier that `score.score_entries` scored."""

    def over_samples(name: str) -> Interval:
        values = [v for r in report.rows if (v := getattr(r, name)) is not None]
        return interval(values or [0.0])

    return TierResult(
        **{"score": over_samples("score"), "psnr": over_samples("psnr"), "ssim": over_samples("ssim")},
        consistency=over_samples("c"),
        n=len(report.rows),
        failed=sum(r.status != "ok" for r in report.rows),
        seconds_per_sample=seconds_per_sample,
        challenge_sha256=challenge_sha256,
        submission_sha256=submission_sha256,
    )


def now() -> str:
    """The present, as `created` wants it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def method_name(text: str) -> str:
    """The name if it may be shown; ValueError otherwise."""
    if not re.fullmatch(METHOD[1:-1], text):
        raise ValueError(f"method is {text[:80]!r}; expected 1 to 64 of letters, digits, space, plus, dot, minus")
    return text


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("row has a key twice")
    return content


def _no_constant(text: str) -> float:
    raise ValueError(f"row has {text}; expected finite numbers")
