"""Building blocks on arrays (N, *axes, channel), two or three axes: convolutions, resampling by shuffles, normalisation.

XLA's 3-D convolution is slow on a CPU: there depth is folded into the batch and its taps are stacked on the channels, one 2-D
convolution then does the work, or, where there is much to multiply, `winograd`. Other devices run the 3-D convolution itself;
all give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from diffphys.networks import winograd
from diffphys.types import Array

PLANE = ("NHWC", "HWIO", "NHWC")
VOLUME = ("NDHWC", "DHWIO", "NDHWC")
MANY = 7e8  # products from which Winograd's saving is worth its compilation: 0.3 s for each layer


def convolve(x: Array, weight: Array, *, dilation: int = 1) -> Array:
    """Same-size convolution with zeros outside; x (N, *axes, in), weight (*taps, in, out), odd taps."""
    weight = weight.astype(x.dtype)
    if x.ndim == 4:
        return _plane(x, weight, dilation)
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, weight, (1, 1, 1), "SAME", rhs_dilation=(dilation,) * 3, dimension_numbers=VOLUME)
    three = weight.shape[:3] == (3, 3, 3) and dilation == 1 and x.dtype.itemsize >= 4
    if three and x.size // x.shape[-1] * weight.size > MANY:
        return _three_taps(x, weight)
    return _stacked(x, weight, dilation)


@jax.custom_jvp
def _three_taps(x: Array, weight: Array) -> Array:
    return winograd.convolve(x, weight)


@_three_taps.defjvp
def _three_taps_tangent(at: tuple[Array, Array], along: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, weight), (dx, dweight) = at, along  # derivatives of the plain form: those of the other keep eight times the voxels
    return _three_taps(x, weight), _stacked(dx, weight, 1) + _stacked(x, dweight, 1)


def _stacked(x: Array, weight: Array, dilation: int) -> Array:
    n, depth, *plane, _ = x.shape
    taps = weight.shape[0]
    reach = dilation * (taps // 2)
    padded = jnp.pad(x, ((0, 0), (reach, reach), *[(0, 0)] * 3))
    stacked = jnp.concatenate([padded[:, k * dilation : k * dilation + depth] for k in range(taps)], axis=-1)
    folded = stacked.reshape(n * depth, *plane, -1)
    return _plane(folded, jnp.concatenate(list(weight), axis=-2), dilation).reshape(n, depth, *plane, -1)


def _plane(x: Array, weight: Array, dilation: int) -> Array:
    return lax.conv_general_dilated(x, weight, (1, 1), "SAME", rhs_dilation=(dilation,) * 2, dimension_numbers=PLANE)


class Conv(nnx.Module):
    """Convolution with bias.

    `gain` scales the He initialisation, 0 starts the layer at zero; `carry` adds the identity to it, without which a deep
    plain network loses the voxel it looks at.
    """

    def __init__(
        self, inputs: int, outputs: int, *, ndim: int, taps: int = 3, dilation: int = 1, gain: float = 1.0,
        carry: bool = False, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        shape = (*(taps,) * ndim, inputs, outputs)
        spread = gain * np.sqrt(2.0 / (taps**ndim * inputs))
        start = spread * jax.random.normal(rngs.params(), shape)
        self.weight = nnx.Param(start.at[(taps // 2,) * ndim].add(jnp.eye(inputs, outputs)) if carry else start)
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.dilation = dilation

    @property
    def dtype(self) -> Any:
        """Of the weights: what a network computes in; its inputs and outputs keep their own."""
        return self.weight[...].dtype

    def __call__(self, x: Array) -> Array:
        weight, bias = self.weight[...], self.bias[...].astype(x.dtype)
        if weight.shape[0] == 1:  # on rows: the gradient of a matmul over several axes is slow on a CPU
            rows = x.reshape(-1, x.shape[-1]) @ weight.reshape(weight.shape[-2:]).astype(x.dtype)
            return rows.reshape(*x.shape[:-1], -1) + bias
        return convolve(x, weight, dilation=self.dilation) + bias


class Depthwise(nnx.Module):
    """Each channel with its own three taps per axis: in the plane together, along depth apart."""

    def __init__(self, channels: int, *, ndim: int, rngs: nnx.Rngs) -> None:
        start = jnp.zeros((3, 3, channels)).at[1, 1].set(1.0)
        self.plane = nnx.Param(start + 0.1 * jax.random.normal(rngs.params(), start.shape))
        self.depth = nnx.Param(jnp.zeros((3, 1, channels)).at[1].set(1.0)) if ndim == 3 else None

    def __call__(self, x: Array) -> Array:
        n, *axes, c = x.shape
        y = _each(x.reshape(-1, *axes[-2:], c), self.plane[...].astype(x.dtype))
        if self.depth is not None:
            y = _each(y.reshape(n, axes[0], -1, c), self.depth[...].astype(x.dtype))
        return y.reshape(x.shape)


@jax.custom_vjp
def _each(x: Array, weight: Array) -> Array:
    """Sum of shifted images (N, H, W, C) times taps (h, w, C); the rule below is ten times faster on a CPU than XLA's own."""
    height, width = weight.shape[:2]
    padded = jnp.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    parts = (padded[:, i : i + x.shape[1], j : j + x.shape[2]] * weight[i, j] for i in range(height) for j in range(width))
    return sum(parts, jnp.zeros((), x.dtype))


