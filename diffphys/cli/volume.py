"""`diffphys reconstruct INPUT.zarr -o OUT.zarr`: volumes beyond memory, tile by tile, on one machine or many."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffphys.cli import options
from diffphys.cli.session import Clock, Interrupted, progress, say

REFUSED = {"psf": "--psf", "zernike": "--zernike", "axes": "--axes", "sample": "--sample"}


def is_volume(stack: Path) -> bool:
    """Whether the input is an OME-Zarr folder."""
    return stack.suffix == ".zarr"


def expect_whole(arguments: Mapping[str, Any]) -> None:
    """Raise for an option of volumes where the input is none."""
    given = [n for n, plain in (("memory", None), ("tile", None), ("cluster", "none"), ("workers", 1)) if arguments[n] != plain]
    if given:
        raise ValueError(f"--{given[0]} is for OME-Zarr volumes (.zarr); {arguments['stack'].name} is restored as a whole")


def reconstruct(arguments: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
    """Restore a volume; `arguments` are the command's, `choice` the method's checked options."""
    request, output = requested(arguments, choice), arguments["output"]
    from diffphys.scale import volume

    clock, began = Clock(), datetime.now(UTC)
    try:
        with clock.stage("reconstruct"):
            record = volume.restore(
                request, output, progress=progress, tell=lambda line: say(*_kind(line)), overwrite=arguments["overwrite"]
            )
    except KeyboardInterrupt:
        raise Interrupted(f"finished tiles are kept in {output.name}.part; repeat the command to go on") from None
    _write_record(arguments, record, output, clock, began)
    print(f"reconstruction: {record['method']}, {len(record['tiles'])} tiles")
    print(f"results: {output}")


def requested(arguments: Mapping[str, Any], choice: Mapping[str, Any]) -> Any:
    """The command's arguments as a checked request."""
    from diffphys.io import optics_file
    from diffphys.scale import memory
    from diffphys.scale.volume import Request

    a, stack = arguments, arguments["stack"]
    for name, option in REFUSED.items():
        if a.get(name) is not None:
            raise ValueError(f"{option} is not available for OME-Zarr volumes; leave it out")
    if a["optics"] is None:
        raise ValueError(f"{stack.name} needs --optics FILE; `diffphys optics --init confocal_3d -o optics.yaml` writes one")
    if a["output"].suffix != ".zarr":
        raise ValueError(f"--output is {a['output']}; a volume becomes a volume: expected a name that ends in .zarr")
    if a["channel"] is not None and not a["channel"].isdigit():
        raise ValueError(f"--channel is {a['channel']!r}; expected the channel's number for an OME-Zarr volume")
    optics = optics_file.read(a["optics"], modality=a["modality"])
    tile = options.numbers(a["tile"], "--tile")
    if tile is not None and (len(tile) != 3 or min(tile) < 1):
        raise ValueError(f"--tile is {a['tile']!r}; expected three positive voxel counts Z Y X")
    return Request(
        source=stack,
        optics=optics,
        spec=_spec(a["spec"], optics.modality),
        method=a["method"],
        options={n: v for n, v in choice.items() if n != "seed"},
        ranges=options.ranges(a["ranges"]) or None,
        channel=None if a["channel"] is None else int(a["channel"]),
        voxel_um=options.numbers(a["voxel_um"], "--voxel-um"),
        seed=a["seed"],
        tile=None if tile is None else tuple(int(t) for t in tile),
        budget=None if a["memory"] is None else memory.parse(a["memory"]),
        cluster=a["cluster"],
        workers=a["workers"],
    )


def _spec(text: str | None, modality: str) -> dict[str, float] | None:
    """Stated parameter values by name; those of a calibration.json, or NAME=NUMBER,..."""
    from diffphys.io.results import parse_spec, read_spec
    from diffphys.types import resolve

    if text is None:
        return None
    known = resolve(modality)
    if "=" not in text:
        spec = read_spec(text, known)
        return {f.name: float(getattr(spec, f.name)) for f in known.FIELDS}
    stated = [part.partition("=")[0].strip() for part in text.split(",") if part.strip()]
    spec = parse_spec(text, known, known.Geometry())
    return {name: float(getattr(spec, name)) for name in stated}


def _kind(line: str) -> tuple[str, str]:
    """`warning: text` -> its kind and its text; other lines are notes."""
    kind, _, text = line.partition(": ")
    return (kind, text) if kind in ("warning", "plan") else ("note", line)


def _write_record(arguments: Mapping[str, Any], record: dict[str, Any], output: Path, clock: Clock, began: datetime) -> None:
    """`OUT.run.json` and, where the instrument was calibrated, `OUT.calibration.json` beside the volume."""
    from diffphys.io.provenance import run_record
    from diffphys.io.results import write_json

    calibration = record.pop("calibration")
    if calibration is not None:
        write_json(output.with_suffix(".calibration.json"), calibration)
    told = run_record(
        command=sys.argv, inputs={"optics": arguments["optics"]}, optics=record["request"].pop("optics"),
        options=arguments, started=began, seconds=clock.seconds,
    )  # fmt: skip
    write_json(output.with_suffix(".run.json"), {**told, "volume": record})
