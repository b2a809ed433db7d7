"""Optics file (YAML) <-> nominal instrument, detector and search ranges.

Comes in: a YAML text of the sections modality, geometry, detector, ranges. Goes out: `Optics`, which becomes a `Geometry` once
the recorded shape and voxel size are known. Unknown keys, wrong types and impossible values are refused with one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffphys.io import optics_schema
from diffphys.io.results import plain
from diffphys.noise import Detector
from diffphys.spec import parse_ranges
from diffphys.types import Modality, resolve

# numbers without which a calibration means nothing: they have no default in the file
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "confocal_3d": ("na", "immersion_index", "excitation_nm", "emission_nm", "pinhole_au", "depth_um"),
    "shg": ("na", "index", "excitation_nm", "slab_um", "phase_offsets_rad"),
}
AUTO = "auto"  # estimate this detector number from the data; NaN in a Detector


@dataclass(frozen=True)
class Optics:
    """A validated optics file.

    Attributes:
        modality: name.
        geometry: the fields that the file states, in the modality's `Geometry` names; no shape.
        detector: NaN where the number is to be estimated from the data.
        ranges: name -> (low, high), only those the file states.
        source: the file's name.
    """

    modality: str
    geometry: Mapping[str, Any]
    detector: Detector
    ranges: Mapping[str, tuple[float, float]]
    source: str

    @property
    def voxel_um(self) -> tuple[float, ...] | None:
        """(z, y, x) or (y, x) if the file states it."""
        size = self.geometry.get(pitch_name(resolve(self.modality)))
        return None if size is None else tuple(size) if isinstance(size, (list, tuple)) else (size, size)

    def bind(self, shape: tuple[int, ...], voxel_um: tuple[float, ...]) -> Any:
        """The modality's `Geometry` for a field of `shape` voxels of `voxel_um`; checks every number and range."""
        modality = resolve(self.modality)
        stated = {**self.geometry, "shape": shape, pitch_name(modality): voxel_um}
        if "power_trace" in stated:
            stated["power_trace"] = _power_trace(stated["power_trace"], frames=len(stated["phase_offsets_rad"]), rows=shape[0])
        geometry = modality.Geometry(**stated)
        full_ranges(modality, geometry, self.ranges)
        return geometry

    def as_dict(self) -> dict[str, Any]:
        """Plain values, `auto` for what is estimated: the content of an equal optics file."""
        return {
            "modality": self.modality,
            "geometry": dict(self.geometry),
            "detector": {n: AUTO if math.isnan(v) else v for n, v in asdict(self.detector).items()},
            "ranges": {n: list(pair) for n, pair in self.ranges.items()},
        }


def dump(optics: Optics) -> str:
    """The text of an equal optics file, without comments; a power trace must be `reference`, `none` or a file."""
    return yaml.safe_dump(plain(optics.as_dict()), sort_keys=False)


def pitch_name(modality: Modality) -> str:
    """`voxel_um` or `pixel_um`, whichever the modality's geometry has."""
    return next(f.name for f in fields(modality.Geometry) if f.name in ("voxel_um", "pixel_um"))


def full_ranges(modality: Modality, geometry: Any, given: Mapping[str, Any] | None) -> dict[str, tuple[float, float]]:
    """The box to search, defaults filled in and checked."""
    ranges = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), given)
    modality.check_ranges(ranges, geometry)
    return ranges


def read(path: Path | str, *, modality: str | None = None) -> Optics:
    """Read and validate an optics file.

    Args:
        path: YAML file.
        modality: if given, the file must be for it.

    Raises:
        ValueError: one line that names the key, what came and what is allowed.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not a text file; expected YAML (`diffphys optics --init` writes one)") from None
    return parse(text, name=path.name, modality=modality, folder=path.parent)


def parse(text: str, *, name: str, modality: str | None = None, folder: Path | None = None) -> Optics:
    """Validate the text of an optics file; `name` is what messages call it, `folder` holds the power trace's file."""
    raw = optics_schema.load_yaml(text, name=name)
    said = raw.get("modality", modality)
    if said is None:
        raise ValueError(f"{name} names no modality; expected `modality:` with one of {sorted(REQUIRED)}")
    if not isinstance(said, str) or said not in REQUIRED:
        raise ValueError(f"{name}: modality is {said!r}; expected one of {sorted(REQUIRED)}")
    if modality is not None and said != modality:
        raise ValueError(f"{name} is for modality {said}, but --modality is {modality}; use one of them")
    stated = optics_schema.validate(_schema(said), {**raw, "modality": said}, name=name)
    geometry = {n: v for n, v in stated["geometry"].items() if v is not None or n == "excitation_nm"}
    trace = geometry.get("power_trace")
    if isinstance(trace, str) and trace not in ("reference", "none"):
        geometry["power_trace"] = str(((folder or Path()) / trace).resolve())  # named relative to the optics file
    detector = Detector(**{n: math.nan if v == AUTO else v for n, v in stated["detector"].items()})
    _check_detector(detector, name)
    ranges = {n: (low, high) for n, (low, high) in stated["ranges"].items()}
    try:
        parse_ranges(resolve(said).FIELDS, ranges, ranges)  # low > high is refused here
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Optics(said, geometry, detector, ranges, name)


@lru_cache
def _schema(modality: str) -> Any:
    known = resolve(modality)
    return optics_schema.build(known.Geometry, REQUIRED[modality], [f.name for f in known.FIELDS], known.NAME)


def _check_detector(detector: Detector, name: str) -> None:
    for field, value in asdict(detector).items():
        if field in ("gain", "peak_photons") and value <= 0:
            raise ValueError(f"{name}: detector.{field} is {value:g}; expected more than 0, or auto")
        if field in ("background", "read_sigma") and value < 0:
            raise ValueError(f"{name}: detector.{field} is {value:g}; expected 0 or more, or auto")


def _power_trace(stated: str, *, frames: int, rows: int) -> Any:
    """`reference`, None or the numbers (frame, row) of a .csv or .npy file with K rows or K columns."""
    if stated in ("reference", "none"):
        return None if stated == "none" else stated
    path = Path(stated)
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"power trace {path.name} is not a table of numbers (.csv with commas, or .npy): {error}") from error
    values = np.atleast_2d(np.asarray(values, np.float64))
    if values.shape == (rows, frames):
        values = values.T
    if values.shape != (frames, rows):
        raise ValueError(
            f"power trace {path.name} has shape {values.shape}; expected one column per frame and one line per image row, "
            f"{(rows, frames)}"
        )
    return values
