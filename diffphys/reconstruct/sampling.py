"""Diffusion: samples of the image given the counts, their mean as the image, their spread as its uncertainty.

    x0 = D(x, s)                                    the network's estimate at noise s
    x0 <- argmin |W^(1/2) (A x0 - y)|^2 / 2 + WEIGHT / (2 s^2) |x0 - D|^2      unconditional priors: data step (DiffPIR)
    x  <- x0 + s' ( sqrt(1 - churn) (x - x0) / s + sqrt(churn) n )            on to the next noise s' < s

Zhu et al. (CVPR workshops 2023, algorithm 1); networks preconditioned as by Karras et al. (NeurIPS 2022). A network that is
conditioned on the calibrated Wiener image diffuses what that lacks, has seen the physics and needs no data step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.cores import at_once, cores
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.learned import Prepared, finished, name_of, prepare, through
from diffphys.reconstruct.splitting import data_of, data_step
from diffphys.types import Array, Status

CURVE = "spread of the samples so far, share of the scale"
WEIGHT = 1.0
Estimate = Callable[[Array, float], Array]


class Path(NamedTuple):
    """Noise at the start and the end, in units of the image's scale, and the share of it that is drawn anew at every step.

    Chosen on examples held out of the training. Without a condition, samples whose noise is drawn anew at every step (all of
    the churn) are worth more as a mean than those that keep it: by 1 dB on images.
    """

    first: float
    last: float
    churn: float


CONDITIONED, UNCONDITIONED = Path(0.6, 0.2, 0.3), Path(0.2, 0.02, 1.0)


def diffdeconv(
    problem: Problem, *, samples: int = 6, steps: int = 2, seed: int = 0, callback: Callback | None = None
) -> Solution:
    """Diffusion conditioned on the calibrated Wiener image; images.

    Args:
        problem: data and operator.
        samples: drawn and averaged; their spread is the uncertainty (none for one sample).
        steps: noise levels per sample.
        seed: of the samples.
        callback: (steps done, spread) -> False to stop after this sample.
    """
    name, ready = name_of("diffdeconv", problem), prepare(problem)

    def estimate(x: Array, sigma: float) -> Array:
        return _denoised(name, x, sigma, ready.inputs)

    lacking, status = _samples(estimate, jnp.zeros(ready.inputs.shape[:-1]), 1.0, CONDITIONED, samples, steps, seed, callback)
    return _mean(problem, ready, [jnp.asarray(ready.inputs[..., 0]) + part for part in lacking], status)


def scoremicro(
    problem: Problem, *, samples: int = 6, steps: int = 8, seed: int = 0, callback: Callback | None = None
) -> Solution:
    """Posterior sampling with an unconditional score network through the operator; images. Arguments as of `diffdeconv`."""
    return _posterior(problem, samples, steps, seed, callback)


def diffusionmicro(
    problem: Problem, *, samples: int = 4, steps: int = 5, seed: int = 0, callback: Callback | None = None
) -> Solution:
    """Posterior sampling with a 3-D score network through the operator; stacks. Arguments as of `diffdeconv`."""
    return _posterior(problem, samples, steps, seed, callback)


def _posterior(problem: Problem, samples: int, steps: int, seed: int, callback: Callback | None) -> Solution:
    name, ready, data = name_of("score", problem), prepare(problem), data_of(problem)

    def estimate(x: Array, sigma: float) -> Array:
        towards = _denoised(name, x / ready.unit, sigma, None) * ready.unit
        pull = jnp.asarray(WEIGHT / (sigma * ready.unit) ** 2, towards.dtype)
        return data_step(data, towards, towards=towards, weight=pull)

    start = jnp.maximum(ready.wiener.x, 0.0)
    images, status = _samples(estimate, start, ready.unit, UNCONDITIONED, samples, steps, seed, callback)
    cropped = [problem.operator.crop(image) / ready.unit for image in images]
    return _mean(problem, ready, cropped, status)


def _denoised(name: str, x: Array, sigma: float, condition: np.ndarray | None) -> Array:
    from diffphys.networks.roles import denoised

    given = None if condition is None else jnp.asarray(condition)[None]
    found = denoised(
        lambda inputs: jnp.asarray(through(name, np.asarray(inputs[0])))[None], x[None], jnp.asarray([sigma]), condition=given
    )
    return found[0]


def _samples(
    estimate: Estimate, start: Array, unit: float, path: Path, samples: int, steps: int, seed: int, callback: Callback | None
) -> tuple[list[Array], Status]:
    """Finished samples, at least one unless a value is not finite."""
    if samples < 1 or steps < 2:
        raise ValueError(f"samples is {samples}, steps {steps}; expected at least 1 and 2")
    levels = np.geomspace(path.first, path.last, steps)

    def drawn(number: int) -> Array:
        """A sample; as it was where a value stopped being finite."""
        key = jax.random.fold_in(jax.random.key(seed), number)
        x = start + levels[0] * unit * jax.random.normal(key, start.shape)
        for step, sigma in enumerate(levels):
            found = estimate(x, float(sigma))
            if step + 1 == steps or not bool(jnp.all(jnp.isfinite(found))):
                break
            fresh = jax.random.normal(jax.random.fold_in(key, step + 1), x.shape)
            old = (x - found) / (sigma * unit)
            x = found + levels[step + 1] * unit * (np.sqrt(1 - path.churn) * old + np.sqrt(path.churn) * fresh)
        return found

    images: list[Array] = []
    for first in range(0, samples, cores()):
        for image in at_once(drawn, range(first, min(first + cores(), samples)), ("samples", start.shape, path)):
            if not bool(jnp.all(jnp.isfinite(image))):
                return images, Status.NONFINITE
            images.append(image)
            spread = float(jnp.std(jnp.stack(images), axis=0).mean()) / unit
            if callback is not None and callback(len(images) * steps, spread) is False:
                return images, Status.INTERRUPTED
    return images, Status.CONVERGED


def _mean(problem: Problem, ready: Prepared, images: list[Array], status: Status) -> Solution:
    """Mean of the samples, and the spread that says how far a single one may be from the truth."""
    if not images:
        return ready.wiener._replace(status=Status.NONFINITE)
    stack = np.stack([np.asarray(i) for i in images])
    spread = stack.std(axis=0, ddof=1) if len(stack) > 1 else None
    return finished(problem, ready, stack.mean(axis=0), None, uncertainty=spread)._replace(status=status, curve_name=CURVE)
