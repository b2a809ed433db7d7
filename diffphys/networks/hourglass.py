"""The U-shaped network that U-Net, CARE, ResUNet, Restormer and the score networks share; they differ in their block.

Inputs are folded by two in the plane before anything else, which is what a 2-core machine can train; the result is a
correction of the first channel, so an untrained network returns that.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from diffphys.networks.blocks import BLOCKS
from diffphys.networks.layers import Conv, cropped, modules, padded_to, shuffle, unshuffle
from diffphys.types import Array


class Hourglass(nnx.Module):
    """(N, *axes, inputs) -> (N, *axes, outputs).

    Args:
        inputs, outputs: channels; the first output is a correction of the first input.
        widths: channels at each scale, finest first.
        depths: blocks at each scale, on the way down and (but for the coarsest) again on the way up.
        block: name in `blocks.BLOCKS`.
        ndim: 2 or 3; along z only the coarsest scale is halved.
        residual: whether the first input is added to the first output.
    """

    def __init__(
        self, *, inputs: int, outputs: int, widths: tuple[int, ...], depths: tuple[int, ...], block: str, ndim: int,
        residual: bool = True, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        make: Any = BLOCKS[block]
        common: dict[str, Any] = {"ndim": ndim, "rngs": rngs}
        self.residual = residual
        self.fold = (1,) * (ndim - 2) + (2, 2)
        self.steps = [(2 if scale == len(widths) - 1 else 1,) * (ndim - 2) + (2, 2) for scale in range(1, len(widths))]
        folds = [math.prod(s) for s in self.steps]
        self.head = Conv(4 * inputs, widths[0], **common)
        self.down = modules(modules(make(w, **common) for _ in range(d)) for w, d in zip(widths, depths, strict=True))
        self.shrink = modules(
            Conv(f * a, b, taps=1, gain=0.7, **common) for f, a, b in zip(folds, widths, widths[1:], strict=False)
        )
        self.grow = modules(
            Conv(b, f * a, taps=1, gain=0.7, **common) for f, a, b in zip(folds, widths, widths[1:], strict=False)
        )
        self.join = modules(Conv(2 * w, w, taps=1, gain=0.7, **common) for w in widths[:-1])
        self.up = modules(modules(make(w, **common) for _ in range(d)) for w, d in zip(widths[:-1], depths[:-1], strict=True))
        self.tail = Conv(widths[0], 4 * outputs, gain=0.0, **common)

    def __call__(self, inputs: Array) -> Array:
        multiple = list(self.fold)
        for step in self.steps:
            multiple = [m * s for m, s in zip(multiple, step, strict=True)]
        x = self.head(unshuffle(padded_to(inputs, multiple), self.fold).astype(self.head.dtype))
        kept = []
        for scale, blocks in enumerate(self.down):
            if scale:
                kept.append(x)
                x = self.shrink[scale - 1](unshuffle(x, self.steps[scale - 1]))
            for block in blocks:
                x = block(x)
        for scale in reversed(range(len(self.up))):
            grown = shuffle(self.grow[scale](x), self.steps[scale])
            x = self.join[scale](jnp.concatenate([grown, kept[scale]], axis=-1))
            for block in self.up[scale]:
                x = block(x)
        out = cropped(shuffle(self.tail(x).astype(inputs.dtype), self.fold), inputs.shape[1:-1])
        return out.at[..., 0].add(inputs[..., 0]) if self.residual else out
