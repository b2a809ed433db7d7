"""TIFF, OME-TIFF and ImageJ TIFF <-> arrays in canonical axes with voxel size.

Comes in: a file. Goes out: a `Measurement`, (z, y, x) for a stack modality, (frame, y, x) for a frame modality, float32. What a
file leaves open (channel, axes, voxel size) is asked for, never guessed; what it says wrongly is refused with a remedy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from diffphys.io import ome_xml, vendor
from diffphys.io.atomic import replacing
from diffphys.io.axes import arrange
from diffphys.io.counts import check_counts, saturation_warnings
from diffphys.io.tiff_chain import check_chain
from diffphys.io.voxel import Partial, header_voxel_um, ome_channel_names
from diffphys.types import Modality, resolve


class Measurement(NamedTuple):
    """One recorded stack or set of frames.

    Attributes:
        data: float32 counts, (z, y, x) or (frame, y, x).
        voxel_um: micrometres, (z, y, x) or (y, x).
        channels: names of the file's channels (their numbers where it has no names).
        metadata: what the file says: name, kind, axes, shape, dtype, channel, header's voxel size, description.
        warnings: one line each.
    """

    data: np.ndarray
    voxel_um: tuple[float, ...]
    channels: tuple[str, ...]
    metadata: dict[str, Any]
    warnings: tuple[str, ...]


def is_volume(modality: Modality | str) -> bool:
    """Whether the modality records one volume (z, y, x) rather than frames (frame, y, x)."""
    return "voxel_um" in resolve(modality).Geometry.__dataclass_fields__


def read_stack(
    path: Path | str,
    *,
    modality: Modality | str,
    channel: int | str | None = None,
    voxel_um: Sequence[float] | None = None,
    axes: str | None = None,
    detector: Any = None,
) -> Measurement:
    """Read a file as the measurement of a modality.

    Args:
        path: plain, OME- or ImageJ TIFF; with the extras, CZI, ND2 or LIF.
        modality: decides the axes.
        channel: number or name; needed when the file has more than one. SCENE/CHANNEL in a CZI, ND2 or LIF of several scenes.
        voxel_um: (z, y, x) or (y, x); overrides the header.
        axes: the meaning of the file's axes, one letter each of z y x c t f (frame), for a header that is silent or wrong.
        detector: stated detector numbers; an offset allows negative values above it.

    Raises:
        ValueError: anything that is not such a measurement; one line with the remedy.
        OSError: the file cannot be opened.
    """
    path, volume = Path(path), is_volume(modality)
    loaded, channel = vendor.load(path, channel=channel) if vendor.is_vendor(path) else (load(path), channel)
    raw, said, header, names, metadata = loaded
    if raw.dtype.kind not in "uif":
        raise ValueError(f"{path.name} holds {raw.dtype} values; expected integer or floating-point counts")
    view = arrange(raw, said, volume=volume, name=path.name, channel=channel, names=names, override=axes)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused below
        data = np.ascontiguousarray(view.data, np.float32)
    check_counts(data, name=path.name, detector=detector)
    size, warned = voxel_size(path.name, header if volume else header[1:], voxel_um)
    metadata |= {"axes_read_as": view.axes, "channel": view.channel}
    return Measurement(data, size, view.channels, metadata, (*view.warnings, *warned, *saturation_warnings(view.data)))


def load(path: Path) -> tuple[np.ndarray, str, Partial, tuple[str, ...], dict[str, Any]]:
    """Array as stored, its axes, voxel size (z, y, x) in micrometres, channel names, metadata; ValueError if damaged."""
    check_chain(path)  # also: a missing or unreadable file keeps the system's own message
    try:
        with tifffile.TiffFile(path) as tif:
            ome_xml.check(tif.ome_metadata or "", name=path.name)  # before the library parses it
            series = tif.series[0]
            raw = series.asarray()
            header = header_voxel_um(tif)
            names = ome_channel_names(tif.ome_metadata or "") if tif.is_ome else ()
            kind = "OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF"
            metadata: dict[str, Any] = {"name": path.name, "kind": kind, "axes": series.axes, "shape": list(series.shape)}
            metadata |= {"dtype": str(series.dtype), "header_voxel_um": list(header), "images_in_file": len(tif.series)}
            metadata["description"] = (tif.pages.first.description or "")[:4000]
            if tif.is_imagej:
                metadata["info"] = str((tif.imagej_metadata or {}).get("Info", ""))
    except ome_xml.ForeignXml:
        raise
    except Exception as error:  # damaged files fail in many ways inside the reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read {path.name} as TIFF ({reason}); expected a complete TIFF file") from error
    return raw, series.axes, header, names, metadata


def axes_of(path: Path) -> str | None:
    """Axes of a grey TIFF with planes of numbers, from its header alone; None for anything else and for damaged files."""
    try:
        with tifffile.TiffFile(path) as tif:
            axes, kind = tif.series[0].axes.lower(), tif.series[0].dtype.kind
    except Exception:  # damaged files fail in many ways inside the reader
        return None
    return axes if axes.endswith("yx") and "s" not in axes and kind in "uif" else None


def ome_text(path: Path | str) -> str | None:
    """The file's OME-XML; None where it has none.

    Raises:
        ValueError: not a readable file of a known kind, or a header that is refused; one line.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    if vendor.is_vendor(path):
        return vendor.ome_text(path)
    with path.open("rb"):
        pass
    try:
        with tifffile.TiffFile(path) as tif:
            text = tif.ome_metadata
    except Exception as error:  # damaged files fail in many ways inside the reader
        raise ValueError(f"cannot read {path.name} as TIFF ({type(error).__name__}); expected a complete TIFF file") from error
    if text:
        ome_xml.check(text, name=path.name)
    return text or None


