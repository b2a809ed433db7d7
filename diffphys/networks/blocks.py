"""What the networks differ in: the block that is repeated at every scale. All map (N, *axes, C) to the same shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffphys.networks.layers import Conv, Depthwise, LayerNorm, cropped
from diffphys.types import Array


class Plain(nnx.Module):
    """Two convolutions with rectifiers (Ronneberger et al., MICCAI 2015)."""

    def __init__(self, channels: int, *, ndim: int, rngs: nnx.Rngs) -> None:
        self.first = Conv(channels, channels, ndim=ndim, rngs=rngs)
        self.second = Conv(channels, channels, ndim=ndim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return nnx.relu(self.second(nnx.relu(self.first(x))))


class Residual(nnx.Module):
    """x plus two convolutions, the rectifier between them (He et al., ECCV 2016)."""

    def __init__(self, channels: int, *, ndim: int, rngs: nnx.Rngs) -> None:
        self.first = Conv(channels, channels, ndim=ndim, rngs=rngs)
        self.second = Conv(channels, channels, ndim=ndim, gain=0.1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.second(nnx.relu(self.first(x)))


class Transposed(nnx.Module):
    """Attention between channels over all voxels, then a gated feed-forward (Restormer: Zamir et al., CVPR 2022).

    The attention's depthwise convolution is kept on q, k and v together, the feed-forward's on its gated half.
    """

    def __init__(self, channels: int, *, ndim: int, heads: int = 0, rngs: nnx.Rngs) -> None:
        self.heads = heads or max(1, channels // 16)
        self.norms = nnx.List([LayerNorm(channels), LayerNorm(channels)])
        self.qkv = Conv(channels, 3 * channels, ndim=ndim, taps=1, gain=0.7, rngs=rngs)
        self.local = Depthwise(3 * channels, ndim=ndim, rngs=rngs)
        self.out = Conv(channels, channels, ndim=ndim, taps=1, gain=0.1, rngs=rngs)
        self.temperature = nnx.Param(jnp.ones((self.heads, 1, 1)))
        self.widen = Conv(channels, 4 * channels, ndim=ndim, taps=1, gain=0.7, rngs=rngs)
        self.gate = Depthwise(2 * channels, ndim=ndim, rngs=rngs)
        self.narrow = Conv(2 * channels, channels, ndim=ndim, taps=1, gain=0.1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.out(self._attend(self.local(self.qkv(self.norms[0](x)))))
        open_, gated = jnp.split(self.widen(self.norms[1](x)), 2, axis=-1)
        return x + self.narrow(open_ * nnx.gelu(self.gate(gated)))

    def _attend(self, qkv: Array) -> Array:
        n, *axes, three = qkv.shape
        each = three // 3 // self.heads
        q, k, v = qkv.reshape(n, -1, 3, self.heads, each).transpose(2, 0, 3, 4, 1)  # (n, head, channel, voxel)
        q, k = (t * jax.lax.rsqrt(jnp.sum(t.astype(jnp.float32) ** 2, axis=-1, keepdims=True) + 1e-6) for t in (q, k))
        scores = q @ k.swapaxes(-1, -2) * self.temperature[...]
        mixed = jax.nn.softmax(scores, axis=-1) @ v.astype(scores.dtype)
        return mixed.transpose(0, 3, 1, 2).reshape(n, *axes, three // 3).astype(qkv.dtype)


class Windowed(nnx.Module):
    """Attention inside windows, shifted by half a window in every second block (Swin: Liu et al., ICCV 2021)."""

    def __init__(self, channels: int, *, ndim: int, window: tuple[int, ...], shifted: bool, rngs: nnx.Rngs) -> None:
        self.window, self.shift = tuple(window), tuple(w // 2 if shifted else 0 for w in window)
        self.heads, tokens = max(1, channels // 16), int(np.prod(window))
        self.norms = nnx.List([LayerNorm(channels), LayerNorm(channels)])
        self.qkv = Conv(channels, 3 * channels, ndim=ndim, taps=1, gain=0.7, rngs=rngs)
        self.out = Conv(channels, channels, ndim=ndim, taps=1, gain=0.1, rngs=rngs)
        self.nearness = nnx.Param(jnp.zeros((self.heads, int(np.prod([2 * w - 1 for w in window])))))
        self.widen = Conv(channels, 2 * channels, ndim=ndim, taps=1, rngs=rngs)
        self.narrow = Conv(2 * channels, channels, ndim=ndim, taps=1, gain=0.1, rngs=rngs)
        self.tokens = tokens

    def __call__(self, x: Array) -> Array:
        x = x + self.out(self._attend(self.qkv(self.norms[0](x))))
        return x + self.narrow(nnx.gelu(self.widen(self.norms[1](x))))

    def _attend(self, qkv: Array) -> Array:
        axes = tuple(range(1, qkv.ndim - 1))
        extra = [(-n) % w for n, w in zip(qkv.shape[1:-1], self.window, strict=True)]
        whole = jnp.pad(qkv, [(0, 0), *((0, e) for e in extra), (0, 0)]) if any(extra) else qkv
        moved = jnp.roll(whole, [-s for s in self.shift], axes) if any(self.shift) else whole
        windows = _windows(moved, self.window)
        n, count, tokens, three = windows.shape
        q, k, v = jnp.moveaxis(windows.reshape(n, count, tokens, 3, self.heads, -1), 3, 0)
        near = self.nearness[...][:, _pairs(self.window)].astype(q.dtype)
        scores = jnp.einsum("nwqhc,nwkhc->nwhqk", q, k) / np.sqrt(q.shape[-1]) + near
        mixed = jnp.einsum("nwhqk,nwkhc->nwqhc", jax.nn.softmax(scores, axis=-1), v)
        back = _unwindows(mixed.reshape(n, count, tokens, three // 3), self.window, whole.shape[1:-1])
        back = jnp.roll(back, self.shift, axes) if any(self.shift) else back
        return cropped(back, qkv.shape[1:-1])


def _windows(x: Array, window: tuple[int, ...]) -> Array:
    """(N, *axes, C) -> (N, windows, tokens, C)."""
    n, *axes, c = x.shape
    split = [v for a, w in zip(axes, window, strict=True) for v in (a // w, w)]
    order = [*range(1, 2 * len(axes), 2), *range(2, 2 * len(axes) + 1, 2)]
    return x.reshape(n, *split, c).transpose(0, *order, 2 * len(axes) + 1).reshape(n, -1, int(np.prod(window)), c)


def _unwindows(x: Array, window: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """The inverse of `_windows`."""
    counts, ndim = [a // w for a, w in zip(shape, window, strict=True)], len(shape)
    order = [v for a in range(ndim) for v in (1 + a, 1 + ndim + a)]
    return x.reshape(len(x), *counts, *window, -1).transpose(0, *order, 2 * ndim + 1).reshape(len(x), *shape, -1)


def _pairs(window: tuple[int, ...]) -> Any:
    """(tokens, tokens) index of the relative position of two voxels of a window."""
    at = np.stack(np.meshgrid(*[np.arange(w) for w in window], indexing="ij"), -1).reshape(-1, len(window))
    apart = at[:, None] - at[None] + np.asarray(window) - 1
    return np.ravel_multi_index(tuple(np.moveaxis(apart, -1, 0)), [2 * w - 1 for w in window])


BLOCKS = {"plain": Plain, "residual": Residual, "transposed": Transposed}
