"""An OME-Zarr volume from counts to image: survey, calibration on a window, plan, tiles, pyramid. Resumes by itself.

What the tiles share is decided once (`prepare`) and kept in the plan; a second call with the same request goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffphys.io import omezarr
from diffphys.io.optics_file import Optics, full_ranges
from diffphys.io.results import calibration_as_dict, plain
from diffphys.reconstruct import method_name, problem_of
from diffphys.scale import cluster as machines
from diffphys.scale import job, memory
from diffphys.scale.methods import tiled
from diffphys.scale.plan import Plan, make_plan
from diffphys.scale.survey import Survey, survey
from diffphys.scale.tiles import halo_of
from diffphys.spec import parse_ranges
from diffphys.types import Status, resolve

WORKER = 350 * 2**20  # bytes that a Dask worker holds before its first task: Python, jax, dask


@dataclass(frozen=True)
class Request:
    """What the user asked for; a resumed run must ask for the same (`identity`).

    Attributes:
        source: OME-Zarr input.
        optics: as `io.optics_file.read` returns it.
        spec: parameter values by name; None: calibrate. `{}`: nominal.
        method, options: of the reconstruction.
        ranges: search ranges that replace the file's.
        channel: number; None: all.
        voxel_um: (z, y, x) instead of the file's.
        seed: of everything random.
        tile: core of a tile (z, y, x); None: by the memory.
        budget: bytes for all workers of one machine together; slurm: for each job.
        cluster, workers: see `scale.cluster`.
    """

    source: Path
    optics: Optics
    spec: Mapping[str, float] | None = None
    method: str = "richardson_lucy"
    options: Mapping[str, Any] | None = None
    ranges: Mapping[str, tuple[float, float]] | None = None
    channel: int | None = None
    voxel_um: tuple[float, ...] | None = None
    seed: int = 0
    tile: tuple[int, ...] | None = None
    budget: int | None = None
    cluster: str = "none"
    workers: int = 1

    def identity(self) -> dict[str, Any]:
        """All that the result depends on; memory and machines do not."""
        named = {n: getattr(self, n) for n in ("spec", "method", "options", "ranges", "channel", "voxel_um", "seed", "tile")}
        return dict(plain({"source": str(self.source.resolve()), "optics": self.optics.as_dict(), **named}))

    @property
    def each(self) -> int:
        """Bytes of one worker."""
        total = memory.available() if self.budget is None else self.budget
        return total // machines.on_one_machine(self.cluster, self.workers)


def restore(
    request: Request, output: Path, *, progress: Any, tell: Callable[[str], Any], overwrite: bool = False
) -> dict[str, Any]:
    """Restore a volume; the record of the run, `tiles` with the facts of every task among it.

    Args:
        request: what to do.
        output: OME-Zarr folder to make; its working folder is `output`.part.
        progress: title -> context manager that gives update(fraction, text).
        tell: called with each line for the user.
        overwrite: replace `output`, and a working folder of another request.

    Raises:
        ValueError: input, request or memory do not do; one line.
    """
    memory.return_freed()
    machines.kind_of(request.cluster)
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists; choose another --output, or add --overwrite")
    paths = (request.source.resolve(), output.absolute().parent)
    machines.expect(request.cluster, workers=request.workers, memory=request.budget, paths=paths)
    folder = job.Folder.of(output)
    with folder.locked():
        plan = _resumed(folder, request, overwrite)
        if plan is None:
            plan = prepare(request, name=output.stem, progress=progress, tell=tell)
            job.start(folder, plan)
        compute(folder, request, progress=progress, tell=tell)
        record = {**plan, "tiles": folder.facts()}
        job.finish(folder, output)
    return record


def _resumed(folder: job.Folder, request: Request, overwrite: bool) -> dict[str, Any] | None:
    """The plan that this request started earlier; None for a new one."""
    plan = folder.plan()
    if plan is None:
        return None
    asked, now = plan["request"], request.identity()
    differs = sorted(n for n in now if now[n] != asked.get(n))
    if not differs:
        return plan
    if not overwrite:
        raise ValueError(
            f"{folder.path.name} holds unfinished work with another {', '.join(differs)}; repeat that command to go on, or add "
            "--overwrite to start anew"
        )
    shutil.rmtree(folder.path / "tiles")
    shutil.rmtree(folder.image, ignore_errors=True)
    (folder.path / "plan.json").unlink()
    return None


def compute(folder: job.Folder, request: Request, *, progress: Any, tell: Callable[[str], Any]) -> None:
    """Every task that is not finished."""
    work = job.open_work(folder)
    finished = folder.finished()
    todo = [n for n in range(work.tasks) if n not in finished]
    if finished:
        tell(f"going on: {len(finished)} of {work.tasks} tiles are finished")
    with progress("reconstruct") as update:
        count = [len(finished)]

        def done(task: int) -> None:
            count[0] += 1
            update(count[0] / work.tasks, f"{count[0]} of {work.tasks} tiles")

        machines.compute(
            folder.path,
            todo,
            cluster=request.cluster,
            workers=request.workers,
            memory=request.each,
            done=done,
            tell=tell,
        )


def prepare(request: Request, *, name: str, progress: Any, tell: Callable[[str], Any]) -> dict[str, Any]:
    """The plan of a new job: everything that is the same for all tiles."""
    method = method_name(request.method)
    known = tiled(method)
    modality, volume = resolve(request.optics.modality), opened(request)
    if modality.NAME != "confocal_3d":
        raise ValueError(f"{request.optics.source} is for {modality.NAME}; volumes in tiles are for confocal_3d")
    voxel_um = request.voxel_um or volume.voxel_um or request.optics.voxel_um
    if voxel_um is None:
        raise ValueError(f"{request.source.name} states no voxel size in a unit of length; give --voxel-um Z Y X")
    geometry = request.optics.bind(volume.shape, tuple(voxel_um))
    with progress("survey") as update:
        seen = survey(volume, volume.batch[0], progress=lambda fraction: update(fraction, "reading"))
    _check(seen, request.optics.detector, request.source.name)
    for line in (*seen.warnings, *modality.sampling_warnings(geometry)):
        tell(f"warning: {line}")
    window = volume.read(volume.batch[0], seen.window)
    near = replace(
        modality.block(geometry, window.shape), depth_um=geometry.depth_um + seen.window[0].start * geometry.voxel_um[0]
    )
    calibration, spec, detector = instrument(request, modality, window, near, progress)
    problem = problem_of(window, modality, spec, geometry=near, detector=detector)
    stated = dict(request.options or {})
    if method != "wiener":
        stated["seed"] = request.seed
    with progress("settle") as update:
        options = known.settle(problem, stated, lambda k, v: update(1 - 0.97**k, f"iteration {k}"))
    for line in known.warnings(problem):
        tell(f"warning: {line}")
    del problem
    if calibration is not None:
        memory.release()  # its many programs would count against the tiles
    halo = halo_of(modality, spec, geometry)
    plan = tiling(request, volume.shape, method, options, halo, geometry.depth_anchors)
    tell(f"plan: {plan}" + (f", {request.workers} workers" if request.cluster != "none" else ""))
    record = {
        "request": request.identity(),
        "source": str(request.source.resolve()),
        "name": name,
        "channel": request.channel,
        "modality": modality.NAME,
        "geometry": asdict(geometry),
        "spec": {f.name: float(getattr(spec, f.name)) for f in modality.FIELDS},
        "detector": {n: float(v) for n, v in vars(detector).items()},
        "calibration": None if calibration is None else calibration_as_dict(calibration, modality),
        "window": [[w.start, w.stop] for w in seen.window],
        "counts": {"low": seen.low, "high": seen.high, "mean": seen.mean},
        "method": method,
        "options": options,
        "plan": plan._asdict(),
    }
    return dict(plain(record))


def opened(request: Request) -> omezarr.Volume:
    """The input, with the channel that was asked for."""
    volume = omezarr.open_volume(request.source)
    if request.channel is None:
        return volume
    count = volume.lead[-1] if volume.axes.endswith("czyx") else 0
    if not 0 <= request.channel < count:
        raise ValueError(f"--channel is {request.channel}; {request.source.name} has {count} channels, numbered from 0")
    return volume.only_channel(request.channel)


def instrument(request: Request, modality: Any, window: Any, geometry: Any, progress: Any) -> tuple[Any, Any, Any]:
    """Calibration (or None), spec and detector from the window."""
    from diffphys.calibrate import calibrate
    from diffphys.calibrate.detector import estimate
    from diffphys.io.results import checked_spec

    if request.spec is not None:
        nominal = {f.name: float(getattr(modality.nominal(geometry), f.name)) for f in modality.FIELDS}
        detector, _ = estimate(window, modality, geometry=geometry, detector=request.optics.detector)
        return None, checked_spec({**nominal, **request.spec}, modality), detector
    stated = full_ranges(modality, geometry, request.optics.ranges)
    ranges = full_ranges(modality, geometry, parse_ranges(modality.FIELDS, stated, request.ranges or {}))
    with progress("calibrate") as update:
        found = calibrate(
            window,
            modality,
            detector=request.optics.detector,
            seed=request.seed,
            progress=update,
            geometry=geometry,
            ranges=ranges,
        )
    unknown = set(found.names) <= set(found.undetermined) or found.status == Status.NONFINITE
    return found, modality.nominal(geometry) if unknown else found.spec, found.detector


def tiling(request: Request, shape: Any, method: str, options: Any, halo: Any, anchors: int) -> Plan:
    """The plan for the stated tile or, without one, for the memory."""
    chunk = omezarr.CHUNK
    held = memory.resident() if request.cluster == "none" else WORKER
    limit = memory.device_limit()
    budget = request.each if limit is None else min(request.each, held + int(0.9 * limit))
    if request.tile is None:
        return make_plan(
            shape, method=method, options=options, halo=halo, anchors=anchors, budget=budget, held=held, chunk=chunk
        )
    tile = [t if t <= c else -(-t // c) * c for t, c in zip(request.tile, chunk, strict=True)]
    small = [min(t, c) for t, c in zip(tile, chunk, strict=True)]
    return make_plan(
        shape,
        method=method,
        options=options,
        halo=halo,
        anchors=anchors,
        budget=request.each,
        held=held,
        chunk=small,
        core=tile,
    )


def _check(seen: Survey, detector: Any, name: str) -> None:
    from diffphys.io.counts import floor

    lowest = floor(detector)
    if seen.low < min(0.0, lowest):
        raise ValueError(
            f"{name} has negative values (minimum {seen.low:g}); expected raw counts: subtract nothing and give the detector's "
            "offset in the optics file (detector: offset)"
        )
