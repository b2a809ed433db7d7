"""The scorer's own H in float64, and what a spec is worth: prediction over the interior, Cramer-Rao bound.

Light from outside the field: x_hat is given on the field only, so the interior alone is compared, the field without half a
nominal PSF on every side (the half width that holds 99 % of its energy along an axis, at most a quarter of the field); what
still reaches the interior from outside is stood in for by mirroring x_hat at the field's edge. The rim depends on the nominal
instrument only, never on what was submitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from diffphys.noise import Detector
from diffphys.operator import MARGIN_ENERGY
from diffphys.primitives.convolve import padded_shape, support
from diffphys.spec import parse
from diffphys.types import resolve


@lru_cache(maxsize=8)
def rim(modality: str, geometry: Any) -> tuple[int, ...]:
    """Pixels per axis that the consistency leaves out on each side."""
    known = resolve(modality)
    psfs = np.asarray(known.transfer(known.nominal(geometry), geometry=geometry).psfs)
    halves = support(psfs.sum((0, 1)), energy=MARGIN_ENERGY)
    return tuple(min(h, n // 4) for h, n in zip(halves, geometry.shape, strict=True))


def interior(modality: str, geometry: Any) -> tuple[slice, ...]:
    """The field without the rim."""
    return tuple(slice(m, n - m) for m, n in zip(rim(modality, geometry), geometry.shape, strict=True))


def prediction(modality: str, spec: Mapping[str, float], x_hat: np.ndarray, *, geometry: Any, detector: Detector) -> np.ndarray:
    """Expected photons of the field, background included, float64, axes of y; valid over the interior."""
    psfs, weights, modulation = transfer(modality, tuple(spec.items()), geometry)
    margins = rim(modality, geometry)
    pads = [(m, m) for m in margins]
    specimen = np.pad(np.asarray(x_hat, np.float64), pads, mode="symmetric")
    weighted = np.pad(np.broadcast_to(weights, (len(weights), *geometry.shape)), [(0, 0), *pads], mode="edge") * specimen
    grid = padded_shape(geometry.shape, specimen.shape, psfs.shape[2:])
    axes = tuple(range(-len(grid), 0))
    spectra = fft.rfftn(np.broadcast_to(weighted, (psfs.shape[1], *specimen.shape)), s=grid, axes=axes)
    field = tuple(slice(m, m + n) for m, n in zip(margins, geometry.shape, strict=True))
    frames = [fft.irfftn((_otf(psf, grid) * spectra).sum(0), s=grid, axes=axes)[field] for psf in psfs]
    signal = modulation * np.stack(frames)
    photons = float(detector.peak_photons) * signal + float(detector.background)
    return photons if hasattr(geometry, "frames") else photons[0]


@lru_cache(maxsize=4)
def transfer(modality: str, spec: tuple[tuple[str, float], ...], geometry: Any) -> tuple[np.ndarray, ...]:
    """PSFs, depth weights and modulation of a spec in float64, whatever jax's default precision."""
    known = resolve(modality)
    with jax.enable_x64(True):
        parts = known.transfer(parse(known.Spec, known.FIELDS, dict(spec), dtype=jnp.float64), geometry=geometry)
        return tuple(np.asarray(part, np.float64) for part in parts)


def _otf(psfs: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Half spectra (anchor, *half grid) of PSFs centred on n//2."""
    sizes, axes = psfs.shape[1:], tuple(range(-len(grid), 0))
    wrapped = np.pad(psfs, [(0, 0), *((0, n - p) for n, p in zip(grid, sizes, strict=True))])
    return fft.rfftn(np.roll(wrapped, [-(p // 2) for p in sizes], axis=axes), axes=axes)


def cramer_rao(
    modality: str, spec: Mapping[str, float], x: np.ndarray, *, geometry: Any, detector: Detector
) -> dict[str, float]:
    """Name -> smallest 1 sigma of an unbiased estimate, were the specimen known: the optimist's bound.

    Fisher information of Poisson counts with the read noise added to their variance, from central differences of the
    prediction over the interior.
    """
    fields = resolve(modality).FIELDS
    inside: Any = (..., *interior(modality, geometry))
    shared = {"geometry": geometry, "detector": detector}

    def mean(at: Mapping[str, float]) -> np.ndarray:
        return prediction(modality, at, x, **shared)[inside].ravel()

    slopes = []
    for field in fields:
        step = 1e-3 * (field.high - field.low)
        up, down = ({**spec, field.name: spec[field.name] + sign * step} for sign in (1, -1))
        slopes.append((mean(up) - mean(down)) / (2 * step))
    variance = np.maximum(mean(spec), 1e-6) + float(detector.read_sigma) ** 2
    jacobian = np.array(slopes) / np.sqrt(variance)
    scale = np.linalg.norm(jacobian, axis=1)
    covariance = np.linalg.inv((jacobian / scale[:, None]) @ (jacobian / scale[:, None]).T) / np.outer(scale, scale)
    return {f.name: float(np.sqrt(covariance[i, i])) for i, f in enumerate(fields)}