def voxel_size(
    name: str, header: tuple[float | None, ...], given: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The given voxel size, or else the header's, in micrometres, and a warning where they differ; ValueError without any."""
    letters = "zyx"[-len(header) :]
    option = " ".join(letters.upper())
    if given is None:
        missing = [a for a, size in zip(letters, header, strict=True) if size is None]
        if missing:
            raise ValueError(
                f"{name} does not state the voxel size along {', '.join(missing)}; give it in micrometres with "
                f"--voxel-um {option} or in the optics file"
            )
        return tuple(float(s) for s in header if s is not None), ()
    size = tuple(float(s) for s in given)
    if len(size) != len(header) or not all(math.isfinite(s) and s > 0 for s in size):
        raise ValueError(f"voxel size is {list(given)}; expected {len(header)} positive micrometres ({', '.join(letters)})")
    known = [(a, g, h) for a, g, h in zip(letters, size, header, strict=True) if h is not None]
    differ = [f"{a} {g:g} against {h:.5g}" for a, g, h in known if abs(g / h - 1) > 0.01]
    if not differ:
        return size, ()
    return size, (f"the voxel size given contradicts the header of {name} ({', '.join(differ)} um): the given one is used",)


def write_image(path: Path | str, image: np.ndarray, voxel_um: Sequence[float], *, description: str = "") -> None:
    """Write a float32 OME-TIFF with voxel sizes, whole or not at all.

    Args:
        path: ends in `.ome.tif`.
        image: (z, y, x), (frame, y, x) when `voxel_um` has two entries, or (y, x); values are stored as they are.
        voxel_um: micrometres, (z, y, x) or (y, x).
        description: free text for the image's header.
    """
    axes = "YX" if image.ndim == 2 else "ZYX" if len(voxel_um) == 3 else "TYX"
    metadata: dict[str, Any] = {"axes": axes, "Description": description}
    for letter, size in zip("ZYX"[-len(voxel_um) :], voxel_um, strict=True):
        metadata |= {f"PhysicalSize{letter}": float(size), f"PhysicalSize{letter}Unit": "µm"}
    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary, np.asarray(image, np.float32), ome=True, photometric="minisblack", metadata=metadata, software="diffphys"
        )


def mapped_image(path: Path) -> np.ndarray:
    """An image that `write_image` wrote, mapped into memory rather than read where the file allows; ValueError if damaged."""
    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            return tifffile.memmap(path, mode="r") if series.dataoffset is not None else series.asarray()
    except Exception as error:  # damaged files fail in many ways inside the reader
        raise ValueError(f"cannot read {path} ({type(error).__name__}); repeat the run") from error
