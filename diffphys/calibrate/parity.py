"""A small aberration by positivity: counts -> c_tot where second-order statistics see next to nothing of it.

A spec and its twin share |OTF|, which therefore changes only with the square of the aberration: the evidence knows nothing
about c near zero, and fills the gap with its model's misfit. The profile likelihood of a non-negative specimen is odd there:
the difference between -p and +p grows linearly with c, and vanishes with it but for the specimen's own asymmetry. Slope and
asymmetry are measured on two measurements simulated from this specimen as restored without aberration, at -c' and +c'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.fit import Link
from diffphys.calibrate.lanes import ONE, Lanes, over
from diffphys.calibrate.sign import LARGEST, brightest, profile
from diffphys.operator import Operator, bind
from diffphys.reconstruct.richardson_lucy import restored
from diffphys.spec import Box, as_vector, from_vector, names
from diffphys.types import Array, Modality

ITERATIONS = 50  # of Richardson-Lucy
NEAR = 0.08  # waves: beyond, the evidence knows better
PROBE, SIMULATED = 0.04, 0.03  # waves: of the two compared models, of the two simulated measurements
FLOOR, SHARE = 0.006, 0.17  # 1 sigma of `small`: waves, and share of the value (35 simulated stacks, nothing known)
FIRM = 3e-4  # waves: how closely the fit keeps to the merged value, whose own error is added afterwards


def asked(modality: Modality, spec: Any, derived: Mapping[str, tuple[float, float]], box: Box, *, geometry: Any) -> bool:
    """Whether there is one small aberration to ask for: free in the box, and the only thing that tells spec from twin."""
    if len(derived) != 1 or not modality.TRADE_OFF:
        return False
    ((value, sigma),) = derived.values()
    half = float(np.asarray(box.half)[names(modality.FIELDS).index(modality.TRADE_OFF[0])])
    if half <= 0 or not 0 < sigma < np.inf or abs(value) > NEAR:
        return False
    flat = _at(modality, spec, geometry, 0.0)
    everywhere = {f.name: (-np.inf, np.inf) for f in modality.FIELDS}
    twin = modality.twin(flat, geometry=geometry, ranges=everywhere)
    return twin is not None and np.allclose(as_vector(twin, modality.FIELDS), as_vector(flat, modality.FIELDS), atol=1e-5)


def merged(evidence: tuple[float, float], value: float) -> tuple[float, float]:
    """Value and 1 sigma from the evidence's (value, sigma) and `small`'s value, waves.

    The evidence knows c^2, so its sigma of c grows as 1/c towards zero: it is taken at positivity's value, not at its own.
    Without a value of positivity's (NaN) the evidence's stands.
    """
    if not np.isfinite(value):
        return evidence
    own = evidence[1] * max(1.0, abs(evidence[0]) / max(abs(value), 1e-6))
    sigma = float(np.hypot(FLOOR, SHARE * value))
    signed = float(np.copysign(evidence[0], value))
    weight = own**2 / (own**2 + sigma**2)
    return float(weight * value + (1 - weight) * signed), float(sigma * np.sqrt(weight))


def link(
    modality: Modality, geometry: Any, spec: Any, goal: tuple[float, float], box: Box, covariance: np.ndarray
) -> tuple[Link, np.ndarray, np.ndarray]:
    """The merged value as a prior of the evidence: link in box units, start in box units, change of the spec per wave."""

    def combination(vector: Any) -> Any:
        return next(iter(modality.derived(from_vector(modality.Spec, modality.FIELDS, vector), geometry=geometry).values()))

    here = as_vector(_at(modality, spec, geometry, goal[0]), modality.FIELDS)
    gradient = np.asarray(jax.grad(combination)(here), np.float64)
    start = np.clip(np.asarray(box.encode(here), np.float64), -1.0, 1.0)
    slope = gradient * np.asarray(box.half, np.float64)
    target = goal[0] - float(combination(box.decode(jnp.asarray(start, jnp.float32)))) + slope @ start
    response = covariance @ gradient / (gradient @ covariance @ gradient)
    return Link(slope, float(target), FIRM), start, response


class Question(NamedTuple):
    """One stack in photons with its background, read-noise variance added to both, and everything but the aberration."""

    photons: np.ndarray
    background: float
    spec: Any


class _Models(NamedTuple):
    """The part of the stack that decides, and the operator at each aberration."""

    counts: np.ndarray
    background: np.float32
    at: dict[float, Operator]

    @property
    def pair(self) -> tuple[Operator, Operator]:
        return self.at[-PROBE], self.at[PROBE]


def small(questions: Sequence[Question], modality: Modality, geometry: Any, *, seed: int = 0, how: Lanes = ONE) -> list[float]:
    """The aberration (the modality's one derived combination, near zero) that positivity prefers, in its unit.

    Args:
        questions: one per stack; `TRADE_OFF[0]` of their specs is moved.
        seed: of the simulated noise.

    Returns:
        A value per stack; NaN where the simulated measurements do not tell the two aberrations apart.
    """
    models = [_models(question, modality, geometry) for question in questions]
    specimens = over(_restored, (ITERATIONS,), [(m.at[0.0], m.counts, m.background) for m in models], how)
    drawn = [
        _drawn(jax.random.key(seed), m.at[c], specimen, m.background)
        for m, specimen in zip(models, specimens, strict=True)
        for c in (-SIMULATED, SIMULATED)
    ]
    odd = _odd([(m, m.counts) for m in models], how)
    simulated = _odd([(m, y) for m, y in zip([m for m in models for _ in range(2)], drawn, strict=True)], how)
    return [_value(*three) for three in zip(odd, simulated[::2], simulated[1::2], strict=True)]


def _models(question: Question, modality: Modality, geometry: Any) -> _Models:
    part = brightest(question.photons, LARGEST)
    local = modality.block(geometry, part.shape)
    size = bind(modality, question.spec, geometry=local).specimen
    at = partial(_at, modality, question.spec, geometry)
    values = (-PROBE, -SIMULATED, 0.0, SIMULATED, PROBE)
    models = {c: bind(modality, at(c), geometry=local, specimen=size) for c in values}
    return _Models(np.maximum(part, 0.0).astype(np.float32), np.float32(question.background), models)


def _odd(cases: Sequence[tuple[_Models, Any]], how: Lanes) -> list[float]:
    """By how much the counts prefer the positive aberration, nats."""
    items = [(operator, counts, models.background) for models, counts in cases for operator in models.pair]
    cost = [float(v) for v in over(profile, (ITERATIONS,), items, how)]
    return [low - high for low, high in zip(cost[::2], cost[1::2], strict=True)]


def _value(odd: float, below: float, above: float) -> float:
    slope = (above - below) / (2 * SIMULATED)
    return (odd - (above + below) / 2) / slope if slope > 0 else float("nan")


def _at(modality: Modality, spec: Any, geometry: Any, value: float) -> Any:
    """The spec whose derived combination has this value; `TRADE_OFF[0]` enters it with slope one."""
    (now,) = modality.derived(spec, geometry=geometry).values()
    name = modality.TRADE_OFF[0]
    return replace(spec, **{name: getattr(spec, name) + value - now})


def _restored(iterations: int, model: Operator, counts: Array, background: Array) -> Array:
    return restored(model, counts, background, iterations=iterations)


@jax.jit
def _drawn(key: Any, model: Operator, specimen: Any, background: Any) -> Any:
    mean = jnp.maximum(model.apply(specimen) + background, 0.0)
    return jax.random.poisson(key, mean).astype(jnp.float32)
