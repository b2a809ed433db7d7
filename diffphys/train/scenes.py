"""Training specimens beside the benchmark's public families: one definition for images and stacks, peak 1, not periodic.

None of them imitates a family that only dev or hidden has; they are here so that a network learns optics, not three shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

STEP_UM = 0.03  # distance of drawn points along a thread
Draw = Callable[[np.random.Generator, tuple[int, ...], np.ndarray], np.ndarray]


def scene(family: str, *, shape: tuple[int, ...], pitch_um: tuple[float, ...], seed: int, haze: float) -> np.ndarray:
    """One specimen of a family, float64 (y, x) or (z, y, x), maximum 1, on a dim textured background of level `haze`."""
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}; expected one of {tuple(FAMILIES)}")
    rng = np.random.default_rng([seed, tuple(FAMILIES).index(family)])
    pitch = np.asarray(pitch_um, float)
    x = FAMILIES[family](rng, tuple(shape), pitch)
    x = x / max(x.max(), np.finfo(float).tiny)
    x += haze * np.clip(1 + rng.uniform(0.2, 0.8) * _field(rng, shape, rng.uniform(0.1, 0.6) / pitch), 0, None)
    return x / x.max()


def _field(rng: np.random.Generator, shape: tuple[int, ...], grain: np.ndarray) -> np.ndarray:
    """Smooth random field of zero mean and unit variance; grain in samples per axis."""
    field = gaussian_filter(rng.normal(size=shape), grain)
    return (field - field.mean()) / field.std()


def _threads(rng: np.random.Generator, shape: tuple[int, ...], pitch: np.ndarray) -> np.ndarray:
    """Curves that turn at random, each with its own brightness, width class and length."""
    x, size = np.zeros(shape), np.asarray(shape) * pitch
    flat = np.where(pitch > 1.5 * pitch.min(), 0.5, 1.0)
    for _ in range(round(rng.uniform(0.3, 1.2) * np.prod(size) ** (2 / len(shape)) * 0.1) + 4):
        steps = int(rng.uniform(1, 10) / STEP_UM)
        turns = np.cumsum(rng.normal(size=(steps, len(shape))) * flat * rng.uniform(0.005, 0.05), axis=0)
        heading = rng.normal(size=len(shape)) * flat + turns
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        points = rng.uniform(-0.1, 1.1, len(shape)) * size + STEP_UM * np.cumsum(heading, axis=0)
        at = np.floor(points / pitch).astype(int)
        inside = np.all((at >= 0) & (at < shape), axis=1)
        brightness = rng.uniform(0.2, 1.0) * (1 + 0.3 * np.sin(np.arange(steps) * STEP_UM * rng.uniform(0.3, 3)))
        np.maximum.at(x, tuple(at[inside].T), brightness[inside])
    return gaussian_filter(x, rng.uniform(0.05, 0.12) / pitch)


def _bodies(rng: np.random.Generator, shape: tuple[int, ...], pitch: np.ndarray) -> np.ndarray:
    """Ellipsoids at random angles, solid, hollow or graded, over one another."""
    x, size = np.zeros(shape), np.asarray(shape) * pitch
    axes = [(np.arange(n) + 0.5) * d for n, d in zip(shape, pitch, strict=True)]
    for _ in range(int(rng.integers(5, 40))):
        turn = np.linalg.qr(rng.normal(size=(len(shape),) * 2))[0]
        radii = rng.uniform(0.2, 1.6) * rng.uniform(0.5, 1.0, len(shape))
        grid = np.meshgrid(*[a - c for a, c in zip(axes, rng.uniform(0, 1, len(shape)) * size, strict=True)], indexing="ij")
        distance = np.sqrt(sum((sum(t * g for t, g in zip(row, grid, strict=True)) / r) ** 2
                               for row, r in zip(turn, radii, strict=True)))  # fmt: skip
        kind, level = rng.integers(3), rng.uniform(0.2, 1.0)
        body = (
            distance < 1,
            np.abs(distance - 1) * radii.mean() < rng.uniform(0.05, 0.15),
            np.clip(1 - distance, 0, None),
        )[kind]
        x = np.maximum(x, level * body) if rng.random() < 0.7 else x + level * body
    x *= np.clip(1 + rng.uniform(0, 0.5) * _field(rng, shape, rng.uniform(0.1, 0.3) / pitch), 0.1, None)
    return gaussian_filter(x, rng.uniform(0.03, 0.08) / pitch)


def _ridges(rng: np.random.Generator, shape: tuple[int, ...], pitch: np.ndarray) -> np.ndarray:
    """Bright where one smooth random field, stretched along a random axis, passes zero: winding lines or folded sheets."""
    grain = rng.uniform(0.25, 0.9) * np.where(np.arange(len(shape)) == rng.integers(len(shape)), rng.uniform(1, 2.5), 1.0)
    field = _field(rng, shape, grain / pitch)
    x = np.exp(-((field / rng.uniform(0.08, 0.4)) ** 2)) * np.clip(0.6 + 0.4 * _field(rng, shape, 2 * grain / pitch), 0, None)
    return gaussian_filter(x, rng.uniform(0.03, 0.08) / pitch)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], pitch: np.ndarray) -> np.ndarray:
    """A random field with a power-law spectrum, made positive and skewed."""
    nu2 = sum(np.meshgrid(*[np.fft.fftfreq(n, d) ** 2 for n, d in zip(shape, pitch, strict=True)], indexing="ij", sparse=True))
    spectrum = (rng.uniform(0.05, 0.5) ** 2 + np.asarray(nu2)) ** (-0.5 * rng.uniform(1.5, 3.5))
    field = np.fft.ifftn(np.fft.fftn(rng.normal(size=shape)) * spectrum).real
    return np.exp(rng.uniform(0.5, 1.5) * (field - field.mean()) / field.std()).clip(0, np.exp(3.0))


def _specks(rng: np.random.Generator, shape: tuple[int, ...], pitch: np.ndarray) -> np.ndarray:
    """Points and small blobs of widely different brightness."""
    x, size = np.zeros(shape), np.prod(np.asarray(shape) * pitch)
    for width in rng.uniform(0.04, 0.25, 3):
        points = np.zeros(shape)
        count = max(6, int(size * rng.uniform(0.1, 0.8)))
        np.add.at(points, tuple(rng.integers(0, n, count) for n in shape), rng.uniform(0.1, 1.0, count) ** 2)
        blurred = gaussian_filter(points, width / pitch)
        x += rng.uniform(0.3, 1.0) * blurred / max(blurred.max(), 1e-12)
    return x


FAMILIES: dict[str, Draw] = {
    "threads": _threads,
    "bodies": _bodies,
    "ridges": _ridges,
    "texture": _texture,
    "specks": _specks,
}
