"""Bubblewrap backend: namespaces, a file system of its own, a system-call filter, limits; as root and as an ordinary user.

An outer mount namespace holds the job's size-limited folders, so that they vanish with it whatever happens to us. Started by
root, the job drops to a real user id of its own: an id that is only renamed root opens the host's sysctls and escapes
RLIMIT_NPROC.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffphys.benchmark.runner import inside, layout, seccomp
from diffphys.benchmark.runner.limits import Limits
from diffphys.benchmark.runner.verdict import Code, Verdict
from diffphys.benchmark.runner.watch import Pump, end, printable, watch

TOOLS = ("bwrap", "unshare", "prlimit", "setpriv", "mount", "sh")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST_UID, _UIDS = 61000, 4000
_FOLDERS = {"out": "/output", "tmp": "/tmp", "shm": "/dev/shm"}
_STATUS = {
    0: Code.OK,
    inside.EXIT: Code.EXIT,
    inside.NO_OUTPUT: Code.NO_OUTPUT,
    inside.EXTRA_FILES: Code.EXTRA_FILES,
    inside.NOT_REGULAR: Code.NOT_REGULAR,
    inside.FILE_TOO_BIG: Code.FILE_TOO_BIG,
}


def run(command: Sequence[str], *, folder: Path, code: Path, limits: Limits, output_limit: int) -> Verdict:
    """Run one job.

    Args:
        command: program and arguments as seen inside.
        folder: appears as /input, read-only; nothing in it is secret.
        code: file or folder that appears as /algo, read-only.
        limits: what the job may use.
        output_limit: largest submission in bytes.

    Raises:
        RuntimeError: the sandbox could not be set up; the job never ran.
    """
    with tempfile.TemporaryDirectory(prefix="job-") as work:
        for name in _FOLDERS:
            Path(work, name).mkdir()
        reader, writer = os.pipe()
        calls = seccomp.descriptor()
        process = subprocess.Popen(
            _command(
                command, work=Path(work), folder=folder, code=code, limits=limits, seccomp_fd=calls, out=(writer, output_limit)
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(writer, calls),
            process_group=0,
            env={"PATH": _PATH},  # in a user namespace the job can read the environment of its pid 1, which is bwrap
        )
        try:
            os.close(writer)
            os.close(calls)
            assert process.stdout is not None
            log = Pump(os.dup(process.stdout.fileno()), limits.log)
            result = Pump(reader, output_limit + len(inside.BEGUN))
            broken, seconds, peak = watch(process, limits)
        finally:
            end(process)
        for pump in (log, result):
            pump.join(10)
        process.stdout.close()
    said = printable(bytes(log.kept))
    if not result.kept.startswith(inside.BEGUN):
        raise RuntimeError(f"E_SANDBOX the sandbox could not be set up: {said.strip()[-300:] or broken}")
    verdict = broken or _STATUS.get(process.returncode, Code.CRASH)
    content = bytes(result.kept[len(inside.BEGUN) :]) if verdict is Code.OK else b""
    return Verdict(verdict, content, said, seconds, peak, f"exit status {process.returncode}, log {log.total} bytes")


def _command(
    command: Sequence[str],
    *,
    work: Path,
    folder: Path,
    code: Path,
    limits: Limits,
    seccomp_fd: int,
    out: tuple[int, int],
) -> list[str]:
    root = os.geteuid() == 0
    uid = _FIRST_UID + int.from_bytes(os.urandom(4)) % _UIDS
    outer = ["unshare", "--mount", "--propagation", "private"] + ([] if root else ["--user", "--map-root-user"])
    mounts = " && ".join(_mount(work / n, size, limits, uid if root else None) for n, size in _sizes(limits).items())
    return [
        *outer,
        "--",
        "sh",
        "-c",
        f'{mounts} && exec "$@"',
        "sh",
        *_bwrap(root),
        "--clearenv",
        *(part for name, value in layout.ENVIRONMENT.items() for part in ("--setenv", name, value)),
        "--proc",
        "/proc",
        *(["--ro-bind", "/proc/sys", "/proc/sys"] if root else []),
        "--dev",
        "/dev",
        *(part for name, place in _FOLDERS.items() for part in ("--bind", str(work / name), place)),
        *layout.arguments(),
        "--ro-bind",
        str(folder),
        "/input",
        "--ro-bind",
        str(code),
        "/algo",
        "--remount-ro",
        "/dev",
        "--remount-ro",
        "/",
        "--chdir",
        "/tmp",
        "--seccomp",
        str(seccomp_fd),
        "--",
        *(_become(uid) if root else []),
        *limits.prlimit(),
        sys.executable,
        "-I",
        "-S",
        f"{layout.LIBRARY}/diffphys/benchmark/runner/inside.py",
        *map(str, out),
        *command,
    ]


def _bwrap(root: bool) -> list[str]:
    shared = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    shared += ["--die-with-parent", "--new-session", "--hostname", "sandbox"]
    if root:  # three capabilities to drop to the job's user, which gives them up
        return ["bwrap", *shared, *(p for c in ("SETUID", "SETGID", "SETPCAP") for p in ("--cap-add", f"CAP_{c}"))]
    return ["bwrap", *shared, "--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns"]


def _become(uid: int) -> list[str]:
    drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), *drop]


def _sizes(limits: Limits) -> dict[str, int]:
    return {"out": limits.output, "tmp": limits.scratch, "shm": limits.shared}


def _mount(place: Path, size: int, limits: Limits, uid: int | None) -> str:
    """Mount a folder with a size and a number of files; bwrap's own --tmpfs has no limit of files, which are kernel memory."""
    owner = f",mode=0700,uid={uid},gid={uid}" if uid else ",mode=0700"
    options = f"size={size},nr_inodes={limits.files},nosuid,nodev,nosymfollow{owner}"
    return shlex.join(["mount", "-t", "tmpfs", "-o", options, "job", str(place)])
