"""Networks without scales: DnCNN, the dilated denoisers of IRCNN, and the window transformer SwinIR."""

from __future__ import annotations

from typing import Any

from flax import nnx

from diffphys.networks.blocks import Windowed
from diffphys.networks.layers import Conv, cropped, modules, padded_to, shuffle, unshuffle
from diffphys.types import Array

DILATIONS = (1, 2, 3, 4, 3, 2, 1)  # of IRCNN (Zhang et al., CVPR 2017)


class Stack(nnx.Module):
    """Convolutions one after another, the residual of the first channel (DnCNN: Zhang et al., TIP 2017).

    Args:
        inputs, outputs: channels.
        width: channels inside.
        dilations: one per layer.
        folded: whether the plane is folded by two first.
        ndim: 2 or 3.
    """

    def __init__(
        self, *, inputs: int, outputs: int, width: int, dilations: tuple[int, ...], ndim: int, folded: bool, rngs: nnx.Rngs
    ) -> None:
        self.fold = (1,) * (ndim - 2) + ((2, 2) if folded else (1, 1))
        many, last = (4 if folded else 1), len(dilations) - 1
        self.layers = modules(
            Conv(many * inputs if i == 0 else width, many * outputs if i == last else width, ndim=ndim, dilation=d,
                 gain=(1.0, 0.5, 0.0)[(i > 0) + (i == last)], carry=0 < i < last, rngs=rngs)
            for i, d in enumerate(dilations)
        )  # fmt: skip

    def __call__(self, inputs: Array) -> Array:
        x = unshuffle(padded_to(inputs, self.fold), self.fold).astype(self.layers[0].dtype)
        for layer in list(self.layers)[:-1]:
            x = nnx.relu(layer(x))
        out = cropped(shuffle(self.layers[-1](x).astype(inputs.dtype), self.fold), inputs.shape[1:-1])
        return out.at[..., 0].add(inputs[..., 0])


class SwinIR(nnx.Module):
    """Groups of window transformers, each closed by a convolution and a residual (Liang et al., ICCV workshops 2021).

    Args:
        inputs, outputs: channels.
        width: channels inside, at half the plane's sampling.
        groups, depth: residual groups, and transformers in each.
        window: voxels per axis, after folding.
        ndim: 2 or 3.
    """

    def __init__(
        self, *, inputs: int, outputs: int, width: int, groups: int, depth: int, window: tuple[int, ...], ndim: int,
        rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        common: dict[str, Any] = {"ndim": ndim, "rngs": rngs}
        self.fold = (1,) * (ndim - 2) + (2, 2)
        self.head = Conv(4 * inputs, width, **common)
        self.groups = modules(
            modules(Windowed(width, window=window, shifted=i % 2 == 1, **common) for i in range(depth)) for _ in range(groups)
        )
        self.close = modules(Conv(width, width, gain=0.3, **common) for _ in range(groups))
        self.tail = Conv(width, 4 * outputs, gain=0.0, **common)

    def __call__(self, inputs: Array) -> Array:
        first = self.head(unshuffle(padded_to(inputs, self.fold), self.fold).astype(self.head.dtype))
        x = first
        for group, close in zip(self.groups, self.close, strict=True):
            inner = x
            for block in group:
                inner = block(inner)
            x = x + close(nnx.gelu(inner))
        out = cropped(shuffle(self.tail(x + first).astype(inputs.dtype), self.fold), inputs.shape[1:-1])
        return out.at[..., 0].add(inputs[..., 0])
