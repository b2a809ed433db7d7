"""Fit of the evidence: starts over the box, hyper-parameters warmed up first, the best finalists polished."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate import evidence, fisher_scoring, spectra
from diffphys.spec import from_vector
from diffphys.types import Array, Modality

WARM_UP, JOINT, POLISH, FINALISTS = 8, 12, 40, 4


class Fit(NamedTuple):
    """One family's result: finalists, best first.

    Attributes:
        q: (F, Q) finalists.
        value: (F,) penalised NLL.
        point: evidence at the best one.
    """

    q: np.ndarray
    value: np.ndarray
    point: evidence.Point


@lru_cache(maxsize=32)
def model_of(modality: Modality, block: Any, family: str, finer: tuple[int, ...]) -> tuple[evidence.Model, spectra.Spectrum]:
    """Static part for a modality, a block geometry and a spectrum family; cached so that equal shapes share a trace."""
    pitch = getattr(block, "voxel_um", None) or block.pixel_um
    pitch = pitch if isinstance(pitch, tuple) else (pitch, pitch)
    isotropy = pitch[-1] / pitch[0] if len(block.shape) == 3 else 1.0
    spectrum = getattr(spectra, family)(isotropy)

    def otf(theta: Array) -> tuple[Array, Array]:
        return modality.otf_quadrant(from_vector(modality.Spec, modality.FIELDS, theta), geometry=block, finer=finer)

    frames = 1 if len(block.shape) == 3 else len(block.phase_offsets_rad)
    return evidence.Model(otf, spectrum.log, len(modality.FIELDS), frames), spectrum


@partial(jax.jit, static_argnames=("model", "iterations"))
def _run(model: evidence.Model, data: evidence.Data, starts: Array, mask: Array, *, iterations: int) -> tuple[Array, Array]:
    def evaluate(q: Array) -> tuple[Array, Array, Array]:
        point = evidence.evaluate(model, data, q)
        return point.value, point.gradient, point.fisher

    box = fisher_scoring.Box(data.low, data.high, data.step)

    def one(q: Array) -> tuple[Array, Array]:
        state = fisher_scoring.minimise(evaluate, box, q, mask=mask, iterations=iterations)
        return state.q, state.value

    return jax.vmap(one)(starts)


@partial(jax.jit, static_argnames=("model",))
def _point(model: evidence.Model, data: evidence.Data, q: Array) -> evidence.Point:
    return evidence.evaluate(model, data, q)


def fit(model: evidence.Model, data: evidence.Data, starts: Array) -> Fit:
    """Warm up psi with theta frozen, then everything, then polish the best finalists."""
    moving = jnp.ones(starts.shape[1], starts.dtype)
    frozen = moving.at[: model.parameters].set(0.0)
    q, _ = _run(model, data, starts, frozen, iterations=WARM_UP)
    q, value = _run(model, data, q, moving, iterations=JOINT)
    order = np.argsort(np.where(np.isfinite(value), value, np.inf))[:FINALISTS]
    q, value = _run(model, data, q[order], moving, iterations=POLISH)
    best = np.argsort(np.where(np.isfinite(value), value, np.inf))
    return Fit(np.asarray(q)[best], np.asarray(value)[best], _point(model, data, q[best[0]]))
