"""`diffphys optics`, `diffphys distil`, `diffphys demo`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from diffphys.cli import options, show
from diffphys.cli.session import Clock, progress, warn

Init = Annotated[str, typer.Option("--init", help="confocal_3d or shg: the optics file to begin with.", show_default=False)]
File = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; printed if left out.")]
Source = Annotated[Path | None, typer.Option("--from", help="Image whose OME-XML fills in the file.", show_default=False)]
PsfFile = Annotated[Path, typer.Option("--output", "-o", help="PSF to write (.tif).", show_default=False)]
BeadUm = Annotated[float, typer.Option("--bead-um", min=0.0, help="Bead diameter; 0: points.")]


def optics(
    init: Init,
    output: File = None,
    source: Source = None,
    channel: options.Channel = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a commented optics file to fill in; --from fills in what an image's OME-XML states, for you to confirm."""
    from diffphys.io.atomic import write_text
    from diffphys.io.optics_template import template

    if output is not None:
        _refuse_existing(output, overwrite)
    if channel is not None and source is None:
        raise ValueError("--channel picks a channel of the image given with --from; add --from, or leave it out")
    text = template(init) if source is None else _filled(init, source, channel, output)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)


def _filled(init: str, source: Path, channel: str | None, output: Path | None) -> str:
    """The template with the image's own values; the table of where each is from goes to the terminal."""
    from diffphys.io.ome_optics import find
    from diffphys.io.optics_filled import fill
    from diffphys.io.optics_template import template
    from diffphys.io.tiff import ome_text

    template(init)  # an unknown modality is refused before the file is opened
    header = ome_text(source)
    if header is None:
        raise ValueError(f"{source.name} has no OME-XML; leave out --from and fill in the optics file by hand")
    filled = fill(init, find(header, name=source.name, channel=channel))
    typer.echo(show.table([("key", "value", "where it comes from"), *filled.rows]), err=output is None)
    typer.echo(f"check each value, then give the file with --optics: {output or 'standard output'}", err=output is None)
    warn(filled.problems)
    return filled.text


def distil(
    beads: options.Stack,
    output: PsfFile,
    channel: options.Channel = None,
    voxel_um: options.VoxelUm = None,
    axes: options.Axes = None,
    bead_um: BeadUm = 0.0,
    overwrite: options.Overwrite = False,
) -> None:
    """Average the isolated beads of a stack to one PSF."""
    _refuse_existing(output, overwrite)
    from diffphys import measured
    from diffphys.io.tiff import read_stack, write_image

    size = options.numbers(voxel_um, "--voxel-um")
    stack = read_stack(beads, modality="confocal_3d", channel=channel, voxel_um=size, axes=axes)
    found = measured.distil(stack.data, voxel_um=stack.voxel_um, bead_um=bead_um)
    warn((*stack.warnings, *found.warnings))
    note = f"diffphys: PSF from {found.beads} beads of {beads.name}, unit sum"
    write_image(output, found.psf, found.voxel_um, description=note)
    print(f"beads: {found.beads}, scatter around their mean: {100 * found.spread:.1f} %")
    print(f"results: {output}")


def demo(output: options.Output = Path("demo"), seed: options.Seed = 0) -> None:
    """Simulate, calibrate and reconstruct a confocal stack and two SHG frames; truth against estimate."""
    for modality in ("confocal_3d", "shg"):
        _demo(modality, output / modality, seed)


def _demo(modality: str, output: Path, seed: int) -> None:
    from diffphys import demo as job
    from diffphys.cli import simulation
    from diffphys.io.output_folder import RESULTS, OutputFolder
    from diffphys.io.provenance import run_record
    from diffphys.io.results import reconstruction_as_dict, write_calibration, write_json
    from diffphys.io.tiff import write_image
    from diffphys.report.figure import figure
    from diffphys.types import resolve

    known, clock, started = resolve(modality), Clock(), datetime.now(UTC)
    stated, geometry = simulation.instrument(modality, None, None, None)
    family = {"confocal_3d": "cells", "shg": "collagen"}[modality]
    with OutputFolder(output, names=(*RESULTS, *simulation.FILES), overwrite=True) as out:
        with clock.stage("simulate"):
            made = job.simulated(known, job.random_spec(known, geometry, seed), geometry=geometry, family=family, seed=seed)
        simulation.write(out, known, geometry, stated, made, family=family)
        with clock.stage("calibrate and reconstruct"), progress(f"{modality}: calibrate") as update:
            result = job.run(known, made, geometry=geometry, seed=seed, progress=update)
        best = result.reconstructions["estimated"]
        write_calibration(out.path("calibration.json"), result.calibration, known)
        write_image(out.path("reconstruction.ome.tif"), best.image, stated.voxel_um, description="diffphys: reconstruction")
        counts = best.prediction.reshape(made.y.shape)
        write_image(
            out.path("prediction.ome.tif"), counts, stated.voxel_um, description="diffphys: expected counts of the model"
        )
        figure(
            out.path("figure.png"),
            y=made.y,
            modality=known,
            geometry=geometry,
            calibration=result.calibration,
            reconstruction=best,
            truth=made.x,
            truth_spec=made.spec,
            title=f"{modality}, simulated ({family})",
        )
        how = reconstruction_as_dict(best, result.calibration.spec, made.detector)
        optics = {"modality": modality, "geometry": geometry, "detector": made.detector, "ranges": result.calibration.ranges}
        record = run_record(
            command=sys.argv,
            inputs={"stack": out.path("measurement.h5")},
            optics={**optics, "sample": "sample_00"},
            options={"seed": seed, "scene": family, "method": "richardson_lucy"},
            started=started,
            seconds=clock.seconds,
        )
        record["inputs"]["stack"]["path"] = str(output / "measurement.h5")  # where it is published
        write_json(out.path("run.json"), {**record, "reconstruction": how})
        out.publish()
    _print_demo(known, made, result, output)


def _print_demo(known: Any, made: Any, result: Any, output: Path) -> None:
    calibration = result.calibration
    rows = [("parameter", "truth", "estimate", "± sigma", "unit", "error / sigma")]
    for field in known.FIELDS:
        truth, value = float(getattr(made.spec, field.name)), calibration.values[field.name]
        sigma = calibration.sigma[field.name]
        pull = f"{(value - truth) / sigma:+.1f}" if sigma else ""
        cells = (show.number(truth, sigma), show.number(value, sigma), show.number(sigma, sigma))
        rows.append((field.name, *cells, field.unit, pull))
    print(f"\n{known.NAME}\n{show.table(rows)}")
    print(f"calibration: {calibration.status.name}, {calibration.remedy}")
    print("PSNR: " + ", ".join(f"{name} {value:.2f} dB" for name, value in result.psnr.items()))
    print(f"results: {output}")
    warn(calibration.warnings)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another --output, or add --overwrite")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: {path.parent} is not a folder; choose another --output")
