"""SHG forward model M -> R -> D: specimen -> noiseless signal of each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffphys.noise import Detector
from diffphys.optics import radial
from diffphys.primitives.convolve import filter_field, otf, padded_shape
from diffphys.primitives.graph import Graph, compose, node
from diffphys.primitives.modulate import modulate
from diffphys.shg.optics import gauge, tables
from diffphys.shg.spec import Geometry, Spec, power_trace
from diffphys.types import Array, Frames, Image, Transfer, expect_axes


def excitation(spec: Spec, *, geometry: Geometry) -> Array:
    """Relative harmonic power (frame, y, 1): square of the excitation power 1 + e_p t_k(row) / 100."""
    trace = jnp.asarray(power_trace(geometry), jnp.asarray(spec.phase_matching_error).dtype)
    return ((1 + spec.excitation_power_fluctuation * trace / 100) ** 2)[..., None]


@partial(jax.jit, static_argnames="geometry")
def transfer(spec: Spec, *, geometry: Geometry) -> Transfer:
    """PSF of each frame times its efficiency (unit sum for a single frame), no depth weights, power of each row."""
    h, eta = gauge(spec, geometry=geometry)
    psfs = radial.unfold((eta[:, None] * h)[:, tables(geometry).grid.quadrant], geometry.shape)
    return Transfer(psfs[:, None], jnp.ones((1, 1, 1), h.dtype), excitation(spec, geometry=geometry))


@partial(jax.jit, static_argnames="geometry")
def forward(spec: Spec, x: Image, *, geometry: Geometry) -> Frames:
    """M -> R -> D, noiseless signal of the recorded field.

    Args:
        spec: mismatch parameters.
        x: specimen <|chi2|^2> (y, x), at least the field; light from outside the field enters when it is larger.
        geometry: nominal instrument.

    Returns:
        (frame, y, x), in the units of `x` times the relative efficiency of each frame (1 for a single frame).
    """
    expect_axes("x", x, Image)
    padded = padded_shape(geometry.shape, x.shape, geometry.shape)
    psfs, _, power = transfer(spec, geometry=geometry)  # M: excitation power, squared
    frames = filter_field(otf(psfs[:, 0], padded), x, padded=padded, field=geometry.shape)  # R: one frame per rotation
    return modulate(power, frames)  # D: rows are exposed one after the other, so the power acts on recorded rows


def pipeline(
    spec: Any, *, geometry: Geometry, specimen: Sequence[int] | None = None, transfer_of: Callable[..., Transfer] = transfer
) -> Graph:
    """`forward` as a graph of primitives, M -> R -> D; input (y, x) of `specimen`, or the field.

    `transfer_of` makes the parts.

    M: the beam's profile, even over the specimen, hence ones. R: not a rotation of the image but of the phase-matching
    angle, one exposure each: a convolution with the frame's PSF times its efficiency, which holds both
    phase_matching_error and collection_na_mismatch. D: rows are exposed one after the other, so the excitation power
    squared (excitation_power_fluctuation) is each recorded row's gain; it acts after the blur.
    """
    psfs, weights, power = transfer_of(spec, geometry=geometry)
    nodes = {
        "M": node("modulate", mask=weights[0]),
        "R": node("convolve", psf=psfs[:, 0], field=geometry.shape),
        "D": node("detect", detector=Detector(peak_photons=power)),
    }
    return compose("M -> R -> D", nodes, like=jax.ShapeDtypeStruct(tuple(specimen or geometry.shape), power.dtype))
