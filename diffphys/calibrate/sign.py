"""Sign of the aberration: a spec and its twin have the same |OTF|, so no second-order statistic tells them apart.

Their restorations do (`explain`). The twin that competes is the exact one, also where it lies outside the ranges: what the
ranges leave of it may have another index and thereby another |OTF|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from diffphys.calibrate import explain
from diffphys.calibrate.lanes import ONE, Lanes
from diffphys.spec import pitch_um
from diffphys.types import Modality


class Contest(NamedTuple):
    """One stack in photons with its background, read-noise variance added to both, and two specs of which one is true."""

    photons: np.ndarray
    background: float
    specs: tuple[Any, Any]


def margins(contests: Sequence[Contest], modality: Modality, geometry: Any, *, how: Lanes = ONE) -> list[explain.Margin]:
    """By how much the first spec explains the counts better than its twin, for each contest; positive: keep the first."""
    pairs = [_pair(contest, modality, geometry) for contest in contests]
    judge = explain.judge_of(pitch_um(geometry))
    return explain.margins(pairs, judge, iterations=explain.SETTLED, how=how)


def _pair(contest: Contest, modality: Modality, geometry: Any) -> tuple[explain.Case, explain.Case]:
    first, second = contest.specs
    case = explain.models(contest.photons, contest.background, first, modality, geometry)
    return case(first), case(second)
