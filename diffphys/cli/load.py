"""From the command line's arguments to one checked job: counts, geometry, detector, ranges."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    """A measurement with everything its calibration needs.

    Attributes:
        modality: the modality itself.
        y: float32 counts in the modality's axes.
        geometry, detector, ranges: as `diffphys.calibrate` takes them.
        voxel_um: (z, y, x) or (y, x).
        optics: the optics as they are used, for run.json.
        warnings: one line each.
    """

    modality: Any
    y: np.ndarray
    geometry: Any
    detector: Any
    ranges: Mapping[str, tuple[float, float]]
    voxel_um: tuple[float, ...]
    optics: Mapping[str, Any]
    warnings: tuple[str, ...]

    def with_ranges(self, stated: Mapping[str, tuple[float, float]]) -> Job:
        """The job with these ranges replaced, checked."""
        from diffphys.io.optics_file import full_ranges
        from diffphys.spec import parse_ranges

        merged = full_ranges(self.modality, self.geometry, parse_ranges(self.modality.FIELDS, self.ranges, stated))
        return self._replace(ranges=merged, optics={**self.optics, "ranges": merged})

    def instrument(self, calibration: Any, stated: Any = None) -> tuple[Any, Any, tuple[str, ...]]:
        """Spec and detector to reconstruct with, and warnings: the calibration's, or else the stated (None: nominal) spec."""
        if calibration is None:
            from diffphys.calibrate.detector import estimate

            detector, doubts = estimate(self.y, self.modality, geometry=self.geometry, detector=self.detector)
            return self.modality.nominal(self.geometry) if stated is None else stated, detector, doubts
        if set(calibration.names) <= set(calibration.undetermined):
            doubt = "no parameter is determined by this data: the image is restored with the nominal instrument"
            return self.modality.nominal(self.geometry), calibration.detector, (doubt,)
        return calibration.spec, calibration.detector, ()

    def with_zernike(self, stated: str | None) -> Job:
        """The job's modality with Zernike coefficients as further parameters: `5,6,7,8`; confocal also `slant`, `polarised`."""
        if stated is None:
            return self
        modality, parts = aberrated(self.modality, stated)
        ranges = {**modality.default_ranges(self.geometry), **self.ranges}
        modality.check_ranges(ranges, self.geometry)
        return self._replace(modality=modality, ranges=ranges, optics={**self.optics, "ranges": ranges, "zernike": parts})


def aberrated(modality: Any, stated: str) -> tuple[Any, list[str]]:
    """The modality with the further parameters that --zernike names, and these names."""
    from diffphys.confocal.aberrated import with_zernike as confocal
    from diffphys.shg.aberrated import with_zernike as shg

    parts = [part.strip() for part in stated.split(",") if part.strip()]
    words = {"slant": "slanted", "polarised": "polarised"} if modality.NAME == "confocal_3d" else {}
    modes = [part for part in parts if part not in words]
    if not all(part.isdigit() for part in modes) or not parts:
        allowed = ", ".join(["Noll indices such as 5,6,7,8", *words])
        raise ValueError(f"--zernike is {stated!r}; expected {allowed}, separated by commas")
    extended: Any = confocal if words else shg
    return extended(tuple(map(int, modes)), **{words[part]: True for part in parts if part in words}), parts


def load(
    stack: Path,
    *,
    modality: str | None,
    optics: Path | None,
    channel: str | None,
    voxel_um: tuple[float, ...] | None,
    axes: str | None,
    sample: str | None,
) -> Job:
    """Read and check the measurement and its optics; ValueError or OSError with one line when they cannot be used."""
    from diffphys.io.hdf5 import is_hdf5

    if modality is not None:
        from diffphys.types import resolve

        resolve(modality)
    if is_hdf5(stack):
        options = {"--optics": optics, "--channel": channel, "--voxel-um": voxel_um, "--axes": axes}
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise ValueError(f"{stack.name} states its own optics and axes; leave out {', '.join(given)}")
        return _from_hdf5(stack, modality, sample)
    if sample is not None:
        raise ValueError(f"--sample is for HDF5 files; {stack.name} is read as TIFF: leave it out")
    return _from_tiff(stack, modality, optics, channel=channel, voxel_um=voxel_um, axes=axes)


