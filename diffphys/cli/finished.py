"""The output folder of a finished run, read back: records, images, instrument, and the measurement if it is still the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffphys.io.run_record import CalibrationRecord, RunRecord


class Finished(NamedTuple):
    """A run as its folder tells it.

    Attributes:
        name: of the measurement's file.
        record, calibration: its JSON files; no calibration where the spec or the PSF was given.
        modality, geometry: the instrument, nominal.
        spec: what the image was restored with (the calibrated one where it was not restored); None with a measured PSF.
        detector: likewise.
        measurement, prediction: counts, (z, y, x) or (frame, y, x), None where absent.
        image, uncertainty: (z, y, x) or (y, x), None where absent.
        psf: the measured PSF on the image's voxels, None without one.
        notes: what could not be read, one line each.
    """

    name: str
    record: RunRecord
    calibration: CalibrationRecord | None
    modality: Any
    geometry: Any
    spec: Any
    detector: Any
    measurement: np.ndarray | None
    prediction: np.ndarray | None
    image: np.ndarray | None
    uncertainty: np.ndarray | None
    psf: np.ndarray | None
    notes: tuple[str, ...]


def read_run(folder: Path, *, measurement: Path | None = None) -> Finished:
    """Read the output folder of `reconstruct`, `calibrate` or `demo`.

    Args:
        folder: holds run.json.
        measurement: the stack, where it is no longer at the place that run.json states.

    Raises:
        ValueError: no such folder, or its files are damaged; one line.
    """
    from diffphys.io import run_record
    from diffphys.noise import Detector
    from diffphys.types import resolve

    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} holds no run.json; expected the output folder of diffphys reconstruct, calibrate or demo")
    record = run_record.read(folder / "run.json", RunRecord, like="diffphys-run")
    if "stack" not in record.inputs or "geometry" not in record.optics:
        raise ValueError(f"{folder / 'run.json'} is of another command; expected a run of diffphys reconstruct or calibrate")
    calibration, kept = None, folder / "calibration.json"
    if kept.is_file():
        calibration = run_record.read(kept, CalibrationRecord, like="diffphys-calibration")
    modality = resolve(str(record.optics.get("modality")))
    if record.optics.get("zernike"):
        from diffphys.cli.load import aberrated

        modality, _ = aberrated(modality, ",".join(map(str, record.optics["zernike"])))
    geometry, how = _geometry(modality, record.optics["geometry"]), record.reconstruction
    numbers = how.detector.model_dump() if how else calibration.detector.model_dump() if calibration else {}
    y, notes = _measurement(folder, record, modality, geometry, measurement)
    images, missing = _images(folder, modality, geometry, restored=how is not None)
    psf, unread = _psf(folder, record, geometry) if how is not None and how.spec is None else (None, [])
    return Finished(
        name=(measurement or Path(record.inputs["stack"].path)).name,
        record=record,
        calibration=calibration,
        modality=modality,
        geometry=geometry,
        spec=_spec(modality, how, calibration),
        detector=Detector(**numbers),
        measurement=y,
        psf=psf,
        notes=(*notes, *missing, *unread),
        **images,
    )


def _geometry(modality: Any, stated: Mapping[str, Any]) -> Any:
    try:
        return modality.Geometry(**{n: tuple(v) if isinstance(v, list) else v for n, v in stated.items()})
    except TypeError as problem:
        raise ValueError(f"run.json states a geometry that {modality.NAME} does not know ({problem}); repeat the run") from None


def _spec(modality: Any, how: Any, calibration: CalibrationRecord | None) -> Any:
    from diffphys.io.results import checked_spec

    if how is not None:
        return None if how.spec is None else checked_spec(how.spec, modality)
    if calibration is None:
        return None
    return checked_spec({n: math.nan if p.value is None else p.value for n, p in calibration.parameters.items()}, modality)


def _recorded(modality: Any, geometry: Any) -> tuple[int, ...]:
    """Shape of the counts."""
    return tuple(geometry.shape) if len(geometry.shape) == 3 else (geometry.frames, *geometry.shape)


def _images(folder: Path, modality: Any, geometry: Any, *, restored: bool) -> tuple[dict[str, Any], list[str]]:
    """The image files that there are, mapped rather than read where possible; a line for a prediction that is not there."""
    from diffphys.io.tiff import mapped_image

    shapes = {"image": geometry.shape, "uncertainty": geometry.shape, "prediction": _recorded(modality, geometry)}
    files = {"image": "reconstruction.ome.tif", "uncertainty": "uncertainty.ome.tif", "prediction": "prediction.ome.tif"}
    found: dict[str, Any] = dict.fromkeys(files)
    for name, file in files.items():
        path = folder / file
        if not (restored and path.is_file()):
            continue
        array = mapped_image(path)
        if array.size != math.prod(shapes[name]) or array.dtype.kind != "f":
            raise ValueError(f"{path} has shape {array.shape}; expected {tuple(shapes[name])} as run.json states")
        found[name] = array.reshape(shapes[name])
    lacking = restored and found["prediction"] is None
    return found, ["the folder holds no prediction.ome.tif: no residual; repeat the run to have it"] if lacking else []


def _same(folder: Path, record: RunRecord, role: str) -> tuple[Path | None, str]:
    """An input of the run where it lies now: as stated, seen from the run's directory, or in the run's folder; or why not."""
    from diffphys.io.provenance import sha256

    stated = Path(record.inputs[role].path)
    places = [p for p in (stated, Path(record.directory) / stated, folder / stated.name) if p.is_file()]
    for place in places:
        if sha256(place) == record.inputs[role].sha256:
            return place, ""
    return None, f"{stated} " + ("has changed since the run (its sha256 differs)" if places else "is gone")


def _measurement(
    folder: Path, record: RunRecord, modality: Any, geometry: Any, given: Path | None
) -> tuple[np.ndarray | None, list[str]]:
    """The counts; a line where they are not, or not surely, those of the run."""
    from diffphys.io.provenance import sha256

    if given is None:
        path, why = _same(folder, record, "stack")
        if path is None:
            return None, [f"the measurement {why}: shown without it; give the original with --measurement"]
        return _counts(path, record, modality, geometry), []
    y = _counts(given, record, modality, geometry)
    if sha256(given) == record.inputs["stack"].sha256:
        return y, []
    return y, [f"{given.name} is not the file of the run (its sha256 differs): its views may not belong to this result"]


def _counts(path: Path, record: RunRecord, modality: Any, geometry: Any) -> np.ndarray:
    from diffphys.io.hdf5 import is_hdf5, read_measurement
    from diffphys.io.run_record import DetectorNumbers
    from diffphys.io.tiff import read_stack
    from diffphys.noise import Detector
    from diffphys.spec import pitch_um

    if is_hdf5(path):
        samples = read_measurement(path, sample=record.optics.get("sample")).samples
        y = next(iter(samples.values())).y
    else:
        stated = record.optics.get("detector") or {}
        known = {n: stated.get(n) for n in DetectorNumbers.model_fields}
        numbers = {n: float(v) if isinstance(v, (int, float)) else math.nan for n, v in known.items()}
        how = {n: record.options.get(n) for n in ("channel", "axes")}
        y = read_stack(path, modality=modality, voxel_um=pitch_um(geometry), detector=Detector(**numbers), **how).data
    expected = _recorded(modality, geometry)
    if tuple(y.shape) != expected:
        raise ValueError(f"{path} has shape {tuple(y.shape)}; the run's measurement has {expected}: give that file")
    return y


def _psf(folder: Path, record: RunRecord, geometry: Any) -> tuple[np.ndarray | None, list[str]]:
    from diffphys.cli.options import numbers
    from diffphys.measured import load

    if "psf" not in record.inputs:
        return None, []
    path, why = _same(folder, record, "psf")
    if path is None:
        return None, [f"the measured PSF {why}: shown without it"]
    pitch = numbers(record.options.get("psf_voxel_um"), "--psf-voxel-um")
    return load(path, voxel_um=geometry.voxel_um, shape=geometry.shape, psf_voxel_um=pitch).psf, []
