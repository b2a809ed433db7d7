"""What the benchmark fixes, as tables: tiers, ranges, scene families, instruments, light levels.

Changing a number here is a new VERSION and voids older rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from diffphys.spec import did_you_mean
from diffphys.types import resolve

VERSION = "1"
MODALITIES = ("shg", "confocal_3d")
TIERS = ("public", "dev", "hidden")
SAMPLES = 24
PEAK_PHOTONS = (100.0, 1000.0)  # expected signal of the brightest voxel, log-uniform
BACKGROUND = 0.02  # photons that do not come from the specimen, share of that peak
READ_SIGMA = 1.0  # photo-electrons rms
GAIN, OFFSET = 1.0, 100.0  # counts per photon, counts without light
HAZE = (0.05, 0.15)  # level of the dim textured background, share of the specimen's peak
GRAIN_UM, CONTRAST = {"shg": 0.15, "confocal_3d": 0.2}, 0.6  # of that texture
DENSITY = {"sparse": 3.0, "beads": 4.0, "filaments": 3.0}  # of structures, where the family's own leaves too little to see
MARGIN = 0.25  # of the field, on each side: what the specimen exceeds it by
DULLEST = 0.30  # largest image terms that zeros or the best constant may reach

_PARAMETERS = {
    "shg": ("phase_matching_error", "excitation_power_fluctuation", "collection_na_mismatch"),
    "confocal_3d": ("z_step", "spherical_aberr", "refractive_index"),
}
_BOUNDS = {
    "shg": {
        "public": ((-1.0, 2.0), (-2.0, 4.0), (-0.02, 0.04)),
        "dev": ((-1.2, 1.8), (-2.4, 3.6), (-0.024, 0.036)),
        "hidden": ((-0.7, 2.3), (-1.4, 4.6), (-0.014, 0.046)),
    },
    "confocal_3d": {
        "public": ((-50.0, 100.0), (-0.1, 0.2), (1.505, 1.535)),
        "dev": ((-60.0, 90.0), (-0.12, 0.18), (1.503, 1.533)),
        "hidden": ((-35.0, 115.0), (-0.07, 0.23), (1.508, 1.538)),
    },
}
_FAMILIES = {
    "shg": {"public": ("collagen", "wavy", "sparse"), "dev": ("basket",), "hidden": ("osteon",)},
    "confocal_3d": {"public": ("beads", "filaments", "cells"), "dev": ("membranes",), "hidden": ("tubules",)},
}


def ranges(modality: str, tier: str) -> dict[str, tuple[float, float]]:
    """Name -> (low, high) of a tier's mismatch parameters, in their units."""
    bounds = _BOUNDS[expect_modality(modality)][expect_tier(tier)]
    return dict(zip(_PARAMETERS[modality], bounds, strict=True))


def families(modality: str, tier: str) -> tuple[str, ...]:
    """Scene families of a tier, drawn in turn: dev and hidden each add one that no other tier has."""
    own = _FAMILIES[expect_modality(modality)]
    return own["public"] if expect_tier(tier) == "public" else own["public"] + own[tier]


@cache
def geometry(modality: str) -> Any:
    """The nominal instrument."""
    known = resolve(expect_modality(modality))
    if modality == "shg":
        return known.Geometry(shape=(256, 256), phase_offsets_rad=(0.0, 1.5))
    return known.Geometry(shape=(32, 64, 64))


def sample_name(index: int) -> str:
    return f"sample_{index:02d}"


def expect_tier(tier: str) -> str:
    if tier not in TIERS:
        raise ValueError(f"tier is {tier!r}; expected one of {list(TIERS)}{did_you_mean(tier, TIERS)}")
    return tier


def expect_modality(modality: str) -> str:
    if modality not in MODALITIES:
        raise ValueError(f"modality is {modality!r}; expected one of {list(MODALITIES)}{did_you_mean(modality, MODALITIES)}")
    return modality
