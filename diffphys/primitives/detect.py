"""Primitive D: the detector's deterministic response, gain and offset. Noise is drawn in `diffphys.noise`."""

from diffphys.noise import expected_counts as detect

__all__ = ["detect"]
