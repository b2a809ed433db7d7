"""Batches of patches: random crops, mirrored and turned; batch `step` is the same for everyone with the same seed.

The examples lie on the device and batches are cut there: a GPU takes a batch in less time than a host needs to cut one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.types import Array

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
        self.patch, self.size, self.seed = tuple(patch), size, seed
        self.images = {name: jnp.asarray(images[name]) for name in ("x", "unit")} | {"inputs": jnp.asarray(_inputs(images))}

    def __call__(self, step: int) -> dict[str, Array]:
        """x (N, *patch), inputs (N, *patch, C), unit (N,), float32."""
        return _drawn(self.images, self.seed, step, patch=self.patch, size=self.size)


def _inputs(images: Mapping[str, Any]) -> np.ndarray:
    extra = [images["extra"]] if "extra" in images else []
    return np.concatenate([*extra, *(images[name][..., None] for name in INPUTS)], axis=-1)


@partial(jax.jit, static_argnames=("patch", "size"))
def _drawn(images: Mapping[str, Array], seed: Array, step: Array, *, patch: tuple[int, ...], size: int) -> dict[str, Array]:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), size)
    return jax.vmap(partial(_patch, images, patch))(keys)


def _patch(images: Mapping[str, Array], patch: tuple[int, ...], key: Array) -> dict[str, Array]:
    """One crop of one example, every image moved alike."""
    count, *shape = images["x"].shape
    which, where, mirror, turn = jax.random.split(key, 4)
    index = jax.random.randint(which, (), 0, count)
    corner = jax.random.randint(where, (len(patch),), 0, 1 + jnp.asarray(shape) - jnp.asarray(patch))
    mirrored = jax.random.bernoulli(mirror, shape=(len(patch),))
    turned = jax.random.bernoulli(turn) if patch[-1] == patch[-2] else None

    def moved(image: Array) -> Array:
        channels = image.shape[1 + len(patch) :]
        cut = jax.lax.dynamic_slice(image, (index, *corner, *(0 for _ in channels)), (1, *patch, *channels))[0]
        for axis, flip in enumerate(mirrored):
            cut = jnp.where(flip, jnp.flip(cut, axis), cut)
        if turned is not None:
            cut = jnp.where(turned, cut.swapaxes(len(patch) - 2, len(patch) - 1), cut)
        return cut.astype(jnp.float32)

    return {"x": moved(images["x"]), "inputs": moved(images["inputs"]), "unit": images["unit"][index].astype(jnp.float32)}


def whole(images: Mapping[str, Any], index: int) -> dict[str, np.ndarray]:
    """One example as a batch of its own, uncropped."""
    one = {name: values[index : index + 1] for name, values in images.items()}
    parts = {"x": one["x"], "inputs": _inputs(one), "unit": one["unit"]}
    return {name: np.asarray(value, np.float32) for name, value in parts.items()}
