"""Measured PSFs: beads -> PSF, PSF -> the voxel size of an image, PSF file -> both.

In: stacks (z, y, x) in counts with their voxel size in um. Out: unit-sum float32 PSFs centred on index n//2. The centre is
the centroid of the part above half the maximum: sub-voxel, blind to noise and crop in the tails, and in a bent or
aberrated PSF it lies on the bright core, so that a deconvolved structure stays where it is seen. A PSF that is off by a
vector shifts the result by minus that vector.

Bead averaging by least-squares sub-pixel registration: Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33:156 (2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy

Voxel = tuple[float, float, float]
Pitch = Sequence[float] | np.ndarray


class Measured(NamedTuple):
    """A PSF from data.

    Attributes:
        psf: float32 (z, y, x), unit sum, centred on n//2.
        voxel_um: pitch (z, y, x).
        beads: how many were averaged.
        spread: relative L2 scatter of the single beads around `psf` (noise included); 0 for one bead.
        sigma: standard error of each voxel, shape and unit of `psf`.
        background: counts that were subtracted, mean over the beads.
        warnings: one line each.
    """

    psf: np.ndarray
    voxel_um: Voxel
    beads: int
    spread: float
    sigma: np.ndarray
    background: float
    warnings: tuple[str, ...] = ()


class Resampled(NamedTuple):
    """A PSF on another grid; `clipped` and `lost` are the shares cut off below zero and outside the new field."""

    psf: np.ndarray
    voxel_um: Voxel
    clipped: float
    lost: float


def distil(
    stack: np.ndarray,
    *,
    voxel_um: Pitch,
    bead_um: float = 0.0,
    min_distance_um: float | None = None,
    box_um: Sequence[float] | None = None,
    max_beads: int = 50,
) -> Measured:
    """PSF from a stack (z, y, x) of sparse beads.

    Args:
        stack: counts.
        voxel_um: pitch (z, y, x).
        bead_um: bead diameter; its form factor is divided out where it exceeds 1/2. 0: points.
        min_distance_um: beads with a neighbour nearer than this are left out; None: a neighbour inside the box.
        box_um: field of the PSF (z, y, x); None: four times the width at half maximum.
        max_beads: the brightest are taken.

    Raises:
        ValueError: no bead stands alone inside the stack.
    """
    stack, voxel = _checked(stack, voxel_um)
    width = _half_maximum_width(stack)
    half = _half_box(box_um, voxel, width)
    found = _find(stack, voxel, width, half, min_distance_um)[:max_beads]
    if not found:
        raise ValueError(
            f"no bead stands alone in the stack {stack.shape}: give a smaller box_um (now {_um((2 * half + 1) * voxel)}) "
            "or a stack with beads away from its border"
        )
    boxes = [stack[tuple(slice(c - h, c + h + 1) for c, h in zip(at, half, strict=True))] for at in found]
    levels = [_rim_level(box) for box in boxes]
    taper = _taper(boxes[0].shape)
    cleaned = np.stack([taper * (box - level) for box, level in zip(boxes, levels, strict=True)])
    aligned, flux = _register(cleaned)
    psf, sigma, spread = _average(aligned, flux)
    warnings = []
    if bead_um > 0:
        psf, note = _without_bead(psf, voxel, bead_um)
        warnings += note
    psf, dropped = _significant(centre(psf), sigma, width)
    if dropped > 0.02:
        warnings.append(f"{100 * dropped:.0f} % of the bead's light lies in tails below the noise and was set to zero")
    if len(found) == 1:
        warnings.append("one bead only: its noise is in the PSF; average more beads")
    total = psf.sum()
    return Measured(
        (psf / total).astype(np.float32),
        (voxel[0], voxel[1], voxel[2]),
        len(found),
        spread,
        (sigma / total).astype(np.float32),
        float(np.mean(levels)),
        tuple(warnings),
    )


def centre(psf: np.ndarray, *, rounds: int = 4) -> np.ndarray:
    """Shift a PSF (Fourier, sub-voxel) until the centroid of its part above half the maximum is on n//2."""
    for _ in range(rounds):
        core = np.clip(psf - 0.5 * psf.max(), 0, None)
        offset = np.array(scipy.ndimage.center_of_mass(core)) - np.array(psf.shape) // 2
        if np.abs(offset).max() < 1e-4:
            break
        psf = shift(psf, -offset)
    return psf


