"""A small aberration by what specimens look like: counts -> c_tot where second-order statistics see next to nothing of it.

A spec and its twin share |OTF|, which therefore changes only with the square of the aberration: the evidence knows nothing
about c near zero, and fills the gap with its model's misfit. How well restorations explain the counts (`explain`) is odd there:
the difference between -p and +p grows linearly with c, and vanishes with it but for the specimen's own asymmetry. Slope and
asymmetry are measured on two measurements simulated from this specimen as restored without aberration, at -c' and +c'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import explain
from diffphys.calibrate.covariance import derivatives
from diffphys.calibrate.fit import Link
from diffphys.calibrate.lanes import ONE, Lanes
from diffphys.operator import Operator
from diffphys.spec import Box, as_vector, from_vector, names, pitch_um
from diffphys.types import Modality

FIRM = 3e-4  # waves: how closely the fit keeps to the merged value, whose own error is added afterwards


class Scale(NamedTuple):
    """Of a small aberration, waves.

    Attributes:
        near: beyond, the evidence knows better.
        probe: of the two compared models.
        simulated: of the two simulated measurements.
        floor, share: 1 sigma of the value beside the photons', and as a share of it.
    """

    near: float
    probe: float
    simulated: float
    floor: float
    share: float


# errors: of 72 benchmark stacks, 102 simulated ones; of 35 simulated stacks with nothing known
SCALES = {"network": Scale(0.1, 0.08, 0.04, 0.009, 0.2), "positivity": Scale(0.08, 0.04, 0.03, 0.006, 0.17)}


def asked(modality: Modality, spec: Any, derived: Mapping[str, tuple[float, float]], box: Box, *, geometry: Any) -> bool:
    """Whether there is one small aberration to ask for: free in the box, and the only thing that tells spec from twin."""
    if len(derived) != 1 or not modality.TRADE_OFF:
        return False
    ((value, sigma),) = derived.values()
    half = float(np.asarray(box.half)[names(modality.FIELDS).index(modality.TRADE_OFF[0])])
    if half <= 0 or not 0 < sigma < np.inf or abs(value) > SCALES[explain.judge_of(pitch_um(geometry))].near:
        return False
    flat = _at(modality, matched(modality, spec, geometry, box), geometry, 0.0)
    everywhere = {f.name: (-np.inf, np.inf) for f in modality.FIELDS}
    twin = modality.twin(flat, geometry=geometry, ranges=everywhere)
    return twin is not None and np.allclose(as_vector(twin, modality.FIELDS), as_vector(flat, modality.FIELDS), atol=1e-5)


def merged(evidence: tuple[float, float], measured: tuple[float, float]) -> tuple[float, float]:
    """Value and 1 sigma, waves, from the evidence's and those of `small`.

    The evidence knows c^2, so its sigma of c grows as 1/c towards zero: it is taken at the value of `small`, not at its own.
    Its sign stands unless `small` is sure of another; all of it where `small` has no value.
    """
    value, sigma = measured
    if not np.isfinite(value):
        return evidence
    own = evidence[1] * max(1.0, abs(evidence[0]) / max(abs(value), 1e-6))
    signed = evidence[0] if abs(value) < sigma else float(np.copysign(evidence[0], value))
    weight = own**2 / (own**2 + sigma**2)
    return float(weight * value + (1 - weight) * signed), float(sigma * np.sqrt(weight))


def pooled(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """One (value, 1 sigma) from several; NaN where none has a value."""
    known = np.asarray([m for m in measured if np.isfinite(m[0])]).reshape(-1, 2)
    if not len(known):
        return float("nan"), float("nan")
    weight = np.maximum(known[:, 1], 1e-6) ** -2
    return float(np.sum(weight * known[:, 0]) / np.sum(weight)), float(np.sum(weight) ** -0.5)


def link(
    modality: Modality, geometry: Any, spec: Any, goal: tuple[float, float], box: Box, covariance: np.ndarray
) -> tuple[Link, np.ndarray, np.ndarray]:
    """The merged value as a prior of the evidence: link in box units, start in box units, change of the spec per wave."""
    here = as_vector(_at(modality, spec, geometry, goal[0]), modality.FIELDS)
    ((_, gradient),) = derivatives(modality, geometry, here).values()
    start = _inside(box, here)
    ((value, _),) = derivatives(modality, geometry, box.decode(jnp.asarray(start, jnp.float32))).values()
    slope = gradient * np.asarray(box.half, np.float64)
    target = goal[0] - value + slope @ start
    response = covariance @ gradient / (gradient @ covariance @ gradient)
    return Link(slope, float(target), FIRM), start, response


def held(modality: Modality, spec: Any, geometry: Any, value: float, box: Box) -> Any:
    """The spec at this aberration, as far as the box allows; a fit keeps to it as linear in the parameters, to 0.01 waves."""
    inside = _inside(box, as_vector(_at(modality, spec, geometry, value), modality.FIELDS))
    return from_vector(modality.Spec, modality.FIELDS, box.decode(jnp.asarray(inside, jnp.float32)))


def _inside(box: Box, vector: Any) -> np.ndarray:
    """Parameters (P,) in box units, at the edge where they lie beyond it."""
    return np.clip(np.asarray(box.encode(vector), np.float64), -1.0, 1.0)


def matched(modality: Modality, spec: Any, geometry: Any, box: Box) -> Any:
    """The spec with the index as matched as the box allows: the one it has is next to unknown, often on an edge of the box, and
    at a mismatch no spherical aberration undoes all of what the index does."""
    fields, name = names(modality.FIELDS), modality.TRADE_OFF[1]
    middle, half = (float(np.asarray(v)[fields.index(name)]) for v in (box.middle, box.half))
    if half <= 0:
        return spec
    return replace(spec, **{name: np.clip(float(getattr(modality.nominal(geometry), name)), middle - half, middle + half)})


class Question(NamedTuple):
    """One stack in photons with its background, read-noise variance added to both, and everything but the aberration."""

    photons: np.ndarray
    background: float
    spec: Any


class Measured(NamedTuple):
    """An aberration and its 1 sigma, waves; NaN where the simulated measurements do not tell two aberrations apart.

    `nats`: by how many its sign is preferred, 0 where the specimen tells none.
    """

    value: float
    sigma: float
    nats: float


UNKNOWN = Measured(float("nan"), float("nan"), 0.0)


def small(
    questions: Sequence[Question], modality: Modality, geometry: Any, *, seed: int = 0, how: Lanes = ONE
) -> list[Measured]:
    """The aberration (the modality's one derived combination, near zero) whose restorations explain the counts, in its unit.

    Args:
        questions: one per stack; `TRADE_OFF[0]` of their specs is moved.
        seed: of the simulated noise.
    """
    judge = explain.judge_of(pitch_um(geometry))
    stacks = [_stack(question, modality, geometry) for question in questions]
    scale, count = SCALES[judge], len(stacks)
    flat = [at(0.0) for at in stacks]
    probed = [(at(scale.probe), at(-scale.probe)) for at in stacks]
    laws = explain.laws_of(flat, judge)
    cases, each = explain.both(probed, laws)
    seen = explain.restorations([*flat, *cases], judge, laws=[*laws, *each], how=how)
    odd = explain.compared(probed, seen[count:])
    ends = _ends([glance.x for glance in seen[:count]], stacks, probed, judge, scale, seed, how)
    return [_value(*three, scale) for three in zip(odd, *ends, strict=True)]


def _ends(
    specimens: Sequence[Any], stacks: Sequence[Stack], probed: Sequence[explain.Pair], judge: str, scale: Scale, seed: int,
    how: Lanes,
) -> tuple[list[explain.Margin], list[explain.Margin]]:  # fmt: skip
    """The margins of measurements simulated from the specimens, below and above zero."""
    key, pairs = jax.random.key(seed), []
    for x, at, (high, low) in zip(specimens, stacks, probed, strict=True):
        for end in (-scale.simulated, scale.simulated):
            y = np.asarray(_drawn(key, at(end).operator, x, high.background))
            pairs.append((high._replace(counts=y), low._replace(counts=y)))
    laws = explain.laws_of([first for first, _ in pairs[::2]], judge)  # of either: they are of one specimen
    told = explain.margins(pairs, judge, laws=[law for law in laws for _ in range(2)], how=how)
    return told[::2], told[1::2]


Stack = Callable[[float], explain.Case]  # the part of a stack that decides, at any aberration


def _stack(question: Question, modality: Modality, geometry: Any) -> Stack:
    case = explain.models(question.photons, question.background, question.spec, modality, geometry)
    return lambda value: case(_at(modality, question.spec, geometry, value))


def _value(odd: explain.Margin, below: explain.Margin, above: explain.Margin, scale: Scale) -> Measured:
    """Linear between the two simulated measurements, whose noise counts too."""
    slope = (above.nats - below.nats) / (2 * scale.simulated)
    if not slope > 0:
        return UNKNOWN
    value = (odd.nats - (above.nats + below.nats) / 2) / slope
    toward = value / scale.simulated / 2
    noise = np.hypot(odd.noise, np.hypot((0.5 - toward) * below.noise, (0.5 + toward) * above.noise)) / slope
    nats = slope * value**2 / scale.probe if odd.contrast > explain.TELLING else 0.0  # bilinear in value and probe
    return Measured(value, float(np.hypot(noise, np.hypot(scale.floor, scale.share * value))), nats)


def _at(modality: Modality, spec: Any, geometry: Any, value: float) -> Any:
    """The spec whose derived combination has this value; `TRADE_OFF[0]` enters it with slope one."""
    (now,) = modality.derived(spec, geometry=geometry).values()
    name = modality.TRADE_OFF[0]
    return replace(spec, **{name: getattr(spec, name) + value - now})


@jax.jit
def _drawn(key: Any, model: Operator, specimen: Any, background: Any) -> Any:
    mean = jnp.maximum(model.apply(specimen) + background, 0.0)
    return jax.random.poisson(key, mean).astype(jnp.float32)
