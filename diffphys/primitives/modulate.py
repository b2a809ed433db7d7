"""Primitive M: element-wise modulation, self-adjoint for a real mask."""

from __future__ import annotations

from diffphys.types import Array


def modulate(mask: Array, x: Array) -> Array:
    """mask * x; `mask` broadcasts against the axes of `x`."""
    return mask * x
