"""The score's figures in NumPy float64: PSNR, SSIM, consistency, their combinations. Deterministic, no rescaling.

Definitions: PSNR and SSIM as in `diffphys.metrics`; tier score 0.4 clip((PSNR - 10) / 40) + 0.4 SSIM + 0.2 c; standard score
0.5 clip((PSNR - 15) / 30) + 0.5 SSIM.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from diffphys.metrics import C1, C2, RADIUS, SIGMA, expect_same_shape

LARGEST = 1e6  # of |x_hat|: beyond it float64 sums of squares say nothing about an image that peaks at 1
HIGHEST_DB = 200.0  # PSNR of an exact copy, which would be infinite


def expect_image(x_hat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """x_hat in float64; ValueError unless it is real, of exactly this shape, finite and at most LARGEST."""
    x_hat = np.asarray(x_hat)
    if x_hat.dtype.kind != "f" or x_hat.shape != tuple(shape):
        raise ValueError(f"x_hat is {x_hat.dtype} of shape {x_hat.shape}; expected real numbers of shape {tuple(shape)}")
    if not np.isfinite(x_hat).all():
        raise ValueError("x_hat holds NaN or infinite values; expected finite numbers")
    largest = float(np.abs(x_hat).max())
    if largest > LARGEST:
        raise ValueError(f"x_hat reaches {largest:.3g}; expected at most {LARGEST:g} in magnitude (x_true peaks at 1)")
    return x_hat.astype(np.float64)


def psnr(x_hat: np.ndarray, x: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, data range 1, at most HIGHEST_DB."""
    expect_same_shape(x_hat, x)  # type: ignore[arg-type]
    error = float(np.mean((np.asarray(x_hat, np.float64) - np.asarray(x, np.float64)) ** 2))
    return min(-10.0 * math.log10(error), HIGHEST_DB) if error > 0 else HIGHEST_DB


def ssim(x_hat: np.ndarray, x: np.ndarray) -> float:
    """Mean structural similarity, data range 1; may be negative."""
    expect_same_shape(x_hat, x)  # type: ignore[arg-type]
    a, b = np.asarray(x_hat, np.float64), np.asarray(x, np.float64)
    mean_a, mean_b = _smooth(a), _smooth(b)
    var_a, var_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
    cov = _smooth(a * b) - mean_a * mean_b
    contrast = (2 * cov + C2) / (var_a + var_b + C2)
    return float(np.mean((2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1) * contrast))


def _smooth(x: np.ndarray) -> np.ndarray:
    inside = (slice(RADIUS, -RADIUS),) * x.ndim
    return gaussian_filter(x, SIGMA, radius=RADIUS)[inside]


def consistency(photons: np.ndarray, prediction: np.ndarray) -> float:
    """c = clip(1 - |y' - prediction| / |y'|, 0, 1); 0 where y' is dark."""
    size = float(np.linalg.norm(photons.ravel()))
    misfit = float(np.linalg.norm((photons - prediction).ravel()))
    return unit(1 - misfit / size) if size > 0 else 0.0


def image_terms(psnr_db: float, ssim_value: float) -> float:
    """The part of the tier score that an image earns by itself: 0.4 PSNR term + 0.4 SSIM, at most 0.8."""
    return 0.4 * unit((psnr_db - 10) / 40) + 0.4 * unit(ssim_value)


def tier_score(psnr_db: float, ssim_value: float, c: float) -> float:
    """Score of one sample in the blind challenge, 0 to 1."""
    return image_terms(psnr_db, ssim_value) + 0.2 * unit(c)


def standard_score(psnr_db: float, ssim_value: float) -> float:
    """Score of one sample in the standard benchmark (operator known), 0 to 1."""
    return 0.5 * unit((psnr_db - 15) / 30) + 0.5 * unit(ssim_value)


def unit(value: float) -> float:
    """Clipped to [0, 1]; ValueError for a number that is not finite (clipping would turn it into points)."""
    if not math.isfinite(value):
        raise ValueError(f"a term of the score is {value}; expected a finite number")
    return min(max(value, 0.0), 1.0)
