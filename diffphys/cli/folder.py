"""`diffphys calibrate FOLDER/`: every stack of a folder, equal ones together; goes on where it was stopped."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffphys.cli import show
from diffphys.cli.load import Job
from diffphys.cli.run import Run
from diffphys.cli.session import Interrupted, heed, progress, warn

SUFFIXES = (".tif", ".tiff", ".h5", ".hdf5")
SUMMARY = "calibrations.csv"


class Loaded(NamedTuple):
    """One stack of the folder, read and checked."""

    name: str
    run: Run
    job: Job

    @property
    def kind(self) -> tuple[Any, ...]:
        """What stacks must have in common to share a program."""
        return self.job.modality.NAME, self.job.modality.FIELDS, self.job.geometry, tuple(sorted(self.job.ranges.items()))


class Result(NamedTuple):
    """What one stack's calibration.json says: parameter -> (value, 1 sigma)."""

    name: str
    status: str
    parameters: Mapping[str, tuple[float, float]]


def stacks_in(folder: Path) -> list[Path]:
    """The stacks of a folder by name; ValueError where there is none, or two would have one folder of results."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise ValueError(f"folder {folder} holds no stack; expected files that end in {', '.join(SUFFIXES)}")
    stems = [stem(f) for f in files]
    double = next((s for s in stems if stems.count(s) > 1), None)
    if double is not None:
        raise ValueError(f"folder {folder} holds two stacks named {double}; rename one")
    return files


def stem(path: Path) -> str:
    return path.name.split(".ome.")[0] if ".ome." in path.name else path.stem


def calibrate_folder(arguments: Mapping[str, Any], *, shared: bool, width: int) -> None:
    """Calibrate what is not calibrated yet; the table of all results. Options as of `calibrate`."""
    output, files = Path(arguments["output"]), stacks_in(arguments["stack"])
    done = [] if arguments["overwrite"] else [f for f in files if (output / stem(f) / "calibration.json").exists()]
    failed: dict[str, str] = {}
    loaded = _loaded([f for f in files if f not in done], arguments, failed)
    if shared and done:
        raise ValueError(f"{output} holds results already; one spec for all stacks needs all of them: add --overwrite")
    try:
        with progress("calibrate") as update:
            for count, group in _groups(loaded, shared=shared, width=width):
                part = _part(update, count, len(group), len(files) - len(done))
                _calibrated(group, output, shared=shared, width=width, update=part)
    except KeyboardInterrupt:
        raise Interrupted(f"finished stacks are kept in {output}; the same command goes on with the others") from None
    finally:
        results = _summary(output, files)
    if done:
        warn([f"{len(done)} stacks were calibrated before and are kept; add --overwrite to calibrate them again"])
    print(_table(results))
    print(f"results: {output}")
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise ValueError(f"{len(failed)} of {len(files)} stacks cannot be calibrated ({told}); the others are finished")


def _loaded(files: Sequence[Path], arguments: Mapping[str, Any], failed: dict[str, str]) -> Iterator[Loaded]:
    from diffphys.calibrate.blind import checked

    for file in files:
        run = Run({**arguments, "stack": file})
        try:
            job = run.load()
            checked(job.y, job.modality, job.geometry)
        except (ValueError, OSError) as error:
            failed[file.name] = str(error)
            continue
        yield Loaded(stem(file), run, job)


def _groups(loaded: Iterator[Loaded], *, shared: bool, width: int) -> Iterator[tuple[int, list[Loaded]]]:
    """Stacks of one kind, at most `width` at a time unless they share a spec; with the number of those before."""
    waiting: dict[tuple[Any, ...], list[Loaded]] = {}
    count = 0
    for one in loaded:
        group = waiting.setdefault(one.kind, [])
        group.append(one)
        if shared and len(waiting) > 1:
            first = next(iter(waiting.values()))[0]
            raise ValueError(
                f"{one.name} and {first.name} differ in shape, optics or ranges; one spec for all needs equal ones"
            )
        if len(group) == width and not shared:
            yield count, waiting.pop(one.kind)
            count += width
    for group in waiting.values():
        yield count, group
        count += len(group)


def _part(update: Any, before: int, size: int, total: int) -> Any:
    """The bar of one group as its part of the whole."""
    return lambda fraction, text: update((before + fraction * size) / total, text)


def _calibrated(group: list[Loaded], output: Path, *, shared: bool, width: int, update: Any) -> None:
    from diffphys.calibrate import calibrate_batch
    from diffphys.io.output_folder import OutputFolder
    from diffphys.io.results import write_calibration

    first = group[0]
    found = calibrate_batch(
        [one.job.y for one in group], first.job.modality, geometry=first.job.geometry, ranges=first.job.ranges,
        detector=[one.job.detector for one in group], shared=shared, width=width, seed=first.run.arguments["seed"],
        progress=update,
    )  # fmt: skip
    for one, calibration in zip(group, found, strict=True):
        with OutputFolder(output / one.name, overwrite=one.run.arguments["overwrite"]) as out:
            one.run.write_calibration(one.job, out, calibration)
            one.run.figure(one.job, out, calibration, None)
            one.run.finish(one.job, out)
        one.run.warn([f"{one.name}: {line}" for line in calibration.warnings])
        heed()
    if shared:
        write_calibration(output / "calibration.json", found[0], first.job.modality)


def _summary(output: Path, files: Sequence[Path]) -> list[Result]:
    """All results so far, also written as a table of comma-separated values."""
    from diffphys.io.atomic import write_text

    paths = {stem(file): output / stem(file) / "calibration.json" for file in files}
    held = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    results = [
        Result(name, told["status"], {n: (p["value"], p["sigma"]) for n, p in told["parameters"].items()})
        for name, told in held.items()
    ]
    if results:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["stack", "status", *(f"{n}{tail}" for n in results[0].parameters for tail in ("", "_sigma"))])
        writer.writerows([r.name, r.status, *(v for pair in r.parameters.values() for v in pair)] for r in results)
        write_text(output / SUMMARY, text.getvalue())
    return results


def _table(results: Sequence[Result]) -> str:
    heading = ["stack", "status", *(results[0].parameters if results else [])]
    rows = [
        [r.name, r.status, *(f"{show.number(v, s)} ± {show.number(s, s)}" for v, s in r.parameters.values())] for r in results
    ]
    return show.table([heading, *rows])
