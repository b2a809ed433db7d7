"""Networks that ship, against the same architecture in PyTorch (channels last) with the same weights.

Only hourglasses of convolution blocks are written again; their sizes are read from the weights and the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from peers_common import CORES, Contender
from torch.nn import functional

from diffphys.networks import weights as shipped
from diffphys.networks.registry import CHANNELS, Network, find

Tensor = torch.Tensor
Rows = dict[str, Contender]


def contenders(name: str, shape: tuple[int, ...]) -> tuple[Rows, str]:
    """Rows of one network on one image or stack of `shape`, and where its weights are from."""
    torch.set_num_threads(CORES)
    network = find(name)
    weights, source = _weights(network)
    x = np.random.default_rng(0).random((1, *shape, CHANNELS[network.role][0]), np.float32)
    run = shipped.program(name)
    ours = partial(_ours, run, weights, jnp.asarray(x))
    reference = ours()
    rows = {f"diffphys, {name}": Contender(ours, reference)}
    for label, last in (("channels last", True), ("channels first", False)):
        model = Hourglass(network, shipped.flat(weights), channels_last=last)
        rows[f"torch {label}, {name}"] = Contender(partial(model, torch.from_numpy(x)), reference)
    return rows, source


def _ours(run: Any, weights: Any, x: Any) -> np.ndarray:
    return np.asarray(jax.block_until_ready(run(weights, x)))


def _weights(network: Network) -> tuple[Any, str]:
    """The shipped ones; random ones of the registry's sizes where these are not trained."""
    try:
        return shipped.load(network.name)[0], "shipped"
    except ValueError as error:
        rng = np.random.default_rng(0)
        start = shipped.initial(network)
        return jax.tree.map(lambda w: w + 0.02 * jnp.asarray(rng.normal(size=w.shape), w.dtype), start), f"random: {error}"


class Hourglass:
    """diffphys.networks.hourglass in PyTorch: (N, *axes, channel) -> the same, NumPy."""

    def __init__(self, network: Network, weights: Mapping[str, Any], *, channels_last: bool) -> None:
        size, self.ndim = network.size, network.ndim
        if size["block"] not in ("plain", "residual"):
            raise ValueError(f"{network.name} has {size['block']} blocks; written here are plain and residual ones")
        self.block, self.depths, self.added = size["block"], size["depths"], size.get("residual", True)
        self.fold = (1,) * (self.ndim - 2) + (2, 2)
        scales = range(1, len(size["widths"]))
        self.steps = [(2 if s == scales[-1] else 1,) * (self.ndim - 2) + (2, 2) for s in scales]
        last = torch.channels_last if self.ndim == 2 else torch.channels_last_3d
        self.format = last if channels_last else torch.contiguous_format
        self.convolve = functional.conv2d if self.ndim == 2 else functional.conv3d
        self.weights = {name: self._tensor(name, np.asarray(w, np.float32)) for name, w in weights.items()}

    def _tensor(self, name: str, value: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(value.copy())
        if name.endswith("bias"):
            return tensor
        return tensor.permute(-1, -2, *range(self.ndim)).contiguous(memory_format=self.format)

    @torch.inference_mode()
    def __call__(self, inputs: Tensor) -> np.ndarray:
        padded = self._padded(inputs.movedim(-1, 1).contiguous(memory_format=self.format))
        x, kept = self.conv("head", self.unshuffle(padded, self.fold)), []
        for scale, depth in enumerate(self.depths):
            if scale:
                kept.append(x)
                x = self.conv(f"shrink.{scale - 1}", self.unshuffle(x, self.steps[scale - 1]))
            for number in range(depth):
                x = self.blocks(f"down.{scale}.{number}", x)
        for scale in reversed(range(len(self.depths) - 1)):
            grown = self.shuffle(self.conv(f"grow.{scale}", x), self.steps[scale])
            x = self.conv(f"join.{scale}", torch.cat([grown, kept[scale]], dim=1))
            for number in range(self.depths[scale]):
                x = self.blocks(f"up.{scale}.{number}", x)
        out = self.shuffle(self.conv("tail", x), self.fold).movedim(1, -1)
        out = out[(slice(None), *(slice(0, n) for n in inputs.shape[1:-1]))]
        if self.added:
            out[..., 0] += inputs[..., 0]
        return out.numpy()

    def blocks(self, name: str, x: Tensor) -> Tensor:
        inner = self.conv(f"{name}.second", self.conv(f"{name}.first", x).relu_())
        return x + inner if self.block == "residual" else inner.relu_()

    def conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return self.convolve(x, weight, self.weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def _padded(self, x: Tensor) -> Tensor:
        """Edge values appended until every axis can be halved as often as it is."""
        multiple = [prod(s) for s in zip(self.fold, *self.steps, strict=True)]
        extra = [(-n) % m for n, m in zip(x.shape[2:], multiple, strict=True)]
        return functional.pad(x, [v for e in reversed(extra) for v in (0, e)], mode="replicate") if any(extra) else x

    def unshuffle(self, x: Tensor, steps: tuple[int, ...]) -> Tensor:
        """Space to channels; the channel runs fastest, as in diffphys."""
        n, c, *axes = x.shape
        split = [v for a, s in zip(axes, steps, strict=True) for v in (a // s, s)]
        places, parts = range(2, 2 * len(axes) + 2, 2), range(3, 2 * len(axes) + 3, 2)
        order = (0, *places, *parts, 1) if self.format != torch.contiguous_format else (0, *parts, 1, *places)
        moved = x.reshape(n, c, *split).permute(order)
        small = [a // s for a, s in zip(axes, steps, strict=True)]
        if self.format != torch.contiguous_format:
            return moved.reshape(n, *small, -1).movedim(-1, 1)
        return moved.reshape(n, -1, *small)

    def shuffle(self, x: Tensor, steps: tuple[int, ...]) -> Tensor:
        """Channels to space, the inverse."""
        n, c, *axes = x.shape
        ndim, small = len(axes), c // prod(steps)
        moved = x.reshape(n, *steps, small, *axes)
        pairs = [v for a in range(ndim) for v in (2 + ndim + a, 1 + a)]
        whole = [a * s for a, s in zip(axes, steps, strict=True)]
        if self.format != torch.contiguous_format:
            return moved.permute(0, *pairs, 1 + ndim).reshape(n, *whole, small).movedim(-1, 1)
        return moved.permute(0, 1 + ndim, *pairs).reshape(n, small, *whole)
