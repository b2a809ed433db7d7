"""Who computes the tasks: this process, or Dask workers on this machine, over ssh or under Slurm.

A worker is one process with one thread. It may die at any time: its task goes to another one, and since a task is idempotent
nothing is lost; a new worker takes its place. Workers need the same paths: a shared folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diffphys.scale import slurm, ssh
from diffphys.scale.job import run_task

KINDS = ("none", "local", "ssh:HOST,HOST,...", "slurm", "slurm:OPTION=VALUE,...")
DEATHS = 100  # workers that may die under one task before it is given up as the cause
ROUND = 5.0  # seconds between two looks at the workers
POLL = 0.05  # seconds between two looks at the tasks
FOREVER = "3650 days"  # dask would give lost workers up, and with them those that have just replaced them: keepers do that
Done = Callable[[int], Any]


def kind_of(cluster: str) -> str:
    """none, local, ssh or slurm; ValueError for anything else."""
    kind, colon, _ = cluster.partition(":")
    if (kind in ("none", "local") and not colon) or kind == "slurm" or (kind == "ssh" and colon):
        return kind
    raise ValueError(f"--cluster is {cluster!r}; expected one of {', '.join(KINDS)}")


def on_one_machine(cluster: str, workers: int) -> int:
    """How many of the workers share a machine's memory; a Slurm job has its own."""
    kind = kind_of(cluster)
    if kind == "ssh":
        return -(-workers // len(ssh.hosts(cluster)))
    return workers if kind == "local" else 1


def expect(cluster: str, *, workers: int, memory: int | None, paths: Sequence[Path]) -> None:
    """ValueError, one line, for a cluster that cannot be had.

    Args:
        cluster: one of KINDS.
        workers: how many processes.
        memory: bytes for each that the user stated; None: nothing.
        paths: what every host must see.
    """
    kind = kind_of(cluster)
    if kind != "none":
        _library()
    if kind == "ssh":
        ssh.expect(cluster, workers=workers, paths=paths)
    if kind == "slurm":
        if memory is None:
            raise ValueError("--cluster slurm needs --memory: what a job may use, e.g. 6GiB")
        slurm.expect(cluster, memory=memory)


def compute(
    folder: Path, tasks: Iterable[int], *, cluster: str, workers: int, memory: int, done: Done, tell: Callable[[str], Any]
) -> None:
    """Run every task; `done` is called with each that has finished and may raise to stop.

    Args:
        folder: the working folder.
        tasks: numbers.
        cluster: one of KINDS.
        workers: how many processes.
        memory: bytes of each.
        done: called in this process.
        tell: called with each line for the user.
    """
    place = str(folder.absolute())  # a worker elsewhere starts in another folder
    if cluster == "none":
        for task in tasks:
            done(run_task(place, task))
        return
    with ExitStack() as stack:
        made = connect(stack, cluster, workers=workers, memory=memory, folder=Path(place))
        client = stack.enter_context(_library()[1].Client(made))
        futures = {client.submit(run_task, place, task, pure=False, key=f"tile-{task}"): task for task in tasks}
        look = keeper(made, cluster, workers=min(workers, len(futures)), folder=Path(place), tell=tell)
        for future in finished(futures, look):
            done(futures[future])


def finished(futures: Iterable[Any], look: Callable[[int], Any]) -> Iterator[Any]:
    """The futures as they finish; every ROUND seconds `look` is called with how many are left.

    No result is fetched: it would lie with its worker, and wait for a new one if that has died since.
    """
    from distributed import as_completed

    coming, looked = as_completed(futures), time.monotonic()
    while not coming.is_empty():
        for future in coming.next_batch(block=False):
            if future.cancelled():
                raise ValueError("Dask's scheduler is lost; finished tiles are kept: repeat the command to go on")
            if future.status == "error":
                future.result()  # raises
            yield future
            future.release()
        if time.monotonic() - looked > ROUND:
            look(coming.count())
            looked = time.monotonic()
        time.sleep(POLL)


def connect(stack: ExitStack, cluster: str, *, workers: int, memory: int, folder: Path) -> Any:
    """A new Dask cluster, which ends with `stack`."""
    dask, _ = _library()
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.worker.memory.terminate": False,  # our plan keeps the limit
        "distributed.deploy.lost-worker-timeout": FOREVER,
    }
    stack.enter_context(dask.config.set(settings))
    return stack.enter_context(make_cluster(cluster, workers=workers, memory=memory, folder=folder))


def make_cluster(cluster: str, *, workers: int, memory: int, folder: Path) -> Any:
    """The Dask cluster of a kind that `expect` lets through."""
    kind, (_, distributed) = kind_of(cluster), _library()
    if kind == "ssh":
        return ssh.make(cluster, workers=workers)
    if kind == "slurm":
        return slurm.make(cluster, memory=memory, logs=folder / "logs")
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
    )


def keeper(made: Any, cluster: str, *, workers: int, folder: Path, tell: Callable[[str], Any]) -> Callable[[int], Any]:
    """What replaces the workers that are gone, given how many tasks are left."""
    kind = kind_of(cluster)
    if kind == "slurm":
        return slurm.Keeper(made, workers, logs=folder / "logs", tell=tell)
    if kind == "ssh":
        return ssh.Keeper(made, tell=tell)
    return lambda left: None  # a local worker has a nanny


def _library() -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError:
        raise ValueError("--cluster needs dask and distributed: pip install 'diffphys[cluster]'") from None
    return dask, distributed
