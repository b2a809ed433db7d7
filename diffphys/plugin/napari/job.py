"""The widget's work without any window: a layer's counts and an optics file -> calibration, image, layers, text.

The same steps as `diffphys reconstruct`, with the same checks at the door, on an array instead of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffphys.cli.load import Job, bound
from diffphys.plugin.napari.result import layers, text
from diffphys.types import Calibration, Reconstruction, resolve

Watch = Callable[[float, str], bool | None]  # (fraction done, what is being done) -> False to stop


class Stopped(Exception):
    """Stopped before there was anything to keep."""


class Counts(NamedTuple):
    """A layer as the work sees it.

    Attributes:
        name: what messages and results call it.
        data: (z, y, x), (frame, y, x) or (y, x).
        voxel_um: micrometres, (z, y, x) or (y, x); None where the layer does not say.
        translate_um: place of the first voxel, axes as `voxel_um`.
        known: the layer's metadata; where they state the instrument (a challenge file does) no optics file is needed.
    """

    name: str
    data: Any
    voxel_um: tuple[float, ...] | None
    translate_um: tuple[float, ...] | None = None
    known: Mapping[str, Any] = {}


class Task(NamedTuple):
    """What was asked for: `iterations` at most (0: the method's own), `calibration` of the same counts and optics."""

    counts: Counts
    modality: str
    optics: Path | None
    method: str = "richardson_lucy"
    iterations: int = 0
    restore: bool = True
    calibration: Calibration | None = None


class Outcome(NamedTuple):
    """What came of it: layers for the viewer, text for the user, the calibration for the next task."""

    layers: list[Any]
    text: str
    calibration: Calibration


def work(task: Task, watch: Watch) -> Outcome:
    """Calibrate, unless that is done, and restore the image if asked; a watch that says False ends it with the best so far.

    Raises:
        ValueError, OSError: one line, when the counts or the optics cannot be used.
        Stopped: the watch ended it before there was a calibration.
    """
    job = prepare(task.counts, task.modality, task.optics)
    calibration = task.calibration or find_instrument(job, watch)
    warnings = [*job.warnings, *job.modality.sampling_warnings(job.geometry), *calibration.warnings]
    if not task.restore:
        return Outcome([], text(job.modality, calibration, None, warnings), calibration)
    spec, detector, doubts = job.instrument(calibration)
    restored = restore(job, spec, detector, task, watch)
    shown = layers(job, calibration, restored, spec, detector, name=task.counts.name, translate=task.counts.translate_um)
    return Outcome(shown, text(job.modality, calibration, restored, [*warnings, *doubts, *restored.warnings]), calibration)


def prepare(counts: Counts, modality: str, optics: Path | None) -> Job:
    """Counts and optics as one checked job; ValueError or OSError with one line when they cannot be used."""
    from diffphys.io import optics_file

    if {"geometry", "detector", "ranges"} <= set(counts.known):
        return _with_own_optics(counts, modality, optics)
    if optics is None:
        raise ValueError(f"{counts.name} needs an optics file: pick one, or write a template and fill it in")
    stated = optics_file.read(optics)
    if stated.modality != modality:
        raise ValueError(f"{stated.source} is for modality {stated.modality}, but {modality} is picked; change one of them")
    return bound(_measurement(counts, stated), stated, name=counts.name)


def _with_own_optics(counts: Counts, modality: str, optics: Path | None) -> Job:
    """The job of a layer from a challenge file."""
    known, own = counts.known, resolve(counts.known["modality"])
    if modality != own.NAME:
        raise ValueError(f"{counts.name} is of modality {own.NAME}, but {modality} is picked; pick {own.NAME}")
    if optics is not None:
        raise ValueError(f"{counts.name} states its own optics; clear the optics file")
    y, geometry = _checked(counts, own, known["detector"]).data, known["geometry"]
    used = {"modality": own.NAME, **{n: known[n] for n in ("geometry", "detector", "ranges")}}
    return Job(own, y, geometry, known["detector"], known["ranges"], counts.voxel_um or (), used, ())


def _checked(counts: Counts, modality: Any, detector: Any) -> Any:
    """The layer in the modality's axes, as `arrange` gives it, float32; refused where it is no such measurement."""
    from diffphys.io.axes import arrange
    from diffphys.io.counts import check_counts
    from diffphys.io.tiff import is_volume

    raw = np.asarray(counts.data)
    volume = is_volume(modality)
    letters = {2: "yx", 3: "zyx" if volume else "fyx"}.get(raw.ndim)
    if letters is None or raw.dtype.kind not in "uif":
        wanted = "(z, y, x)" if volume else "(frame, y, x) or (y, x)"
        raise ValueError(f"{counts.name} is {raw.dtype} of shape {raw.shape}; expected counts {wanted}: slice the layer first")
    view = arrange(raw, letters, volume=volume, name=counts.name)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused below
        view = view._replace(data=np.ascontiguousarray(view.data, np.float32))
    check_counts(view.data, name=counts.name, detector=detector)
    return view


def _measurement(counts: Counts, stated: Any) -> Any:
    from diffphys.io.counts import saturation_warnings
    from diffphys.io.tiff import Measurement, voxel_size

    counts = counts._replace(data=np.asarray(counts.data))  # a lazy layer is read once
    view = _checked(counts, resolve(stated.modality), stated.detector)
    if counts.voxel_um is None and stated.voxel_um is None:
        raise ValueError(
            f"{counts.name} has no voxel size: set layer.scale in micrometres and layer.units to um, or state it in "
            f"{stated.source}"
        )
    header = counts.voxel_um or (None,) * len(stated.voxel_um or ())
    size, warned = voxel_size(counts.name, header, stated.voxel_um)
    metadata = {"name": counts.name, "axes_read_as": view.axes}
    return Measurement(view.data, size, view.channels, metadata, (*view.warnings, *warned, *saturation_warnings(counts.data)))


def find_instrument(job: Job, watch: Watch) -> Calibration:
    """The instrument as it really was; Stopped when the watch says False, since half a calibration is none."""
    from diffphys.calibrate import calibrate

    def tell(fraction: float, what: str) -> None:
        if watch(fraction, f"calibrate: {what}") is False:
            raise Stopped("stopped before the calibration was done; nothing was changed")

    return calibrate(job.y, job.modality, geometry=job.geometry, detector=job.detector, ranges=job.ranges, progress=tell)


def restore(job: Job, spec: Any, detector: Any, task: Task, watch: Watch) -> Reconstruction:
    """The restored image, the best so far when the watch says False."""
    from diffphys.reconstruct import reconstruct

    options: dict[str, Any] = {"geometry": job.geometry, "detector": detector, "method": task.method}
    if task.iterations:
        options["iterations"] = task.iterations

    def tell(iteration: int, value: float) -> bool | None:
        done = iteration / task.iterations if task.iterations else 1 - 0.97**iteration  # where the end is not known
        return watch(done, f"reconstruct: iteration {iteration}, {value:.4g}")

    return reconstruct(job.y, job.modality, spec, callback=tell, **options)


def write_optics(path: Path, modality: str, source: Path | None) -> str:
    """Write a commented optics file, filled in from the image's OME-XML where it has one; what to do next, one line each."""
    from diffphys.io.atomic import write_text
    from diffphys.io.ome_optics import find
    from diffphys.io.optics_filled import fill
    from diffphys.io.optics_template import template
    from diffphys.io.tiff import ome_text

    header = ome_text(source) if source is not None and source.suffix.lower() in (".tif", ".tiff") else None
    if source is None or header is None:
        write_text(path, template(modality))
        return f"{path} holds typical values: replace them by those of your microscope, then calibrate"
    filled = fill(modality, find(header, name=source.name, channel=None))
    write_text(path, filled.text)
    origins = [f"{key}: {value or '-'} ({where})" for key, value, where in filled.rows]
    return "\n".join([f"{path} is filled in from {source.name}; check each value, then calibrate", *origins, *filled.problems])
