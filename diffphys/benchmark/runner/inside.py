"""Runs inside the sandbox, before and after the solver: start it, wait, end what it left, hand its one file out through a pipe.

`python -I -S inside.py DESCRIPTOR LIMIT COMMAND ...`; standard library only. Being inside, it can read nothing the solver could
not: a link planted as output leads nowhere. The supervisor trusts neither its exit status nor its bytes.
"""

import contextlib
import os
import signal
import stat
import sys

BEGUN = b"B"
EXIT, NO_OUTPUT, EXTRA_FILES, NOT_REGULAR, FILE_TOO_BIG = 40, 41, 42, 43, 44
OUTPUT, NAME = "/output", "submission.h5"


def read_output(folder: str, limit: int) -> tuple[int, bytes]:
    """Status (0: fine) and content of the one regular file that `folder` may hold."""
    names = os.listdir(folder)
    if NAME not in names:
        return NO_OUTPUT, b""
    if len(names) != 1:
        return EXTRA_FILES, b""
    try:
        descriptor = os.open(os.path.join(folder, NAME), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return NOT_REGULAR, b""
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            return NOT_REGULAR, b""
        content = _read(descriptor, limit + 1) if about.st_size <= limit else b""
    finally:
        os.close(descriptor)
    return (FILE_TOO_BIG, b"") if about.st_size > limit or len(content) > limit else (0, content)


def _read(descriptor: int, size: int) -> bytes:
    """At most `size` bytes."""
    content = b""
    while len(content) < size and (part := os.read(descriptor, min(size - len(content), 1 << 20))):
        content += part
    return content


def main() -> int:
    out, limit, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(out, False)
    os.write(out, BEGUN)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # should the machine run out of memory all the same, this job goes first
    os.nice(10)  # the watch outside must not wait for the job
    child = os.posix_spawnp(command[0], command, os.environ)
    while (ended := os.wait())[0] != child:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # daemons the solver left
    code = os.waitstatus_to_exitcode(ended[1])
    if code:
        print(f"the solver ended with {code}", file=sys.stderr)
        return EXIT if code > 0 else 128 - code
    status, content = read_output(OUTPUT, limit)
    with open(out, "wb") as pipe:
        pipe.write(content)
    return status


if __name__ == "__main__":
    sys.exit(main())
