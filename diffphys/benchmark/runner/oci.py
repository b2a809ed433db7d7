"""Docker or podman backend: a container per job, without network, capabilities or writable root, calls filtered.

The engine must answer; a client alone proves nothing. Images are never pulled: the organiser builds or loads them
beforehand.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffphys.benchmark.runner import inside, seccomp
from diffphys.benchmark.runner.limits import Limits
from diffphys.benchmark.runner.verdict import Code, Verdict
from diffphys.benchmark.runner.watch import Pump, end, printable, watch

ENGINES = ("docker", "podman")
_USER = "60999:60999"
_STATUS = {
    inside.NO_OUTPUT: Code.NO_OUTPUT,
    inside.EXTRA_FILES: Code.EXTRA_FILES,
    inside.NOT_REGULAR: Code.NOT_REGULAR,
    inside.FILE_TOO_BIG: Code.FILE_TOO_BIG,
}
_ENGINE_FAILED, _KILLED = 125, 137


def run(
    engine: str,
    image: str,
    command: Sequence[str],
    *,
    folder: Path,
    code: Path | None,
    limits: Limits,
    output_limit: int,
    options: Sequence[str] = (),
) -> Verdict:
    """Run one job in a container of `image`.

    Args:
        engine: docker or podman.
        command: program, which replaces the image's entry point, and its arguments.
        folder: appears as /input, read-only.
        code: appears as /algo, read-only; None where the image brings its own.
        limits: what the job may use; resident memory and processes are the engine's to limit.
        output_limit: largest submission in bytes.
        options: further options of the engine, e.g. `--runtime runsc`.

    Raises:
        RuntimeError: the engine could not start the container; the job never ran.
    """
    name = f"diffphys-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="job-") as work:
        output, rules = Path(work, "out"), Path(work, "seccomp.json")
        output.mkdir()
        output.chmod(0o777)  # for the job's user; the folder above is ours alone
        rules.write_text(json.dumps(seccomp.profile()))
        folder, code = folder.resolve(), code and code.resolve()
        line = arguments(engine, name, image, command, folder=folder, code=code, output=output, rules=rules, limits=limits)
        line[2:2] = options
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0, cwd=work
        )
        try:
            assert process.stdout is not None
            log = Pump(os.dup(process.stdout.fileno()), limits.log)
            broken, seconds, peak = watch(process, limits, also=lambda: _too_much(output, limits))
        finally:
            end(process)
            subprocess.run([engine, "rm", "--force", name], capture_output=True, timeout=60, check=False)
        log.join(10)
        process.stdout.close()
        said, returned = printable(bytes(log.kept)), process.returncode
        if returned == _ENGINE_FAILED and broken is None:
            raise RuntimeError(f"E_SANDBOX {engine} could not start the container: {said.strip()[-300:]}")
        verdict, content = broken or _ended(returned), b""
        if verdict is Code.OK:
            status, content = inside.read_output(str(output), output_limit)
            verdict = _STATUS.get(status, Code.OK)
        return Verdict(verdict, content, said, seconds, peak, f"exit status {returned}, log {log.total} bytes")


def arguments(
    engine: str,
    name: str,
    image: str,
    command: Sequence[str],
    *,
    folder: Path,
    code: Path | None,
    output: Path,
    rules: Path,
    limits: Limits,
) -> list[str]:
    """The engine's command line."""
    line = [engine, "run", "--rm", "--name", name, "--pull=never", "--network=none", "--read-only", "--init"]
    line += ["--cap-drop=ALL", "--security-opt=no-new-privileges", f"--security-opt=seccomp={rules}", f"--user={_USER}"]
    line += [f"--pids-limit={limits.processes}", f"--memory={limits.memory}", f"--memory-swap={limits.memory}"]
    line += [f"--ulimit=cpu={int(limits.cpu_s) + 1}", f"--ulimit=fsize={max(limits.output, limits.scratch)}", "--ulimit=core=0"]
    line += ["--ulimit=nofile=256:256", f"--ulimit=nproc={limits.processes}:{limits.processes}"]
    line += [f"--shm-size={limits.shared}", "--log-driver=none"]
    line += [f"--tmpfs=/tmp:rw,nosuid,nodev,size={limits.scratch},mode=1777"]
    line += [f"--mount=type=bind,source={folder},target=/input,readonly", f"--mount=type=bind,source={output},target=/output"]
    line += [f"--mount=type=bind,source={code},target=/algo,readonly"] if code is not None else []
    return [*line, "--workdir=/tmp", "--env=HOME=/tmp", f"--entrypoint={command[0]}", image, *command[1:]]


def _ended(returned: int) -> Code:
    if returned == 0:
        return Code.OK
    if returned == _KILLED:
        return Code.MEMORY  # the engine kills with this status at the memory limit
    return Code.CRASH if returned > 128 else Code.EXIT


def _too_much(output: Path, limits: Limits) -> Code | None:
    """The output folder lies on the host's disk: its size and number of files are counted while the job runs."""
    files = size = 0
    for place, folders, names in os.walk(output):
        files += len(folders) + len(names)
        if files > limits.files:
            return Code.DISK
        for entry in names:
            try:
                size += os.lstat(os.path.join(place, entry)).st_blocks * 512
            except OSError:
                continue
    return Code.DISK if size > limits.output else None
