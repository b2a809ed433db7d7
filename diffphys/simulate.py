"""Simulate a measurement: specimen -> forward model -> detector noise."""

from __future__ import annotations

from typing import Any

from diffphys.noise import Detector, sample
from diffphys.types import Array, Modality, resolve


def simulate(key: Array, modality: Modality | str, spec: Any, x: Array, *, geometry: Any, detector: Detector) -> Array:
    """Noisy counts of the recorded field.

    Args:
        key: random key.
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        spec: the instrument's true mismatch.
        x: specimen, at least the field; what lies outside the field blurs into it.
        geometry: nominal instrument.
        detector: gain, offset, background, read noise; `peak_photons` per unit of signal.

    Returns:
        Counts, (z, y, x) or (frame, y, x).
    """
    return sample(key, detector, resolve(modality).forward(spec, x, geometry=geometry))
