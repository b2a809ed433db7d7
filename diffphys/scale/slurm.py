"""Workers as Slurm jobs: one job is one worker of one thread, and one that ends before the work does is replaced.

`--cluster slurm:partition=short,time=04:00:00,account=lab`: the names are those of sbatch's long options. What Dask itself
needs (network interface, another Python, modules to load) comes from its configuration: `jobqueue.slurm` in
~/.config/dask/jobqueue.yaml, or a variable such as DASK_JOBQUEUE__SLURM__INTERFACE=ib0.
"""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FUTILE = 5  # jobs for each worker that may end in a row without one finished task


def directives(cluster: str) -> list[str]:
    """`slurm:NAME=VALUE,...` as options of sbatch; a comma within a value is kept."""
    text = cluster.partition(":")[2].strip()
    parts = re.split(r",(?=[a-z][a-z-]*=)", text) if text else []
    for part in parts:
        if not re.fullmatch(r"[a-z][a-z-]*=\S+", part):
            raise ValueError(f"--cluster has {part!r}; expected options of sbatch, e.g. slurm:partition=short,time=04:00:00")
    return [f"--{part}" for part in parts]


def options(cluster: str, *, memory: int, logs: Path) -> dict[str, Any]:
    """Arguments of dask-jobqueue's Slurm classes: a worker without a nanny, for Keeper looks after it.

    Args:
        cluster: `slurm` or `slurm:NAME=VALUE,...`.
        memory: bytes of a job.
        logs: folder of the jobs' output, named by their numbers.
    """
    import dask

    _library()  # brings its defaults
    held = dask.config.get("jobqueue.slurm")
    return {
        "cores": 1,
        "processes": 1,
        "memory": f"{memory}B",
        "nanny": False,
        "python": f"exec {held['python'] or sys.executable}",  # in the shell's place: Slurm's signals reach the worker
        "job_name": "diffphys",
        "worker_extra_args": [*held["worker-extra-args"], "--memory-limit", "0"],  # Slurm and our plan keep it
        "job_extra_directives": [f'--output="{logs}/%j.log"', *held["job-extra-directives"], *directives(cluster)],
    }


def expect(cluster: str, *, memory: int) -> None:
    """ValueError where a command of Slurm is absent or Slurm refuses such a job."""
    library = _library()
    asked = options(cluster, memory=memory, logs=Path("."))
    absent = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if absent:
        raise ValueError(f"--cluster slurm needs Slurm's {absent[0]} here; run the command on a machine that can submit jobs")
    script = library.slurm.SLURMJob("tcp://0.0.0.0:0", name="worker", **asked).job_script()
    tried = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True)
    if tried.returncode != 0:
        said = [line.removeprefix("sbatch: error: ") for line in tried.stderr.splitlines() if line.strip()]
        raise ValueError(f"Slurm refuses the workers' job: {said[0] if said else 'no reason given'}")


def make(cluster: str, *, memory: int, logs: Path) -> Any:
    """The Dask cluster, yet without jobs; its scheduler runs in this process."""
    import dask

    library = _library()
    logs.mkdir(parents=True, exist_ok=True)  # a job whose log has no folder ends at once
    scheduler = {"dashboard_address": ":0", **dask.config.get("jobqueue.slurm.scheduler-options")}
    base: Any = library.SLURMCluster
    numbers = itertools.count()

    class Jobs(base):
        def _new_worker_name(self, _: int) -> str:
            return f"job-{next(numbers)}"  # never one of a job that is ending: Dask turns the second of a name away

    return Jobs(scheduler_options=scheduler, **options(cluster, memory=memory, logs=logs))


class Keeper:
    """Sees to it that `count` jobs of a cluster are queued or run; to be called every few seconds.

    Args:
        cluster: as `make` returns it.
        count: jobs.
        logs: folder of their output.
        tell: called with the reason for which a job waits, once for each reason.
    """

    def __init__(self, cluster: Any, count: int, *, logs: Path, tell: Callable[[str], Any]) -> None:
        self.cluster, self.count, self.logs, self.tell = cluster, count, logs, tell
        self.ended: list[str] = []
        self.left = -1
        self.told: set[str] = set()
        cluster.scale(jobs=count)

    def __call__(self, left: int) -> None:
        """Replace the jobs that ended; `left` tasks are to be done. ValueError when job after job ends and no task does."""
        from distributed.core import Status

        known = {name: job.job_id for name, job in dict(self.cluster.workers).items()}
        listed = queue()
        if listed is None:
            return  # Slurm does not answer at the moment: the jobs go on without it
        if left != self.left:
            self.ended, self.left = [], left
        for name, number in known.items():
            if number not in listed:
                self.ended.append(number)
                self.cluster.worker_spec.pop(name, None)
                self.cluster.workers.pop(name).status = Status.closed
            elif listed[number] not in self.told and listed[number]:
                self.told.add(listed[number])
                self.tell(f"Slurm job {number} waits: {listed[number]}")
        if len(self.ended) >= FUTILE * self.count:
            raise ValueError(
                f"{len(self.ended)} Slurm jobs ended and no tile was finished; the last one wrote: {self.last_words()} "
                f"(logs: {self.logs})"
            )
        self.cluster.scale(jobs=self.count)

    def last_words(self) -> str:
        """The last line of the logs of the jobs that ended."""
        for number in reversed(self.ended):
            log = self.logs / f"{number}.log"
            lines = log.read_text(errors="replace").split("\n") if log.exists() else []
            if said := [line.strip() for line in lines if line.strip()]:
                return said[-1]
        return "nothing"


def queue() -> dict[str, str] | None:
    """Why each of the user's live jobs waits, '' for a running one; None when Slurm does not answer."""
    asked = subprocess.run(["squeue", "--noheader", "--me", "--format=%i %T %r"], capture_output=True, text=True)
    if asked.returncode != 0:
        return None
    rows = [line.split(maxsplit=2) for line in asked.stdout.splitlines() if line.strip()]
    return {row[0]: row[2] if row[1] == "PENDING" and row[2] != "None" else "" for row in rows}


def _library() -> Any:
    heeding = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError:
        raise ValueError("--cluster slurm needs dask-jobqueue: pip install 'diffphys[cluster]'") from None
    if signal.getsignal(signal.SIGINT) is not heeding:  # its import makes Ctrl-C an exit with success
        signal.signal(signal.SIGINT, heeding)
    return dask_jobqueue
