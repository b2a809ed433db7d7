"""The challenge file (HDF5) <-> measurements of one instrument: counts, nominal optics, detector, ranges, optionally the truth.

Layout of version 1:

    /               format, version, modality, tier, created_by, ranges_sha256 (fixed-length text)
    /spec_ranges    one group per parameter: min, max, nominal (float64), unit
    /geometry       the fields of the modality's Geometry that are not None (float64); SHG: dataset power_trace (frame, row)
    /sample_00 ...  y (float32 counts); gain, offset, background, read_sigma, peak_photons; optionally x_true, group true_spec,
                    family
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from diffphys.io import h5instrument, h5strict
from diffphys.io.h5write import replacing_hdf5
from diffphys.io.optics_file import full_ranges
from diffphys.noise import Detector
from diffphys.types import Modality, resolve

FORMAT, VERSION = "diffphys-challenge", "1"
_ROOT = ("format", "version", "modality", "tier", "created_by", "ranges_sha256")
_DETECTION = tuple(f.name for f in fields(Detector))
_SAMPLE = re.compile(r"sample_\d{2}\Z")
SAMPLE_NAMES = tuple(f"sample_{i:02d}" for i in range(100))


@dataclass(frozen=True)
class Sample:
    """One measurement: counts, the detector that made them, and the truth where it may be known.

    Attributes:
        y: float32 counts, (z, y, x) or (frame, y, x).
        detector: all numbers known.
        x_true: specimen, float32 (z, y, x) or (y, x).
        true_spec: name -> value.
        family: scene family.
    """

    y: np.ndarray
    detector: Detector
    x_true: np.ndarray | None = None
    true_spec: Mapping[str, float] | None = None
    family: str | None = None


@dataclass(frozen=True)
class MeasurementFile:
    """What a file holds: modality name, geometry, ranges, tier, the names of all samples, and the samples that were read."""

    modality: str
    geometry: Any
    ranges: Mapping[str, tuple[float, float]]
    tier: str
    names: tuple[str, ...]
    samples: Mapping[str, Sample]


def write_measurement(
    path: Path | str,
    modality: Modality | str,
    *,
    geometry: Any,
    samples: Mapping[str, Sample],
    ranges: Mapping[str, Any] | None = None,
    tier: str = "measurement",
) -> None:
    """Write one or several measurements of one instrument, whole or not at all.

    Args:
        path: HDF5 file.
        modality: the modality or its name.
        geometry: nominal instrument of all samples.
        samples: `sample_00` ... -> Sample.
        ranges: name -> (low, high); the modality's defaults where absent.
        tier: name of the benchmark's tier, or `measurement`.
    """
    modality = resolve(modality)
    box = full_ranges(modality, geometry, ranges)
    for name, sample in samples.items():
        _check_sample(name, sample, modality, geometry)
    with replacing_hdf5(path) as file:
        from diffphys import __version__

        values = (FORMAT, VERSION, modality.NAME, tier, f"diffphys {__version__}", h5instrument.ranges_sha256(box))
        stamp(file, dict(zip(_ROOT, values, strict=True)))
        h5instrument.write_ranges(file.create_group("spec_ranges"), modality, geometry, box)
        h5instrument.write_geometry(file.create_group("geometry"), modality, geometry)
        for name, sample in samples.items():
            _write_sample(file.create_group(name), sample)


def read_measurement(path: Path | str, *, sample: str | None = None) -> MeasurementFile:
    """Read a challenge file by its closed schema; nothing is read before its declared size is checked.

    Args:
        path: HDF5 file.
        sample: read this sample only; all if None.

    Raises:
        ValueError: one line that says where, what came and what is allowed.
        OSError: the file cannot be opened.
    """
    with h5strict.opened(path) as file:
        return read_opened(file, sample=sample)


def read_opened(file: h5py.File, *, sample: str | None = None) -> MeasurementFile:
    """The content of an open challenge file, as `read_measurement`."""
    said = identity(file, _ROOT, kind=FORMAT)
    modality = resolve(said["modality"])
    names = _sample_names(file)
    if sample is not None and sample not in names:
        raise ValueError(f"sample is {sample!r}; {h5strict.where(file).split(':')[0]} has {', '.join(names)}")
    geometry = h5instrument.read_geometry(h5strict.group(file, "geometry"), modality)
    ranges = h5instrument.read_ranges(h5strict.group(file, "spec_ranges"), modality, geometry)
    if h5instrument.ranges_sha256(ranges) != said["ranges_sha256"]:
        raise ValueError(f"{h5strict.where(file)}: spec_ranges do not match their sha256; the file was altered or damaged")
    wanted = names if sample is None else (sample,)
    samples = {n: _read_sample(h5strict.group(file, n), modality, geometry) for n in wanted}
    return MeasurementFile(modality.NAME, geometry, ranges, said["tier"], names, samples)


def identity(file: h5py.File, names: tuple[str, ...], *, kind: str) -> dict[str, str]:
    """The root attributes of a file of ours, exactly these; ValueError unless it is of this kind and version."""
    h5strict.expect_attributes(file, needed=names)
    said = {n: h5strict.text(file, n) for n in names}
    if said["format"] != kind or said["version"] != VERSION:
        found = f"{said['format']!r} version {said['version']!r}"
        raise ValueError(f"{h5strict.where(file)} has format {found}; expected {kind!r} version {VERSION!r}")
    return said


def sample_names(path: Path | str) -> tuple[str, ...]:
    """Names of the samples in a challenge file."""
    with h5strict.opened(path) as file:
        return _sample_names(file)


def stamp(file: h5py.File, said: Mapping[str, str]) -> None:
    """Root attributes as fixed-length text (variable-length text hangs readers once a byte flips)."""
    file.attrs.update({n: np.bytes_(v) for n, v in said.items()})


def is_hdf5(path: Path | str) -> bool:
    """Whether the file's name or its first bytes say HDF5."""
    path = Path(path)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"\x89HDF"


