"""Synthetic confocal specimens: beads, filaments, textured cells; peak 1, axes (z, y, x), not periodic."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

FAMILIES = ("beads", "filaments", "cells")


def scene(
    family: str, *, shape: tuple[int, int, int], voxel_um: tuple[float, float, float], seed: int, haze: float | None = None
) -> np.ndarray:
    """One specimen of a family, float64 (z, y, x), maximum 1.

    Densities are per volume, so a specimen larger than the field looks the same in it. A dim textured background (5-15 %
    of the peak unless `haze` says otherwise) stands for cytoplasm and autofluorescence.
    """
    if family not in _DRAW:
        raise ValueError(f"family is {family!r}; expected one of {FAMILIES}")
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    voxel = np.asarray(voxel_um)
    structure = _DRAW[family](rng, tuple(shape), voxel)
    structure /= structure.max()
    texture = gaussian_filter(rng.normal(size=shape), 0.6 / voxel)
    texture = np.clip(1 + 0.4 * texture / texture.std(), 0, None)
    level = rng.uniform(0.05, 0.12) if haze is None else haze
    x = structure + level * texture / texture.mean()
    return x / x.max()


def _beads(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray) -> np.ndarray:
    x = np.zeros(shape)
    count = max(8, round(np.prod(np.asarray(shape) * voxel) * 0.36))
    at = tuple(rng.integers(0, n, count) for n in shape)
    np.add.at(x, at, rng.uniform(0.3, 1.0, count))
    return gaussian_filter(x, (0.1, 0.08, 0.08) / voxel)


def _filaments(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray) -> np.ndarray:
    x = np.zeros(shape)
    size = np.asarray(shape) * voxel
    flat = np.array([0.4, 1.0, 1.0])
    for _ in range(max(4, round(np.prod(size) * 0.09))):
        point, heading = rng.uniform(0, 1, 3) * size, rng.normal(size=3) * flat
        heading /= np.linalg.norm(heading)
        turns = 0.08 * rng.normal(size=(400, 3)) * flat
        brightness = rng.uniform(0.4, 1.0)
        for turn in turns:
            voxel_at = tuple(np.floor(point / voxel).astype(int))
            if all(0 <= i < n for i, n in zip(voxel_at, shape, strict=True)):
                x[voxel_at] = max(x[voxel_at], brightness)
            heading = heading + turn
            heading /= np.linalg.norm(heading)
            point = point + 0.04 * heading
    return gaussian_filter(x, (0.08, 0.064, 0.064) / voxel)


def _cells(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray) -> np.ndarray:
    x = np.zeros(shape)
    axes = [np.arange(n) * d for n, d in zip(shape, voxel, strict=True)]
    size = np.asarray(shape) * voxel
    for _ in range(max(3, round(np.prod(size) * 0.055))):
        centre, radius = rng.uniform(0, 1, 3) * size, rng.uniform(0.5, 1.3)
        window = tuple(
            slice(max(0, int((c - radius - 0.2) / d)), max(0, int((c + radius + 0.2) / d) + 2))
            for c, d in zip(centre, voxel, strict=True)
        )
        local = np.meshgrid(*[a[w] - c for a, w, c in zip(axes, window, centre, strict=True)], indexing="ij", sparse=True)
        distance = np.sqrt(sum(g**2 for g in local))
        body = (distance < radius) * rng.uniform(0.3, 0.7)
        shell = (np.abs(distance - radius) < 0.1) * rng.uniform(0.7, 1.0)
        x[window] = np.maximum(x[window], np.maximum(body, shell))
    texture = gaussian_filter(rng.normal(size=shape), (0.2, 0.16, 0.16) / voxel)
    x *= np.clip(1 + 0.35 * texture / texture.std(), 0.1, None)
    return gaussian_filter(x, (0.06, 0.048, 0.048) / voxel)


_DRAW = {"beads": _beads, "filaments": _filaments, "cells": _cells}
