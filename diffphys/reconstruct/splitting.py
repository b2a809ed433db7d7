"""Half-quadratic splitting: a data step through the operator and a learned denoiser, in turn, the noise lowered each time.

    x <- argmin 1/2 |W^(1/2) (A x + b - y)|^2 + WEIGHT / (2 s^2) |x - z|^2      (conjugate gradients)
    z <- D(x, s),     s from FIRST down to LAST times the image's scale

W is the inverse variance of each datum. Zhang et al. (CVPR 2017; TPAMI 44:6360, 2022, eq. 6 and 8). PnP-DnCNN takes one
denoiser that is told its noise, IRCNN a set of dilated networks, each for its range of noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.operator import Operator
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.learned import name_of, prepare, through
from diffphys.reconstruct.pnp import variance
from diffphys.types import Array, Status

CURVE = "relative change per round"
FIRST, LAST = 0.1, 0.02  # noise of the first and last denoising, in units of the image's scale
WEIGHT, WEIGHT_3D = 0.3, 0.1  # of images, of stacks: the best of 0.03, 0.1, 0.3, 1 on examples held out of the training
GRADIENTS = 8  # conjugate gradient steps per data step, started at the last image


class Data(NamedTuple):
    """Constants of the data step, in photons."""

    operator: Operator
    signal: Array
    precision: Array


def data_of(problem: Problem) -> Data:
    """The measurement without its background, and the inverse variance of each datum."""
    return Data(problem.operator, problem.photons - problem.background, 1.0 / variance(problem))


@partial(jax.jit, static_argnames="gradients")
def data_step(data: Data, x: Array, *, towards: Array, weight: Array, gradients: int = GRADIENTS) -> Array:
    """argmin 1/2 |W^(1/2) (A x - s)|^2 + weight/2 |x - towards|^2 by conjugate gradients from `x`; four real FFTs a step."""

    def normal(v: Array) -> Array:
        return data.operator.adjoint(data.precision * data.operator.apply(v)) + weight * v

    wanted = data.operator.adjoint(data.precision * data.signal) + weight * towards
    return jax.scipy.sparse.linalg.cg(normal, wanted, x0=x, maxiter=gradients, tol=1e-5)[0]


def pnp_dncnn(problem: Problem, *, rounds: int = 6, weight: float = WEIGHT, callback: Callback | None = None) -> Solution:
    """Splitting with one denoiser that is told its noise.

    Args:
        problem: data and operator.
        rounds: data steps and denoisings.
        weight: of the prior, see the head of this file.
        callback: (rounds done, relative change) -> False to stop.
    """
    name = name_of("dncnn", problem)

    def denoise(image: np.ndarray, sigma: float) -> np.ndarray:
        return through(name, np.stack([image, np.full(image.shape, sigma, np.float32)], axis=-1))[..., 0]

    return _split(problem, denoise, rounds, weight, callback)


def ircnn(problem: Problem, *, rounds: int = 6, weight: float = WEIGHT_3D, callback: Callback | None = None) -> Solution:
    """Splitting with the member of a set of denoisers whose noise is nearest; stacks. Arguments as of `pnp_dncnn`."""

    from diffphys.networks.registry import IRCNN_LEVELS

    def denoise(image: np.ndarray, sigma: float) -> np.ndarray:
        member = int(np.argmin(np.abs(np.log(np.asarray(IRCNN_LEVELS) / sigma))))
        inputs = np.stack([image, np.full(image.shape, sigma, np.float32)], axis=-1)
        return through(name_of(f"ircnn_{member}", problem), inputs)[..., 0]

    return _split(problem, denoise, rounds, weight, callback)


def _split(
    problem: Problem, denoise: Callable[[np.ndarray, float], np.ndarray], rounds: int, weight: float, callback: Callback | None
) -> Solution:
    """Rounds of data step and denoising on the whole specimen."""
    if rounds < 1 or not weight > 0:
        raise ValueError(f"rounds is {rounds}, weight {weight}; expected at least 1 and more than 0")
    ready, data = prepare(problem), data_of(problem)
    x = z = jnp.maximum(ready.wiener.x, 0.0)
    changes: list[float] = []
    for done, sigma in enumerate(np.geomspace(FIRST, LAST, rounds), 1):
        pull = weight / (sigma * ready.unit) ** 2
        x = data_step(data, x, towards=z, weight=jnp.asarray(pull, x.dtype))
        image = denoise(np.asarray(x) / ready.unit, float(sigma))
        if not np.isfinite(image).all():
            return Solution(z, Status.NONFINITE, done, np.array(changes), CURVE, ready.warnings)
        before, z = z, jnp.maximum(jnp.asarray(image) * ready.unit, 0.0)
        changes.append(float(jnp.linalg.norm((z - before).ravel()) / jnp.maximum(jnp.linalg.norm(z.ravel()), 1e-30)))
        if callback is not None and callback(done, changes[-1]) is False:
            return Solution(z, Status.INTERRUPTED, done, np.array(changes), CURVE, ready.warnings)
    return Solution(z, Status.CONVERGED, rounds, np.array(changes), CURVE, ready.warnings)
