"""A network over images of any size: whole where they are small, else tiles that overlap and are faded into one another.

Tiles start where a fold, a halving or a window of the networks starts, so that a network sees in a tile what it sees in the
whole image: the U-Nets of stacks give the same numbers, others nearly. On a CPU each core takes a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from diffphys.cores import at_once, cores

LARGEST = {2: (640, 640), 3: (48, 128, 128)}  # voxels that a network sees at once
OVERLAP = {2: (64, 64), 3: (20, 40, 40)}
RIM = 0.4  # of the overlap on either side, where the network may see that the tile ends
ALIGN = {2: (8, 8), 3: (4, 8, 8)}  # voxels after which the networks' folds, halvings and windows repeat


def apply(call: Callable[[Any], Any], images: Sequence[np.ndarray], *, like: Hashable) -> list[np.ndarray]:
    """(*axes, C) -> (*axes, outputs) for each of several images of one shape.

    Args:
        call: maps (1, *axes, C).
        images: its inputs.
        like: what `call` is compiled for, beside the shape.
    """
    *shape, _ = images[0].shape
    spans = _spans(shape)
    windows, shares = list(product(*spans)), list(product(*map(_faded, spans, shape, OVERLAP[len(shape)])))
    key = (like, tuple(w.stop - w.start for w in windows[0]))

    def one(task: tuple[int, int]) -> np.ndarray:
        window, number = task
        return np.asarray(call(images[number][windows[window]][None])[0], np.float32)

    tasks = list(product(range(len(windows)), range(len(images))))
    if len(windows) == 1:
        return at_once(one, tasks, key)
    total: list[Any] = [None] * len(images)
    for first in range(0, len(tasks), cores()):  # no more of them in memory than are made at once
        group = tasks[first : first + cores()]
        for (window, number), found in zip(group, at_once(one, group, key), strict=True):
            if total[number] is None:
                total[number] = np.zeros((*shape, found.shape[-1]), np.float32)
            total[number][windows[window]] += reduce(np.multiply.outer, shares[window])[..., None] * found
    return total


def seen_at_once(shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """The shape of the tiles of an image, and how many there are."""
    spans = _spans(shape)
    return tuple(s[0].stop for s in spans), math.prod(map(len, spans))


def _spans(shape: Sequence[int]) -> list[list[slice]]:
    ndim = len(shape)
    return list(map(_cover, shape, LARGEST[ndim], OVERLAP[ndim], ALIGN[ndim]))


def _cover(length: int, largest: int, overlap: int, align: int) -> list[slice]:
    """Slices of equal length that cover an axis, start at multiples of `align` and share at least `overlap` with the next."""
    if length <= largest:
        return [slice(0, length)]
    shared = overlap + align
    count = -(-(length - shared) // (largest - align - shared))
    least = -(-(length + (count - 1) * shared) // count)
    last = (length - least) // align * align
    return [slice(s, s + length - last) for s in (np.linspace(0, last, count) // align * align).astype(int).tolist()]


def _faded(spans: Sequence[slice], length: int, overlap: int) -> list[np.ndarray]:
    """Weights of the tiles along an axis, 1 in all at each voxel: 1 inside, a ramp in the middle of the overlap where another
    tile joins, next to nothing at the rim, where the network saw zeros instead of the image."""
    ramps, total = [], np.zeros(length, np.float32)
    for span in spans:
        at = np.arange(span.stop - span.start) + 0.5
        inside = np.minimum(np.where(span.start > 0, at, np.inf), np.where(span.stop < length, len(at) - at, np.inf))
        ramps.append(np.clip((inside / overlap - RIM) / (1 - 2 * RIM), 1e-6, 1).astype(np.float32))
        total[span] += ramps[-1]
    return [ramp / total[span] for ramp, span in zip(ramps, spans, strict=True)]