def resample(
    psf: np.ndarray,
    *,
    voxel_um: Pitch,
    to_voxel_um: Pitch,
    shape: Sequence[int] | None = None,
) -> Resampled:
    """A PSF on another grid, centred on n//2, unit sum.

    Cubic splines per axis. A coarser voxel integrates: the width sqrt(b^2 - a^2) is averaged, so that a pixel of a becomes a
    pixel of b in the second moments. A finer one is interpolated; it keeps the blur of the measured pixel.

    Args:
        psf: (z, y, x) centred on n//2, pitch `voxel_um`.
        to_voxel_um: the new pitch (z, y, x).
        shape: the new shape; None: the same field.
    """
    psf, pitch = _checked(psf, voxel_um)
    new = _positive(to_voxel_um)
    if shape is None:
        shape = [2 * math.ceil((n // 2) * a / b) + 1 for n, a, b in zip(psf.shape, pitch, new, strict=True)]
    full = [max(m, 2 * math.ceil((n // 2 + 1) * a / b) + 1) for m, n, a, b in zip(shape, psf.shape, pitch, new, strict=True)]
    out = psf
    for axis in range(3):
        matrix = _spline_matrix(psf.shape[axis], full[axis], pitch[axis], new[axis])
        out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
    window = tuple(slice(f // 2 - m // 2, f // 2 - m // 2 + m) for f, m in zip(full, shape, strict=True))
    kept, everything = np.clip(out[window], 0, None), np.clip(out, 0, None).sum()
    clipped = float(np.clip(-out, 0, None).sum() / everything)
    total = kept.sum()
    return Resampled((kept / total).astype(np.float32), (new[0], new[1], new[2]), clipped, float(1 - total / everything))


def load(
    path: str | Path,
    *,
    voxel_um: Pitch,
    shape: Sequence[int] | None = None,
    psf_voxel_um: Pitch | None = None,
) -> Measured:
    """A PSF file, brought to the voxel size (and shape) of an image: background off, centred, resampled, unit sum.

    Args:
        path: TIFF (z, y, x) of one PSF.
        voxel_um: pitch of the image.
        shape: shape of the result; None: the PSF's own field.
        psf_voxel_um: pitch of the file; needed where its header has none, and believed where the header differs.

    Raises:
        ValueError: no voxel size anywhere, or the file does not hold one bright spot away from its border.
    """
    from diffphys.io.tiff import read_stack

    try:
        data = read_stack(path, modality="confocal_3d", voxel_um=None if psf_voxel_um is None else tuple(psf_voxel_um))
    except ValueError as problem:
        if psf_voxel_um is None and "voxel" in str(problem):
            raise ValueError(
                f"PSF {Path(path).name} has no usable voxel size ({problem}); give psf_voxel_um (z, y, x)"
            ) from None
        raise
    stack, pitch = _checked(np.asarray(data.data), data.voxel_um)
    warnings = list(getattr(data, "warnings", ()))
    level, noise = _rim_level(stack), _rim_noise(stack)
    clean = _taper(stack.shape) * (stack - level)
    peak = np.unravel_index(np.argmax(scipy.ndimage.gaussian_filter(clean, 1.0)), clean.shape)
    if clean.max() <= 0 or any(not 0.1 <= (p + 0.5) / n <= 0.9 for p, n in zip(peak, clean.shape, strict=True)):
        raise ValueError(
            f"PSF {Path(path).name} has its peak at {tuple(map(int, peak))} of {clean.shape}: crop it around the spot"
        )
    sigma = np.full(clean.shape, noise) + np.sqrt(noise * np.clip(clean, 0, None))
    psf, dropped = _significant(centre(clean), sigma, _half_maximum_width(clean))
    moved = resample(psf, voxel_um=pitch, to_voxel_um=voxel_um, shape=shape)
    for share, what in (
        (moved.clipped, "of the PSF was negative and clipped"),
        (moved.lost, "of the PSF lies outside the field"),
    ):
        if share > 0.01:
            warnings.append(f"{100 * share:.0f} % {what}")
    if dropped > 0.02:
        warnings.append(f"{100 * dropped:.0f} % of the PSF's light lies in tails below the noise and was set to zero")
    error = resample(sigma, voxel_um=pitch, to_voxel_um=voxel_um, shape=moved.psf.shape).psf * (sigma.sum() / psf.sum())
    return Measured(moved.psf, moved.voxel_um, 1, 0.0, error.astype(np.float32), level, tuple(warnings))


def widths_um(psf: np.ndarray, *, voxel_um: Pitch) -> Voxel:
    """Full widths at half maximum (z, y, x) of the lines through the brightest voxel, by linear interpolation."""
    psf, pitch = _checked(psf, voxel_um)
    at = np.unravel_index(np.argmax(psf), psf.shape)
    found = []
    for axis in range(3):
        line = psf[tuple(slice(None) if a == axis else at[a] for a in range(3))]
        found.append(pitch[axis] * (_crossing(line, at[axis], 1) + _crossing(line, at[axis], -1)))
    return found[0], found[1], found[2]


def _crossing(line: np.ndarray, start: np.intp, step: int) -> float:
    half, i = 0.5 * line[start], int(start)
    while 0 <= i + step < line.size and line[i + step] > half:
        i += step
    if not 0 <= i + step < line.size:
        return abs(i - int(start)) + 0.5
    return abs(i - int(start)) + float((line[i] - half) / (line[i] - line[i + step]))


def _checked(stack: np.ndarray, voxel_um: Pitch) -> tuple[np.ndarray, np.ndarray]:
    stack = np.asarray(stack, np.float64)
    if stack.ndim != 3 or not np.isfinite(stack).all() or np.ptp(stack) == 0:
        raise ValueError(f"PSF data has shape {stack.shape}; expected a finite, not constant stack (z, y, x)")
    return stack, _positive(voxel_um)


def _positive(voxel_um: Pitch) -> np.ndarray:
    voxel = np.asarray(voxel_um, np.float64)
    if voxel.shape != (3,) or not (np.isfinite(voxel).all() and (voxel > 0).all()):
        raise ValueError(f"voxel_um is {list(voxel_um)}; expected three positive micrometres (z, y, x)")
    return voxel


def _um(lengths: np.ndarray) -> str:
    return " x ".join(f"{v:.2f}" for v in lengths) + " um"


def _half_maximum_width(stack: np.ndarray) -> np.ndarray:
    """Widths (voxels) of the brightest spot: extent of the region above half its maximum, at least 1."""
    smooth = scipy.ndimage.gaussian_filter(stack, [min(1.0, n / 8) for n in stack.shape])
    base = np.median(smooth)
    labels, _ = scipy.ndimage.label(smooth > base + 0.5 * (smooth.max() - base))
    spot = scipy.ndimage.find_objects((labels == labels[np.unravel_index(np.argmax(smooth), smooth.shape)]).astype(int))[0]
    return np.array([s.stop - s.start for s in spot], np.float64)


def _half_box(box_um: Sequence[float] | None, voxel: np.ndarray, width: np.ndarray) -> np.ndarray:
    half = 2 * width if box_um is None else _positive(box_um) / voxel / 2
    return np.maximum(np.floor(half), 1).astype(int)


def _find(
    stack: np.ndarray, voxel: np.ndarray, width: np.ndarray, half: np.ndarray, min_distance_um: float | None
) -> list[tuple[int, ...]]:
    """Beads, brightest first: maxima above 6 robust deviations and 15 % of the brightest, boxes inside, no neighbour."""
    smooth = scipy.ndimage.gaussian_filter(stack, width / 2.355)
    base = np.median(smooth)
    deviation = 1.4826 * np.median(np.abs(smooth - base))
    height = smooth - base
    maxima = smooth == scipy.ndimage.maximum_filter(smooth, size=tuple(2 * np.ceil(width / 2).astype(int) + 1))
    at = np.argwhere(maxima & (height > max(6 * deviation, 0.15 * height.max())))
    heights = height[tuple(at.T)]
    inside = ((at >= half) & (at + half < stack.shape)).all(1)
    chosen = []
    for i in np.argsort(-heights):
        rivals = heights > 0.2 * heights[i]
        rivals[i] = False
        apart = np.abs(at - at[i])
        near = (
            (apart <= 1.25 * half).all(1)
            if min_distance_um is None
            else np.linalg.norm(apart * voxel, axis=1) < min_distance_um
        )
        if inside[i] and not (near & rivals).any():
            chosen.append(tuple(int(c) for c in at[i]))
    return chosen


def _rim(box: np.ndarray) -> np.ndarray:
    """Values of the outermost lateral ring of every plane."""
    ring = np.ones(box.shape, bool)
    ring[:, 1:-1, 1:-1] = False
    values = box[ring]
    for _ in range(5):
        values = values[values <= values.mean() + 3 * values.std() + 1e-12]
    return values


def _rim_level(box: np.ndarray) -> float:
    """Background: mean of the rim without its bright outliers (a median would be quantised at low counts)."""
    return float(_rim(box).mean())


def _rim_noise(box: np.ndarray) -> float:
    return float(max(_rim(box).std(), 1e-6 * np.ptp(box)))


def _taper(shape: Sequence[int]) -> np.ndarray:
    """Raised cosine to zero over the outer eighth of each axis."""
    out = np.ones((1,) * len(shape))
    for axis, n in enumerate(shape):
        edge = max(n // 8, 1)
        distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
        ramp = np.sin(0.5 * np.pi * np.clip(distance / edge, 0, 1)) ** 2
        out = out * ramp.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return out


def shift(image: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Move an image by a real vector (voxels) with Fourier phases, periodic; the Nyquist term keeps its real part."""
    spectrum = np.fft.fftn(image)
    for axis, (n, s) in enumerate(zip(image.shape, by, strict=True)):
        phase = np.exp(-2j * np.pi * np.fft.fftfreq(n) * s)
        if n % 2 == 0:
            phase[n // 2] = np.cos(np.pi * s)
        spectrum *= phase.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return np.fft.ifftn(spectrum).real


def _register(boxes: np.ndarray, *, rounds: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Beads (bead, z, y, x) moved onto their running mean, and their fluxes, by Gauss-Newton on flux and shift."""
    aligned = np.stack([centre(box) for box in boxes])
    flux = boxes.sum((1, 2, 3))
    if len(boxes) == 1:
        return aligned, flux
    for _ in range(rounds):
        mean = aligned.sum(0) / flux.sum()
        slopes = np.stack([np.gradient(mean, axis=a) for a in range(3)] + [mean]).reshape(4, -1)
        for i, box in enumerate(aligned):
            *move, gain = np.linalg.lstsq(slopes.T, box.ravel(), rcond=None)[0]
            flux[i] = gain
            step = np.clip(np.array(move) / gain, -0.5, 0.5)
            aligned[i] = shift(box, step)
    return aligned, flux


def _average(aligned: np.ndarray, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Flux-weighted mean (best for shot noise), its standard error and the relative scatter.

    The squared scatter of all beads is fitted by a line a + b psf: a few beads cannot give a variance per voxel.
    """
    total = flux.sum()
    psf = aligned.sum(0) / total
    if len(flux) > 1:
        residual = aligned - flux[:, None, None, None] * psf
        variance = (residual**2).sum(0) * len(flux) / (len(flux) - 1)
        scatter = math.sqrt(float(np.mean((residual / flux[:, None, None, None]) ** 2) / np.mean(psf**2)))
    else:  # second differences across the pixels see noise, and a little of the PSF: an upper bound
        residual = scipy.ndimage.convolve(aligned[0], np.outer([1, -2, 1], [1, -2, 1])[None] / 6.0, mode="nearest")
        variance, scatter = residual**2, 0.0
    bright = np.clip(psf, 0, None) / psf.max()
    edges = [-1, 0.003, 0.01, 0.03, 0.1, 0.3, 2]
    bins = [(bright > lo) & (bright <= hi) for lo, hi in pairwise(edges)]
    points = np.array([(bright[b].mean(), variance[b].mean(), math.sqrt(b.sum())) for b in bins if b.any()])
    weight = points[:, 2] / points[:, 1].clip(1e-12 * variance.max() + 1e-300)
    design = np.stack([np.ones(len(points)), points[:, 0]], 1)
    floor, slope = np.linalg.lstsq(design * weight[:, None], points[:, 1] * weight, rcond=None)[0]
    floor = max(floor, 0.1 * points[0, 1])
    return psf, np.sqrt(floor + max(slope, 0.0) * bright) / total, scatter


def _without_bead(psf: np.ndarray, voxel: np.ndarray, bead_um: float) -> tuple[np.ndarray, list[str]]:
    """Divide by the sphere's form factor 3 (sin q - q cos q) / q^3, q = pi d nu, where it exceeds 1/2, else by 1/2."""
    axes = np.meshgrid(*[np.fft.fftfreq(n, d) for n, d in zip(psf.shape, voxel, strict=True)], indexing="ij", sparse=True)
    q = np.maximum(np.pi * bead_um * np.sqrt(sum(a**2 for a in axes)), 1e-3)
    form = np.maximum(3 * (np.sin(q) - q * np.cos(q)) / q**3, 0.5)
    narrow = min(widths_um(psf, voxel_um=voxel))
    notes = (
        [f"beads of {bead_um:g} um are wide for a PSF of {narrow:.2f} um: use smaller ones"] if bead_um > 0.8 * narrow else []
    )
    return np.fft.ifftn(np.fft.fftn(psf) / form).real, notes


def _significant(psf: np.ndarray, sigma: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, float]:
    """Keep what stands 3 sigma above the noise after smoothing; negative values go. Returns the PSF and the share dropped.

    Without it the clipped noise of many empty voxels would be a pedestal as strong as the spot.
    """
    blur = width / 4
    smooth = scipy.ndimage.gaussian_filter(psf, blur)
    noise = scipy.ndimage.gaussian_filter(sigma, blur) / np.sqrt(np.prod(np.maximum(2 * np.sqrt(np.pi) * blur, 1)))
    kept = np.where(smooth > 3 * noise, np.clip(psf, 0, None), 0.0)
    return kept, float(1 - kept.sum() / psf.sum())


def _spline_matrix(n: int, m: int, a: float, b: float) -> np.ndarray:
    """(m, n) matrix: cubic spline through n samples of pitch a, averaged around m points of pitch b; centres on //2."""
    knots = np.arange(n, dtype=np.float64)
    samples = np.eye(n)
    if n == 1:
        return (np.arange(m) == m // 2).astype(np.float64)[:, None]
    spline = scipy.interpolate.make_interp_spline(knots, samples, k=min(3, n - 1))
    width = math.sqrt(max(b * b - a * a, 0.0)) / a
    offsets = width * ((np.arange(9) + 0.5) / 9 - 0.5) if width > 0 else np.zeros(1)
    where = (np.arange(m) - m // 2)[:, None] * b / a + n // 2 + offsets
    inside = (where >= 0) & (where <= n - 1)
    values = spline(np.clip(where, 0, n - 1)) * inside[..., None]
    return values.mean(1)
