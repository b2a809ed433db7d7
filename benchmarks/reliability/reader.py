"""Reads one file per line of standard input ("kind path") with the project's own readers and says how it went.

Answers: "ok", "refused" (ValueError or OSError with one line), or "unclean TYPE" for anything else.
"""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from pathlib import Path

from diffphys import confocal
from diffphys.io.challenge import read_challenge, read_truth
from diffphys.io.hdf5 import read_measurement
from diffphys.io.submission import Contract, read_submission
from diffphys.io.tiff import read_stack

sys.path.insert(0, str(Path(__file__).parent))
from attacks import RANGES, SHAPE

CONTRACT = Contract("confocal_3d", "hidden", ("sample_00", "sample_01"), SHAPE, RANGES)
GEOMETRY = confocal.Geometry(shape=SHAPE)
READERS = {
    "submission": lambda path: read_submission(path, CONTRACT),
    "challenge": read_challenge,
    "measurement": read_measurement,
    "truth": lambda path: read_truth(path, geometry=GEOMETRY),
    "tiff": lambda path: read_stack(path, modality="confocal_3d", voxel_um=(0.2, 0.1, 0.1)),
}
MEMORY = 1024 * 2**20  # address space beyond what the libraries use


def outcome(kind: str, path: str) -> str:
    try:
        READERS[kind](path)
    except (ValueError, OSError) as error:
        return "refused" if str(error).strip() else f"unclean {type(error).__name__} without a word"
    except Exception as error:
        return f"unclean {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return "ok"


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        kind, _, path = line.strip().partition(" ")
        print(outcome(kind, path), flush=True)


if __name__ == "__main__":
    main()