def _each_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _each(x, weight), (x, weight)


def _each_backward(kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = kept
    height, width, channels = weight.shape
    padded = jnp.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))

    def tap(at: Array) -> Array:
        part = jax.lax.dynamic_slice(padded, (0, at[0], at[1], 0), x.shape)
        return jnp.einsum("nhwc,nhwc->c", part, cotangent)

    taps = jnp.asarray([(i, j) for i in range(height) for j in range(width)])
    return _each(cotangent, jnp.flip(weight, (0, 1))), jax.lax.map(tap, taps).reshape(height, width, channels)


_each.defvjp(_each_forward, _each_backward)


class LayerNorm(nnx.Module):
    """Normalisation over the channels of each voxel, with a gain and a shift."""

    def __init__(self, channels: int) -> None:
        self.gain, self.shift = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        wide = x.astype(jnp.float32)
        mean = wide.mean(-1, keepdims=True)
        spread = jnp.sqrt(jnp.mean((wide - mean) ** 2, axis=-1, keepdims=True) + 1e-6)
        return ((wide - mean) / spread * self.gain[...] + self.shift[...]).astype(x.dtype)


def unshuffle(x: Array, steps: Sequence[int]) -> Array:
    """Space to channels: (N, *axes, C) -> (N, *(axes / steps), C * prod(steps))."""
    n, *axes, c = x.shape
    split: list[int] = [v for a, s in zip(axes, steps, strict=True) for v in (a // s, s)]
    even, odd = range(1, 2 * len(axes), 2), range(2, 2 * len(axes) + 1, 2)
    parts = x.reshape(n, *split, c).transpose(0, *even, *odd, 2 * len(axes) + 1)
    return parts.reshape(n, *(a // s for a, s in zip(axes, steps, strict=True)), c * int(np.prod(steps)))


def shuffle(x: Array, steps: Sequence[int]) -> Array:
    """Channels to space, the inverse of `unshuffle`."""
    n, *axes, c = x.shape
    ndim, small = len(axes), c // int(np.prod(steps))
    order = [v for a in range(ndim) for v in (1 + a, 1 + ndim + a)]
    parts = x.reshape(n, *axes, *steps, small).transpose(0, *order, 2 * ndim + 1)
    return parts.reshape(n, *(a * s for a, s in zip(axes, steps, strict=True)), small)


def padded_to(x: Array, multiple: Sequence[int]) -> Array:
    """Edge values appended until every axis is a multiple; crop the result back with the old shape."""
    extra = [(-n) % m for n, m in zip(x.shape[1:-1], multiple, strict=True)]
    return jnp.pad(x, [(0, 0), *((0, e) for e in extra), (0, 0)], mode="edge") if any(extra) else x


def cropped(x: Array, axes: Sequence[int]) -> Array:
    """The inverse of `padded_to`: the first `axes` voxels."""
    return x[(slice(None), *(slice(0, n) for n in axes))]


def modules(items: Any) -> nnx.List:
    """A list of modules that NNX sees."""
    return nnx.List(list(items))