def _from_hdf5(stack: Path, modality: str | None, sample: str | None) -> Job:
    from diffphys.io.counts import check_counts
    from diffphys.io.hdf5 import read_measurement, sample_names
    from diffphys.io.optics_file import pitch_name
    from diffphys.types import resolve

    names = sample_names(stack) if sample is None else (sample,)
    if len(names) > 1:
        raise ValueError(f"{stack.name} has samples {', '.join(names)}; pick one with --sample")
    held = read_measurement(stack, sample=names[0])
    if modality is not None and modality != held.modality:
        raise ValueError(f"{stack.name} is of modality {held.modality}, but --modality is {modality}; leave it out")
    known, one = resolve(held.modality), held.samples[names[0]]
    check_counts(one.y, name=f"{stack.name}:/{names[0]}/y", detector=one.detector)
    used = {"geometry": held.geometry, "detector": one.detector, "ranges": held.ranges, "sample": names[0]}
    voxel = getattr(held.geometry, pitch_name(known))
    return Job(known, one.y, held.geometry, one.detector, held.ranges, voxel, {"modality": known.NAME, **used}, ())


def _from_tiff(
    stack: Path, modality: str | None, optics: Path | None, *, channel: str | None, voxel_um: Any, axes: str | None
) -> Job:
    from diffphys.io import optics_file
    from diffphys.io.tiff import read_stack
    from diffphys.types import resolve

    if optics is None:
        raise ValueError(f"{stack.name} needs --optics FILE; {_optics_advice(stack, modality)}")
    stated = optics_file.read(optics, modality=modality)
    known = resolve(stated.modality)
    measured = read_stack(
        stack,
        modality=known,
        channel=channel,
        voxel_um=voxel_um or stated.voxel_um,
        axes=axes,
        detector=stated.detector,
    )
    return bound(measured, stated, name=stack.name)


def bound(measured: Any, stated: Any, *, name: str) -> Job:
    """A `Measurement` with the `Optics` that an optics file states; `name` is what messages call the measurement."""
    from diffphys.io.optics_file import full_ranges
    from diffphys.io.tiff import is_volume
    from diffphys.types import resolve

    known, shape = resolve(stated.modality), measured.data.shape
    geometry = stated.bind(shape if is_volume(known) else shape[1:], measured.voxel_um)
    frames = getattr(geometry, "frames", None)
    if frames is not None and frames != shape[0]:
        raise ValueError(
            f"{name} has {shape[0]} frames, but {stated.source} states {frames} phase_offsets_rad; expected one per frame"
        )
    ranges = full_ranges(known, geometry, stated.ranges)
    used = {**stated.as_dict(), "geometry": geometry, "ranges": ranges, "image": _brief(measured.metadata)}
    return Job(known, measured.data, geometry, stated.detector, ranges, measured.voxel_um, used, measured.warnings)


def _optics_advice(stack: Path, modality: str | None) -> str:
    """How to come by an optics file: out of the image's own header where it has one."""
    from diffphys.io.tiff import ome_text

    try:
        header = ome_text(stack)
    except ValueError:  # advice alone: the reader refuses the file in its own words when it is used
        header = None
    if header is None:
        kind = modality or "confocal_3d|shg"
        return f"`diffphys optics --init {kind} -o optics.yaml` writes one to fill in"
    name = shlex.quote(str(stack))
    return f"`diffphys optics --init {modality or 'confocal_3d'} --from {name} -o optics.yaml` fills one in from its OME-XML"


def _brief(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metadata.items() if k not in ("info", "description")}
