"""Watch a running job from outside: wall clock, processor time and memory of all its processes, its log and its result pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from diffphys.benchmark.runner.limits import Limits
from diffphys.benchmark.runner.verdict import Code

_TICK_S = 0.01
_PAGE, _JIFFY = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class Pump(threading.Thread):
    """Drains a pipe to its end and keeps the first `limit` bytes: a flood neither blocks the job nor fills our memory."""

    def __init__(self, descriptor: int, limit: int) -> None:
        super().__init__(daemon=True)
        self.descriptor, self.limit, self.kept, self.total = descriptor, limit, bytearray(), 0
        self.start()

    def run(self) -> None:
        while part := os.read(self.descriptor, 65536):
            self.kept += part[: max(self.limit - len(self.kept), 0)]
            self.total += len(part)
        os.close(self.descriptor)


def watch(
    process: subprocess.Popen[bytes], limits: Limits, *, also: Callable[[], Code | None] = lambda: None
) -> tuple[Code | None, float, int]:
    """Wait for a job and end it when it passes a limit; the process is reaped on return.

    Args:
        process: leader of its own process group, mother of all processes of the job.
        limits: what the job may use.
        also: one more check per tick.

    Returns:
        (limit that was passed or None, wall seconds, peak resident bytes).
    """
    start, peak, used, broken = time.monotonic(), 0, 0.0, None
    try:
        while process.poll() is None:
            resident, cpu = usage(process.pid)
            peak, used = max(peak, resident), max(used, cpu)
            if time.monotonic() - start > limits.wall_s:
                broken = Code.TIME
            elif resident > limits.memory:
                broken = Code.MEMORY
            elif used > limits.cpu_s:
                broken = Code.CPU
            else:
                broken = also()
            if broken is not None:
                break
            time.sleep(_TICK_S)
    finally:
        end(process)
    return broken, time.monotonic() - start, peak


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group and reap its leader; the sandbox dies with it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def usage(root: int) -> tuple[int, float]:
    """Resident bytes and processor seconds of a process and all its descendants; the reaped ones count through their mother."""
    parents, cost = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has just ended
            pid = int(entry)
            parents[pid] = int(fields[1])
            cost[pid] = (int(fields[21]) * _PAGE, sum(map(int, fields[11:15])) / _JIFFY)
    family = {root}
    while more := {p for p, mother in parents.items() if mother in family and p not in family}:
        family |= more
    mine = [cost[p] for p in family if p in cost]
    return sum(m for m, _ in mine), sum(c for _, c in mine)


def printable(log: bytes) -> str:
    """Text without control characters other than tab and newline."""
    text = log.decode("utf-8", "replace")
    return "".join(c if c in "\t\n" or c.isprintable() else "?" for c in text)
