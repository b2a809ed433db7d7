"""napari's layers <-> arrays with voxel size. A layer is told as (data, what to create it with, "image")."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffphys.io.omezarr import MICROMETRES
from diffphys.io.voxel import UM

LayerData = tuple[Any, dict[str, Any], str]
KEY = "diffphys"  # what we know of a layer stands under it in the layer's metadata


def layer(
    data: Any,
    name: str,
    voxel_um: Sequence[float | None],
    *,
    known: Mapping[str, Any] | None = None,
    translate: Sequence[float] | None = None,
    **look: Any,
) -> LayerData:
    """An image layer.

    Args:
        data: any axes, the spatial ones last.
        name: of the layer.
        voxel_um: micrometres of the last axes, None where unknown; the axes before them count 1.
        known: for the layer's metadata.
        translate: micrometres, axes as `voxel_um`.
        look: further arguments of napari's `add_image`.
    """
    lead = data.ndim - len(voxel_um)
    sizes = [1.0] * lead + [1.0 if v is None else float(v) for v in voxel_um]
    units = ["pixel"] * lead + ["pixel" if v is None else "um" for v in voxel_um]
    shift = [0.0] * lead + [float(t) for t in translate or [0.0] * len(voxel_um)]
    place = {"scale": sizes, "units": units, "translate": shift}
    return data, {"name": name, **place, "metadata": {KEY: dict(known or {})}, **look}, "image"


def voxel_um(scale: Sequence[float], units: Sequence[Any] | None, *, name: str) -> tuple[float, ...] | None:
    """Micrometres of each axis; None where the layer does not say.

    A scale without units (napari's `pixel`) counts as micrometres, as before layers had units, unless it is 1 everywhere.

    Raises:
        ValueError: a size that is not positive, or a unit that is no length; one line.
    """
    said = ["pixel"] * len(scale) if units is None else [str(u).lower() for u in units]
    if not all(math.isfinite(s) and s > 0 for s in scale):
        raise ValueError(f"layer {name} has scale {[float(s) for s in scale]}; expected positive numbers")
    if "pixel" in said and all(s == 1 for s, unit in zip(scale, said, strict=True) if unit == "pixel"):
        return None
    lengths = {"pixel": 1.0, **UM, **MICROMETRES}
    unknown = [u for u in said if u not in lengths]
    if unknown:
        raise ValueError(f"layer {name} has the unit {unknown[0]!r}; expected a length, e.g. um")
    return tuple(float(s) * lengths[u] for s, u in zip(scale, said, strict=True))
