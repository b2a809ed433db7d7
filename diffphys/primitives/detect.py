"""Primitive D(g, eta): the detector's deterministic part, gain and response. Noise is drawn in `diffphys.noise`.

counts = offset + gain * response(peak_photons * signal + background)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from diffphys.noise import Detector, expected_counts, expected_photons
from diffphys.primitives.adjoint import Map, linearise
from diffphys.types import Array


def saturating(full_well: Any, photons: Array) -> Array:
    """Response that bends to `full_well`: w (1 - exp(-n / w)), the mean of an array of w binary cells (SiPM)."""
    return -full_well * jnp.expm1(-photons / full_well)


def detect(detector: Detector, x: Array, *, response: Callable[[Array], Array] | None = None) -> Array:
    """Noiseless counts of the signal `x`; axes as `x`.

    Args:
        detector: its numbers may be arrays that broadcast against `x` (flat field, exposure of each row).
        x: signal, blurred specimen.
        response: eta, photo-electrons as a function of photons, pointwise; None: linear.
    """
    if response is None:
        return expected_counts(detector, x)
    return detector.offset + detector.gain * response(expected_photons(detector, x))


def detect_linearised(
    detector: Detector, x: Array, *, response: Callable[[Array], Array] | None = None
) -> tuple[Array, Map, Map]:
    """Counts at `x`, derivative (tangent -> tangent) and its adjoint: D is affine, or bent by its response."""
    return linearise(lambda v: detect(detector, v, response=response), x)
