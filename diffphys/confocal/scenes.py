"""Synthetic confocal specimens: beads, filaments, textured cells, membranes, tubules; peak 1, axes (z, y, x), not periodic.

Families in RESERVED are drawn by the benchmark's later tiers only: nothing is trained or tuned on them.
"""

from __future__ import annotations

import numpy as np
import scipy

FAMILIES = ("beads", "filaments", "cells")
RESERVED = ("membranes", "tubules")


def scene(
    family: str,
    *,
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    seed: int,
    haze: float | None = None,
    density: float = 1.0,
    grain_um: float = 0.6,
    contrast: float = 0.4,
) -> np.ndarray:
    """One specimen of a family, float64 (z, y, x), maximum 1.

    Densities are per volume, so a specimen larger than the field looks the same in it; `density` multiplies them. A dim
    background (5-12 % of the peak unless `haze` says otherwise) stands for cytoplasm and autofluorescence; its texture has
    grains of `grain_um` and varies by `contrast` of its mean.
    """
    if family not in _DRAW:
        raise ValueError(f"family is {family!r}; expected one of {tuple(_DRAW)}")
    rng = np.random.default_rng([seed, tuple(_DRAW).index(family)])
    voxel = np.asarray(voxel_um)
    structure = _DRAW[family](rng, tuple(shape), voxel, density)
    structure /= structure.max()
    texture = scipy.ndimage.gaussian_filter(rng.normal(size=shape), grain_um / voxel)
    texture = np.clip(1 + contrast * texture / texture.std(), 0, None)
    level = rng.uniform(0.05, 0.12) if haze is None else haze
    x = structure + level * texture / texture.mean()
    return x / x.max()


def _beads(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray, density: float) -> np.ndarray:
    x = np.zeros(shape)
    count = max(8, round(np.prod(np.asarray(shape) * voxel) * 0.36 * density))
    at = tuple(rng.integers(0, n, count) for n in shape)
    np.add.at(x, at, rng.uniform(0.3, 1.0, count))
    return scipy.ndimage.gaussian_filter(x, (0.1, 0.08, 0.08) / voxel)


def _filaments(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray, density: float) -> np.ndarray:
    x = np.zeros(shape)
    size = np.asarray(shape) * voxel
    flat = np.array([0.4, 1.0, 1.0])
    for _ in range(max(4, round(np.prod(size) * 0.09 * density))):
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
    return scipy.ndimage.gaussian_filter(x, (0.08, 0.064, 0.064) / voxel)


def _cells(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray, density: float) -> np.ndarray:
    x = np.zeros(shape)
    axes = [np.arange(n) * d for n, d in zip(shape, voxel, strict=True)]
    size = np.asarray(shape) * voxel
    for _ in range(max(3, round(np.prod(size) * 0.055 * density))):
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
    texture = scipy.ndimage.gaussian_filter(rng.normal(size=shape), (0.2, 0.16, 0.16) / voxel)
    x *= np.clip(1 + 0.35 * texture / texture.std(), 0.1, None)
    return scipy.ndimage.gaussian_filter(x, (0.06, 0.048, 0.048) / voxel)


def _membranes(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray, density: float) -> np.ndarray:
    """Touching cells of a tissue, seen by their membranes: walls of a Voronoi foam, thicker where three meet."""
    size, reach = np.asarray(shape) * voxel, 1.5
    volume = np.prod(size + 2 * reach)
    seeds = rng.uniform(-reach, size + reach, (max(4, round(0.16 * volume * density)), 3))
    at = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * d for n, d in zip(shape, voxel, strict=True)], indexing="ij"), -1)
    near = scipy.spatial.cKDTree(seeds).query(at.reshape(-1, 3), k=2)[0].reshape(*shape, 2)
    wall = np.exp(-(((near[..., 1] - near[..., 0]) / 0.18) ** 2))
    texture = scipy.ndimage.gaussian_filter(rng.normal(size=shape), (0.3, 0.24, 0.24) / voxel)
    wall *= np.clip(1 + 0.4 * texture / texture.std(), 0.1, None)
    return scipy.ndimage.gaussian_filter(wall, (0.06, 0.048, 0.048) / voxel)


def _tubules(rng: np.random.Generator, shape: tuple[int, ...], voxel: np.ndarray, density: float) -> np.ndarray:
    """A reticulum: tubules along the curves on which two smooth random fields vanish, with vesicles as hollow shells."""
    fields = []
    for _ in range(2):
        field = scipy.ndimage.gaussian_filter(rng.normal(size=shape), (0.45, 0.4, 0.4) / voxel)
        fields.append(field / field.std())
    x = rng.uniform(0.6, 1.0) * np.exp(-(fields[0] ** 2 + fields[1] ** 2) / 0.3**2)
    axes = [(np.arange(n) + 0.5) * d for n, d in zip(shape, voxel, strict=True)]
    size = np.asarray(shape) * voxel
    for _ in range(max(4, round(np.prod(size) * 0.05 * density))):
        centre, radius = rng.uniform(0, 1, 3) * size, rng.uniform(0.25, 0.5)
        grid = np.meshgrid(*[a - c for a, c in zip(axes, centre, strict=True)], indexing="ij", sparse=True)
        distance = np.sqrt(sum(g**2 for g in grid))
        np.maximum(x, rng.uniform(0.5, 1.0) * np.exp(-(((distance - radius) / 0.09) ** 2)), out=x)
    return scipy.ndimage.gaussian_filter(x, (0.06, 0.048, 0.048) / voxel)


_DRAW = {"beads": _beads, "filaments": _filaments, "cells": _cells, "membranes": _membranes, "tubules": _tubules}
