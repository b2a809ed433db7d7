"""Sufficient statistic of the evidence: the tapered, block-averaged cross-periodogram, folded onto one frequency quadrant.

Real stacks are not periodic. A stationary specimen seen through a stationary blur, cut by a taper w, has the expected
periodogram |W|^2 * P (Percival & Walden, Spectral Analysis, ch. 6; the "debiased" Whittle likelihood of Sykulski et al.,
Biometrika 106:251, 2019): the model is smoothed by the taper's own kernel instead of pretending periodicity. Light from
outside the field is part of the stationary field and needs no extra term. Large stacks are cut into overlapping blocks
whose periodograms are averaged (Welch 1967).

Where the blur changes with depth, the blocks of one depth are averaged and each depth window keeps its own periodogram: the
window is then the leading axis of the quadrant. Overlapping windows share samples, so each brings only its part of them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy

TAPER = 0.25  # share of each axis that is tapered, both ends together
WINDOW_TAPER = 0.6  # the same along z of a depth window, which is short beside its steep spectrum: leakage costs most there
WINDOW_UM, WINDOW_SHARE = 8.0, 0.67  # length of a depth window, its largest share of the stack


class Periodogram(NamedTuple):
    """Data statistic of one measurement.

    Attributes:
        cross: (K, K, *quadrant) real part of the frames' cross-periodogram, photons^2; with depth windows the quadrant of
            this and of the next two starts with the window's axis.
        bin_dof: (*quadrant) real degrees of freedom of each bin's own distribution; 0 where a bin is left out.
        weight: (*quadrant) degrees of freedom that bin brings to the likelihood, correlation between bins counted.
        mean: (K,) or (K, window) mean photons per pixel under the taper (the white level of Poisson noise).
        smoothing: one (n//2+1, finer n//2+1) matrix per axis: spectrum -> expected periodogram.
        coarse: the same with a frequency step of 1/n.
    """

    cross: np.ndarray
    bin_dof: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    smoothing: tuple[np.ndarray, ...]
    coarse: tuple[np.ndarray, ...]


def taper(n: int, *, share: float = TAPER) -> np.ndarray:
    """Tukey taper of mean square 1. It never reaches 0, so no sample is thrown away."""
    w = scipy.signal.windows.tukey(n + 2, share)[1:-1] if n > 1 else np.ones(1)
    return w / np.sqrt(np.mean(w**2))


@lru_cache(maxsize=64)
def smoothing_matrix(n: int, finer: int, *, share: float = TAPER) -> np.ndarray:
    """(n//2+1, finer n//2+1): folded spectrum of an axis -> expected folded tapered periodogram. Rows sum to 1.

    With a frequency step of 1 / (2n) the integral over the taper's kernel is exact for a field whose correlation ends
    within the block; a step of 1/n would treat the blur as periodic.
    """
    size = finer * n
    kernel = np.abs(np.fft.fft(taper(n, share=share), size)) ** 2 / (n * size)
    k = np.arange(n // 2 + 1)
    matrix = np.zeros((n // 2 + 1, size // 2 + 1))
    for source in range(size):
        matrix[:, min(source, size - source)] += kernel[(finer * k - source) % size]
    return matrix


def correlation_factor(n: int) -> float:
    """Share of independent samples that the taper leaves on an axis: (sum w^2)^2 / (n sum w^4)."""
    w = taper(n)
    return float(np.sum(w**2) ** 2 / (n * np.sum(w**4)))


def window_factor(n: int, block: int) -> float:
    """Share of independent samples per sample of the depth windows on an axis of n: as `correlation_factor`, for the sum of
    the windows' squared tapers, so that overlapping windows count what they share once."""
    cover = np.zeros(n)
    starts = block_starts(n, block)
    for start in starts:
        cover[start : start + block] += taper(block, share=WINDOW_TAPER) ** 2
    return float(np.sum(cover) ** 2 / np.sum(cover**2) / (len(starts) * block))


def block_shape(
    shape: tuple[int, ...], pitch_um: tuple[float, ...], *, extent_um: float = 2.5, least: int = 64
) -> tuple[int, ...]:
    """Block of the Welch average, shrunk to lengths that real FFTs like.

    Volumes: `least` samples per axis, or `extent_um` where that is more (at most 128). Images: the whole field up to 512,
    because a coherent PSF has far sidelobes and 2-D is cheap.
    """
    sizes = []
    for n, pitch in zip(shape, pitch_um, strict=True):
        wanted = min(n, 512 if len(shape) == 2 else max(least, min(128, math.ceil(extent_um / pitch))))
        while scipy.fft.next_fast_len(wanted, real=True) != wanted:
            wanted -= 1
        sizes.append(wanted)
    return tuple(sizes)


def window_shape(shape: tuple[int, ...], pitch_um: tuple[float, ...]) -> tuple[int, ...]:
    """Block of a stack whose blur changes with depth: as `block_shape`, but shorter than the stack along z.

    Long windows: what a short one loses of the axial spectrum costs more than its sharper depth gains
    (benchmarks/depth_varying.py lengths).
    """
    planes = max(8, min(round(WINDOW_UM / pitch_um[0]), int(WINDOW_SHARE * shape[0])))
    return block_shape((planes, *shape[1:]), pitch_um)


def block_starts(n: int, block: int) -> np.ndarray:
    """Evenly spread starts of blocks that overlap by their tapers."""
    if n == block:
        return np.zeros(1, int)
    count = int(np.ceil((n - block) / (block * (1 - TAPER / 2)))) + 1
    return np.unique(np.linspace(0, n - block, count).round().astype(int))


def blocks(frames: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(B, K, *shape) overlapping blocks of (K, *axes)."""
    grids = np.meshgrid(*[block_starts(n, b) for n, b in zip(frames.shape[1:], shape, strict=True)], indexing="ij")
    corners = np.stack([g.ravel() for g in grids], axis=1)
    return np.stack(
        [frames[(slice(None), *(slice(c, c + b) for c, b in zip(corner, shape, strict=True)))] for corner in corners]
    )


def fold(spectrum: np.ndarray, ndim: int) -> np.ndarray:
    """Average the last `ndim` axes over +-frequency: n -> n//2+1."""
    for axis in range(-ndim, 0):
        n = spectrum.shape[axis]
        head = np.take(spectrum, np.arange(n // 2 + 1), axis)
        tail = np.take(spectrum, (-np.arange(n // 2 + 1)) % n, axis)
        spectrum = (head + tail) / 2
    return spectrum


def multiplicity(shape: tuple[int, ...]) -> np.ndarray:
    """(*quadrant) how many bins of the full grid each quadrant bin stands for = its real degrees of freedom."""
    total = np.ones(())
    for n in shape:
        m = np.full(n // 2 + 1, 2.0)
        m[0] = 1.0
        if n % 2 == 0:
            m[-1] = 1.0
        total = np.multiply.outer(total, m)
    return total


def tapered_mean(frames: np.ndarray, ndim: int, *, windowed: bool = False) -> np.ndarray:
    """Mean over the last `ndim` axes weighted by the taper squared; `windowed`: the first of them is a depth window."""
    for left in range(ndim, 0, -1):
        n = frames.shape[-1]
        frames = frames @ (taper(n, share=WINDOW_TAPER if windowed and left == 1 else TAPER) ** 2 / n)
    return frames


def window_mean(frames: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    """(K, window) mean of (K, *axes) under the taper of each depth window."""
    cut = tapered_mean(blocks(frames, block), len(block), windowed=True)
    windows = len(block_starts(frames.shape[1], block[0]))
    return np.stack([group.mean(0) for group in np.split(cut, windows)], axis=1)


def periodogram(photons: np.ndarray, *, block: tuple[int, ...], finer: tuple[int, ...], windowed: bool = False) -> Periodogram:
    """Statistic of photon counts (K, *axes), background included.

    Args:
        photons: frames of the measurement.
        block: as `block_shape` gives it; as `window_shape` with `windowed`.
        finer: divides the frequency step of the model, per axis.
        windowed: one periodogram per depth window, the first axis cut by `block_starts`, instead of their average.
    """
    ndim = photons.ndim - 1
    cut = blocks(np.asarray(photons, np.float64), block)
    shares = (WINDOW_TAPER if windowed else TAPER, *(TAPER,) * (ndim - 1))
    window = np.ones(())
    for n, s in zip(block, shares, strict=True):
        window = np.multiply.outer(window, taper(n, share=s))
    axes = tuple(range(-ndim, 0))
    centre = (cut * window).sum(axes, keepdims=True) / window.sum()
    spectrum = np.fft.fftn((cut - centre) * window, axes=axes) / np.sqrt(window.size)
    groups = np.split(spectrum, len(block_starts(photons.shape[1], block[0])) if windowed else 1)
    crosses = [fold(np.einsum("bj...,bk...->jk...", g, g.conj()).real / len(g), ndim) for g in groups]
    length = block[0] if windowed else photons.shape[1]  # of the samples that one group sees
    independent = min(float(len(groups[0])), photons[0, :1].size * length / window.size)
    kept = window_factor(photons.shape[1], length) if windowed else correlation_factor(block[0])
    dof = multiplicity(block) * independent
    dof[(slice(0, 2),) * ndim] = 0.0  # the taper leaks the unknown mean into the lowest bins
    share = float(np.prod([kept, *(correlation_factor(n) for n in block[1:])]))
    means = [m.mean(0) for m in np.split(tapered_mean(cut, ndim, windowed=windowed), len(groups))]
    smoothing = tuple(smoothing_matrix(n, f, share=s) for n, f, s in zip(block, finer, shares, strict=True))
    coarse = tuple(smoothing_matrix(n, 1, share=s) for n, s in zip(block, shares, strict=True))
    if not windowed:
        return Periodogram(crosses[0], dof, dof * share, means[0], smoothing, coarse)
    dof = np.broadcast_to(dof, (len(groups), *dof.shape))
    return Periodogram(np.stack(crosses, axis=2), dof, dof * share, np.stack(means, axis=1), smoothing, coarse)


class Frequencies(NamedTuple):
    """Where the bins of a (finer) quadrant lie.

    Attributes:
        lateral2: squared lateral frequency, cycles per x pixel; broadcastable to the quadrant.
        axial2: squared axial frequency, cycles per plane; zeros in 2-D.
        turn: cos 2 phi, phi the angle of the lateral frequency to the x axis.
    """

    lateral2: Any
    axial2: Any
    turn: Any


def frequencies(block: tuple[int, ...], pitch_um: tuple[float, ...], *, finer: tuple[int, ...]) -> Frequencies:
    """The quadrant of a block, its frequency step divided by `finer` per axis."""
    axes = [np.arange(f * n // 2 + 1) / (f * n) for n, f in zip(block, finer, strict=True)]
    y2, x2 = ((axes[-2] * pitch_um[-1] / pitch_um[-2]) ** 2)[:, None], (axes[-1] ** 2)[None]
    lateral2 = y2 + x2
    turn = (x2 - y2) / np.maximum(lateral2, 1e-12)
    if len(block) == 2:
        return Frequencies(lateral2, np.zeros((1, 1)), turn)
    return Frequencies(lateral2[None], axes[0][:, None, None] ** 2, turn[None])
