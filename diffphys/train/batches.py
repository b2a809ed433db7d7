"""Batches of patches: random crops, mirrored and turned; batch `step` is the same for everyone with the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

INPUTS = ("wiener", "measured", "noise")


class Batches:
    """Patches of the examples of one modality.

    Args:
        images: name -> (count, *axes), as `Examples.load` gives; "extra" (count, *axes, C) comes before the inputs.
        patch: voxels per axis.
        size: patches per batch.
        seed: of crops and order.
    """

    def __init__(self, images: Mapping[str, Any], *, patch: tuple[int, ...], size: int, seed: int) -> None:
        self.images, self.patch, self.size, self.seed = images, patch, size, seed
        self.shape = images["x"].shape

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """x (N, *patch), inputs (N, *patch, C), unit (N,), float32."""
        rng = np.random.default_rng([self.seed, step])
        rows = [self._patch(rng) for _ in range(self.size)]
        return {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in rows[0]}

    def _patch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        index = int(rng.integers(self.shape[0]))
        starts = [int(rng.integers(n - p + 1)) for n, p in zip(self.shape[1:], self.patch, strict=True)]
        window: Any = (index, *(slice(s, s + p) for s, p in zip(starts, self.patch, strict=True)))
        flips = tuple(a for a in range(len(self.patch)) if rng.random() < 0.5)
        turned = self.patch[-1] == self.patch[-2] and rng.random() < 0.5

        def moved(image: np.ndarray) -> np.ndarray:
            patch = np.flip(image[window], flips)
            return patch.swapaxes(len(self.patch) - 2, len(self.patch) - 1) if turned else patch

        inputs = [moved(self.images["extra"])] if "extra" in self.images else []
        inputs += [moved(self.images[name])[..., None] for name in INPUTS]
        return {"x": moved(self.images["x"]), "inputs": np.concatenate(inputs, axis=-1), "unit": self.images["unit"][index]}


def whole(images: Mapping[str, Any], index: int) -> dict[str, np.ndarray]:
    """One example as a batch of its own, uncropped."""
    inputs = [images["extra"][index]] if "extra" in images else []
    inputs += [images[name][index][..., None] for name in INPUTS]
    parts = {"x": images["x"][index], "inputs": np.concatenate(inputs, axis=-1), "unit": images["unit"][index]}
    return {name: np.asarray(value, np.float32)[None] for name, value in parts.items()}
