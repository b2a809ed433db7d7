"""Noise2Void: a network that never saw a clean image learns this stack's own noise away; then the stack is deconvolved.

The shipped weights are a start, trained in the same way on simulated measurements alone; a short training on the measured stack
itself follows. Hidden voxels are predicted from their neighbours (Krull et al., CVPR 2019), so only noise that is independent
from voxel to voxel is removed: camera noise and shot noise, no stripes.

The deconvolution is Richardson-Lucy's; photons set aside before the network judge when to stop. (The measured counts cannot: no
value of the denoised stack was made from its own voxel's, but the blur of the restoration brings the neighbours' back.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.learned import Prepared, name_of, prepare, through
from diffphys.reconstruct.richardson_lucy import run_on
from diffphys.types import Array, Status

CURVE = "blind-spot loss"
PATCH = (16, 64, 64)
ITERATIONS = 300  # cap of the deconvolution


def noise2void(
    problem: Problem, *, steps: int = 20, rate: float = 5e-5, seed: int = 0, callback: Callback | None = None
) -> Solution:
    """Blind-spot training on the measured stack, then Richardson-Lucy on the denoised one; stacks.

    Args:
        problem: data and operator; one frame.
        steps: of training on this stack; 0: the shipped weights as they are.
        rate: of learning.
        seed: of patches and hidden voxels.
        callback: (steps done, loss) -> False to stop training.
    """
    if steps < 0 or not rate > 0:
        raise ValueError(f"steps is {steps}, rate {rate}; expected at least 0 and more than 0")
    name, ready = name_of("noise2void", problem), prepare(problem)
    weights, losses, status = _adapted(name, ready, steps, rate, seed, callback)
    restored = run_on(problem, partial(_denoised, name, weights), iterations=ITERATIONS, seed=seed)
    return Solution(restored.x, max(status, restored.status), len(losses), np.array(losses), CURVE, ready.warnings)


def _adapted(
    name: str, ready: Prepared, steps: int, rate: float, seed: int, callback: Callback | None
) -> tuple[Any, list[float], Status]:
    """Weights after `steps` on random patches of this stack; the shipped ones where the loss is not finite."""
    from diffphys.networks.weights import pretrained

    (_, start), (begin, step) = pretrained(name), _training(name, rate)
    weights, state, rng, losses = start, begin(start), np.random.default_rng(seed), []
    for number in range(steps):
        weights, state, value = step(weights, state, _patch(rng, ready.inputs), jax.random.key(seed * 100_003 + number))
        losses.append(float(value))
        if not np.isfinite(losses[-1]):
            return start, losses, Status.NONFINITE
        if callback is not None and callback(number + 1, losses[-1]) is False:
            return weights, losses, Status.INTERRUPTED
    return weights, losses, Status.CONVERGED


@lru_cache(maxsize=4)
def _training(name: str, rate: float) -> tuple[Callable[[Any], Any], Callable[..., tuple[Any, Any, Array]]]:
    """Start of the optimiser, and its compiled step: one program for all stacks."""
    import optax

    from diffphys.networks.weights import program
    from diffphys.train.losses import blind_spot

    model, optimiser = program(name), optax.adam(rate)

    @jax.jit
    def step(weights: Any, state: Any, patch: Array, key: Array) -> tuple[Any, Any, Array]:
        value, gradient = jax.value_and_grad(lambda w: blind_spot(partial(model, w), {"inputs": patch}, key))(weights)
        change, state = optimiser.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, value

    return optimiser.init, step


def _patch(rng: np.random.Generator, inputs: np.ndarray) -> Array:
    sizes = [min(n, p) for n, p in zip(inputs.shape, PATCH, strict=False)]
    starts = [int(rng.integers(n - s + 1)) for n, s in zip(inputs.shape, sizes, strict=False)]
    return jnp.asarray(inputs[tuple(slice(a, a + s) for a, s in zip(starts, sizes, strict=True))][None])


def _denoised(name: str, weights: Any, problem: Problem) -> Problem:
    """The problem with the network's photons in place of the measured ones."""
    from diffphys.networks.inputs import flux

    ready = prepare(problem)
    image = through(name, ready.inputs[..., 1:], weights=weights)[..., 0] * ready.unit
    return problem._replace(photons=jnp.maximum(jnp.asarray(image) * flux(problem) + problem.background, 0.0))
