"""Workers on hosts that ssh reaches: `ssh:gpu1,me@gpu2:2222`.

Users, ports, keys and jump hosts may stand in ~/.ssh/config as for the ssh command. A host's key must be known, and logging
in must need no password (a key, an agent). The hosts have the same Python at the same path; the first runs the scheduler.
"""

from __future__ import annotations

import asyncio
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CONNECT = {"connect_timeout": 30, "keepalive_interval": 30}  # seconds
RETRY = 60.0  # seconds between two attempts to start lost workers anew
IDLE = "300 s"  # without work: then the processes on the hosts end, should this one have been killed
NEEDED = ("diffphys", "distributed", "zarr")


class Host(NamedTuple):
    """One host as the user wrote it.

    Attributes:
        text: USER@HOST:PORT, user and port optional.
        name: HOST.
        options: of asyncssh's `connect`; what is not stated there comes from ~/.ssh/config.
    """

    text: str
    name: str
    options: dict[str, Any]


def hosts(cluster: str) -> list[Host]:
    """Those of `ssh:HOST,...`; ValueError for what is no host."""
    found = []
    for text in (part.strip() for part in cluster.partition(":")[2].split(",") if part.strip()):
        match = re.fullmatch(r"(?:([^@\s]+)@)?(\[[^\]\s]+\]|[^@:\s]+)(?::(\d+))?", text)
        if match is None:
            raise ValueError(f"--cluster has the host {text!r}; expected HOST, USER@HOST or USER@HOST:PORT")
        user, name, port = match.groups()
        stated = {"username": user, "port": port and int(port)}
        found.append(Host(text, name.strip("[]"), {n: v for n, v in stated.items() if v}))
    if not found:
        raise ValueError("--cluster is ssh: without a host; expected ssh:HOST,HOST,...")
    return found


def expect(cluster: str, *, workers: int, paths: Sequence[Path]) -> None:
    """ValueError for the first host that cannot be reached, lacks the package or does not see `paths`."""
    library, found = _library(), hosts(cluster)
    if workers < len(found):
        raise ValueError(f"--workers is {workers} for {len(found)} hosts; expected at least {len(found)}, one for each")

    async def all_of_them() -> list[str | None]:
        return await asyncio.gather(*(_fault(library, host, paths) for host in found))

    for host, fault in zip(found, asyncio.run(all_of_them()), strict=True):
        if fault is not None:
            raise ValueError(f"--cluster, host {host.text}: {fault}")


async def _fault(library: Any, host: Host, paths: Sequence[Path]) -> str | None:
    """Why a host cannot work; None if it can."""
    look = f"import importlib.util as u; print(*[n for n in {NEEDED} if u.find_spec(n) is None])"
    try:
        async with library.connect(host.name, **CONNECT, **host.options) as connection:
            python = await connection.run(shlex.join([sys.executable, "-c", look]))
            unseen = [p for p in paths if (await connection.run(shlex.join(["test", "-e", str(p)]))).exit_status != 0]
    except (library.Error, OSError, TimeoutError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        return f"{said[0]}; ssh must log in there without a question"
    if python.exit_status != 0:
        return f"{sys.executable} does not run there; expected the same Python at the same path"
    if python.stdout.strip():
        return f"{sys.executable} has no {python.stdout.split()[0]} there; install diffphys[cluster]"
    return f"{unseen[0]} is not there; expected a folder that all hosts share" if unseen else None


def make(cluster: str, *, workers: int) -> Any:
    """Dask's ssh cluster, the workers dealt out to the hosts in turn."""
    import distributed

    found = hosts(cluster)
    places = [found[0], *(found[i % len(found)] for i in range(workers))]
    return distributed.SSHCluster(
        [host.name for host in places],
        connect_options=[{**CONNECT, **host.options} for host in places],
        worker_class="distributed.Worker",  # without a nanny, for Keeper looks after it
        worker_options={"nthreads": 1, "memory_limit": 0},  # our plan keeps the limit
        scheduler_options={"dashboard_address": ":0", "idle_timeout": IDLE},
        silence_logs="error",
    )


class Keeper:
    """Starts workers anew whose process ended or whose host was lost; to be called every few seconds.

    Dask's ssh cluster does not: it knows its workers by name, and they register under their address.

    Args:
        cluster: as `make` returns it.
        tell: called with a line for every worker that is started anew.
    """

    def __init__(self, cluster: Any, *, tell: Callable[[str], Any]) -> None:
        self.cluster, self.tell, self.tried = cluster, tell, -math.inf

    def __call__(self, left: int) -> None:
        """Replace those that are gone, at most once in RETRY seconds: a host may be away for long."""
        from distributed.core import Status

        gone = [name for name, worker in dict(self.cluster.workers).items() if _ended(worker.proc)]
        if not gone or time.monotonic() - self.tried < RETRY:
            return
        self.tried = time.monotonic()
        for worker in map(self.cluster.workers.pop, gone):
            worker.status = Status.closed
            if worker.connection is not None:
                self.cluster.loop.add_callback(worker.connection.close)
            self.tell(f"the worker on {worker.address} ended; starting another one")
        self.cluster.scale(len(self.cluster.worker_spec))


def _ended(process: Any) -> bool:
    """Whether a remote process (None: it could not be started) is over."""
    return process is None or process.returncode is not None or process.is_closing()


def _library() -> Any:
    try:
        import asyncssh
    except ImportError:
        raise ValueError("--cluster ssh needs asyncssh: pip install 'diffphys[cluster]'") from None
    return asyncssh
