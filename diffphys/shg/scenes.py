"""Synthetic SHG specimens: straight collagen bundles, crimped bundles, sparse fibrils; peak 1, axes (y, x), not periodic."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

FAMILIES = ("collagen", "wavy", "sparse")
STEP_UM = 0.03  # distance of drawn points along a fibril, below any useful pixel
REACH_UM = 6.0  # bundles may start this far outside the field, so that its edges look like its middle


def scene(
    family: str, *, shape: tuple[int, int], pixel_um: tuple[float, float] | float, seed: int, haze: float | None = None
) -> np.ndarray:
    """One specimen of a family, float64 (y, x), maximum 1.

    Densities are per area, so a specimen larger than the field looks the same in it. A dim textured background (5-12 % of
    the peak unless `haze` says otherwise) stands for unresolved fibrils.
    """
    if family not in _DRAW:
        raise ValueError(f"family is {family!r}; expected one of {FAMILIES}")
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    pixel = np.broadcast_to(np.asarray(pixel_um, float), 2)
    structure = _DRAW[family](rng, tuple(shape), pixel)
    structure /= max(structure.max(), np.finfo(float).tiny)  # a tiny field may hold no fibril
    texture = gaussian_filter(rng.normal(size=shape), 0.5 / pixel)
    texture = np.clip(1 + 0.4 * (texture - texture.mean()) / texture.std(), 0, None)
    level = rng.uniform(0.05, 0.12) if haze is None else haze
    x = structure + level * texture / texture.mean()
    return x / x.max()


def _collagen(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray) -> np.ndarray:
    x, main = np.zeros(shape), rng.uniform(0, np.pi)
    for centre in _centres(rng, shape, pixel, per_um2=0.05):
        _bundle(rng, x, pixel, centre, heading=main + 0.3 * rng.normal(), length=rng.uniform(8, 16), fibrils=6)
    return gaussian_filter(x, 0.07 / pixel)


def _wavy(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray) -> np.ndarray:
    x, main = np.zeros(shape), rng.uniform(0, np.pi)
    for centre in _centres(rng, shape, pixel, per_um2=0.035):
        crimp = (rng.uniform(0.25, 0.7), rng.uniform(3.0, 6.0))
        heading, length = main + 0.25 * rng.normal(), rng.uniform(9, 16)
        _bundle(rng, x, pixel, centre, heading=heading, length=length, fibrils=7, crimp=crimp)
    return gaussian_filter(x, 0.07 / pixel)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray) -> np.ndarray:
    x = np.zeros(shape)
    for centre in _centres(rng, shape, pixel, per_um2=0.1):
        _bundle(rng, x, pixel, centre, heading=rng.uniform(0, np.pi), length=rng.uniform(0.8, 4.0), fibrils=1)
    return gaussian_filter(x, 0.06 / pixel)


def _centres(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray, *, per_um2: float) -> np.ndarray:
    """(bundle, 2) positions in um, uniform over the field and a margin; four or more lie in the field itself."""
    size = np.asarray(shape) * pixel
    around = rng.uniform(-REACH_UM, size + REACH_UM, (round(per_um2 * np.prod(size + 2 * REACH_UM)), 2))
    return np.concatenate([around, rng.uniform(0, size, (4, 2))])


def _bundle(
    rng: np.random.Generator,
    x: np.ndarray,
    pixel: np.ndarray,
    centre: np.ndarray,
    *,
    heading: float,
    length: float,
    fibrils: int,
    crimp: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw parallel, slightly bent fibrils with a common crimp (amplitude, period in um); brighter wins where they cross."""
    along, phase = np.arange(-length / 2, length / 2, STEP_UM), rng.uniform(0, 2 * np.pi)
    wave = crimp[0] * np.sin(2 * np.pi * along / crimp[1] + phase)
    brightness = rng.uniform(0.4, 1.0)
    for _ in range(fibrils):
        offset = rng.normal(0, 0.09 * fibrils) if fibrils > 1 else 0.0
        across = offset + wave + rng.normal(0, 0.01) * along**2 / 4
        direction = np.array([np.sin(heading), np.cos(heading)])
        normal = np.array([np.cos(heading), -np.sin(heading)])
        points = centre + along[:, None] * direction + across[:, None] * normal
        y, column = np.floor(points / pixel).astype(int).T
        inside = (y >= 0) & (y < x.shape[0]) & (column >= 0) & (column < x.shape[1])
        np.maximum.at(x, (y[inside], column[inside]), brightness * rng.uniform(0.6, 1.0))


_DRAW = {"collagen": _collagen, "wavy": _wavy, "sparse": _sparse}
