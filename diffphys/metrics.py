"""Image quality: PSNR and SSIM in JAX (differentiable, for losses). Data range 1 by definition; larger is better.

SSIM: Wang et al. (IEEE TIP 13:600, 2004), Gaussian window of sigma 1.5 and radius 5, K1 0.01, K2 0.03, population covariance;
the window lies wholly inside the image. scikit-image's `structural_similarity` with the same settings agrees.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from diffphys.types import Array

SIGMA, RADIUS = 1.5, 5
C1, C2 = 0.01**2, 0.03**2
_OFFSETS = np.arange(-RADIUS, RADIUS + 1)
WINDOW = np.exp(-0.5 * (_OFFSETS / SIGMA) ** 2) / np.exp(-0.5 * (_OFFSETS / SIGMA) ** 2).sum()


def psnr(x_hat: Array, x: Array) -> Array:
    """Peak signal-to-noise ratio in dB over all axes, data range 1; no rescaling of either image."""
    expect_same_shape(x_hat, x)
    return -10.0 * jnp.log10(jnp.mean((x_hat - x) ** 2))


def ssim(x_hat: Array, x: Array) -> Array:
    """Mean structural similarity of two images (y, x) or stacks (z, y, x), data range 1; not clipped.

    Every axis needs at least 11 samples.
    """
    expect_same_shape(x_hat, x)
    if min(x.shape) < len(WINDOW):
        raise ValueError(f"image has shape {tuple(x.shape)}; SSIM needs at least {len(WINDOW)} samples along every axis")
    mean_a, mean_b = _smooth(x_hat), _smooth(x)
    var_a, var_b = _smooth(x_hat**2) - mean_a**2, _smooth(x**2) - mean_b**2
    cov = _smooth(x_hat * x) - mean_a * mean_b
    contrast = (2 * cov + C2) / (var_a + var_b + C2)
    return jnp.mean((2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1) * contrast)


def expect_same_shape(x_hat: Array, x: Array) -> None:
    """Raise unless both are images or stacks of one shape: nothing is broadcast."""
    if x_hat.shape != x.shape or x.ndim not in (2, 3):
        raise ValueError(f"images have shapes {tuple(x_hat.shape)} and {tuple(x.shape)}; expected one shape of 2 or 3 axes")


def _smooth(x: Array) -> Array:
    """Weighted mean under the window, where the window fits."""
    for axis in range(x.ndim):
        n = x.shape[axis] - 2 * RADIUS
        parts = (float(w) * lax.slice_in_dim(x, i, i + n, axis=axis) for i, w in enumerate(WINDOW))
        x = sum(parts, jnp.zeros((), x.dtype))
    return x
