"""A volume's work as independent tasks in a folder `OUT.zarr.part`: any process may run task N, die, and be replaced.

    plan.json        everything a worker needs, and the request that it answers
    image.zarr       the image, filled tile by tile
    tiles/N.json     task N is finished: written after its voxels, whole or not at all
    logs/            what Slurm jobs printed

A task writes whole chunks that no other task touches, so running one twice does no harm. When all are finished the image takes
its place as OUT.zarr and the folder goes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from diffphys.io import omezarr
from diffphys.io.results import checked_spec, write_json
from diffphys.noise import Detector
from diffphys.scale.methods import tiled
from diffphys.scale.solve import Solver
from diffphys.scale.tiles import Tile, cut
from diffphys.types import resolve


class Folder(NamedTuple):
    """The working folder of one output."""

    path: Path

    @classmethod
    def of(cls, output: Path) -> Folder:
        return cls(output.with_name(output.name + ".part"))

    @property
    def image(self) -> Path:
        return self.path / "image.zarr"

    def plan(self) -> dict[str, Any] | None:
        """What was planned; None where nothing was."""
        at = self.path / "plan.json"
        return json.loads(at.read_text(encoding="utf-8")) if at.exists() else None

    def marker(self, task: int) -> Path:
        return self.path / "tiles" / f"{task}.json"

    def finished(self) -> set[int]:
        """Tasks whose voxels are written."""
        return {int(p.stem) for p in (self.path / "tiles").glob("*.json") if p.stem.isdigit()}

    def facts(self) -> list[dict[str, Any]]:
        """What every finished task wrote down about itself."""
        return [json.loads(self.marker(n).read_text(encoding="utf-8")) for n in sorted(self.finished())]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process plans and gives out tasks; the lock goes with the process, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                pass  # no such lock on this system: tasks are idempotent, two runs only waste time
            except OSError:
                raise ValueError(f"{self.path.name} is in use by another run; wait for it or choose another --output") from None
            try:
                yield
            finally:
                if self.plan() is None:  # nothing was planned: nothing to go on with
                    shutil.rmtree(self.path, ignore_errors=True)


class Work(NamedTuple):
    """A plan opened for computing: the tasks are (stack, tile), tiles fastest."""

    solver: Solver
    source: omezarr.Volume
    target: Any
    stacks: tuple[tuple[int, ...], ...]
    tiles: list[Tile]

    @property
    def tasks(self) -> int:
        return len(self.stacks) * len(self.tiles)


def start(folder: Folder, plan: Mapping[str, Any]) -> None:
    """Write a plan and its empty image."""
    _work.cache_clear()  # of an earlier job at this place
    shutil.rmtree(folder.image, ignore_errors=True)
    (folder.path / "tiles").mkdir(exist_ok=True)
    source = omezarr.open_volume(plan["source"])
    keep = plan["channel"]
    like = source if keep is None else source.only_channel(keep)
    omezarr.create(folder.image, like, voxel_um=plan["geometry"]["voxel_um"], name=plan["name"], chunk=plan["plan"]["chunk"])
    write_json(folder.path / "plan.json", plan)  # last: a plan that can be read is complete


def open_work(folder: Folder) -> Work:
    """The plan's solver, input and output."""
    plan = folder.plan()
    assert plan is not None, "start the job before its tasks"
    modality = resolve(plan["modality"])
    geometry = modality.Geometry(**{n: tuple(v) if isinstance(v, list) else v for n, v in plan["geometry"].items()})
    solver = Solver(
        modality, checked_spec(plan["spec"], modality), geometry, Detector(**plan["detector"]),
        plan["method"], plan["options"], tuple(plan["plan"]["halo"]),
    )  # fmt: skip
    source = omezarr.open_volume(plan["source"])
    source = source if plan["channel"] is None else source.only_channel(plan["channel"])
    target = omezarr.library().open_group(str(folder.image), mode="r+")["0"]
    tiles = cut(source.shape, plan["plan"]["core"], plan["plan"]["halo"], lattice=tiled(plan["method"]).lattice)
    return Work(solver, source, target, tuple(source.batch), tiles)


@lru_cache(maxsize=1)
def _work(path: str) -> Work:
    from diffphys.scale.memory import return_freed

    return_freed()
    return open_work(Folder(Path(path)))


def run_task(path: str, task: int) -> int:
    """Compute one task of the folder at `path`, write its voxels, then its marker; a finished one is left."""
    folder = Folder(Path(path))
    if folder.marker(task).exists():
        return task
    work, began = _work(path), time.perf_counter()
    stack, tile = work.stacks[task // len(work.tiles)], work.tiles[task % len(work.tiles)]
    image = work.solver.solve(tile, lambda window: work.source.read(stack, window))
    work.target[(*stack, *tile.core)] = image
    facts = {"task": task, "seconds": round(time.perf_counter() - began, 3), "process": os.getpid(), "host": platform.node()}
    write_json(folder.marker(task), facts)
    return task


def finish(folder: Folder, output: Path) -> None:
    """Write the pyramid, move the image to `output` and remove the folder."""
    group = omezarr.library().open_group(str(folder.image), mode="r+")
    levels = [group[str(i)] for i in range(len(group.attrs["ome"]["multiscales"][0]["datasets"]))]
    for fine, coarse in pairwise(levels):
        omezarr.downsample(fine, coarse)
    if output.exists():
        shutil.rmtree(output)
    os.replace(folder.image, output)
    (folder.path / "plan.json").unlink()  # first: what may remain is no plan
    shutil.rmtree(folder.path, ignore_errors=True)  # a job that was just cancelled may still write its log
