"""CZI, ND2 and LIF through bioio, the field's reader of microscope makers' files (an extra): counts, axes, voxel size, OME-XML.

Comes in: a file. Goes out: what `tiff` gets from a TIFF, in bioio's order T C Z Y X. Which of several scenes is meant is
asked for, not guessed.
"""

from __future__ import annotations

import warnings
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from diffphys.io.voxel import Partial, positive

# suffix -> bioio's plug-in for it and our extra; the CZI plug-in is under the GPL, hence an extra of its own
PLUGINS = {".czi": ("bioio_czi", "czi"), ".nd2": ("bioio_nd2", "bio"), ".lif": ("bioio_lif", "bio")}
AXES = "TCZYX"


def is_vendor(path: Path | str) -> bool:
    """Whether the file's name is that of a maker's format."""
    return Path(path).suffix.lower() in PLUGINS


def open_image(path: Path) -> Any:
    """The file as bioio's image; ValueError with one line if an extra is absent or it cannot be read."""
    plugin, extra = PLUGINS[path.suffix.lower()]
    with path.open("rb"):
        pass  # a missing or unreadable file keeps the system's own message
    if util.find_spec("bioio") is None or util.find_spec(plugin) is None:
        command = f'pip install "diffphys[{extra}]"'
        raise ValueError(f"{path.name} needs the reader {plugin.replace('_', '-')}: {command}; or export it as OME-TIFF")
    return _guarded(path, lambda: _bioio(path, plugin))


def _bioio(path: Path, plugin: str) -> Any:
    from importlib import import_module

    return import_module("bioio").BioImage(str(path), reader=import_module(plugin).Reader)


def _scene(image: Any, path: Path, channel: int | str | None) -> tuple[int, int | str | None]:
    """Number of the scene, and the channel in it: SCENE/CHANNEL, names or numbers; names of scenes may hold slashes."""
    scenes = [str(s) for s in _guarded(path, lambda: image.scenes)]
    if len(scenes) < 2:
        return 0, channel
    asked = str(channel)
    for wanted, rest in ((asked, None), (asked.rpartition("/")[0], asked.rpartition("/")[2])):
        number = int(wanted) if wanted.isdecimal() and int(wanted) < len(scenes) else -1
        if wanted in scenes or number >= 0:
            return scenes.index(wanted) if wanted in scenes else number, rest
    names = ", ".join(ascii(s)[1:-1] for s in scenes[:8])
    raise ValueError(f"{path.name} has {len(scenes)} scenes ({names}); pick one with --channel SCENE/CHANNEL, names or numbers")


def load(
    path: Path, *, channel: int | str | None = None
) -> tuple[tuple[np.ndarray, str, Partial, tuple[str, ...], dict[str, Any]], int | str | None]:
    """Counts (T, C, Z, Y, X), axes, voxel size (z, y, x), channel names and metadata of a scene, and the channel that is asked
    for in it; ValueError with one line if unusable."""
    image = open_image(path)
    scene, channel = _scene(image, path, channel)
    _guarded(path, lambda: image.set_scene(scene))
    dims = _guarded(path, lambda: dict(zip(image.dims.order, image.dims.shape, strict=True)))
    further = [f"{axis} {size}" for axis, size in dims.items() if axis not in AXES and size > 1]
    if further:
        raise ValueError(f"{path.name} has further axes ({', '.join(further)}); expected t, c, z, y and x: export as OME-TIFF")
    raw = _guarded(path, lambda: np.asarray(image.get_image_data(AXES)))
    sizes = _guarded(path, lambda: image.physical_pixel_sizes)
    z, y, x = (None if s is None else positive(float(s)) for s in (sizes.Z, sizes.Y, sizes.X))
    header = (z if raw.shape[2] > 1 else None, y, x)
    names = tuple(str(n) for n in _guarded(path, lambda: image.channel_names) or ())
    metadata: dict[str, Any] = {"name": path.name, "kind": path.suffix[1:].upper(), "axes": AXES, "shape": list(raw.shape)}
    metadata |= {"dtype": str(raw.dtype), "header_voxel_um": list(header), "images_in_file": 1, "scene": scene}
    return (raw, AXES, header, names, metadata), channel


def ome_text(path: Path) -> str | None:
    """The OME-XML that the reader makes of the file's own metadata; None where it makes none."""
    image = open_image(path)
    if len(_guarded(path, lambda: image.scenes)) > 1:
        raise ValueError(f"{path.name} has several scenes; leave out --from and fill in the optics file by hand")
    try:
        with warnings.catch_warnings(action="ignore"):  # of the converter, about words that the standard lacks
            ome = image.ome_metadata
    except NotImplementedError:
        return None
    except Exception as error:  # makers' metadata fail in many ways inside the converters
        why = f"the reader cannot turn the metadata of {path.name} into OME-XML ({_reason(error)})"
        raise ValueError(f"{why}; leave out --from and fill in the optics file by hand") from error
    return ome if isinstance(ome, str) else str(ome.to_xml())


def _guarded(path: Path, step: Any) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return step()
    except Exception as error:  # damaged files fail in many ways inside the reader
        kind = path.suffix[1:].upper()
        raise ValueError(f"cannot read {path.name} as {kind} ({_reason(error)}); export it as OME-TIFF") from error


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
