"""Role of a network -> its inputs and what its output means; shared by training and reconstruction.

Score networks are preconditioned (Karras et al., NeurIPS 2022, table 1, EDM):
D(x, s) = c_skip x + c_out F(c_in x, ln s / 4), with the images' own spread as sigma_data. A conditioned network diffuses what
the Wiener image lacks (predict and refine: Whang et al., CVPR 2022), whose spread is smaller.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from diffphys.types import Array

SPREAD = 0.25  # standard deviation of images in units of their scale
LACK = 0.08  # and of what Wiener images lack


def denoised(model: Any, noisy: Array, sigma: Array, *, condition: Array | None = None) -> Array:
    """What a network of role score or condition makes of (N, *axes) with noise sigma (N,); condition (N, *axes, C)."""
    spread = SPREAD if condition is None else LACK
    level = sigma.reshape(-1, *(1,) * (noisy.ndim - 1)).astype(noisy.dtype)
    total = jnp.sqrt(level**2 + spread**2)
    channels = [(noisy / total)[..., None], jnp.broadcast_to(jnp.log(level) / 4, noisy.shape)[..., None]]
    inputs = jnp.concatenate(channels if condition is None else [*channels, condition.astype(noisy.dtype)], axis=-1)
    return spread**2 / total**2 * noisy + level * spread / total * model(inputs)[..., 0]


def cleaned(model: Any, noisy: Array, sigma: Array) -> Array:
    """What a network of role denoise makes of (N, *axes) with noise sigma, one number each or a map."""
    level = jnp.broadcast_to(sigma.reshape(-1, *(1,) * (noisy.ndim - 1)) if sigma.ndim == 1 else sigma, noisy.shape)
    return model(jnp.stack([noisy, level.astype(noisy.dtype)], axis=-1))[..., 0]
