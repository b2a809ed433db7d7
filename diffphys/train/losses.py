"""Losses per role: (model, batch, key) -> scalar. Errors count in the specimen's own unit, in which it peaks at 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffphys.metrics import ssim
from diffphys.networks.registry import Network, noise_range
from diffphys.networks.roles import LACK, SPREAD, cleaned, denoised
from diffphys.types import Array

KNEE = 1e-3  # of Charbonnier's square root: quadratic below, absolute above
FLOOR = 1e-6  # mean squared error below which a better PSNR is no longer sought: 60 dB
SCORE = (0.1, 0.4)  # the benchmark's score per decade of mean squared error, and per unit of SSIM
HIDDEN = 0.02  # share of voxels that a blind-spot network does not see
Batch = Mapping[str, Array]
Loss = Callable[[Any, Batch, Array], Array]


def charbonnier(x_hat: Array, x: Array) -> Array:
    """Mean of sqrt(error^2 + KNEE^2) - KNEE (Lai et al., CVPR 2017)."""
    return jnp.mean(jnp.sqrt((x_hat - x) ** 2 + KNEE**2)) - KNEE


def fidelity(x_hat: Array, batch: Batch) -> Array:
    """Charbonnier, PSNR and the lack of structural similarity, the latter two in the shares that the benchmark's score gives
    them; of (N, *axes) in units of the scale. The logarithm makes every image count alike, however bright its noise."""
    unit = batch["unit"].reshape(-1, *(1,) * (x_hat.ndim - 1))
    found, true = unit * x_hat, unit * batch["x"]
    error = jnp.mean((found - true) ** 2, axis=tuple(range(1, found.ndim)))
    lack = 1 - jnp.mean(jax.vmap(ssim)(found, true))
    return charbonnier(found, true) + SCORE[0] * jnp.mean(jnp.log10(1 + error / FLOOR)) + SCORE[1] * lack


def restore(model: Any, batch: Batch, key: Array) -> Array:
    return fidelity(model(batch["inputs"])[..., 0], batch)


def laplace(model: Any, batch: Batch, key: Array) -> Array:
    """Negative log-likelihood of a Laplace distribution (Weigert et al. 2018, eq. 3 of the supplement), and the fidelity."""
    out = model(batch["inputs"])
    mean, log_scale = out[..., 0], bounded(out[..., 1])
    likelihood = jnp.abs(mean - batch["x"]) * jnp.exp(-log_scale) + log_scale
    return 0.05 * jnp.mean(likelihood) + fidelity(mean, batch)


def bounded(raw: Array) -> Array:
    """Log of the Laplace scale within [-7, 1], so that no voxel's likelihood runs away; -3 at the start."""
    return -3.0 + 4.0 * jnp.tanh(raw / 4.0)


def denoise(model: Any, batch: Batch, key: Array, *, low: float, high: float) -> Array:
    """Clean image from white noise of a level drawn per example; absolute error in units of that level."""
    noisy, sigma = _noisy(batch["x"], key, low, high)
    level = sigma.reshape(-1, *(1,) * (noisy.ndim - 1))
    return jnp.mean(jnp.abs(cleaned(model, noisy, sigma) - batch["x"]) / (level + 0.05))


def score(model: Any, batch: Batch, key: Array, *, low: float, high: float, conditioned: bool = False) -> Array:
    """Denoising score matching with the weights that make every level count alike (Karras et al. 2022)."""
    inputs = batch["inputs"] if conditioned else None
    x, spread = (batch["x"], SPREAD) if inputs is None else (batch["x"] - inputs[..., 0], LACK)
    noisy, sigma = _noisy(x, key, low, high)
    weight = (sigma**2 + spread**2) / (sigma * spread) ** 2
    found = denoised(model, noisy, sigma, condition=inputs)
    return jnp.mean(weight.reshape(-1, *(1,) * (noisy.ndim - 1)) * (found - x) ** 2)


def _noisy(x: Array, key: Array, low: float, high: float) -> tuple[Array, Array]:
    level, noise = jax.random.split(key)
    sigma = jnp.exp(jax.random.uniform(level, (len(x),), minval=jnp.log(low), maxval=jnp.log(high)))
    return x + sigma.reshape(-1, *(1,) * (x.ndim - 1)) * jax.random.normal(noise, x.shape), sigma


def blind_spot(model: Any, batch: Batch, key: Array) -> Array:
    """Measured values of hidden voxels from their neighbours (Krull et al., CVPR 2019); no truth enters."""
    measured, noise = batch["inputs"][..., 1], batch["inputs"][..., 2]
    hide, which = jax.random.split(key)
    hidden = jax.random.uniform(hide, measured.shape) < HIDDEN
    found = model(jnp.stack([jnp.where(hidden, neighbour(which, measured), measured), noise], axis=-1))[..., 0]
    error = hidden * (found - measured) ** 2 / (noise**2 + 0.02**2)
    return jnp.sum(error) / jnp.maximum(jnp.sum(hidden), 1)


def neighbour(key: Array, image: Array) -> Array:
    """Each voxel's value replaced by that of a random neighbour in its plane, one shift per batch."""
    steps = jnp.asarray([(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)])
    step = steps[jax.random.randint(key, (), 0, len(steps))]
    return jnp.roll(jnp.roll(image, step[0], -2), step[1], -1)


def of(network: Network) -> Loss:
    """The loss of a network's role."""
    if network.role == "laplace":
        return laplace
    if network.role == "blind_spot":
        return blind_spot
    low, high = noise_range(network)
    if network.role == "denoise":
        return partial(denoise, low=low, high=high)
    if network.role in ("score", "condition"):
        return partial(score, low=low, high=high, conditioned=network.role == "condition")
    return restore
