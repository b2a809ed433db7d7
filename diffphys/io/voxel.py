"""Voxel size of a TIFF header, in micrometres: OME-XML, ImageJ, bounding box, resolution tags.

Comes in: an open `tifffile.TiffFile`. Goes out: (z, y, x), None where the header does not say.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any
from xml.etree import ElementTree

Partial = tuple[float | None, float | None, float | None]  # (z, y, x)
UNKNOWN: Partial = (None, None, None)

UM = {
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25400.0),
    **dict.fromkeys(("å", "angstrom", "Å"), 1e-4),
    "pm": 1e-6,
}
WIDEST_UM = 20.0  # a coarser "pixel" is a printing resolution (72 dpi is 353 um), not a microscope's


def header_voxel_um(tif: Any) -> Partial:
    """(z, y, x) in micrometres from whichever header the file has; None for each unknown axis."""
    if tif.is_ome:
        return _from_ome(tif.ome_metadata)
    if tif.is_imagej:
        return _from_imagej(tif)
    description = tif.pages.first.description or ""
    if description.startswith("BoundingBox"):
        return _from_bounding_box(tif, description)
    return (_shaped_spacing(description), *_lateral(tif, _resolution_unit(tif)))


def _from_ome(xml: str) -> Partial:
    pixels = _ome_pixels(xml)
    if pixels is None:
        return UNKNOWN
    sizes = []
    for axis in "ZYX":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        sizes.append(positive(float(size) * UM[unit.lower()]) if size and unit.lower() in UM else None)
    return (sizes[0], sizes[1], sizes[2])


def ome_channel_names(xml: str) -> tuple[str, ...]:
    """Names of the channels of the first image; an empty string for a nameless one."""
    pixels = _ome_pixels(xml)
    return () if pixels is None else tuple(e.get("Name", "") for e in pixels if e.tag.endswith("}Channel"))


def _ome_pixels(xml: str) -> Any:
    root = ElementTree.fromstring(xml)
    return next((e for e in root.iter() if e.tag.endswith("}Pixels") or e.tag == "Pixels"), None)


def _from_imagej(tif: Any) -> Partial:
    meta = tif.imagej_metadata or {}
    scale = UM.get(str(meta.get("unit", "")).strip().lower())
    if scale is None:
        return UNKNOWN
    spacing = meta.get("spacing")
    # ImageJ writes no `spacing` when it is 1, whether that was set or never touched: then z is unknown
    z = positive(abs(float(spacing)) * scale) if spacing is not None else None
    own_y = UM.get(str(meta.get("yunit", "")).strip().lower(), scale)
    y, x = _lateral(tif, scale)
    return (z, y * own_y / scale if y else None, x)


def _from_bounding_box(tif: Any, description: str) -> Partial:
    """Amira's `BoundingBox xmin xmax ymin ymax zmin zmax`: it runs between the centres of the outer voxels, in um."""
    numbers = [float(n) for n in re.findall(r"[-+0-9.eE]+", description.removeprefix("BoundingBox"))[:6]]
    if len(numbers) != 6:
        return UNKNOWN
    series = tif.series[0]
    sizes = []
    for (low, high), count in zip(
        zip(numbers[::2], numbers[1::2], strict=True), (series.shape[-1], series.shape[-2], series.shape[0]), strict=True
    ):
        sizes.append(positive((high - low) / (count - 1)) if count > 1 else None)
    return (sizes[2], sizes[1], sizes[0])


def _shaped_spacing(description: str) -> float | None:
    """`spacing` (um) of the JSON description that tifffile writes."""
    if not description.startswith("{"):
        return None
    try:
        meta = json.loads(description)
    except ValueError:
        return None
    scale = UM.get(str(meta.get("unit", "")).lower())
    spacing = meta.get("spacing")
    return positive(spacing * scale) if scale and isinstance(spacing, (int, float)) else None


def _resolution_unit(tif: Any) -> float | None:
    unit = tif.pages.first.tags.get("ResolutionUnit")
    return {2: UM["inch"], 3: UM["cm"]}.get(int(unit.value)) if unit is not None else None


def _lateral(tif: Any, scale: float | None) -> tuple[float | None, float | None]:
    """(y, x) from the resolution tags, in pixels per unit of `scale` micrometres."""
    sizes: list[float | None] = []
    for name in ("YResolution", "XResolution"):
        tag = tif.pages.first.tags.get(name)
        if tag is None or scale is None or not tag.value[0]:
            sizes.append(None)
            continue
        sizes.append(positive(scale * tag.value[1] / tag.value[0]))
    return (sizes[0], sizes[1])


def positive(size: float) -> float | None:
    return size if math.isfinite(size) and 0 < size <= WIDEST_UM else None
