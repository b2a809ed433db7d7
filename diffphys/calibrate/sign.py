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
from diffphys.operator import bind
from diffphys.spec import pitch_um
from diffphys.types import Modality

LARGEST = (48, 96, 96)  # the brightest part of a larger stack decides as well


def brightest(photons: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The window of at most `shape` around the centre of light, inside the stack."""
    light = np.maximum(photons - np.median(photons), 0.0)
    corner = []
    for axis, (n, b) in enumerate(zip(photons.shape, shape, strict=True)):
        profile = light.sum(axis=tuple(a for a in range(photons.ndim) if a != axis))
        centre = int(np.argmax(np.convolve(profile, np.ones(min(n, b)), mode="valid")))
        corner.append(slice(centre, centre + min(n, b)))
    return photons[tuple(corner)]


class Contest(NamedTuple):
    """One stack in photons with its background, read-noise variance added to both, and two specs of which one is true."""

    photons: np.ndarray
    background: float
    specs: tuple[Any, Any]


def margins(contests: Sequence[Contest], modality: Modality, geometry: Any, *, how: Lanes = ONE) -> list[float]:
    """Log-likelihood of the first spec minus that of its twin, nats, for each contest; positive: keep the first."""
    pairs = [_pair(contest, modality, geometry) for contest in contests]
    best = explain.judges(pitch_um(geometry))[0]
    return [margin.nats for margin in explain.margins(pairs, best, iterations=explain.SETTLED, how=how)]


def _pair(contest: Contest, modality: Modality, geometry: Any) -> tuple[explain.Case, explain.Case]:
    part = brightest(contest.photons, LARGEST)
    local = modality.block(geometry, part.shape)
    counts = np.maximum(part, 0.0).astype(np.float32)
    # one margin for both, so that they compete on the same number of unknowns
    kept = bind(modality, contest.specs[0], geometry=local)
    light, pitch = np.float32(contest.background), np.asarray(pitch_um(local))
    first, second = (
        explain.Case(bind(modality, spec, geometry=local, specimen=kept.specimen), counts, light, pitch)
        for spec in contest.specs
    )
    return first, second
