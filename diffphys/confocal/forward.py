"""Confocal forward model C(PSF_3D) -> D: specimen -> noiseless signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.confocal.optics import psf
from diffphys.confocal.spec import Geometry, Spec
from diffphys.noise import Detector
from diffphys.primitives.convolve import filter_field, otf, padded_shape
from diffphys.primitives.graph import Graph, compose, node
from diffphys.primitives.modulate import modulate
from diffphys.types import Stack, Transfer, expect_axes


@partial(jax.jit, static_argnames=("geometry", "psf_of"))
def transfer(spec: Any, *, geometry: Geometry, psf_of: Callable[..., Stack] = psf) -> Transfer:
    """PSFs at the depth anchors, their hat weights along z, and the attenuation.

    y_j = exp(-mu z_j) sum_m h_{d_m} * (w_m x) with linear hat weights w_m. The anchors span the recorded planes; planes of a
    larger specimen take the nearest anchor. `psf_of` makes the PSFs.
    """
    nz, dz = geometry.shape[0], geometry.voxel_um[0]
    dtype = jnp.asarray(spec.z_step).dtype
    z = dz * np.arange(nz)
    decay = jnp.exp(-geometry.attenuation_per_um * jnp.asarray(z, dtype))[None, :, None, None]
    count = geometry.depth_anchors
    if count == 1:
        return Transfer(psf_of(spec, geometry=geometry)[None, None], jnp.ones((1, 1, 1, 1), dtype), decay)
    anchors = np.linspace(0.0, z[-1], count)
    depths = jnp.asarray(geometry.depth_um + anchors, dtype)
    psfs = jax.vmap(lambda d: psf_of(spec, geometry=geometry, depth_um=d))(depths)
    hats = np.maximum(0.0, 1.0 - np.abs(z[None] - anchors[:, None]) / (anchors[1] - anchors[0]))
    return Transfer(psfs[None], jnp.asarray(hats, dtype)[:, :, None, None], decay)


@partial(jax.jit, static_argnames="geometry")
def forward(spec: Spec, x: Stack, *, geometry: Geometry) -> Stack:
    """C(PSF_3D) -> D, noiseless signal of the recorded field.

    Args:
        spec: mismatch parameters.
        x: specimen (z, y, x), at least the field; light from outside the field enters when it is larger.
        geometry: nominal instrument.

    Returns:
        (z, y, x) of `geometry.shape`, in the units of `x` (unit-sum PSF).
    """
    return apply(transfer(spec, geometry=geometry), x, geometry=geometry)


def apply(parts: Transfer, x: Stack, *, geometry: Geometry) -> Stack:
    """`forward` from its parts: weight by depth, convolve, attenuate."""
    expect_axes("x", x, Stack)
    padded = padded_shape(geometry.shape, x.shape, parts.psfs.shape[-3:])
    margin = (x.shape[0] - geometry.shape[0]) // 2
    weights = _extend(parts.weights, margin, x.shape[0])
    blurred = filter_field(otf(parts.psfs[0], padded), modulate(weights, x), padded=padded, field=geometry.shape).sum(0)
    return modulate(parts.modulation[0], blurred)


def _extend(weights: jax.Array, margin: int, size: int) -> jax.Array:
    """Hat weights (anchor, z, 1, 1) continued to a larger specimen by their edge values; all-ones are left alone."""
    if weights.shape[1] == 1:
        return weights
    return jnp.pad(weights, ((0, 0), (margin, size - margin - weights.shape[1]), (0, 0), (0, 0)), mode="edge")


def pipeline(
    spec: Any, *, geometry: Geometry, specimen: Sequence[int] | None = None, transfer_of: Callable[..., Transfer] = transfer
) -> Graph:
    """`forward` as a graph of primitives, C(PSF_3D) -> D; input (z, y, x) of `specimen`, or the field.

    `transfer_of` makes the parts.

    D: gain of each plane, the attenuation. Several depth anchors are a depth-varying C: the specimen is weighted by each
    anchor's hat, blurred by its PSF, and summed, M(hats) -> C(PSF_3D) -> Σ(anchors) -> D.
    """
    psfs, weights, decay = transfer_of(spec, geometry=geometry)
    like = jax.ShapeDtypeStruct(tuple(specimen or geometry.shape), decay.dtype)
    detection = node("detect", detector=Detector(peak_photons=decay[0]))
    if geometry.depth_anchors == 1:
        blur = node("convolve", psf=psfs[0, 0], field=geometry.shape)
        return compose("C(PSF_3D) -> D", {"PSF_3D": blur, "D": detection}, like=like)
    hats = _extend(weights, (like.shape[0] - geometry.shape[0]) // 2, like.shape[0])
    blur = node("convolve", psf=psfs[0], field=geometry.shape)
    nodes = {"hats": node("modulate", mask=hats), "PSF_3D": blur, "D": detection}
    return compose("M(hats) -> C(PSF_3D) -> Σ(anchors) -> D", nodes, like=like)
