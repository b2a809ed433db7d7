"""Who computes the tasks: this process, or Dask workers on this machine, over ssh or under Slurm.

A worker is one process with one thread. It may die at any time: its task goes to another one, and since a task is idempotent
nothing is lost. Workers need the same paths: a shared folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from diffphys.scale.job import run_task

KINDS = ("none", "local", "ssh:HOST,HOST,...", "slurm")
DEATHS = 100  # workers that may die under one task before it is given up as the cause
Done = Callable[[int], Any]


def expect(cluster: str) -> None:
    """ValueError for an unknown kind of cluster or an absent package."""
    if cluster == "none":
        return
    if cluster not in ("local", "slurm") and not (cluster.startswith("ssh:") and cluster[4:].strip(", ")):
        raise ValueError(f"--cluster is {cluster!r}; expected one of {', '.join(KINDS)}")
    _library()


def compute(folder: Path, tasks: Iterable[int], *, cluster: str, workers: int, memory: int, done: Done) -> None:
    """Run every task; `done` is called with each that has finished and may raise to stop.

    Args:
        folder: the working folder.
        tasks: numbers.
        cluster: one of KINDS.
        workers: how many processes.
        memory: bytes of each.
        done: called in this process.
    """
    if cluster == "none":
        for task in tasks:
            done(run_task(str(folder), task))
        return
    with ExitStack() as stack:
        client = stack.enter_context(connect(stack, cluster, workers=workers, memory=memory))
        from distributed import as_completed

        futures = [client.submit(run_task, str(folder), task, pure=False, key=f"tile-{task}") for task in tasks]
        for future in as_completed(futures):
            done(future.result())
            future.release()


def connect(stack: ExitStack, cluster: str, *, workers: int, memory: int) -> AbstractContextManager[Any]:
    """A Dask client of a new cluster, which ends with `stack`."""
    dask, distributed = _library()
    stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}))
    stack.enter_context(dask.config.set({"distributed.worker.memory.terminate": False}))  # our plan keeps the limit
    return distributed.Client(stack.enter_context(make_cluster(cluster, workers=workers, memory=memory)))


def make_cluster(cluster: str, *, workers: int, memory: int) -> Any:
    """The Dask cluster of a kind that `expect` lets through."""
    _, distributed = _library()
    if cluster == "local":
        return distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
        )
    if cluster.startswith("ssh:"):
        hosts = [h.strip() for h in cluster[4:].split(",") if h.strip()]
        return distributed.SSHCluster(
            [hosts[0], *(hosts[i % len(hosts)] for i in range(workers))], worker_options={"nthreads": 1}
        )
    made = slurm(memory=memory)
    made.scale(jobs=workers)
    return made


def slurm(*, memory: int, **options: Any) -> Any:
    """A Slurm cluster, one worker of one thread per job; partition, account and wall time come from Dask's own
    configuration (`jobqueue.slurm` in ~/.config/dask/jobqueue.yaml)."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ValueError("--cluster slurm needs dask-jobqueue: pip install 'diffphys[cluster]'") from None
    return SLURMCluster(cores=1, processes=1, memory=f"{memory}B", **options)


def _library() -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError:
        raise ValueError("--cluster needs dask and distributed: pip install 'diffphys[cluster]'") from None
    return dask, distributed
