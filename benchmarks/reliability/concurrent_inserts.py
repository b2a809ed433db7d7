"""Many processes insert into one leaderboard, some are killed: every acknowledged row is there, none twice.

python benchmarks/reliability/concurrent_inserts.py [--processes N] [--inserts N] [--kills N] [-o FILE]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from diffphys.benchmark import rows
from diffphys.benchmark.store import Store

_FIGURE = {"mean": 0.5, "low": 0.4, "high": 0.6}


def row(worker: int, number: int) -> rows.Row:
    """A row that nobody else writes."""
    tier = {
        **dict.fromkeys(("score", "psnr", "ssim", "consistency"), _FIGURE),
        **{"n": 24, "failed": 0, "seconds_per_sample": 1.0},
        "challenge_sha256": f"{worker:064x}",
        "submission_sha256": f"{number:064x}",
    }
    origin = {"command": "insert", "code_version": "test", "commit": None, "device": "cpu", "seed": number}
    head = {"format": rows.FORMAT, "version": "1", "modality": "shg", "method": f"Worker {worker}", "created": rows.now()}
    rest = {"standard": None, "scenarios": None, "recovery_ratio": None, "provenance": origin}
    return rows.check({**head, "tiers": {"public": tier}, **rest})


def insert(path: str, worker: int, count: int) -> None:
    """Insert rows one by one, printing the number of each after its commit."""
    with Store(path) as store:
        for number in range(count):
            store.add(row(worker, number))
            print(number, flush=True)


def study(*, processes: int, inserts: int, kills: int = 0, seed: int = 0) -> dict[str, Any]:
    """`inserts` rows by `processes` processes, then `kills` writers killed in mid-work; what the database then holds."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="inserts-") as place:
        path = Path(place, "leaderboard.db")
        Store(path).close()
        share = [inserts // processes + (i < inserts % processes) for i in range(processes)]
        workers = [_start(path, i, n) for i, n in enumerate(share)]
        start = _go(workers)
        acknowledged = {(i, int(n)) for i, w in enumerate(workers) for n in w.communicate()[0].split()}
        seconds = time.monotonic() - start
        failed = sum(w.returncode != 0 for w in workers)
        killed = _killed(path, processes, kills, rng)
        held = _held(path)
        with Store(path) as store:
            integrity = store.check()
        return {
            "processes": processes,
            "inserts": inserts,
            "stored": sum(worker < processes for worker, _ in held),
            "processes_failed": failed,
            "acknowledged_lost": len(acknowledged - set(held)),
            "twice": len(held) - len(set(held)),
            "per_second": round(inserts / seconds, 1),
            "kills": kills,
            "acknowledged_before_kill": len(killed),
            "lost_by_kill": len(killed - set(held)),
            "integrity": integrity,
        }


def _start(path: Path, worker: int, count: int) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {here!r}); import concurrent_inserts as c; c.start({str(path)!r}, {worker}, {count})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start(path: str, worker: int, count: int) -> None:
    """A worker: ready, wait for the word, insert."""
    print("ready", flush=True)
    sys.stdin.readline()
    insert(path, worker, count)


def _go(workers: Sequence[subprocess.Popen[str]]) -> float:
    """Let all of them start together; when."""
    for worker in workers:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        worker.stdin.write("go\n")  # type: ignore[union-attr]
        worker.stdin.flush()  # type: ignore[union-attr]
    return time.monotonic()


def _killed(path: Path, first: int, kills: int, rng: random.Random) -> set[tuple[int, int]]:
    """Forked writers, each killed after a random while; what they had acknowledged."""
    found: set[tuple[int, int]] = set()
    for worker in range(first, first + kills):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(writer, 1)
            sys.stdout = os.fdopen(1, "w")
            insert(str(path), worker, 10**9)
        os.close(writer)
        time.sleep(rng.uniform(0.01, 0.15))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader) as said:
            found |= {(worker, int(n)) for n in said.read().split()}
    return found


def _held(path: Path) -> Sequence[tuple[int, int]]:
    import sqlite3

    with closing(sqlite3.connect(path)) as database:
        pairs = database.execute("SELECT challenge_sha256, submission_sha256 FROM submission").fetchall()
    return [(int(a, 16), int(b, 16)) for a, b in pairs]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from environment import environment, write

    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "results" / "reliability_concurrent_inserts.json"
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--inserts", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, default=default)
    asked = parser.parse_args()
    found = study(processes=asked.processes, inserts=asked.inserts, kills=asked.kills)
    write(asked.output, {"environment": environment(), **found})
    print(found)
