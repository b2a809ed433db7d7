"""Which backend contains a solver here: each is tried, and bubblewrap must pass a self-test of attacks before it is trusted."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from diffphys.benchmark.runner import bwrap, oci, seccomp
from diffphys.benchmark.runner.contract import Solver
from diffphys.benchmark.runner.limits import MIB, Limits
from diffphys.benchmark.runner.verdict import Code, NoSandbox, Verdict

_REMEDY = "install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap) on Linux, or run docker or podman and give --image"
_TOKEN = "diffphys-self-test-secret"
_ATTACKS = """
import os, socket, sys
held = []
def tried(name, action):
    try:
        action()
        held.append(name)
    except OSError:
        pass
port, secret = int(sys.argv[1]), sys.argv[2]
def read():
    if "{token}" in open(secret).read() or "{token}" in str(os.environ): return
    raise OSError
def flood():
    for _ in range(200):
        if os.fork() == 0: os.pause() if hasattr(os, "pause") else __import__("signal").pause()
tried("file of the host", read)
tried("network", lambda: socket.create_connection(("127.0.0.1", port), 1))
tried("vsock", lambda: socket.socket(40, 1))
tried("sysctl", lambda: open("/proc/sys/kernel/core_pattern", "a").close())
tried("fork flood", flood)
print("held:", ", ".join(held) or "nothing")
open("/output/submission.h5", "w").write(", ".join(held))
"""


def backend(solver: Solver) -> str:
    """Name of the backend that will run this solver.

    Raises:
        NoSandbox: none can; the message says what is missing.
    """
    if solver.image is not None:
        return _engine()
    _check_bwrap()
    return "bwrap"


def run(solver: Solver, *, folder: Path, limits: Limits, output_limit: int) -> Verdict:
    """Run a solver on one staged input folder in the backend that is there.

    Args:
        solver: the code.
        folder: holds challenge.h5; appears as /input.
        limits: what the job may use.
        output_limit: largest submission in bytes.

    Raises:
        NoSandbox: no backend.
        RuntimeError: the sandbox could not be set up.
    """
    name = backend(solver)
    with tempfile.TemporaryDirectory(prefix="job-") as place:
        code = solver.stage(Path(place, "algo"))
        share = {"folder": folder, "limits": limits, "output_limit": output_limit}
        if solver.image is not None:
            Path(place).chmod(0o755)
            return oci.run(name, solver.image, solver.command(), code=code, **share)  # type: ignore[arg-type]
        assert code is not None
        return bwrap.run(solver.command(), code=code, **share)  # type: ignore[arg-type]


def _engine() -> str:
    for name in oci.ENGINES:
        if shutil.which(name) and _answers(name):
            return name
    raise NoSandbox(f"E_NO_SANDBOX neither docker nor podman answers `info`, so the image cannot be run; {_REMEDY}")


def _answers(engine: str) -> bool:
    try:
        return subprocess.run([engine, "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _check_bwrap() -> None:
    missing = [tool for tool in bwrap.TOOLS if shutil.which(tool) is None]
    if sys.platform != "linux" or missing:
        what = f"{missing[0]} is not installed" if missing else f"bubblewrap needs Linux and this is {sys.platform}"
        raise NoSandbox(f"E_NO_SANDBOX {what}, so a stranger's code cannot be run safely; {_REMEDY}")
    if not seccomp.supported():
        raise NoSandbox(f"E_NO_SANDBOX there is no system-call filter for this processor; {_REMEDY}")
    breached = _self_test(os.geteuid())
    if breached:
        raise NoSandbox(f"E_NO_SANDBOX bubblewrap does not contain a job here ({breached}); {_REMEDY}")


@functools.cache
def _self_test(_user: int) -> str:
    """What an attacking job got hold of, or why no job runs; empty when it is contained."""
    with tempfile.TemporaryDirectory(prefix="selftest-") as place, socket.create_server(("127.0.0.1", 0)) as server:
        folder, code, secret = Path(place, "input"), Path(place, "algo"), Path(place, "secret")
        for new in (folder, code):
            new.mkdir(mode=0o755)
        secret.write_text(_TOKEN)
        (code / "solve.py").write_text(_ATTACKS.replace("{token}", _TOKEN))
        limits = Limits(wall_s=30, cpu_s=20, memory=1024 * MIB, processes=32)
        command = [sys.executable, "-S", "/algo/solve.py", str(server.getsockname()[1]), str(secret)]
        try:
            found = bwrap.run(command, folder=folder, code=code, limits=limits, output_limit=MIB)
        except (OSError, RuntimeError) as error:
            return str(error)
        return (
            found.output.decode("utf-8", "replace")
            if found.code is Code.OK
            else f"self-test ended with {found.code}: {found.log}"
        )
