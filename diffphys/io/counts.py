"""What a measurement must be before anything is computed from it: finite, not empty, not flat, not negative without reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def check_counts(y: np.ndarray, *, name: str, detector: Any = None) -> None:
    """Raise a one-line ValueError unless `y` can be counts of a detector.

    Args:
        y: counts, any axes.
        name: what the message calls it, usually the file's name.
        detector: stated numbers, NaN where unknown. A stated offset allows the negative values that it and the stated read
            noise explain.
    """
    bad = int(y.size - np.count_nonzero(np.isfinite(y)))
    if bad:
        raise ValueError(f"{name} holds {bad} NaN or infinite values; expected finite counts: repair or crop the image")
    low, high = float(y.min()), float(y.max())
    if low == high == 0:
        raise ValueError(f"{name} is zero everywhere; expected an image: check the channel and the export")
    if low == high:
        raise ValueError(f"{name} has the constant value {low:g}; expected an image: check the channel and the export")
    if low < min(0.0, floor(detector)):
        raise ValueError(
            f"{name} has negative values (minimum {low:g}); expected raw counts: subtract nothing and give the detector's "
            "offset in the optics file (detector: offset)"
        )


def floor(detector: Any) -> float:
    """Lowest count that a stated offset explains: the offset less ten read noises; 0 without a stated offset."""
    offset, gain, read = (float(getattr(detector, n, math.nan)) for n in ("offset", "gain", "read_sigma"))
    if not math.isfinite(offset):
        return 0.0
    return offset - 10 * gain * read if math.isfinite(gain * read) else offset


def saturation_warnings(raw: np.ndarray) -> tuple[str, ...]:
    """A warning when voxels of an integer image stand at the top of its type."""
    if not np.issubdtype(raw.dtype, np.integer):
        return ()
    top = np.iinfo(raw.dtype).max
    count = int(np.count_nonzero(raw == top))
    if count <= 1e-4 * raw.size:
        return ()
    return (f"{count} voxels ({100 * count / raw.size:.2g} %) are saturated at {top}: their true brightness is unknown",)
