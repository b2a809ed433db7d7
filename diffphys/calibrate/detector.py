"""What the data say about the detector: photon transfer of repeated frames, and the noise level of a single stack.

Both rest on one line: variance = gain (mean - offset) + (gain read_sigma)^2 (Janesick, Photon Transfer, SPIE 2007), fitted
through brightness bins that are chosen by *neighbouring* voxels. A bin chosen by the voxel's own value selects its noise:
that bends the line and overstates gain and offset at low counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy

from diffphys.noise import Detector
from diffphys.types import Modality, resolve

BLOCKS = 10  # the field is cut into BLOCKS x BLOCKS tiles for the bootstrap
DRAWS = 200


class PhotonTransfer(NamedTuple):
    """Result of `photon_transfer`; every number is a pair (value, 1 sigma), arrays have one row per frame.

    Attributes:
        gain: counts per photon, as variance over mean; a detector with a broad single-photon response counts fewer.
        offset: counts where the variance vanishes (read noise lowers it by gain read_sigma^2).
        signal: (frame, 2) mean signal above the offset, relative to frame 0.
        power: (frame, 2) excitation power relative to frame 0, if the signal goes with its square (SHG, two-photon).
        photons: mean photons per pixel in frame 0.
        noise_correlation: lag-1 correlation of the noise (y, x); far from 0 after resampling, then the gain is too small.
        warnings: one line each.
    """

    gain: tuple[float, float]
    offset: tuple[float, float]
    signal: np.ndarray
    power: np.ndarray
    photons: tuple[float, float]
    noise_correlation: tuple[float, float]
    warnings: tuple[str, ...] = ()


class _Pixels(NamedTuple):
    """Per-pixel material of the photon transfer, flattened: what a bootstrap draw picks from."""

    counts: np.ndarray  # (frame, pixel)
    around: np.ndarray  # (frame, pixel) mean of the neighbours, noise independent of `counts`
    used: np.ndarray  # (pixel,) not saturated


def photon_transfer(frames: np.ndarray, *, bins: int = 12, seed: int = 0) -> PhotonTransfer:
    """Gain, offset and relative brightness of repeated frames (frame, y, x) of one field.

    The brightness ratios come from the covariance of a frame with the neighbours' mean of every frame: it knows neither the
    offset nor the noise (errors in variables by an instrument). Differences y_k s_j - y_j s_k are then free of structure
    whatever the brightness. Errors: bootstrap over blocks of the field.

    Raises:
        ValueError: fewer than two frames, a field below 32 x 32, or no structure to compare.
    """
    frames = np.asarray(frames, np.float64)
    if frames.ndim != 3 or frames.shape[0] < 2 or min(frames.shape[1:]) < 32:
        raise ValueError(f"frames have shape {frames.shape}; expected at least two frames of 32 x 32, axes (frame, y, x)")
    if not np.isfinite(frames).all():
        raise ValueError("frames hold NaN or infinite counts; mask or crop them first")
    pixels, tiles = _gather(frames)
    full = _transfer(pixels, bins)
    if not (np.isfinite(full).all() and full[0] > 0):
        raise ValueError("frames show no structure that repeats or no noise that grows with it; check that they show one field")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        chosen = np.concatenate([tiles[i] for i in rng.integers(0, len(tiles), len(tiles))])
        draws.append(_transfer(_Pixels(pixels.counts[:, chosen], pixels.around[:, chosen], pixels.used[chosen]), bins))
    sigma = 1.4826 * np.nanmedian(np.abs(draws - np.nanmedian(draws, 0)), 0)
    gain, offset, photons = ((float(v), float(s)) for v, s in zip(full[:3], sigma[:3], strict=True))
    signal = np.stack([full[3:], sigma[3:]], 1)
    power = np.stack([np.sqrt(signal[:, 0]), 0.5 * signal[:, 1] / np.sqrt(signal[:, 0])], 1)
    correlation = _noise_correlation(frames, signal[:, 0])
    return PhotonTransfer(gain, offset, signal, power, photons, correlation, _transfer_warnings(pixels, correlation, full))


def _gather(frames: np.ndarray) -> tuple[_Pixels, list[np.ndarray]]:
    ring = np.ones((5, 5))
    ring[2, 2] = 0
    around = np.stack([scipy.ndimage.convolve(f, ring / ring.sum(), mode="reflect") for f in frames])
    used = _unsaturated(frames).all(0)
    index = np.arange(frames[0].size).reshape(frames.shape[1:])
    rows = np.array_split(index, BLOCKS, axis=0)
    tiles = [tile.ravel() for row in rows for tile in np.array_split(row, BLOCKS, axis=1)]
    flat = len(frames), -1
    return _Pixels(frames.reshape(flat), around.reshape(flat), used.ravel()), tiles


def _unsaturated(y: np.ndarray) -> np.ndarray:
    """False where a value is the maximum and the maximum occurs in more than a handful of voxels."""
    top = y == y.max()
    return ~top if top.sum() > 3 else np.ones(y.shape, bool)


def _transfer(p: _Pixels, bins: int) -> np.ndarray:
    """(gain, offset, photons of frame 0, relative signals...)."""
    counts, around = p.counts[:, p.used], p.around[:, p.used]
    shared = (counts - counts.mean(1, keepdims=True)) @ (around - around.mean(1, keepdims=True)).T
    left = np.linalg.svd(shared)[0][:, 0]
    s = left / left[0]
    guide = around.mean(0)
    label = np.searchsorted(np.quantile(guide, np.linspace(0, 1, bins + 1)[1:-1]), guide)
    size = np.bincount(label, minlength=bins)
    level, noise = np.zeros(bins), np.zeros(bins)
    pairs = [(j, k) for j in range(len(s)) for k in range(j)]
    for j, k in pairs:  # variance of s_j y_k - s_k y_j is gain s_j s_k (y_j + y_k - 2 offset)
        difference = s[j] * counts[k] - s[k] * counts[j]
        noise += np.bincount(label, (difference - difference.mean()) ** 2, bins) / (s[j] * s[k])
        level += np.bincount(label, counts[j] + counts[k], bins)
    filled = size > 1
    share = len(pairs) * size[filled]
    gain, intercept, _ = _line(level[filled] / share, noise[filled] / share, size[filled])
    offset = -0.5 * intercept / gain
    return np.array([gain, offset, (counts[0].mean() - offset) / gain, *s])


def _noise_correlation(frames: np.ndarray, signal: np.ndarray) -> tuple[float, float]:
    """Lag-1 correlation (y, x) of the difference of the first two frames, each pixel scaled to its own noise."""
    d = signal[0] * frames[1] - signal[1] * frames[0]
    d = d - d.mean()
    d = d / np.sqrt(scipy.ndimage.uniform_filter(d**2, 7) + 1e-12 * d.var() + 1e-300)
    return float((d[1:] * d[:-1]).mean()), float((d[:, 1:] * d[:, :-1]).mean())


def _transfer_warnings(p: _Pixels, correlation: tuple[float, float], estimate: np.ndarray) -> tuple[str, ...]:
    lines = []
    if max(map(abs, correlation)) > 0.1:
        lines.append(
            f"noise of neighbouring pixels is correlated ({correlation[0]:.2f} in y, {correlation[1]:.2f} in x): the frames "
            "were resampled or smoothed, and the gain is too small; use the raw frames"
        )
    if not p.used.all():
        lines.append(f"{100 * (1 - p.used.mean()):.2g} % of the pixels are saturated and were left out")
    if estimate[2] < 0.05:
        lines.append(f"only {estimate[2]:.2g} photons per pixel: gain and offset rest on few events")
    return tuple(lines)


def _line(level: np.ndarray, variance: np.ndarray, size: np.ndarray) -> tuple[float, float, np.ndarray]:
    """(slope, intercept, covariance) of variance = slope level + intercept: weights size / variance^2, Huber over bins."""
    design = np.stack([level, np.ones_like(level)], 1)
    model = np.maximum(variance, 1e-3 * variance.max())
    huber = np.ones_like(level)
    for _ in range(10):
        weight = huber * size / (2 * model**2)
        normal = np.linalg.pinv(design.T @ (weight[:, None] * design), rcond=1e-14, hermitian=True)
        slope, intercept = normal @ (design.T @ (weight * variance))
        model = np.maximum(slope * level + intercept, 0.05 * np.median(variance))
        score = np.abs(variance - model) / (model * np.sqrt(2 / size))
        huber = 1 / np.maximum(score / max(2.0, 2.0 * float(np.median(score))), 1.0)
    return float(slope), float(intercept), normal * max(1.0, float(np.mean(huber * score**2)))


class _Noise(NamedTuple):
    """Variance against level of one stack, from high-pass residuals: variance = slope level + intercept."""

    slope: float
    intercept: float
    covariance: np.ndarray
    level: float  # mean over the stack
    variance: float  # of the white noise at that mean, its relative error in `error`
    error: float
    order: int


def estimate(
    y: np.ndarray, modality: Modality | str, *, geometry: Any, detector: Detector | None = None
) -> tuple[Detector, tuple[str, ...]]:
    """Fill the unknown (NaN) numbers of a detector from one stack; all of them when `detector` is None.

    Noise: residuals of binomial high-pass filters, the lowest order that agrees with the highest (Lepski's rule), so that
    structure leaks into the noise as little as the sampling allows. Offset, background and read noise are not separable
    in one stack: their sum and the noise level are what the likelihood feels. Unless given, the offset is where the
    variance vanishes, light between there and the dark level is background, and read noise is what is left.

    Args:
        y: counts, (z, y, x) or (frame, y, x).
        geometry: nominal instrument; says whether the sampling leaves frequencies without signal.
        detector: known numbers; NaN means "estimate".

    Returns:
        The detector and one line per doubt.
    """
    y = np.asarray(y, np.float64)
    if not np.isfinite(y).all() or np.ptp(y) == 0:
        raise ValueError(f"y of shape {y.shape} is constant or not finite; a detector cannot be estimated from it")
    modality = resolve(modality)
    asked = detector or Detector(np.nan, np.nan, np.nan, np.nan, np.nan)
    known = {name: float(np.asarray(getattr(asked, name))) for name in Detector.__dataclass_fields__}
    unknown = {name for name, value in known.items() if np.isnan(value)}
    if not unknown:
        return asked, ()
    axes = tuple(range(y.ndim - len(geometry.shape), y.ndim))
    warnings = []
    noise, clean = _noise_line(y, axes)
    if not clean or not _has_dark_band(modality, geometry):
        warnings.append("the sampling leaves no frequency without signal: the noise level is an upper bound")
    gain, line = _gain(noise, y, known["gain"])
    warnings += line
    dark = _dark_level(y, axes)
    photons = _split(known, gain, dark, noise)
    zeros = float((y == 0).mean())
    counting = gain == 1 and photons["read_sigma"] < 0.5 and _poisson_zeros(y, axes)
    if zeros > 0.02 and y.min() == 0 and not counting:
        warnings.append(f"{100 * zeros:.0f} % of the values are exactly 0: the offset was clipped, the dark noise is lost")
    saturated = 1 - float(_unsaturated(y).mean())
    if saturated > 0:
        warnings.append(f"{100 * saturated:.2g} % of the values are saturated; they do not enter the noise level")
    if len(unknown & {"offset", "background", "read_sigma"}) > 1:
        warnings.append(
            "one stack shows only the sum of offset and background and the noise level: give the offset or the read noise "
            "of the detector to tell background from offset"
        )
    filled = {"peak_photons": 1.0, "gain": gain, **photons}
    filled |= {name: value for name, value in known.items() if name not in unknown}
    return replace(asked, **filled), tuple(warnings)


def _noise_line(y: np.ndarray, axes: tuple[int, ...]) -> tuple[_Noise, bool]:
    """The line at the lowest clean order of the high-pass filter, and whether two orders agreed."""
    found = [_noise_at(y, axes, order) for order in (1, 2, 3)]
    last = found[-1]
    for noise in found[:-1]:
        if abs(noise.variance / last.variance - 1) < 2 * np.hypot(noise.error, last.error):
            return noise, True
    return last, abs(found[-2].variance / last.variance - 1) < 0.1


def _noise_at(y: np.ndarray, axes: tuple[int, ...], order: int) -> _Noise:
    """Residuals of the difference of order 2 `order` along every axis; their square follows kernel^2 * variance."""
    kernel = np.array([1.0])
    for _ in range(2 * order):
        kernel = np.convolve(kernel, [1.0, -1.0])
    kernel /= np.linalg.norm(kernel)
    long = [a for a in axes if y.shape[a] >= 4 * order + 5]
    residual, level = y, y
    for a in long:
        residual = scipy.ndimage.convolve1d(residual, kernel, axis=a)
        level = scipy.ndimage.convolve1d(level, kernel**2, axis=a)
    guide = _neighbours(y, long, order)
    inside = tuple(slice(order + 2, -order - 2) if a in long else slice(None) for a in range(y.ndim))
    use = _unsaturated(y)[inside].ravel()
    square, level, guide = ((v[inside].ravel()[use]) for v in (residual**2, level, guide))
    independent = use.size * np.prod([1 / (np.correlate(kernel, kernel, "full") ** 2).sum() for _ in long])
    edges = np.unique(np.quantile(guide, [0.1, 0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 0.985, 0.995]))
    label = np.searchsorted(edges, guide)
    size = np.bincount(label).astype(float)
    filled = size > 30
    mean_level, mean_square = (np.bincount(label, v)[filled] / size[filled] for v in (level, square))
    slope, intercept, covariance = _line(mean_level, mean_square, size[filled] * independent / use.size)
    return _Noise(
        slope, intercept, covariance, float(level.mean()), float(square.mean()), float(np.sqrt(2 / independent)), order
    )


def _neighbours(y: np.ndarray, axes: list[int], order: int) -> np.ndarray:
    """Mean around each voxel without the voxels that its residual uses."""
    outer, inner = 2 * order + 5, 2 * order + 1
    size = [1] * y.ndim, [1] * y.ndim
    for a in axes:
        size[0][a], size[1][a] = outer, inner
    n_outer, n_inner = float(np.prod(size[0])), float(np.prod(size[1]))
    wide, near = (scipy.ndimage.uniform_filter(y, s, mode="reflect") for s in size)
    return (n_outer * wide - n_inner * near) / (n_outer - n_inner)


def _has_dark_band(modality: Modality, geometry: Any) -> bool:
    """Whether at least 5 % of the frequencies carry less than 1e-3 of the nominal OTF."""
    real, imag = modality.otf_quadrant(modality.nominal(geometry), geometry=geometry)
    magnitude = np.hypot(np.asarray(jax.device_get(real)), np.asarray(jax.device_get(imag)))
    return bool((magnitude < 1e-3 * magnitude.max()).mean() > 0.05)


def _gain(noise: _Noise, y: np.ndarray, known: float) -> tuple[float, list[str]]:
    """Counts per photon; 1 for integer data whose line is compatible with it."""
    if not np.isnan(known):
        return known, []
    error = float(np.sqrt(noise.covariance[0, 0]))
    whole = bool((y == np.round(y)).all())
    if whole and abs(noise.slope - 1) < max(2 * error, 0.1):
        return 1.0, []
    if noise.slope > 2 * error and noise.slope > 0:
        return noise.slope, [] if error < 0.2 * noise.slope else [f"gain {noise.slope:.3g} is known to {error:.2g} only"]
    contrast = max(noise.level - float(y.min()), 1e-12)
    return max(noise.variance, 1e-12) / contrast, [
        "the noise does not grow with brightness: the gain is set so that shot noise alone explains its level"
    ]


def _dark_level(y: np.ndarray, axes: tuple[int, ...]) -> float:
    """0.5 % quantile after smoothing over about two voxels: the darkest neighbourhood, free of single-voxel noise."""
    sigma = [min(2.0, y.shape[a] / 16) if a in axes else 0.0 for a in range(y.ndim)]
    return float(np.quantile(scipy.ndimage.gaussian_filter(y, sigma), 0.005))


def _split(known: dict[str, float], gain: float, dark: float, noise: _Noise) -> dict[str, float]:
    """Offset, background and read noise (photons) that share the dark level and the noise level at the mean."""
    given = {name: value for name, value in known.items() if not np.isnan(value)}
    floor = min(0.0, dark)  # no instrument has a negative offset, only subtracted data
    vanish = noise.level - noise.variance / gain + gain * given.get("read_sigma", 0.0) ** 2
    offset = given.get("offset", float(np.clip(vanish, floor, dark)))
    if "offset" not in given and "background" in given:
        offset = dark - gain * given["background"]
    background = given.get("background", max(dark - offset, 0.0) / gain)
    rest = noise.variance / gain**2 - (noise.level - offset) / gain
    return {"offset": offset, "background": background, "read_sigma": float(np.sqrt(max(rest, 0.0)))}


def _poisson_zeros(y: np.ndarray, axes: tuple[int, ...]) -> bool:
    """Whether the zeros are as many as photon counting explains: exp(-photons), from the smoothed stack."""
    photons = scipy.ndimage.gaussian_filter(y, [1.5 if a in axes else 0.0 for a in range(y.ndim)])
    return bool((y == 0).mean() < 1.3 * np.exp(-photons).mean() + 0.01)
