"""Groups /geometry and /spec_ranges of the challenge file <-> the modality's Geometry and search ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import h5py
import numpy as np

from diffphys.io import h5strict
from diffphys.io.optics_file import full_ranges
from diffphys.types import Modality

TEXT_FIELDS = ("detection",)  # written only where they differ from the default, which older files mean
FLAGS = ("total_internal_reflection",)  # likewise; stored as 1


def ranges_sha256(ranges: Mapping[str, tuple[float, float]]) -> str:
    return hashlib.sha256(json.dumps({n: list(ranges[n]) for n in sorted(ranges)}).encode()).hexdigest()


def write_ranges(group: h5py.Group, modality: Modality, geometry: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    nominal = modality.nominal(geometry)
    for field in modality.FIELDS:
        entry = group.create_group(field.name)
        low, high = ranges[field.name]
        entry.attrs.update({"min": float(low), "max": float(high), "nominal": float(getattr(nominal, field.name))})
        entry.attrs["unit"] = np.bytes_(field.unit)


def read_ranges(group: h5py.Group, modality: Modality, geometry: Any) -> dict[str, tuple[float, float]]:
    names = [f.name for f in modality.FIELDS]
    h5strict.expect_members(group, needed=names)
    ranges = {}
    for field in modality.FIELDS:
        entry = h5strict.group(group, field.name)
        h5strict.expect_attributes(entry, needed=("min", "max", "nominal", "unit"))
        if h5strict.text(entry, "unit") != field.unit:
            raise ValueError(f"{h5strict.where(entry)} has unit {h5strict.text(entry, 'unit')!r}; expected {field.unit!r}")
        ranges[field.name] = (h5strict.number(entry, "min"), h5strict.number(entry, "max"))
    return full_ranges(modality, geometry, ranges)


def write_geometry(group: h5py.Group, modality: Modality, geometry: Any) -> None:
    for field in fields(modality.Geometry):
        value = getattr(geometry, field.name)
        if value is None or (field.name in (*TEXT_FIELDS, *FLAGS) and value == field.default):
            continue
        if field.name == "power_trace":
            from_file = np.asarray(modality.power_trace(geometry), np.float64)  # type: ignore[attr-defined]
            group.create_dataset("power_trace", data=from_file, fletcher32=True)
        elif field.name in TEXT_FIELDS:
            group.attrs[field.name] = np.bytes_(value)
        else:
            group.attrs[field.name] = np.asarray(value, np.float64)


def read_geometry(group: h5py.Group, modality: Modality) -> Any:
    kinds = {f.name: f for f in fields(modality.Geometry) if f.name != "power_trace"}
    nullable = [n for n, f in kinds.items() if "None" in str(f.type)]
    optional = [*nullable, *(n for n in (*TEXT_FIELDS, *FLAGS) if n in kinds)]
    there = h5strict.expect_attributes(group, needed=[n for n in kinds if n not in optional], optional=optional)
    stated: dict[str, Any] = dict.fromkeys(nullable)
    for name in sorted(there):
        if name in TEXT_FIELDS:
            stated[name] = h5strict.text(group, name)
            continue
        plural = isinstance(kinds[name].default, tuple)
        value = h5strict.numbers(group, name, length=0 if plural else None)
        stated[name] = tuple(value.tolist()) if plural else float(value)
    whole = [n for n, f in kinds.items() if str(f.type) == "int" or n == "shape"]
    for name in whole:
        stated[name] = _whole(stated[name], f"{h5strict.where(group)}: {name}")
    has_trace = any(f.name == "power_trace" for f in fields(modality.Geometry))
    members = h5strict.expect_members(group, needed=(), optional=("power_trace",) if has_trace else ())
    if has_trace:
        shape = (len(stated["phase_offsets_rad"]), stated["shape"][0])
        stated["power_trace"] = (
            h5strict.array(group, "power_trace", shape, dtype=h5strict.h5t.IEEE_F64LE) if "power_trace" in members else None
        )
    return modality.Geometry(**stated)


def _whole(value: Any, name: str) -> Any:
    each = value if isinstance(value, tuple) else (value,)
    if any(v != int(v) or not 0 < v < 2**20 for v in each):
        raise ValueError(f"{name} is {value}; expected whole numbers of 1 to {2**20 - 1}")
    return tuple(int(v) for v in each) if isinstance(value, tuple) else int(value)
