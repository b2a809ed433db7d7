#!/usr/bin/env python3
"""Example solver: calibrate the instrument from the measurement itself, then restore the image.

Called as `solve --input /input/challenge.h5 --output /output/submission.h5`. The input has one sample, no truth, and the
ranges of the three mismatch parameters; the output has the restored image and the parameters. See README.md beside this
file.
"""

import argparse
from pathlib import Path

import numpy as np

import diffphys
from diffphys.io.challenge import read_challenge
from diffphys.io.submission import Entry, write_submission
from diffphys.types import resolve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    asked = parser.parse_args()

    challenge = read_challenge(asked.input)
    modality = resolve(challenge.modality)
    entries = {}
    for name, sample in challenge.samples.items():
        setting = {"geometry": challenge.held.geometry, "detector": sample.detector}
        found = diffphys.calibrate(sample.y, modality, ranges=challenge.held.ranges, **setting)
        restored = diffphys.reconstruct(sample.y, modality, found.spec, method="richardson-lucy", **setting)
        entries[name] = Entry(np.asarray(restored.image), found.values)
    write_submission(
        asked.output,
        modality=challenge.modality,
        tier=challenge.tier,
        method="Example",
        challenge_sha256=challenge.sha256,
        samples=entries,
    )


if __name__ == "__main__":
    main()
