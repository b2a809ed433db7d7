"""A small aberration by positivity: counts -> c_tot where second-order statistics see next to nothing of it.

A spec and its twin share |OTF|, which therefore changes only with the square of the aberration: the evidence knows nothing
about c near zero, and fills the gap with its model's misfit. The profile likelihood of a non-negative specimen is odd there:
the difference between -p and +p grows linearly with c, and vanishes with it but for the specimen's own asymmetry. Slope and
asymmetry are measured on two measurements simulated from this specimen as restored without aberration, at -c' and +c'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.sign import ITERATIONS, LARGEST, brightest, profile
from diffphys.operator import Operator, bind
from diffphys.reconstruct.richardson_lucy import restored
from diffphys.types import Modality

PROBE, SIMULATED = 0.04, 0.03  # waves: of the two compared models, of the two simulated measurements


def small(photons: np.ndarray, modality: Modality, geometry: Any, spec: Any, *, background: float, seed: int = 0) -> float:
    """The aberration (the modality's one derived combination, near zero) that positivity prefers, in its unit.

    Args:
        photons: stack in photons, read-noise variance added to data and background alike.
        spec: everything but the aberration; its `TRADE_OFF[0]` is moved.
        background: photons, the same variance added.
        seed: of the simulated noise.
    """
    part = brightest(photons, LARGEST)
    local = modality.block(geometry, part.shape)
    size = bind(modality, spec, geometry=local).specimen
    at = partial(_at, modality, spec, geometry)
    models = {c: bind(modality, at(c), geometry=local, specimen=size) for c in (-PROBE, -SIMULATED, 0.0, SIMULATED, PROBE)}
    pedestal = jnp.float32(background)

    def odd(counts: Any) -> float:
        low, high = (float(profile(models[c], counts, pedestal, iterations=ITERATIONS)) for c in (-PROBE, PROBE))
        return low - high

    counts = jnp.asarray(np.maximum(part, 0.0), jnp.float32)
    specimen = _restored(models[0.0], counts, pedestal)
    key = jax.random.key(seed)
    below, above = (odd(_drawn(key, models[c], specimen, pedestal)) for c in (-SIMULATED, SIMULATED))
    slope = (above - below) / (2 * SIMULATED)
    return (odd(counts) - (above + below) / 2) / slope


def _at(modality: Modality, spec: Any, geometry: Any, value: float) -> Any:
    """The spec whose derived combination has this value; `TRADE_OFF[0]` enters it with slope one."""
    (now,) = modality.derived(spec, geometry=geometry).values()
    name = modality.TRADE_OFF[0]
    return replace(spec, **{name: getattr(spec, name) + value - now})


@jax.jit
def _restored(model: Operator, counts: Any, background: Any) -> Any:
    return restored(model, counts, background, iterations=ITERATIONS)


@jax.jit
def _drawn(key: Any, model: Operator, specimen: Any, background: Any) -> Any:
    mean = jnp.maximum(model.apply(specimen) + background, 0.0)
    return jax.random.poisson(key, mean).astype(jnp.float32)
