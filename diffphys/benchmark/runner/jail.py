"""Read a hostile submission in a process that can open nothing else and hold nothing of value.

In: the bytes a job left, and the contract they must keep. Out: arrays and numbers that went through the strict reader there and
were checked again here. A damaged file may crash or hang the HDF5 library: that ends the child and is a verdict.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffphys.benchmark.runner import layout
from diffphys.benchmark.runner.verdict import Code
from diffphys.benchmark.runner.watch import Pump
from diffphys.io.submission import Contract

WALL_S = 30.0
_HEADER = 64 * 1024


@dataclass(frozen=True)
class Read:
    """A submission that was read, or why not.

    Attributes:
        code: OK, SUBMISSION, READER_CRASH or READER_TIME.
        x_hat: sample -> float32 image.
        spec: sample -> name -> value.
        method: name that the file states.
        detail: one line.
    """

    code: Code
    x_hat: Mapping[str, np.ndarray] = field(default_factory=dict)
    spec: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    method: str = ""
    detail: str = ""


def read(content: bytes, contract: Contract, *, wall_s: float = WALL_S) -> Read:
    """Parse a submission by the closed schema of `io.submission`.

    Args:
        content: bytes of the submission.
        contract: what it must look like.
        wall_s: seconds until the child counts as hanging.
    """
    with tempfile.TemporaryDirectory(prefix="jail-") as place:
        Path(place, "submission.h5").write_bytes(content)
        Path(place, "contract.json").write_text(json.dumps(contract._asdict()))
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(layout.package().parent),
            "HDF5_PLUGIN_PRELOAD": "::",  # no filter plug-ins
            "JAX_PLATFORMS": "cpu",
            "DIFFPHYS_CACHE": "off",
        }
        command = [sys.executable, "-P", "-s", "-B", "-m", "diffphys.benchmark.runner.jail_child"]
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        # the images are bounded by the contract; more than that comes from a hijacked child
        answer = Pump(os.dup(process.stdout.fileno()), _HEADER + contract.largest_file)
        timer = threading.Timer(wall_s, process.kill)
        timer.start()
        try:
            status = process.wait()
        finally:
            hung = not timer.is_alive()
            timer.cancel()
            process.kill()
            process.stdout.close()
        answer.join(10)
    if hung:
        return Read(Code.READER_TIME, detail=f"the reader did not end within {wall_s:g} s")
    if status:
        return Read(Code.READER_CRASH, detail=f"the reader ended with {status}")
    try:
        return unpack(bytes(answer.kept))
    except (ValueError, KeyError, TypeError, struct.error) as error:
        return Read(Code.READER_CRASH, detail=f"the reader answered nonsense: {error}")


def pack(header: Mapping[str, object], arrays: list[np.ndarray]) -> bytes:
    """Length of the header, header (JSON), float32 arrays one after the other."""
    text = json.dumps(header, allow_nan=False).encode()
    return struct.pack("<I", len(text)) + text + b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in arrays)


def unpack(answer: bytes) -> Read:
    """The child's answer, checked once more: the child read hostile data and counts as hostile itself."""
    (length,) = struct.unpack_from("<I", answer)
    if length > _HEADER:
        raise ValueError("long header")
    header = json.loads(answer[4 : 4 + length])
    if "refused" in header:
        return Read(Code.SUBMISSION, detail=" ".join(str(header["refused"]).split())[:300])
    place, images, specs = 4 + length, {}, {}
    for name, entry in header["samples"].items():
        shape = tuple(int(n) for n in entry["shape"])
        count = int(np.prod(shape, dtype=object))
        if not 0 < count <= (len(answer) - place) // 4:
            raise ValueError("array cut short")
        images[str(name)] = np.frombuffer(answer, "<f4", count, place).reshape(shape)
        specs[str(name)] = {str(k): float(v) for k, v in entry["spec"].items()}
        place += 4 * count
    finite = all(np.isfinite(a).all() for a in images.values()) and all(
        np.isfinite([*s.values()]).all() for s in specs.values()
    )
    if place != len(answer) or not images or not finite:
        raise ValueError("array too long or not finite")
    return Read(Code.OK, images, specs, str(header["method"]))
