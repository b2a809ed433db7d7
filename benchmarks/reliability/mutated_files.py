"""Thousands of damaged HDF5 and TIFF files through the project's readers: no crash, no hang, nothing opened but the file.

    python benchmarks/reliability/mutated_files.py [--per-seed N] [-o FILE]

The readers run in a child. With strace every file it opens is recorded; without, hostile seeds still reach for a canary.
"""

from __future__ import annotations

import argparse
import random
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from attacks import RANGES, SHAPE
from mutate import mutate, structure

from diffphys import confocal
from diffphys.io.challenge import Truth, write_challenge, write_truth
from diffphys.io.hdf5 import Sample, write_measurement
from diffphys.io.submission import Entry, write_submission
from diffphys.noise import Detector

HANG_S = 10.0
_OPENED = re.compile(r'open(?:at|at2)?\((?:AT_FDCWD|\d+), "([^"]+)".*= \d+$')


def seeds(place: Path) -> list[tuple[str, Path]]:
    """(reader, file): every format the project reads, well-formed and hostile."""
    rng = np.random.default_rng(0)
    detector = Detector(gain=1.0, offset=100.0, background=2.0, read_sigma=1.0, peak_photons=200.0)
    y = rng.poisson(200, SHAPE).astype(np.float32)
    spec = {n: sum(r) / 2 for n, r in RANGES.items()}
    geometry, made = confocal.Geometry(shape=SHAPE), []
    bare = {f"sample_{i:02d}": Sample(y, detector) for i in range(2)}
    write_challenge(place / "challenge.h5", "confocal_3d", "hidden", geometry=geometry, ranges=RANGES, samples=bare)
    write_measurement(place / "measurement.h5", "confocal_3d", geometry=geometry, samples=bare)
    truth = Truth(np.zeros(SHAPE, np.float32) + 0.777, spec, y, y, "beads")
    write_truth(place / "truth.h5", "confocal_3d", "hidden", challenge_sha256="0" * 64, samples={"sample_00": truth})
    entries = {n: Entry(np.full(SHAPE, 0.3, np.float32), spec) for n in bare}
    head = {"modality": "confocal_3d", "tier": "hidden", "method": "Fuzz", "challenge_sha256": "0" * 64}
    write_submission(place / "submission.h5", samples=entries, **head)
    made += [(kind, place / f"{kind}.h5") for kind in ("challenge", "measurement", "truth", "submission")]
    return made + _hostile(place) + _packed(place) + _tiffs(place, y)


def _packed(place: Path) -> list[tuple[str, Path]]:
    """A submission with chunks, filters and the newest file format."""
    path = place / "packed.h5"
    with h5py.File(place / "submission.h5", "r") as old, h5py.File(path, "w", libver="latest") as new:
        new.attrs.update(dict(old.attrs))
        for name, group in old.items():
            entry = new.create_group(name)
            entry.attrs.update(dict(group.attrs))
            entry.create_dataset("x_hat", data=group["x_hat"][()], chunks=(4, 8, 8), compression="gzip", shuffle=True)
    return [("submission", path)]


def _hostile(place: Path) -> list[tuple[str, Path]]:
    """Submissions that point at the truth: by link, by external storage, by a virtual dataset."""
    truth, made = str(place / "truth.h5"), []
    for name in ("link", "storage", "virtual"):
        path = place / f"hostile_{name}.h5"
        shutil.copy(place / "submission.h5", path)
        with h5py.File(path, "r+") as file:
            group = file["sample_00"]
            del group["x_hat"]
            if name == "link":
                group["x_hat"] = h5py.ExternalLink(truth, "/sample_00/x_true")
            elif name == "storage":
                group.create_dataset("x_hat", SHAPE, "<f4", external=[(truth, 0, 8192)])
            else:
                layout = h5py.VirtualLayout(SHAPE, "<f4")
                layout[...] = h5py.VirtualSource(truth, "sample_00/x_true", SHAPE)
                group.create_virtual_dataset("x_hat", layout)
        made.append(("submission", path))
    return made


def _tiffs(place: Path, y: np.ndarray) -> list[tuple[str, Path]]:
    counts, made = y.astype(np.uint16), []
    ways: dict[str, dict[str, Any]] = {
        "ome": {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.2}},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 0.2, "unit": "um"}},
        "plain": {"photometric": "minisblack"},
        "deflated": {"photometric": "minisblack", "compression": "zlib", "predictor": True},
        "tiled": {"photometric": "minisblack", "tile": (16, 16)},
        "big": {"photometric": "minisblack", "bigtiff": True},
    }
    for name, how in ways.items():
        path = place / f"{name}.tif"
        tifffile.imwrite(path, counts if name != "big" else y, **how)
        made.append(("tiff", path))
    return made


