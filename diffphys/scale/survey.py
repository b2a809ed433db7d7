"""One look at a volume before the work, chunk by chunk: is it sound, and where is a bright window to calibrate on?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from diffphys.io.omezarr import Volume, windows

WINDOW = (32, 96, 96)  # voxels that calibration and the methods' choices rest on
SATURATED = 1e-4  # share of a block's voxels at the top of the type beyond which another block is preferred


class Survey(NamedTuple):
    """`window`: slices of the stack; lowest, highest and mean count of the whole stack; warnings."""

    window: tuple[slice, ...]
    low: float
    high: float
    mean: float
    warnings: tuple[str, ...]


def survey(
    volume: Volume, stack: Sequence[int], *, size: Sequence[int] = WINDOW, progress: Callable[[float], Any] | None = None
) -> Survey:
    """Read one stack once, in blocks of whole chunks.

    Args:
        volume: the input.
        stack: index of the leading axes.
        size: of the window, at most the stack.
        progress: called with the fraction done.

    Raises:
        ValueError: counts that are not finite, or a constant stack.
    """
    size = tuple(min(n, s) for n, s in zip(volume.shape, size, strict=True))
    chunks = [int(c) for c in volume.array.chunks[-3:]]
    blocks = list(windows(volume.shape, [-(-s // c) * c for s, c in zip(size, chunks, strict=True)]))
    low, high, total, best = np.inf, -np.inf, 0.0, (False, -np.inf, blocks[0])
    kind = np.dtype(volume.array.dtype)
    top = np.iinfo(kind).max if kind.kind in "ui" else np.inf
    for done, block in enumerate(blocks, 1):
        y = volume.read(stack, block)
        if not np.isfinite(y).all():
            raise ValueError(f"the volume holds NaN or infinite values in {_text(block)}; expected finite counts: repair them")
        low, high, total = min(low, float(y.min())), max(high, float(y.max())), total + float(y.sum(dtype=np.float64))
        full = all(n >= s for n, s in zip(y.shape, size, strict=True))
        sound = full and float((y >= top).mean()) <= SATURATED
        best = max(best, (sound, float(y.mean()), block), key=lambda b: b[:2])
        if progress is not None:
            progress(done / len(blocks))
    if low == high:
        raise ValueError(f"the volume has the constant value {low:g}; expected an image: check the channel and the export")
    notes = () if high < top else (f"some voxels are saturated at {top}: their true brightness is unknown",)
    return Survey(_brightest(volume, stack, best[2], size), low, high, total / float(np.prod(volume.shape)), notes)


def _brightest(volume: Volume, stack: Sequence[int], block: tuple[slice, ...], size: Sequence[int]) -> tuple[slice, ...]:
    """The window of `size` with the most light in a block, which is grown inwards where it is smaller."""
    starts = [max(0, min(b.start, n - s)) for b, n, s in zip(block, volume.shape, size, strict=True)]
    room = tuple(slice(a, max(b.stop, a + s)) for a, b, s in zip(starts, block, size, strict=True))
    light = volume.read(stack, room)
    for axis, s in enumerate(size):
        light = ndimage.uniform_filter1d(light, s, axis=axis, mode="constant")
    inner = tuple(slice(s // 2, n - (s - 1) // 2) for n, s in zip(light.shape, size, strict=True))
    at = np.unravel_index(int(np.argmax(light[inner])), light[inner].shape)
    return tuple(slice(r.start + int(i), r.start + int(i) + s) for r, i, s in zip(room, at, size, strict=True))


def _text(window: Sequence[slice]) -> str:
    return "[" + ", ".join(f"{w.start}:{w.stop}" for w in window) + "]"
