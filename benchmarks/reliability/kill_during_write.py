"""SIGKILL at random moments of writing results: every file is then the old one or the new one, and none is lost.

    python benchmarks/reliability/kill_during_write.py [--kills N] [-o FILE]

A child replaces results over and over through the project's writers; each is self-consistent (every number in it is the
same), so a torn or mixed file shows. The control writes in place and must be caught.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).parent))
from attacks import RANGES, SHAPE

KINDS = ("submission", "json", "tiff")
BIG, SAMPLES, NUMBERS = (12, 96, 96), 8, 5000
FIRST = 1000


def write(kind: str, path: Path, number: int) -> None:
    """One complete result whose content is `number` everywhere."""
    from diffphys.io.results import write_json
    from diffphys.io.submission import Entry, write_submission
    from diffphys.io.tiff import write_image

    value = float(number % 1000) / 1000
    if kind == "submission":
        spec = {n: low + (high - low) * value for n, (low, high) in RANGES.items()}
        entries = {f"sample_{i:02d}": Entry(np.full(SHAPE, value, np.float32), spec) for i in range(SAMPLES)}
        head = {"modality": "confocal_3d", "tier": "hidden", "challenge_sha256": f"{number:064x}"}
        write_submission(path, method=f"Kill {number}", samples=entries, **head)
    elif kind == "json":
        write_json(path, {"numbers": [number] * NUMBERS})
    else:
        write_image(path, np.full(BIG, number, np.float32), (0.2, 0.1, 0.1))


def write_in_place(kind: str, path: Path, number: int) -> None:
    """The control: what many programs do."""
    if kind == "submission":
        with h5py.File(path, "w") as file:
            for i in range(SAMPLES):
                file[f"sample_{i:02d}/x_hat"] = np.full(SHAPE, number, np.float32)
    elif kind == "json":
        path.write_text(json.dumps({"numbers": [number] * NUMBERS}))
    else:
        tifffile.imwrite(path, np.full(BIG, number, np.float32))


def content(kind: str, path: Path) -> int | None:
    """The number that fills a file; None when it is torn or mixed."""
    try:
        if kind == "json":
            values = np.asarray(json.loads(path.read_text())["numbers"])
        elif kind == "tiff":
            values = tifffile.imread(path)
        else:
            with h5py.File(path, "r") as file:
                values = np.stack([file[f"sample_{i:02d}/x_hat"][()] for i in range(SAMPLES)])
                said = file.attrs.get("challenge_sha256")
            if said is not None and abs(int(said, 16) % 1000 / 1000 - values.max()) > 1e-6:
                return None
            if said is not None and values.min() == values.max():
                return int(said, 16)
        return int(values.max()) if values.min() == values.max() else None
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def child(folder: Path, how: str, start: int) -> None:
    """Replace the results for ever, acknowledging each number when all of its files are written."""
    put = write if how == "atomic" else write_in_place
    number = start
    while True:
        number += 1
        for kind in KINDS:
            put(kind, folder / f"result.{kind}", number)
        print(number, flush=True)


def study(*, kills: int, how: str = "atomic", seed: int = 0) -> dict[str, Any]:
    """Kill the writer `kills` times and look at every file after each."""
    rng, counted = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="kill-") as place:
        folder, state = Path(place), (FIRST, FIRST)
        while counted["kills"] < kills:
            state = _round(folder, how, state, kills - counted["kills"], rng, counted)
        leftovers = sum(p.name.startswith(".tmp-") for p in folder.iterdir())
    names = ("kills", "files_checked", "torn", "lost", "acknowledged")
    return {"how": how, **{n: counted[n] for n in names}, "temporary_files": leftovers}


def _round(
    folder: Path, how: str, state: tuple[int, int], most: int, rng: random.Random, counted: Counter[str]
) -> tuple[int, int]:
    """One interpreter forks a writer per kill, so that a kill costs milliseconds; ends after 200 of them.

    `state` is (number to go on from, highest number that was acknowledged); so is what comes back.
    """
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import kill_during_write as k; k.nursery({str(folder)!r}, {how!r})"
    mother = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert mother.stdin is not None and mother.stdout is not None
    number, acknowledged = state
    with mother:
        for _ in range(min(most, 200)):
            mother.stdin.write(f"{number} {rng.uniform(0.002, 0.4):.4f}\n")
            mother.stdin.flush()
            said = int(mother.stdout.readline())
            counted["kills"] += 1
            counted["acknowledged"] += max(said - number, 0)
            acknowledged = max(acknowledged, said) if said > number else acknowledged
            held = {kind: content(kind, folder / f"result.{kind}") for kind in KINDS}
            counted["files_checked"] += len(held)
            counted["torn"] += sum(h is None for h in held.values())
            counted["lost"] += sum(h is not None and h < acknowledged for h in held.values())
            number = max([number, said, *(h for h in held.values() if h is not None)])
        mother.stdin.close()
    return number, acknowledged


def nursery(folder: str, how: str) -> None:
    """Reads "start delay" lines; forks a writer, kills it after the delay, answers the last number it acknowledged."""
    import diffphys.io.results
    import diffphys.io.submission
    import diffphys.io.tiff  # noqa: F401  (imported once, before the forks)

    for kind in KINDS:
        if not Path(folder, f"result.{kind}").exists():
            write(kind, Path(folder, f"result.{kind}"), FIRST)
    for line in sys.stdin:
        start, delay = int(line.split()[0]), float(line.split()[1])
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.dup2(writer, 1)
            sys.stdout = os.fdopen(1, "w")
            child(Path(folder), how, start)
        os.close(writer)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader) as said:
            numbers = said.read().split()
        print(numbers[-1] if numbers else start, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from environment import environment
    from environment import write as save

    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "results" / "reliability_kill_during_write.json"
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, default=default)
    asked = parser.parse_args()
    found = {"atomic": study(kills=asked.kills), "in_place_control": study(kills=asked.kills // 5, how="in place")}
    save(asked.output, {"environment": environment(), **found})
    print(found)
