"""The one loop of all iterative methods: jitted chunks of steps, stopping rule, callback, status.

A method is a state (NamedTuple with a field `x`) and a step (problem, state) -> (state, watched value). Between chunks the
host looks at the values: it can stop, report progress, and always holds the last finite state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.operator import Operator
from diffphys.types import Array, Status

CHUNK = 10
Callback = Callable[[int, float], bool | None]


class Problem(NamedTuple):
    """What every method receives; arrays have the axes of the measurement, in photons.

    Attributes:
        operator: specimen -> signal.
        photons: measured, offset removed, background still in.
        background: expected photons that do not come from the specimen.
        read_variance: photo-electrons squared.
        pitch: (*axes), voxel size divided by its smallest entry.
    """

    operator: Operator
    photons: Array
    background: Array
    read_variance: Array
    pitch: Array


class Solution(NamedTuple):
    """What every method returns; `x` and its 1 sigma (where the method has one) cover the specimen, in photons per voxel."""

    x: Array
    status: Status
    iterations: int
    curve: np.ndarray
    curve_name: str
    warnings: tuple[str, ...] = ()
    uncertainty: Array | None = None


class Run(NamedTuple):
    """Outcome of the loop: last finite state, its status, the watched value after every step."""

    state: Any
    status: Status
    values: np.ndarray


def noise_weight(problem: Problem) -> float:
    """|h|_2 / sqrt(mean photons): the noise that white Poisson noise leaves in a voxel of A^T (1 - y / m).

    A total-variation weight below it lets noise through, one far above it flattens structure; without blur it is the
    well-known weight of one noise standard deviation.
    """
    op = problem.operator
    level = jnp.mean(jnp.maximum(problem.photons, 0.0)) + problem.read_variance
    response = jnp.zeros(op.specimen).at[tuple(n // 2 for n in op.specimen)].set(1.0)
    return float(jnp.linalg.norm(op.apply(response).ravel()) / jnp.sqrt(jnp.maximum(level, 1e-6)))


def shifted(callback: Callback | None, done: int) -> Callback | None:
    """The same callback for a run that follows `done` iterations of another one."""
    return None if callback is None else lambda iteration, value: callback(done + iteration, value)


@partial(jax.jit, static_argnames="step")
def _chunk(step: Any, problem: Any, state: Any, count: Array) -> tuple[Any, Array, Array]:
    """`count` <= CHUNK steps; state, values, whether all is finite. One trace serves every count."""

    def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        state, value = step(problem, carry[0])
        return state, carry[1].at[i].set(value)

    state, values = jax.lax.fori_loop(0, count, body, (state, jnp.zeros(CHUNK, state.x.dtype)))
    return state, values, jnp.all(jnp.isfinite(state.x)) & jnp.all(jnp.isfinite(values))


def run(
    step: Any,
    problem: Any,
    state: Any,
    *,
    iterations: int,
    finished: Callable[[Sequence[float]], bool] | None = None,
    callback: Callback | None = None,
) -> Run:
    """Step until `finished(values)`, the cap, a False from the callback, Ctrl-C, or a value that is not finite.

    Args:
        step: hashable, equal for equal static options, so that a second call finds the compiled program.
        problem: pytree of arrays, passed to every step.
        state: start, with a field `x`.
        iterations: cap.
        finished: looks at the values so far, once per chunk; None: the cap is the goal.
        callback: (iterations done, last value) -> False to stop.
    """
    values: list[float] = []
    try:
        while len(values) < iterations:
            count = min(CHUNK, iterations - len(values))
            new, chunk, finite = _chunk(step, problem, state, count)
            if not finite:
                return Run(state, Status.NONFINITE, np.array(values))
            state = new
            values += np.asarray(chunk)[:count].tolist()
            if finished is not None and finished(values):
                return Run(state, Status.CONVERGED, np.array(values))
            if callback is not None and callback(len(values), values[-1]) is False:
                return Run(state, Status.INTERRUPTED, np.array(values))
    except KeyboardInterrupt:
        return Run(state, Status.INTERRUPTED, np.array(values))
    return Run(state, Status.CONVERGED if finished is None else Status.OUT_OF_STEPS, np.array(values))
