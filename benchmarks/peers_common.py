"""What every process of the peers' benchmark shares: timing in turns, agreement, and loops in scipy as the common yardstick.

Only numpy and scipy: it also runs in the environments of peers that cannot live beside diffphys.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from in_turns import row, turns

CORES = len(os.sched_getaffinity(0))
ITERATIONS = 6  # of Richardson-Lucy and total variation per call
TV_WEIGHT, TV_SIGMA = 0.5, 0.05
TV_TAU = 0.99 / (TV_SIGMA * (1 + 4 * 3))  # |A| <= 1, |gradient|^2 <= 4 per axis


class Contender(NamedTuple):
    """One row.

    Attributes:
        call: the work; blocks, returns what is compared: an array, or several.
        reference: what it should return; None: nothing to compare with.
        note: how it differs from the other rows, if it does.
        units: iterations in one call; times are divided by it.
        rounds: at most; None: all.
    """

    call: Callable[[], Any]
    reference: Any = None
    note: str = ""
    units: int = 1
    rounds: int | None = None


def measure(contenders: dict[str, Contender], rounds: int) -> dict[str, dict[str, Any]]:
    """Rows in ms per unit, in turns after one call each, which is compared; of a contender that raises, what it says."""
    rows: dict[str, dict[str, Any]] = {}
    for name, one in contenders.items():
        rows[name] = {"note": one.note} if one.note else {}
        try:
            given = one.call()
            if one.reference is not None:
                rows[name]["difference"] = difference(given, one.reference)
        except Exception as error:  # of another package: any kind
            rows[name]["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    runs = {name: one for name, one in contenders.items() if "failed" not in rows[name]}
    most = {name: one.rounds for name, one in runs.items() if one.rounds is not None}
    for name, times in turns({name: one.call for name, one in runs.items()}, rounds, most=most).items():
        rows[name] |= row(times, per=runs[name].units) | {"rounds": len(times)}
    return rows


def difference(given: Any, reference: Any) -> float:
    """Largest difference relative to the largest value, over all arrays."""
    pairs = zip(_arrays(given), _arrays(reference), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def _arrays(value: Any) -> list[np.ndarray]:
    return [np.asarray(v, np.float64) for v in (value if isinstance(value, tuple | list) else [value])]


def processor() -> str:
    """Name of the CPU: MKL, which PyTorch contains too, is not equally good on all."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def spectrum_of(psf: np.ndarray) -> np.ndarray:
    """Half spectrum of a PSF centred on n//2, of the image's own size, unit sum."""
    return scipy.fft.rfftn(scipy.fft.ifftshift(psf / psf.sum()).astype(np.float32))


def richardson_lucy(
    y: np.ndarray, spectrum: np.ndarray, start: np.ndarray, *, workers: int = CORES, iterations: int = ITERATIONS
) -> np.ndarray:
    """Circular Richardson-Lucy."""
    x = start
    for _ in range(iterations):
        mean = scipy.fft.irfftn(scipy.fft.rfftn(x, workers=workers) * spectrum, s=y.shape, workers=workers)
        ratio = scipy.fft.rfftn(y / np.maximum(mean, 1e-6), workers=workers)
        x = x * np.maximum(scipy.fft.irfftn(ratio * spectrum.conj(), s=y.shape, workers=workers), 0)
    return x


def total_variation(y: np.ndarray, spectrum: np.ndarray, start: np.ndarray, *, workers: int = CORES) -> np.ndarray:
    """Circular |y - h * x|^2 / 2 + TV_WEIGHT |grad x|, x >= 0, by the primal-dual method (Chambolle & Pock 2011)."""

    def blur(v: np.ndarray, by: np.ndarray) -> np.ndarray:
        return scipy.fft.irfftn(scipy.fft.rfftn(v, workers=workers) * by, s=y.shape, workers=workers)

    x = ahead = start
    dual, slope = np.zeros_like(y), [np.zeros_like(y) for _ in y.shape]
    for _ in range(ITERATIONS):
        dual = (dual + TV_SIGMA * (blur(ahead, spectrum) - y)) / np.float32(1 + TV_SIGMA)
        slope = [p + TV_SIGMA * g for p, g in zip(slope, _gradient(ahead), strict=True)]
        shrink = 1 / np.maximum(1, np.sqrt(sum(p**2 for p in slope)) / TV_WEIGHT)
        slope = [(p * shrink).astype(np.float32) for p in slope]
        new = np.maximum(x - np.float32(TV_TAU) * (blur(dual, spectrum.conj()) - _divergence(slope)), 0)
        x, ahead = new, 2 * new - x
    return x


def _gradient(x: np.ndarray) -> list[np.ndarray]:
    """Forward differences, 0 at the last index."""
    rising = [np.zeros_like(x) for _ in x.shape]
    for axis, out in enumerate(rising):
        low, high = _halves(axis)
        np.subtract(x[high], x[low], out=out[low])
    return rising


def _divergence(field: list[np.ndarray]) -> np.ndarray:
    """Minus the adjoint of `_gradient`."""
    total = np.zeros_like(field[0])
    for axis, p in enumerate(field):
        low, high = _halves(axis)
        total[low] += p[low]
        total[high] -= p[low]
    return total


def _halves(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the last, and all but the first entry of an axis."""
    before = (slice(None),) * axis
    return (*before, slice(None, -1)), (*before, slice(1, None))