class Reader:
    """The child, started again after it crashed or hung."""

    def __init__(self, trace: Path | None) -> None:
        self.trace, self.process, self.logs = trace, None, []

    def start(self) -> subprocess.Popen[str]:
        script = str(Path(__file__).with_name("reader.py"))
        command = [sys.executable, script]
        if self.trace is not None:
            self.logs.append(self.trace.with_suffix(f".{len(self.logs)}"))
            command = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", str(self.logs[-1]), *command]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, text=True, process_group=0, **pipes)  # type: ignore[call-overload]

    def read(self, kind: str, path: Path) -> str:
        """ok, refused, unclean ..., crash N or hang."""
        if self.process is None:
            self.process = self.start()
        process = self.process
        process.stdin.write(f"{kind} {path}\n")
        process.stdin.flush()
        first = HANG_S + 120  # the child's own start
        if not select.select([process.stdout], [], [], first if path.stem == "warm" else HANG_S)[0]:
            self.close()
            return "hang"
        line = process.stdout.readline().strip()
        if not line:
            status = process.wait()
            self.close()
            return f"crash {status}"
        return line

    def close(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                subprocess.run(["kill", "-9", "--", f"-{self.process.pid}"], check=False)
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


def study(*, per_seed: int, seed: int = 0, trace: bool | None = None, only: Sequence[str] = ()) -> dict[str, Any]:
    """Damage every seed file `per_seed` times and read the results.

    Args:
        per_seed: mutated files per seed file.
        seed: of the mutations.
        trace: record opened files with strace; None: where it is installed.
        only: names of seed files.
    """
    trace = bool(shutil.which("strace")) if trace is None else trace
    with tempfile.TemporaryDirectory(prefix="mutated-") as folder:
        place, log = Path(folder, "seeds"), Path(folder, "strace.log")
        place.mkdir()
        chosen = [(k, p) for k, p in seeds(place) if not only or p.stem in only]
        reader, rng = Reader(log if trace else None), random.Random(seed)
        per_kind: dict[str, Counter[str]] = {}
        slow, troubles = 0.0, []
        warm = Path(folder, "warm.bin")
        warm.write_bytes(b"")
        try:
            for kind, path in chosen:
                content = path.read_bytes()
                places, target = structure(content), Path(folder, f"mutated{path.suffix}")
                counted = per_kind.setdefault(f"{kind} {path.name}", Counter())
                for _ in range(per_seed):
                    if reader.process is None:
                        reader.read(kind, warm)
                    target.write_bytes(mutate(content, places, rng))
                    start = time.monotonic()
                    result = reader.read(kind, target)
                    slow = max(slow, time.monotonic() - start)
                    counted[result.split()[0]] += 1
                    if result.split()[0] not in ("ok", "refused"):
                        troubles.append(f"{path.name}: {result}")
        finally:
            reader.close()
        total = sum(per_kind.values(), Counter())
        outside = sorted({p for part in reader.logs for p in _outside(part, Path(folder))}) if trace else None
    return {
        "files": total.total(),
        "hdf5": sum(c.total() for n, c in per_kind.items() if n.endswith(".h5")),
        "tiff": sum(c.total() for n, c in per_kind.items() if n.endswith(".tif")),
        "accepted": total["ok"],
        "refused": total["refused"],
        "crashes": total["crash"],
        "hangs": total["hang"],
        "unclean_errors": total["unclean"],
        "slowest_s": round(slow, 3),
        "opened_outside": outside,
        "troubles": troubles[:20],
        "per_seed_file": {n: dict(c) for n, c in per_kind.items()},
    }


def _outside(log: Path, folder: Path) -> set[str]:
    """Files opened after the first mutated one, other than that file and the interpreter's own."""
    own = tuple(
        map(str, {Path(sys.prefix), Path(sys.base_prefix), Path("/usr"), Path("/proc/self"), Path(__file__).parents[2]})
    )
    found, begun = set(), False
    for line in log.read_text(errors="replace").splitlines():
        hit = _OPENED.search(line)
        if hit is None:
            continue
        path = hit.group(1)
        begun = begun or path.startswith(str(folder / "mutated"))
        if begun and not path.startswith((str(folder / "mutated"), str(folder / "warm"), *own)) and path not in ("/dev/null",):
            found.add(path)
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from environment import environment, write

    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "results" / "reliability_mutated_files.json"
    parser.add_argument("--per-seed", type=int, default=400)
    parser.add_argument("-o", "--output", type=Path, default=default)
    asked = parser.parse_args()
    found = study(per_seed=asked.per_seed)
    write(asked.output, {"environment": environment(), **found})
    print({n: found[n] for n in ("files", "accepted", "refused", "crashes", "hangs", "unclean_errors", "opened_outside")})
