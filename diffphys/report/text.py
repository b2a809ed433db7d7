"""Numbers as people read them."""

from __future__ import annotations

from math import floor, isfinite, log10


def number(value: float, sigma: float | None) -> str:
    """A value with as many decimals as its error bar deserves (two figures of sigma)."""
    if not sigma or not isfinite(sigma):
        return f"{value:.4g}"
    return f"{value:.{max(0, 1 - floor(log10(abs(sigma))))}f}"


def label(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ")
