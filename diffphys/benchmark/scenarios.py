"""The four scenarios of one sample: which counts are reconstructed, and with which spec.

I ideal: counts of the nominal instrument, nominal spec. II mismatch: the sample's counts, nominal spec. III oracle: the
same, true spec. IV blind: same counts, spec estimated from them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffphys.benchmark.score import nominal_in_range
from diffphys.io.challenge import Challenge, Truth

SCENARIOS = ("I", "II", "III", "IV")


def expect_scenarios(names: Any) -> tuple[str, ...]:
    """Upper-case names in their order; ValueError for one that is unknown."""
    stated = [str(n).strip().upper() for n in names]
    unknown = [n for n in stated if n not in SCENARIOS]
    if unknown or not stated:
        raise ValueError(f"scenario is {', '.join(unknown) or 'missing'}; expected some of {', '.join(SCENARIOS)}")
    return tuple(n for n in SCENARIOS if n in stated)


def counts(scenario: str, challenge: Challenge, name: str, truth: Truth | None) -> np.ndarray:
    """What is reconstructed; ValueError where scenario I lacks the truth file that holds its counts."""
    if scenario != "I":
        return challenge.samples[name].y
    if truth is None or not truth.y_ideal.size:
        raise ValueError(f"scenario I of tier {challenge.tier} needs the truth file, which holds the ideal instrument's counts")
    return truth.y_ideal


def spec(scenario: str, challenge: Challenge, truth: Truth | None, estimate: Mapping[str, float] | None) -> dict[str, float]:
    """Name -> value to reconstruct with; `estimate` is the calibration's, for scenario IV."""
    if scenario in ("I", "II"):
        return nominal_in_range(challenge)
    if scenario == "III":
        if truth is None:
            raise ValueError(f"scenario III of tier {challenge.tier} needs the truth file")
        return dict(truth.spec)
    if estimate is None:
        raise ValueError("scenario IV needs a calibration")
    return dict(estimate)
