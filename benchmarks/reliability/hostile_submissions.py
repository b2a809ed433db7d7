"""Hostile solvers against the runner, where all must be contained, and against a plain one, where they must be seen.

    python benchmarks/reliability/hostile_submissions.py [-o FILE]

Judged by canaries on the host: a secret token, a socket that counts connections, the hashes of files, processes left over.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attacks import ATTACKS, HONEST, RANGES, SHAPE, TOKEN, Attack

from diffphys.benchmark.runner import Limits, Solver, jail, probe
from diffphys.benchmark.runner.limits import MIB
from diffphys.io.submission import Contract

CONTRACT = Contract("confocal_3d", "hidden", ("sample_00",), SHAPE, RANGES)
LIMITS = Limits(wall_s=6, cpu_s=5, memory=256 * MIB, processes=32, output=8 * MIB, scratch=16 * MIB, shared=8 * MIB, files=500)
NAMES = {"sample": "sample_00/x_hat"}


class Ground:
    """Canaries on the host: a truth with a token in it, a victim file, two sockets, the environment and an open descriptor."""

    def __init__(self, place: Path) -> None:
        self.place, self.hits = place, []
        self.truth, self.victim = place / "secret" / "truth.h5", place / "victim.bin"
        self.truth.parent.mkdir(mode=0o700)
        with h5py.File(self.truth, "w") as file:
            file.attrs["token"] = np.bytes_(TOKEN)
            file["x_true"] = np.full(SHAPE, 0.777, "<f4")
            file["as_sample/x_hat"] = np.full(SHAPE, 0.777, "<f4")
            file["as_sample"].attrs.update({n: sum(r) / 2 for n, r in RANGES.items()})
        self.victim.write_bytes(b"\0" * 8192)
        self.input = place / "input"
        self.input.mkdir(mode=0o755)
        (self.input / "challenge.h5").write_bytes(b"y" * 4096)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(f"\0diffphys-{self.port}")
        self.unix.listen(5)
        for listening in (self.server, self.unix):
            threading.Thread(target=self._count, args=(listening,), daemon=True).start()
        os.environ["DIFFPHYS_CANARY"] = TOKEN
        self.open = os.open(self.truth, os.O_RDONLY)
        os.set_inheritable(self.open, True)

    def _count(self, listening: socket.socket) -> None:
        while True:
            try:
                listening.accept()[0].close()
                self.hits.append(True)
            except OSError:
                return

    def script(self, attack: Attack) -> str:
        code = attack.code.replace("TRUTH", str(self.truth)).replace("VICTIM", str(self.victim)).replace("PORT", str(self.port))
        return "print('BEGIN', flush=True)\n" + code

    def state(self) -> tuple[str, ...]:
        files = (self.truth, self.victim, Path("/etc/passwd"), self.input / "challenge.h5", Path(sys.executable))
        return tuple(hashlib.sha256(p.read_bytes()).hexdigest() for p in files)

    def close(self) -> None:
        for thing in (self.server, self.unix):
            thing.close()
        os.close(self.open)
        del os.environ["DIFFPHYS_CANARY"]


@contextmanager
def ground() -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        made = Ground(Path(place))
        try:
            yield made
        finally:
            made.close()


def contained(name: str, attack: Attack, field: Ground) -> dict[str, Any]:
    """Run one attack through the runner; what it got is in `breaches`."""
    script = field.place / f"{name}.py"
    script.write_text(field.script(attack))
    field.hits.clear()
    before, start = field.state(), time.monotonic()
    ended = probe.run(Solver.parse(str(script)), folder=field.input, limits=LIMITS, output_limit=CONTRACT.largest_file)
    read = jail.read(ended.output, CONTRACT) if ended.code == "OK" else jail.Read(ended.code, detail=ended.detail)
    seconds, said = time.monotonic() - start, ended.log.encode() + ended.output
    breaches = [
        what
        for what, held in (
            ("the attack never ran", not ended.log.startswith("BEGIN")),
            ("secret token seen", TOKEN.encode() in said),
            ("something held: " + ended.log[:200], "HELD" in ended.log),
            ("truth accepted", any(np.allclose(x, 0.777) for x in read.x_hat.values())),
            ("connection", bool(field.hits)),
            ("file of the host changed", field.state() != before),
            ("processes left", leftovers() > 0),
            (f"memory {ended.peak_bytes}", ended.peak_bytes > 1.5 * LIMITS.memory),
            (f"ran {ended.seconds:.1f} s", ended.seconds > LIMITS.wall_s + 2),
            (f"verdict {read.code} not in {attack.expected}", read.code not in attack.expected),
        )
        if held
    ]
    figures = {"seconds": round(seconds, 2), "peak_mib": ended.peak_bytes >> 20}
    return {"verdict": str(read.code), "detail": read.detail[:160], **figures, "breaches": breaches}


def plain(name: str, attack: Attack, field: Ground) -> list[str]:
    """The same attack on a runner without any protection; what it got."""
    with tempfile.TemporaryDirectory(dir=field.place) as place:
        output = Path(place, "output")
        output.mkdir()
        script = Path(place, f"{name}.py")
        code = field.script(attack).replace("/output", str(output)).replace("/input", str(field.input)).replace("PWNED", "")
        script.write_text(code.replace("(os.getppid(), 1, -1)", "(os.getppid(),)"))  # spare the machine
        supervisor = [
            sys.executable,
            "-c",
            "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], close_fds=False).returncode)",
        ]
        field.hits.clear()
        start = time.monotonic()
        try:
            run = subprocess.run([*supervisor, sys.executable, script], capture_output=True, timeout=30, close_fds=False)
            log, status = run.stdout + run.stderr, run.returncode
        except subprocess.TimeoutExpired:
            return ["hung"]
        found = [
            what
            for what, held in (
                ("held", b"HELD" in log),
                ("secret token", TOKEN.encode() in log),
                ("connection", bool(field.hits)),
                ("supervisor killed", status == -9),
                ("over time", time.monotonic() - start > LIMITS.wall_s),
            )
            if held
        ]
        return found + swallowed(output / "submission.h5", field)


def swallowed(path: Path, field: Ground) -> list[str]:
    """What a reader without a schema takes from the output."""
    if path.is_fifo():
        return ["would hang in open"]
    if path.is_dir() or (path.exists() and path.stat().st_nlink > 1):
        return ["taken for a file"]
    if path.is_symlink():
        return ["link followed"] if path.exists() else []
    extra = [p.name for p in path.parent.iterdir() if p != path]
    try:
        with h5py.File(path, "r") as file:
            x, spec = file[NAMES["sample"]][()], dict(file["sample_00"].attrs)
            stolen = x.dtype.kind == "f" and np.allclose(x, 0.777)
            return ["truth read" if stolen else f"accepted {x.dtype} {x.shape} {len(spec)}", *extra]
    except (OSError, KeyError, ValueError, TypeError, MemoryError):
        return extra


def leftovers() -> int:
    """Living processes of the users that jobs run as."""
    count = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                mine = 61000 <= os.stat(f"/proc/{entry}").st_uid < 65000
                alive = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            except OSError:
                continue
            count += mine and alive
    return count


def study(names: Sequence[str] | None = None, *, control: bool = True) -> dict[str, Any]:
    """All attacks (or some): verdict and breaches in the sandbox, breaches of a plain runner, and an honest job."""
    chosen = {n: a for n, a in ATTACKS.items() if names is None or n in names}
    with ground() as field:
        honest = contained("honest", HONEST, field)
        jobs = {}
        for name, attack in chosen.items():
            jobs[name] = contained(name, attack, field)
            print(
                f"{name:24} {jobs[name]['verdict']:14} {jobs[name]['seconds']:6.2f} s {jobs[name]['breaches'] or ''}",
                flush=True,
            )
        tried = {n: plain(n, a, field) for n, a in chosen.items() if control and a.plain}
    return {
        "backend": probe.backend(Solver(script=Path("any"))),
        "user": os.geteuid(),
        "attacks": len(jobs),
        "contained": sum(not j["breaches"] for j in jobs.values()),
        "honest": honest,
        "plain_runner": {"tried": len(tried), "breached": sum(map(bool, tried.values())), "how": tried},
        "jobs": jobs,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from environment import environment, write

    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "results" / "reliability_hostile_submissions.json"
    parser.add_argument("-o", "--output", type=Path, default=default)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    found = study(asked.names or None)
    write(asked.output, {"environment": environment(), **found})
    control = found["plain_runner"]
    print(f"{found['contained']} of {found['attacks']} contained")
    print(f"plain runner breached by {control['breached']} of {control['tried']}")