def frame_shapes(modality: Modality, geometry: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of y and of x."""
    frames = getattr(geometry, "frames", None)
    return (geometry.shape if frames is None else (frames, *geometry.shape)), geometry.shape


def _check_sample(name: str, sample: Sample, modality: Modality, geometry: Any) -> None:
    if not _SAMPLE.match(name):
        raise ValueError(f"sample is named {name!r}; expected sample_00 to sample_99")
    y_shape, x_shape = frame_shapes(modality, geometry)
    for what, value, shape in (("y", sample.y, y_shape), ("x_true", sample.x_true, x_shape)):
        if value is not None and np.shape(value) != shape:
            raise ValueError(f"{name}: {what} has shape {np.shape(value)}; expected {shape}")
        if value is not None and not np.isfinite(value).all():
            raise ValueError(f"{name}: {what} holds NaN or infinite values; expected finite numbers")
    unknown = [n for n, v in asdict(sample.detector).items() if not math.isfinite(v)]
    if unknown:
        raise ValueError(f"{name}: detector.{unknown[0]} is not finite; a stored measurement states its detector")


def _sample_names(file: h5py.File) -> tuple[str, ...]:
    there = h5strict.expect_members(file, needed=("spec_ranges", "geometry"), optional=SAMPLE_NAMES)
    names = tuple(sorted(there - {"spec_ranges", "geometry"}))
    if not names:
        raise ValueError(f"{h5strict.where(file)} holds no sample; expected sample_00 and so on")
    return names


def _write_sample(group: h5py.Group, sample: Sample) -> None:
    group.create_dataset("y", data=np.asarray(sample.y, np.float32), fletcher32=True)
    group.attrs.update({n: float(v) for n, v in asdict(sample.detector).items()})
    if sample.x_true is not None:
        group.create_dataset("x_true", data=np.asarray(sample.x_true, np.float32), fletcher32=True)
    if sample.true_spec is not None:
        group.create_group("true_spec").attrs.update({n: float(v) for n, v in sample.true_spec.items()})
    if sample.family is not None:
        group.attrs["family"] = np.bytes_(sample.family)


def _read_sample(group: h5py.Group, modality: Modality, geometry: Any) -> Sample:
    members = h5strict.expect_members(group, needed=("y",), optional=("x_true", "true_spec"))
    attributes = h5strict.expect_attributes(group, needed=_DETECTION, optional=("family",))
    y_shape, x_shape = frame_shapes(modality, geometry)
    spec = None
    if "true_spec" in members:
        entry, names = h5strict.group(group, "true_spec"), [f.name for f in modality.FIELDS]
        h5strict.expect_attributes(entry, needed=names)
        spec = {n: h5strict.number(entry, n) for n in names}
    return Sample(
        y=h5strict.array(group, "y", y_shape),
        detector=Detector(**{n: h5strict.number(group, n) for n in _DETECTION}),
        x_true=h5strict.array(group, "x_true", x_shape) if "x_true" in members else None,
        true_spec=spec,
        family=h5strict.text(group, "family") if "family" in attributes else None,
    )
