"""napari's writer: one image layer -> float32 OME-TIFF with voxel size, whole or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffphys.io.tiff import write_image
from diffphys.plugin.napari.layers import voxel_um


def writer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the layer; the written path, or one-line ValueError for what is no grey image of at most three axes.

    Args:
        path: ends in `.ome.tif`.
        data: (z, y, x), (frame, y, x) where the first axis has the unit pixel, or (y, x).
        meta: the layer's scale, units, name, as napari hands them over.
    """
    name, image = meta.get("name", "image"), np.asarray(data[0] if meta.get("multiscale") else data)
    if meta.get("rgb") or image.ndim not in (2, 3):
        raise ValueError(f"layer {name} has shape {image.shape}; expected a grey image (z, y, x), (frame, y, x) or (y, x)")
    scale, units = meta.get("scale", [1.0] * image.ndim), [str(u) for u in meta.get("units") or ["pixel"] * image.ndim]
    framed = image.ndim == 3 and units[0] == "pixel" and scale[0] == 1 and voxel_um(scale[1:], units[1:], name=name)
    first = 1 if framed else 0
    size = voxel_um(scale[first:], units[first:], name=name)
    if size is None:
        raise ValueError(f"layer {name} has no voxel size; set its scale in micrometres: layer.scale = (z, y, x), or (y, x)")
    write_image(path, image, size, description=f"diffphys: layer {name}")
    return [path]
