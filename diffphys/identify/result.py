"""What `identify` returns: bounds, correlations, the worst-determined direction in words, what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffphys.identify.suggest import Suggestion

FLOOR = 1e-13  # smallest eigenvalue of the scaled information over the largest that is told from zero
LINKED = 0.6  # correlation with the least known parameter from which another is named with it


@dataclass(frozen=True)
class Identification:
    """What one measurement can tell at best; arrays follow the order of `names`.

    Attributes:
        modality: its name.
        spec: where the information was taken.
        names, units: of the mismatch parameters.
        ranges: name -> (low, high); low == high is a parameter known beforehand.
        fisher: (P, P) information, nuisances eliminated, in the parameters' units.
        covariance: (P, P) Cramer-Rao bound; 0 for parameters known beforehand.
        derived: name -> (value, 1 sigma), combinations better known than their parts.
        worst: the worst-determined direction, one sentence.
        suggestions: computed changes, best first; empty if not asked for.
        image: "known" or "unknown".
        photons, background: of the brightest voxel, and per voxel.
        prior: the unknown specimen's spectrum, None for a known one.
    """

    modality: str
    spec: Any
    names: tuple[str, ...]
    units: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    fisher: np.ndarray
    covariance: np.ndarray
    derived: Mapping[str, tuple[float, float]]
    worst: str
    suggestions: tuple[Suggestion, ...]
    image: str
    photons: float
    background: float
    prior: Any = None

    @property
    def bounds(self) -> dict[str, float]:
        """1 sigma of each parameter, in its unit: what no unbiased estimator undercuts."""
        return dict(zip(self.names, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def correlation(self) -> np.ndarray:
        """(P, P) correlation matrix of an efficient estimate; 0 where a parameter is known beforehand."""
        sigma = np.sqrt(np.diag(self.covariance))
        scale = np.where(sigma > 0, sigma, 1.0)
        return self.covariance / np.outer(scale, scale)

    @property
    def undetermined(self) -> dict[str, str]:
        """name -> why: the bound is wider than the range."""
        out = {}
        for name, sigma, unit in zip(self.names, self.bounds.values(), self.units, strict=True):
            low, high = self.ranges[name]
            if sigma > high - low:
                out[name] = beyond(sigma, high - low, unit)
        return out


def beyond(sigma: float, width: float, unit: str) -> str:
    """Why a parameter cannot be determined."""
    return f"blind bound sigma = {sigma:.2g} {unit}, wider than its range of {width:.3g} {unit}"


def inverse(fisher: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Bound from the information; half widths (P,) of the ranges, 0 for a parameter known beforehand.

    Directions without information get a finite but huge variance instead of an error.
    """
    free = half > 0
    scaled = (fisher * np.outer(half, half))[np.ix_(free, free)]
    covariance = np.zeros_like(fisher)
    if free.any():
        values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
        values = np.maximum(values, FLOOR * max(float(values.max()), np.finfo(float).tiny))
        covariance[np.ix_(free, free)] = (vectors / values) @ vectors.T
    return covariance * np.outer(half, half)


def hardest(covariance: np.ndarray, half: np.ndarray) -> int:
    """Number of the parameter whose bound is widest, in half widths of its range."""
    return int(np.argmax(np.sqrt(np.diag(covariance)) / np.where(half > 0, half, np.inf)))


def sentence(names: tuple[str, ...], units: tuple[str, ...], covariance: np.ndarray, half: np.ndarray, derived: Mapping) -> str:
    """The widest axis of the bound's ellipsoid, in words."""
    scale = np.where(half > 0, half, np.inf)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    length, direction = float(np.sqrt(max(values[-1], 0.0))), vectors[:, -1]
    lead = int(np.argmax(np.abs(direction)))
    sigma = np.sqrt(np.diag(covariance))
    correlation = covariance[lead] / np.maximum(sigma[lead] * sigma, np.finfo(float).tiny)
    partners = [int(i) for i in np.argsort(-np.abs(correlation)) if i != lead and abs(correlation[i]) > LINKED]
    steps = length * half * direction * np.sign(direction[lead])
    moves = ", ".join(f"{names[i]} {steps[i]:+.2g}" + ("" if units[i] == "1" else f" {units[i]}") for i in [lead, *partners])
    share = f"{100 * length:.2g} % of half the range" if length < 10 else f"{length:.2g} times half the range"
    known = "".join(f"; {name} is known to {error:.2g}" for name, (_, error) in derived.items())
    if not partners:
        return f"{names[lead]} is the least known, by itself: 1 sigma is {moves} ({share}){known}"
    who = " and ".join(f"{names[i]} (correlation {correlation[i]:.2f})" for i in partners)
    return f"{names[lead]} trades off with {who}: 1 sigma along the worst direction is {moves} together ({share}){known}"
