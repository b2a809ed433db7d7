"""Every writer against a full disk, a size limit and a read-only folder: an error in words, the old file whole.

    python benchmarks/reliability/full_disk.py [-o FILE]

The small disk is a tmpfs in a mount namespace of its own (root, or a user namespace); where none can be made that part is
left out and says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from kill_during_write import KINDS, write

ROOM = 16 * 1024  # bytes left for the new file: less than any of the results needs
WRITERS = (*KINDS, "hdf5", "store")


def attempt(kind: str, folder: Path) -> dict[str, Any]:
    """Replace an old result where there is no room; what came of it."""
    path = folder / f"result.{kind}"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    said, plain = "", True
    try:
        _put(kind, path, 2002)
    except Exception as error:  # whatever comes is recorded; only these two become one line for the user
        said, plain = " ".join(f"{type(error).__name__}: {error}".split()), isinstance(error, (OSError, ValueError))
    return {
        "error": said[:160],
        "one_line": plain,
        "old_file_whole": _sound(path) if kind == "store" else hashlib.sha256(path.read_bytes()).hexdigest() == before,
        "left_behind": [p.name for p in folder.iterdir() if p.name.startswith(".tmp-")],
    }


def _put(kind: str, path: Path, number: int) -> None:
    if kind == "hdf5":
        from diffphys.io.h5write import replacing_hdf5

        with replacing_hdf5(path) as file:
            file["x"] = [float(number)] * 10000
        return
    if kind != "store":
        write(kind, path, number)
        return
    from concurrent_inserts import row

    from diffphys.benchmark.store import Store

    with Store(path) as store:
        for i in range(1 if number == 1001 else 4000):
            store.add(row(0, i))


def _sound(path: Path) -> bool:
    """A store lives on: what fitted is in it, and nothing is torn."""
    from diffphys.benchmark.store import Store

    with tempfile.TemporaryDirectory() as place:  # where there is room to open it
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, place)
        with Store(Path(place, path.name)) as store:
            return store.check() == "ok" and store.count() >= 1


def on_full_disk(folder: Path, kind: str) -> dict[str, Any]:
    """Runs in a small tmpfs: the disk is filled but for ROOM."""
    _put(kind, folder / f"result.{kind}", 1001)
    space = os.statvfs(folder)
    (folder / "filler").write_bytes(b"0" * max(space.f_bavail * space.f_frsize - ROOM, 0))
    return attempt(kind, folder)


def with_size_limit(folder: Path, kind: str) -> dict[str, Any]:
    """RLIMIT_FSIZE: writing fails with EFBIG instead of ENOSPC."""
    _put(kind, folder / f"result.{kind}", 1001)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    return attempt(kind, folder)


def on_read_only(folder: Path, kind: str) -> dict[str, Any]:
    """Runs in a tmpfs that is made read-only once the old result is there."""
    _put(kind, folder / f"result.{kind}", 1001)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    return attempt(kind, folder)


SITUATIONS = {
    # name: function, size of the file system (None: the ordinary one), writers
    "full_disk": (on_full_disk, f"size={2**20}", WRITERS),
    "size_limit": (with_size_limit, None, (*KINDS, "hdf5")),
    "read_only": (on_read_only, "size=64m", WRITERS),
}


def study(*, kinds: Sequence[str] = WRITERS) -> dict[str, Any]:
    """Every writer in every situation, each in a process of its own."""
    found: dict[str, Any] = {}
    for name, (function, options, writers) in SITUATIONS.items():
        if options is not None and not namespace():
            found[name] = {"skipped": "no mount namespace can be made here"}
            continue
        found[name] = {k: _run(function.__name__, k, options) for k in writers if k in kinds}
    return found


def namespace() -> list[str]:
    """The start of a command line that may mount; empty where none can be made."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", "--mount", *user]
    ready = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if ready else []


def _run(function: str, kind: str, options: str | None) -> dict[str, Any]:
    here = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        code = f"import json, sys; sys.path.insert(0, {here!r}); import full_disk as d; from pathlib import Path; "
        code += f"print(json.dumps(d.{function}(Path({folder!r}), {kind!r})), flush=True)"
        command = [sys.executable, "-W", "ignore", "-c", code]
        if options is not None:
            mount = f'mount -t tmpfs -o {options} small "{folder}" && exec "$@"'
            command = [*namespace(), "sh", "-c", mount, "sh", *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    return {"error": f"the process ended with {done.returncode}", "one_line": False, "old_file_whole": False, "left_behind": []}


def summary(found: dict[str, Any]) -> dict[str, int]:
    """Cases tried, and those in which an error in words came, the old file survived whole and nothing was left behind."""
    cases = [c for part in found.values() if "skipped" not in part for c in part.values()]
    good = [c for c in cases if c["error"] and c["one_line"] and c["old_file_whole"] and not c["left_behind"]]
    return {"cases": len(cases), "handled": len(good)}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from environment import environment
    from environment import write as save

    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "results" / "reliability_full_disk.json"
    parser.add_argument("-o", "--output", type=Path, default=default)
    asked = parser.parse_args()
    found = study()
    save(asked.output, {"environment": environment(), **summary(found), **found})
    print(summary(found))
