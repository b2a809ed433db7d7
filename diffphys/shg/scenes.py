"""Synthetic SHG specimens: straight and crimped collagen bundles, sparse fibrils, basket weave, osteons; peak 1, axes (y, x).

Not periodic. Families in RESERVED are drawn by the benchmark's later tiers only: nothing is trained or tuned on them.
"""

from __future__ import annotations

import numpy as np
import scipy

FAMILIES = ("collagen", "wavy", "sparse")
RESERVED = ("basket", "osteon")
STEP_UM = 0.03  # distance of drawn points along a fibril, below any useful pixel
REACH_UM = 6.0  # bundles may start this far outside the field, so that its edges look like its middle


def scene(
    family: str,
    *,
    shape: tuple[int, int],
    pixel_um: tuple[float, float] | float,
    seed: int,
    haze: float | None = None,
    density: float = 1.0,
    grain_um: float = 0.5,
    contrast: float = 0.4,
) -> np.ndarray:
    """One specimen of a family, float64 (y, x), maximum 1.

    Densities are per area, so a specimen larger than the field looks the same in it; `density` multiplies them. A dim
    background (5-12 % of the peak unless `haze` says otherwise) stands for unresolved fibrils; its texture has grains of
    `grain_um` and varies by `contrast` of its mean.
    """
    if family not in _DRAW:
        raise ValueError(f"family is {family!r}; expected one of {tuple(_DRAW)}")
    rng = np.random.default_rng([seed, tuple(_DRAW).index(family)])
    pixel = np.broadcast_to(np.asarray(pixel_um, float), 2)
    structure = _DRAW[family](rng, tuple(shape), pixel, density)
    structure /= max(structure.max(), np.finfo(float).tiny)  # a tiny field may hold no fibril
    texture = scipy.ndimage.gaussian_filter(rng.normal(size=shape), grain_um / pixel)
    texture = np.clip(1 + contrast * (texture - texture.mean()) / texture.std(), 0, None)
    level = rng.uniform(0.05, 0.12) if haze is None else haze
    x = structure + level * texture / texture.mean()
    return x / x.max()


def _collagen(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray, density: float) -> np.ndarray:
    x, main = np.zeros(shape), rng.uniform(0, np.pi)
    for centre in _centres(rng, shape, pixel, per_um2=0.05 * density):
        _bundle(rng, x, pixel, centre, heading=main + 0.3 * rng.normal(), length=rng.uniform(8, 16), fibrils=6)
    return scipy.ndimage.gaussian_filter(x, 0.07 / pixel)


def _wavy(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray, density: float) -> np.ndarray:
    x, main = np.zeros(shape), rng.uniform(0, np.pi)
    for centre in _centres(rng, shape, pixel, per_um2=0.035 * density):
        crimp = (rng.uniform(0.25, 0.7), rng.uniform(3.0, 6.0))
        heading, length = main + 0.25 * rng.normal(), rng.uniform(9, 16)
        _bundle(rng, x, pixel, centre, heading=heading, length=length, fibrils=7, crimp=crimp)
    return scipy.ndimage.gaussian_filter(x, 0.07 / pixel)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray, density: float) -> np.ndarray:
    x = np.zeros(shape)
    for centre in _centres(rng, shape, pixel, per_um2=0.1 * density):
        _bundle(rng, x, pixel, centre, heading=rng.uniform(0, np.pi), length=rng.uniform(0.8, 4.0), fibrils=1)
    return scipy.ndimage.gaussian_filter(x, 0.06 / pixel)


def _basket(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray, density: float) -> np.ndarray:
    """Basket weave: bundles in two crossed directions that take turns, tile by tile."""
    x, main, tile = np.zeros(shape), rng.uniform(0, np.pi), rng.uniform(3.0, 5.0)
    turned = np.array([[np.cos(main), np.sin(main)], [-np.sin(main), np.cos(main)]])
    for centre in _centres(rng, shape, pixel, per_um2=0.09 * density):
        crossed = np.floor(turned @ centre / tile).sum() % 2
        heading = main + crossed * np.pi / 2 + 0.08 * rng.normal()
        _bundle(rng, x, pixel, centre, heading=heading, length=tile * rng.uniform(1.0, 1.6), fibrils=6)
    return scipy.ndimage.gaussian_filter(x, 0.07 / pixel)


def _osteon(rng: np.random.Generator, shape: tuple[int, ...], pixel: np.ndarray, density: float) -> np.ndarray:
    """Osteons: arcs of fibrils in concentric lamellae of changing brightness around dark canals."""
    x = np.zeros(shape)
    for centre in _centres(rng, shape, pixel, per_um2=0.008 * density):
        canal, outer, turn = rng.uniform(0.8, 1.8), rng.uniform(4.0, 7.0), rng.uniform(0, 2 * np.pi)
        squeeze = rng.uniform(0.7, 1.0)
        for radius in np.arange(canal, outer, 0.22):
            lamella = 0.55 + 0.45 * np.cos(2 * np.pi * radius / 1.3 + turn)
            for _ in range(3):
                angle = rng.uniform(0, 2 * np.pi) + np.arange(0, rng.uniform(0.8, 2.2), STEP_UM / radius)
                ring = (radius + rng.normal(0, 0.04)) * np.stack([np.sin(angle), squeeze * np.cos(angle)], 1)
                _plot(x, centre + ring, pixel, lamella * rng.uniform(0.5, 1.0))
    return scipy.ndimage.gaussian_filter(x, 0.07 / pixel)


def _plot(x: np.ndarray, points: np.ndarray, pixel: np.ndarray, brightness: float) -> None:
    """Mark the pixels under `points` (point, 2) in um; brighter wins."""
    y, column = np.floor(points / pixel).astype(int).T
    inside = (y >= 0) & (y < x.shape[0]) & (column >= 0) & (column < x.shape[1])
    np.maximum.at(x, (y[inside], column[inside]), brightness)


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
        _plot(x, points, pixel, brightness * rng.uniform(0.6, 1.0))


_DRAW = {"collagen": _collagen, "wavy": _wavy, "sparse": _sparse, "basket": _basket, "osteon": _osteon}
