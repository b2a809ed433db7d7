"""napari's reader: results of a run, challenge files, TIFF and OME-Zarr, with the voxel size as the layers' scale.

Only headers are looked at to decide; whatever is not known for sure is left to other readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffphys.plugin.napari.layers import LayerData, layer

Read = Callable[[Any], list[LayerData]]
_MAX_HEADER_BYTES = 16 * 2**20


def reader(path: str | Sequence[str]) -> Read | None:
    """A function that reads `path`, None for what diffphys does not know."""
    if not isinstance(path, str):
        if len(path) != 1:
            return None  # several files as one stack
        path = path[0]
    place = Path(path)
    known = next((read for knows, read in _KINDS if knows(place)), None)
    return None if known is None else lambda _: known(place)


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() and (path / "reconstruction.ome.tif").is_file()


def _run(path: Path) -> list[LayerData]:
    """Reconstruction, prediction and uncertainty of an output folder, with spec, error bars and status."""
    from diffphys.io import run_record
    from diffphys.io.output_folder import IMAGES
    from diffphys.io.results import CALIBRATION_FORMAT

    known: dict[str, Any] = {"run": run_record.read(path / "run.json", run_record.RunRecord, like="diffphys-run").model_dump()}
    if (path / "calibration.json").is_file():
        calibration = run_record.read(path / "calibration.json", run_record.CalibrationRecord, like=CALIBRATION_FORMAT)
        known["calibration"] = calibration.model_dump()
    there = [path / name for name in IMAGES if (path / name).is_file()]
    return [
        made
        for image in there
        for made in _tiff(image, name=f"{path.name} {image.name.split('.')[0]}", known=known, visible=image == there[0])
    ]


def _is_zarr(path: Path) -> bool:
    """Whether the folder's own metadata speak of an image; plates and bare arrays are not ours."""
    headers = [path / name for name in ("zarr.json", ".zattrs") if (path / name).is_file()]
    return any(h.stat().st_size < _MAX_HEADER_BYTES and b'"multiscales"' in h.read_bytes() for h in headers)


def _zarr(path: Path) -> list[LayerData]:
    """An OME-Zarr image, one layer per channel; planes are read when they are shown."""
    from diffphys.io.omezarr import open_volume

    volume = open_volume(path)
    from dask.array import from_array  # napari's own requirement

    data = from_array(volume.array, chunks=volume.array.chunks)
    return _by_channel(data, volume.axes, volume.channels, volume.voxel_um or (None,) * 3, name=path.name.split(".")[0])


def _is_challenge(path: Path) -> bool:
    from diffphys.io import h5strict, hdf5

    if path.suffix.lower() not in (".h5", ".hdf5"):
        return False
    try:
        with h5strict.opened(path) as file:
            return h5strict.text(file, "format") == hdf5.FORMAT
    except (ValueError, KeyError, OSError):
        return False


def _challenge(path: Path) -> list[LayerData]:
    """Counts of every sample, and the truth where the file has it; a layer knows its instrument, so it needs no optics file."""
    from diffphys.io.hdf5 import read_measurement
    from diffphys.spec import pitch_um

    held = read_measurement(path)
    voxel = pitch_um(held.geometry)
    made = []
    for name, sample in held.samples.items():
        known = {"modality": held.modality, "geometry": held.geometry, "detector": sample.detector, "ranges": held.ranges}
        seen = name == held.names[0]
        made.append(layer(sample.y, f"{path.stem} {name}", voxel, known={**known, "sample": name}, visible=seen))
        if sample.x_true is not None:
            truth = {"modality": held.modality, "true_spec": sample.true_spec, "family": sample.family}
            made.append(layer(sample.x_true, f"{path.stem} {name} truth", voxel, known=truth, visible=False))
    return made


def _is_tiff(path: Path) -> bool:
    from diffphys.io.tiff import axes_of

    return path.suffix.lower() in (".tif", ".tiff") and axes_of(path) is not None


def _tiff(path: Path, *, name: str | None = None, **told: Any) -> list[LayerData]:
    from diffphys.io.tiff import load

    raw, axes, header, channels, _ = load(path)
    return _by_channel(raw, axes.lower(), channels, header, name=name or path.name.split(".")[0], **told)


def _by_channel(
    data: Any, axes: str, channels: Sequence[str], header: Sequence[float | None], *, name: str, **told: Any
) -> list[LayerData]:
    """One layer per channel; single entries of axes other than z, y, x are dropped, a nameless axis with a spacing is z."""
    voxel = header if "z" in axes or (len(axes) == 3 and axes[0] in "qi" and header[0]) else header[1:]
    single = tuple(i for i, a in enumerate(axes) if data.shape[i] == 1 and a not in "czyx")
    data, axes = data.squeeze(single), "".join(a for i, a in enumerate(axes) if i not in single)
    if "c" not in axes:
        return [layer(data, name, voxel, **told)]
    at, count = axes.index("c"), data.shape[axes.index("c")]
    labels = [channels[i] if i < len(channels) and channels[i] else str(i) for i in range(count)]
    names = [f"{name} {label}" for label in labels] if count > 1 else [name]
    return [layer(data[(slice(None),) * at + (i,)], n, voxel, **told) for i, n in enumerate(names)]


_KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], list[LayerData]]], ...] = (
    (_is_run, _run),
    (_is_zarr, _zarr),
    (_is_challenge, _challenge),
    (_is_tiff, _tiff),
)
