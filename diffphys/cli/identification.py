"""`diffphys identify`: how well this instrument can be calibrated at all, and what would make it better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from diffphys.cli import options, show
from diffphys.cli.session import Clock, warn

ModalityName = Annotated[str, typer.Option("--modality", help="confocal_3d or shg.", show_default=False)]
StackPath = Annotated[Path | None, typer.Option("--stack", help="A measurement: the specimen's spectrum is fitted to it.")]
Photons = Annotated[float | None, typer.Option("--photons", help="Photons in the brightest voxel; 300, or the stack's.")]
Image = Annotated[str, typer.Option("--image", help="known (a calibration sample) or unknown.")]
Scene = Annotated[str | None, typer.Option("--scene", help="Specimen: beads, filaments, cells | collagen, wavy, sparse.")]
Shape = Annotated[str | None, typer.Option("--shape", metavar="Z Y X", help="Voxels of the field, without --stack.")]

FILES = ("identify.json", "figure.png", "run.json")
PHOTONS = 300.0


class _Experiment(NamedTuple):
    """What is to be judged; `specimen` is a family's name, a prior or None."""

    modality: Any
    geometry: Any
    spec: Any
    detector: Any
    ranges: Any
    photons: float
    specimen: Any
    optics: Any


def identify(
    modality: ModalityName,
    output: options.Output,
    optics: options.OpticsPath = None,
    stack: StackPath = None,
    photons: Photons = None,
    spec: options.SpecText = None,
    image: Image = "unknown",
    scene: Scene = None,
    ranges: options.Ranges = None,
    shape: Shape = None,
    channel: options.Channel = None,
    voxel_um: options.VoxelUm = None,
    axes: options.Axes = None,
    sample: options.SampleName = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Say how well the instrument can be calibrated, what cannot be known, and what to change."""
    stated = dict(locals())
    import sys
    from datetime import UTC, datetime

    from diffphys.identify import identify as judge
    from diffphys.io.output_folder import OutputFolder
    from diffphys.io.provenance import run_record
    from diffphys.io.results import write_json
    from diffphys.report.identify_figure import identify_figure

    clock, started = Clock(), datetime.now(UTC)
    with OutputFolder(output, names=FILES, overwrite=overwrite) as out:
        with clock.stage("read"):
            case = _from_stack(stated) if stack is not None else _planned(stated)
        with clock.stage("identify"):
            found = judge(
                case.modality,
                geometry=case.geometry,
                spec=case.spec,
                photons=case.photons,
                image=image,
                scene=case.specimen,
                detector=case.detector,
                ranges=case.ranges,
                seed=seed,
            )
        write_json(out.path("identify.json"), as_dict(found))
        with clock.stage("figure"):
            identify_figure(out.path("figure.png"), found, title=f"{case.modality.NAME}, image {image}")
        inputs = {"optics": optics, "stack": stack, "spec": spec if spec and Path(spec).is_file() else None}
        record = run_record(
            command=sys.argv, inputs=inputs, optics=case.optics, options=stated, started=started, seconds=clock.seconds
        )
        write_json(out.path("run.json"), record)
        out.publish()
    print(summary(found))
    print(f"results: {output}")


def _planned(stated: dict[str, Any]) -> _Experiment:
    """An experiment that is still to be made: optics, field and photons as stated."""
    from diffphys.cli.simulation import instrument
    from diffphys.io.optics_file import full_ranges
    from diffphys.types import resolve

    known = resolve(stated["modality"])
    for name in ("channel", "axes", "sample"):
        if stated[name] is not None:
            raise ValueError(f"--{name} says how to read a stack; add --stack or leave it out")
    shape, voxel_um = options.numbers(stated["shape"], "--shape"), options.numbers(stated["voxel_um"], "--voxel-um")
    optics, geometry = instrument(stated["modality"], stated["optics"], shape, voxel_um)
    ranges = full_ranges(known, geometry, {**optics.ranges, **options.ranges(stated["ranges"])})
    used = {**optics.as_dict(), "geometry": geometry, "ranges": ranges}
    photons = PHOTONS if stated["photons"] is None else stated["photons"]
    spec = _spec(stated["spec"], known, geometry)
    return _Experiment(known, geometry, spec, optics.detector, ranges, photons, stated["scene"], used)


def _from_stack(stated: dict[str, Any]) -> _Experiment:
    """An experiment like the measured one: field, detector, photons and the specimen's spectrum from the stack."""
    from diffphys.calibrate.detector import estimate
    from diffphys.cli.load import load
    from diffphys.identify import of_stack

    for name in ("scene", "shape"):
        if stated[name] is not None:
            raise ValueError(f"--stack and --{name} exclude each other: the stack states it")
    if stated["image"] == "known":
        raise ValueError("--stack fits what is assumed of an unknown image; leave it out for --image known")
    voxel_um = options.numbers(stated["voxel_um"], "--voxel-um")
    names = {name: stated[name] for name in ("modality", "optics", "channel", "axes", "sample")}
    job = load(stated["stack"], voxel_um=voxel_um, **names)
    job = job.with_ranges(options.ranges(stated["ranges"]))
    detector, doubts = estimate(job.y, job.modality, geometry=job.geometry, detector=job.detector)
    warn((*job.warnings, *doubts))
    spec = _spec(stated["spec"], job.modality, job.geometry)
    prior, peak = of_stack(job.modality, spec, job.y, geometry=job.geometry, detector=detector)
    photons = peak if stated["photons"] is None else stated["photons"]
    return _Experiment(job.modality, job.geometry, spec, detector, job.ranges, photons, prior, job.optics)


def _spec(text: str | None, modality: Any, geometry: Any) -> Any:
    from diffphys.io.results import parse_spec, read_spec

    if text is None:
        return modality.nominal(geometry)
    return parse_spec(text, modality, geometry) if "=" in text else read_spec(text, modality)


def as_dict(found: Any) -> dict[str, Any]:
    """Everything of an `Identification` in plain values, units beside the numbers."""
    bounds = found.bounds
    return {
        "format": "diffphys-identify",
        "version": 1,
        "modality": found.modality,
        "image": found.image,
        "photons": found.photons,
        "background": found.background,
        "parameters": {
            n: {"value": float(getattr(found.spec, n)), "bound": bounds[n], "unit": u, "range": found.ranges[n]}
            for n, u in zip(found.names, found.units, strict=True)
        },
        "derived": {n: {"value": v, "bound": s} for n, (v, s) in found.derived.items()},
        "worst": found.worst,
        "undetermined": found.undetermined,
        "suggestions": [s._asdict() for s in found.suggestions],
        "names": found.names,
        "fisher": found.fisher,
        "covariance": found.covariance,
        "correlation": found.correlation,
        "prior": None if found.prior is None else found.prior._asdict(),
    }


def summary(found: Any) -> str:
    """The result in a few lines."""
    rows = [("parameter", "at", "bound (1 sigma)", "unit", "range", "")]
    bounds = found.bounds
    for name, unit in zip(found.names, found.units, strict=True):
        low, high = found.ranges[name]
        note = "fixed" if low == high else "cannot be determined" if name in found.undetermined else ""
        value = show.number(float(getattr(found.spec, name)), bounds[name])
        rows.append((name, value, f"{bounds[name]:.2g}", unit, f"{low:g} ... {high:g}", note))
    rows += [(n, show.number(v, s), f"{s:.2g}", "", "", "derived") for n, (v, s) in found.derived.items()]
    lines = [show.table(rows), f"image {found.image}, {found.photons:.4g} photons in the brightest voxel", found.worst]
    if found.suggestions:
        lines.append(f"what lowers the bound of {found.suggestions[0].parameter}:")
        lines += [f"  {s.gain:.3g} times: {s.change}" for s in found.suggestions]
    return "\n".join(lines)
