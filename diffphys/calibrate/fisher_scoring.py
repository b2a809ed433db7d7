"""Fisher scoring with Levenberg damping and an active-set box: init and step on a NamedTuple, run by `lax.while_loop`.

Osborne, Int. Stat. Rev. 60:99 (1992). The step solves (F + mu diag F) d = -gradient on the parameters that are free; mu follows
how much of the gain that the quadratic model foretold came true (Nielsen, IMM-REP-1999-05, 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffphys.types import Array

SETTLED = 1e-3  # nats that a step gains, or could: below this the minimum is reached to far less than its curvature
DAMPING, EASED, RAISED = 1e-2, 0.3, 5.0  # at the start; its least factor after a better step, that after a worse one
HARDLY = 2.0  # its factor after a step that gained next to nothing of what was foretold
STIFF = 1e5  # damping: below this some step was still worth trying


class State(NamedTuple):
    """Accepted point, its value, gradient and Fisher matrix, the damping, and how much the last step gained; where it gained
    nothing, how much an undamped one was foretold to."""

    q: Array
    value: Array
    gradient: Array
    fisher: Array
    damping: Array
    gain: Array


class Box(NamedTuple):
    low: Array
    high: Array
    step: Array


Evaluate = Callable[[Array], tuple[Array, Array, Array]]  # q -> value, gradient, Fisher matrix


def init(q: Array) -> State:
    """Before anything is evaluated: any finite value is better, and the first step stays at q (in its box). So a program
    holds the evaluation once, which halves the time to compile it."""
    never, damping = jnp.full((), jnp.inf, q.dtype), jnp.asarray(DAMPING / EASED, q.dtype)
    return State(q, never, jnp.zeros_like(q), jnp.zeros((q.size, q.size), q.dtype), damping, never)


def step(evaluate: Evaluate, box: Box, mask: Array, state: State) -> State:
    """One damped scoring step; `mask` (Q,) is 1 for parameters that may move."""
    blocked = ((state.q <= box.low) & (state.gradient > 0)) | ((state.q >= box.high) & (state.gradient < 0))
    free = jnp.where(blocked, 0.0, mask)
    slope = state.gradient * free
    matrix = state.fisher * free[:, None] * free[None] + jnp.diag(jnp.where(free > 0, 1e-6, 1.0))
    damped = matrix + jnp.diag(state.damping * jnp.diag(state.fisher) * free)
    move = jnp.clip(-jnp.linalg.solve(damped, slope), -box.step, box.step)
    trial = jnp.clip(state.q + move, box.low, box.high)
    value, gradient, fisher = evaluate(trial)
    better, moved = value < state.value, trial - state.q
    gain = state.value - value
    foretold = jnp.maximum(-(slope @ moved) - 0.5 * moved @ matrix @ moved, 1e-9)
    eased = jnp.clip(1 - (2 * jnp.nan_to_num(gain / foretold) - 1) ** 3, EASED, HARDLY)
    damping = jnp.clip(jnp.where(better, eased, RAISED) * state.damping, 1e-6, 1e6)
    newer = State(trial, value, gradient, fisher, damping, gain)
    older = state._replace(damping=damping, gain=jnp.minimum(state.gain, 0.5 * slope @ jnp.linalg.solve(matrix, slope)))
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), newer, older)


def minimise(evaluate: Evaluate, box: Box, q: Array, *, mask: Array, iterations: Array) -> State:
    """At most `iterations` steps from `q` (traced: one compilation serves every stage); stops where nothing is gained.
    A `q` without a finite value keeps the value inf."""

    def going(carry: tuple[Array, State]) -> Array:
        count, state = carry
        stuck = (state.gain < SETTLED) | (state.damping >= STIFF)
        return (count < iterations) & ~stuck

    def body(carry: tuple[Array, State]) -> tuple[Array, State]:
        return carry[0] + 1, step(evaluate, box, mask, carry[1])

    return jax.lax.while_loop(going, body, (jnp.full_like(iterations, -1), init(q)))[1]
