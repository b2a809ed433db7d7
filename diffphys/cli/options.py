"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_STACK = "TIFF, OME-TIFF, ImageJ TIFF, HDF5 file or OME-Zarr folder; CZI, ND2 or LIF with the extras `czi`, `bio`."
Stack = Annotated[Path, typer.Argument(help=_STACK, show_default=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.", show_default=False)]
ModalityName = Annotated[str | None, typer.Option("--modality", help="confocal_3d or shg.")]
OpticsPath = Annotated[Path | None, typer.Option("--optics", help="Optics file; `diffphys optics --init` writes one.")]
Channel = Annotated[str | None, typer.Option("--channel", help="Number or name; SCENE/CHANNEL in a maker's file of several.")]
VoxelUm = Annotated[str | None, typer.Option("--voxel-um", metavar="Z Y X", help="Voxel size in um; overrides the header.")]
Axes = Annotated[str | None, typer.Option("--axes", help="Meaning of the file's axes, e.g. zyx, yxf (f: frame).")]
SampleName = Annotated[str | None, typer.Option("--sample", help="Sample of an HDF5 file, e.g. sample_00.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results in the output folder.")]
SpecText = Annotated[str | None, typer.Option("--spec", help="calibration.json, or name=value,name=value.")]


Ranges = Annotated[
    str | None,
    typer.Option("--ranges", metavar="NAME=LOW:HIGH,...", help="Search ranges; one number fixes: refractive_index=1.515."),
]


def ranges(text: str | None) -> dict[str, tuple[float, float]]:
    """`z_step=-20:20,refractive_index=1.515` -> name -> (low, high)."""
    stated = {}
    for part in filter(None, (text or "").split(",")):
        name, _, pair = (p.strip() for p in part.partition("="))
        low, _, high = pair.partition(":")
        try:
            stated[name] = (float(low), float(high or low))
        except ValueError:
            raise ValueError(f"--ranges has {part!r}; expected NAME=LOW:HIGH, e.g. z_step=-20:20") from None
    return stated


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.2,0.1,0.1` -> numbers; ValueError names the option."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} is {text!r}; expected numbers, e.g. {option} 0.2 0.1 0.1") from None
