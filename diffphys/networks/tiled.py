"""A network over an image of any size: whole where it is small, else tiles that overlap and are faded into one another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

LARGEST = {2: (640, 640), 3: (40, 112, 112)}  # voxels that a network sees at once
OVERLAP = {2: (64, 64), 3: (12, 24, 24)}


def apply(call: Callable[[Any], Any], inputs: np.ndarray) -> np.ndarray:
    """(*axes, C) -> (*axes, outputs); `call` maps (1, *axes, C)."""
    ndim = inputs.ndim - 1
    if all(n <= m for n, m in zip(inputs.shape, LARGEST[ndim], strict=False)):
        return np.asarray(call(inputs[None])[0], np.float32)
    spans = [_spans(n, m, o) for n, m, o in zip(inputs.shape, LARGEST[ndim], OVERLAP[ndim], strict=False)]
    total, weight = None, np.zeros(inputs.shape[:-1], np.float32)
    for window in product(*spans):
        found = np.asarray(call(inputs[window][None])[0], np.float32)
        share = _share(window, inputs.shape[:-1], OVERLAP[ndim])
        total = np.zeros((*weight.shape, found.shape[-1]), np.float32) if total is None else total
        total[window] += share[..., None] * found
        weight[window] += share
    assert total is not None
    return total / weight[..., None]


def _spans(length: int, largest: int, overlap: int) -> list[slice]:
    """Slices of equal length that cover an axis, each sharing at least `overlap` with the next."""
    size = min(length, largest)
    count = 1 if length <= largest else -(-(length - overlap) // (size - overlap))
    starts = np.linspace(0, length - size, count).round().astype(int)
    return [slice(int(s), int(s) + size) for s in starts]


def _share(window: tuple[slice, ...], shape: tuple[int, ...], overlap: tuple[int, ...]) -> np.ndarray:
    """Weight of a tile: 1 inside, a ramp in the middle of the overlap where another tile joins, next to nothing at the rim,
    where the network saw zeros instead of the image."""
    share = np.ones([w.stop - w.start for w in window], np.float32)
    for axis, (w, n, o) in enumerate(zip(window, shape, overlap, strict=True)):
        at = np.arange(w.stop - w.start) + 0.5
        ramp = np.ones(len(at))
        if w.start > 0:
            ramp = np.minimum(ramp, 2 * at / o - 0.5)
        if w.stop < n:
            ramp = np.minimum(ramp, 2 * (len(at) - at) / o - 0.5)
        share *= np.clip(ramp, 1e-6, 1).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return share
