"""OME-Zarr volumes: read NGFF 0.4 (zarr v2) and 0.5 (zarr v3), write 0.5 with a pyramid; always chunk by chunk.

Axes are a subset of t, c, z, y, x in this order. Every chunk carries a crc32c, so that a damaged one is an error instead of a
wrong number; what was never written reads as NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MICROMETRES = {
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
CHUNK = (32, 128, 128)
SMALLEST = 64  # the pyramid ends when no axis of a plane is longer
KIND = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


class Volume(NamedTuple):
    """An opened image: a stack (z, y, x) for every index of the leading axes.

    Attributes:
        array: the zarr array at full resolution.
        axes: names of its axes, `zyx` last.
        voxel_um: (z, y, x), None where the file does not state it.
        scale: scale of the leading axes, as stated.
        version: of NGFF.
        channels: labels of the channels, () where there are none.
        channel: the only one that is looked at; None: all.
    """

    array: Any
    axes: str
    voxel_um: tuple[float, ...] | None
    scale: tuple[float, ...]
    version: str
    channels: tuple[str, ...]
    channel: int | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """Lengths of the axes before z, y, x."""
        lengths = tuple(int(n) for n in self.array.shape[:-3])
        return lengths if self.channel is None else (*lengths[:-1], 1)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array.shape[-3:])

    @property
    def batch(self) -> list[tuple[int, ...]]:
        """Index of every stack."""
        return list(product(*(range(n) for n in self.lead)))

    def only_channel(self, channel: int) -> Volume:
        """The same image as if it had this channel alone."""
        return self._replace(channel=channel)

    def read(self, stack: Sequence[int], window: Sequence[slice]) -> np.ndarray:
        """float32 counts of a window of one stack; only its chunks are read."""
        if self.channel is not None:
            stack = (*stack[:-1], self.channel)
        return np.asarray(self.array[(*stack, *window)], np.float32)


def library() -> Any:
    """The module zarr; ValueError with the remedy without it."""
    try:
        import zarr
    except ImportError:
        raise ValueError("OME-Zarr needs the package zarr: pip install 'diffphys[zarr]'") from None
    return zarr


def open_volume(path: Path | str) -> Volume:
    """Open an OME-Zarr image; nothing but metadata is read.

    Raises:
        ValueError: no such image, axes other than t, c, z, y, x, or unknown units.
    """
    zarr, name = library(), Path(path).name
    if not Path(path).is_dir():
        raise ValueError(f"{path} does not exist or is no folder; expected an OME-Zarr image")
    try:
        group = zarr.open_group(str(path), mode="r")
    except Exception:  # zarr raises its own kinds for damaged or foreign metadata
        raise ValueError(f"{name} is not a zarr group; expected an OME-Zarr image of NGFF 0.4 or 0.5") from None
    told = group.attrs.asdict()
    ome = told.get("ome", told)
    try:
        image = ome["multiscales"][0]
        axes = [(str(a["name"]), a.get("unit")) for a in image["axes"]]
        array = group[image["datasets"][0]["path"]]
        scale = _scale(image["datasets"][0], len(axes))
        labels = tuple(str(c.get("label", i)) for i, c in enumerate(ome.get("omero", {}).get("channels", ())))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"{name} has no multiscales metadata of NGFF 0.4 or 0.5; expected an OME-Zarr image") from None
    names = "".join(n for n, _ in axes)
    if not names.endswith("zyx") or names[:-3] not in ("", "t", "c", "tc") or array.ndim != len(axes):
        raise ValueError(f"{name} has the axes {names} and {array.ndim} dimensions; expected tczyx, tzyx, czyx or zyx")
    version = str(ome.get("version") or image.get("version", "0.4"))
    return Volume(array, names, _micrometres(name, axes[-3:], scale), scale[:-3] if scale else (), version, labels)


def _scale(dataset: Mapping[str, Any], count: int) -> tuple[float, ...]:
    """() where none is stated."""
    for step in dataset.get("coordinateTransformations", ()):
        if step.get("type") == "scale" and len(step["scale"]) == count:
            return tuple(float(s) for s in step["scale"])
    return ()


def _micrometres(name: str, axes: Sequence[tuple[str, Any]], scale: Sequence[float]) -> tuple[float, ...] | None:
    units = [unit for _, unit in axes]
    if not scale or None in units:
        return None  # a scale without a unit is no length
    unknown = [u for u in units if u not in MICROMETRES]
    if unknown:
        raise ValueError(f"{name} has the unit {unknown[0]!r}; expected one of {sorted(MICROMETRES)}, or state --voxel-um")
    return tuple(MICROMETRES[u] * s for u, s in zip(units, scale[-3:], strict=True))


def create(path: Path | str, like: Volume, *, voxel_um: Sequence[float], name: str, chunk: Sequence[int] = CHUNK) -> list[Any]:
    """An empty float32 image with the axes and shape of `like`: NGFF 0.5; its arrays, full resolution first."""
    zarr = library()
    sizes = pyramid(like.shape)
    lead = like.lead
    group = zarr.open_group(str(path), mode="a", zarr_format=3, attributes={"ome": metadata(like, voxel_um, sizes, name=name)})
    return [
        group.create_array(
            str(level),
            shape=(*lead, *size),
            chunks=(*(1 for _ in lead), *(min(c, n) for c, n in zip(chunk, size, strict=True))),
            dtype="float32",
            fill_value=float("nan"),
            compressors=[zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()],
            dimension_names=list(like.axes),
            overwrite=True,
        )
        for level, size in enumerate(sizes)
    ]


def pyramid(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the levels: each axis longer than SMALLEST is halved (rounded up) until the plane is small."""
    sizes = [tuple(int(n) for n in shape)]
    while max(sizes[-1][1:]) > SMALLEST:
        sizes.append(tuple(-(-n // 2) if n > SMALLEST else n for n in sizes[-1]))
    return sizes


def metadata(like: Volume, voxel_um: Sequence[float], sizes: Sequence[Sequence[int]], *, name: str) -> dict[str, Any]:
    """The attribute `ome` of an image; coordinates of a level are those of its voxels' centres."""
    lead = like.scale or (1.0,) * (len(like.axes) - 3)
    units = {"space": {"unit": "micrometer"}, "time": {}, "channel": {}}
    datasets = []
    factor = np.ones(3)
    for level, size in enumerate(sizes):
        if level:
            factor = factor * np.where(np.asarray(size) < np.asarray(sizes[level - 1]), 2, 1)
        scale = [*lead, *(float(v) for v in np.asarray(voxel_um) * factor)]
        shift = [*(0.0 for _ in lead), *(float(v) for v in np.asarray(voxel_um) * (factor - 1) / 2)]
        steps = [{"type": "scale", "scale": scale}] + ([{"type": "translation", "translation": shift}] if level else [])
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    axes = [{"name": a, "type": KIND[a], **units[KIND[a]]} for a in like.axes]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mean"}]}


def downsample(fine: Any, coarse: Any) -> None:
    """Fill a level with the means over 2 voxels per halved axis of the level below it, chunk by chunk of the coarse one."""
    ratio = [2 if c < f else 1 for f, c in zip(fine.shape, coarse.shape, strict=True)]
    for window in windows(coarse.shape, coarse.chunks):
        wide = tuple(slice(w.start * r, min(w.stop * r, n)) for w, r, n in zip(window, ratio, fine.shape, strict=True))
        coarse[window] = _mean(np.asarray(fine[wide]), ratio)


def _mean(block: np.ndarray, ratio: Sequence[int]) -> np.ndarray:
    """Means over `ratio` voxels; a last odd one stands alone."""
    for axis, r in enumerate(ratio):
        if r == 2:
            odd = block.shape[axis] % 2
            block = np.pad(block, [(0, odd if a == axis else 0) for a in range(block.ndim)], mode="edge")
            split = (*block.shape[:axis], block.shape[axis] // 2, 2, *block.shape[axis + 1 :])
            block = block.reshape(split).mean(axis + 1, dtype=np.float32)
    return block


def windows(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Slices that partition an array into blocks, the last ones cut off."""
    return product(*[[slice(a, min(a + c, n)) for a in range(0, n, c)] for n, c in zip(shape, chunks, strict=True)])
