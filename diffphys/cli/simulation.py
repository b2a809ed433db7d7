"""`diffphys simulate`: a mismatched measurement with its truth, as HDF5 and as TIFF with the optics file to read it."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from diffphys.cli import options, show

Family = Annotated[str | None, typer.Option("--scene", help="Scene family: beads, filaments, cells | collagen, wavy, sparse.")]
Photons = Annotated[float, typer.Option("--photons", min=1.0, help="Photons in the brightest voxel.")]
Shape = Annotated[str | None, typer.Option("--shape", metavar="Z Y X", help="Voxels of the field.")]
ModalityName = Annotated[str, typer.Option("--modality", help="confocal_3d or shg.", show_default=False)]

FILES = ("measurement.h5", "measurement.ome.tif", "truth.ome.tif", "optics.yaml")
_FAMILY = {"confocal_3d": "beads", "shg": "collagen"}
_SHAPE = {"confocal_3d": (32, 64, 64), "shg": (128, 128)}


def simulate(
    modality: ModalityName,
    output: options.Output,
    optics: options.OpticsPath = None,
    spec: options.SpecText = None,
    scene: Family = None,
    photons: Photons = 1000.0,
    shape: Shape = None,
    voxel_um: options.VoxelUm = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Simulate a measurement of a mismatched instrument."""
    from diffphys.demo import random_spec, simulated
    from diffphys.io.output_folder import OutputFolder
    from diffphys.io.results import parse_spec, read_spec
    from diffphys.types import resolve

    known = resolve(modality)
    stated, geometry = instrument(modality, optics, options.numbers(shape, "--shape"), options.numbers(voxel_um, "--voxel-um"))
    if spec is None:
        truth = random_spec(known, geometry, seed)
    else:
        truth = parse_spec(spec, known, geometry) if "=" in spec else read_spec(spec, known)
    family = scene or _FAMILY[modality]
    with OutputFolder(output, names=FILES, overwrite=overwrite) as out:
        stated_noise = {n: v for n in ("gain", "offset", "read_sigma") if isfinite(v := float(getattr(stated.detector, n)))}
        made = simulated(known, truth, geometry=geometry, family=family, seed=seed, photons=photons, **stated_noise)
        write(out, known, geometry, stated, made, family=family)
        out.publish()
    rows = [("parameter", "truth", "unit")]
    rows += [(f.name, show.number(float(getattr(truth, f.name)), None), f.unit) for f in known.FIELDS]
    print(show.table(rows))
    print(f"results: {output}")


def instrument(
    modality: str, optics: Path | None, shape: tuple[float, ...] | None, voxel_um: tuple[float, ...] | None
) -> tuple[Any, Any]:
    """The optics (the template's where no file is given) and the geometry of the field."""
    from dataclasses import replace

    from diffphys.io import optics_file, optics_template
    from diffphys.types import resolve

    known = resolve(modality)
    stated = (
        optics_file.read(optics, modality=modality)
        if optics is not None
        else optics_file.parse(optics_template.template(modality), name="template", modality=modality)
    )
    field = tuple(int(n) for n in shape) if shape else _SHAPE[modality]
    pitch = voxel_um or stated.voxel_um or getattr(known.Geometry(), optics_file.pitch_name(known))
    stated = replace(stated, geometry={**stated.geometry, optics_file.pitch_name(known): list(pitch)})
    return stated, stated.bind(field, pitch)


def write(out: Any, known: Any, geometry: Any, stated: Any, made: Any, *, family: str) -> None:
    """The four files of a simulated measurement."""
    from dataclasses import replace

    from diffphys.io import optics_file
    from diffphys.io.hdf5 import Sample, write_measurement
    from diffphys.io.tiff import write_image

    true = {f.name: float(getattr(made.spec, f.name)) for f in known.FIELDS}
    sample = Sample(made.y, made.detector, x_true=made.x, true_spec=true, family=family)
    ranges = optics_file.full_ranges(known, geometry, stated.ranges)
    write_measurement(out.path("measurement.h5"), known, geometry=geometry, samples={"sample_00": sample}, ranges=ranges)
    pitch = getattr(geometry, optics_file.pitch_name(known))
    write_image(out.path("measurement.ome.tif"), made.y, pitch, description="diffphys: simulated counts")
    write_image(out.path("truth.ome.tif"), made.x, pitch, description="diffphys: simulated specimen")
    text = optics_file.dump(replace(stated, detector=made.detector))
    out.path("optics.yaml").write_text(text, encoding="utf-8")
