"""The submission file (HDF5): one contestant's images and corrected specs for one tier.

    /               format, version, modality, tier, method, challenge_sha256 (fixed-length text)
    /sample_00 ...  dataset x_hat (float32, shape of x); attributes: exactly the three parameters (float64)

A sample that is left out counts as failed. Everything in the file is a stranger's: it is read by a closed schema, from memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from diffphys.io import h5strict
from diffphys.io.challenge import expect_in_range
from diffphys.io.h5write import replacing_hdf5
from diffphys.io.hdf5 import SAMPLE_NAMES, VERSION, identity, stamp

FORMAT = "diffphys-submission"
LARGEST = 1e6  # of |x_hat|, where x_true peaks at 1
_ROOT = ("format", "version", "modality", "tier", "method", "challenge_sha256")
_HEX = set("0123456789abcdef")


class Contract(NamedTuple):
    """What a submission to one tier must look like.

    Attributes:
        modality, tier: names.
        samples: names of the tier's samples.
        x_shape: of every x_hat.
        ranges: name -> (low, high) of the corrected spec.
        challenge_sha256: of the challenge it answers; None: any (the file is then checked without its challenge).
    """

    modality: str
    tier: str
    samples: tuple[str, ...]
    x_shape: tuple[int, ...]
    ranges: Mapping[str, tuple[float, float]]
    challenge_sha256: str | None = None

    @property
    def largest_file(self) -> int:
        """Bytes: twice the images plus 1 MiB."""
        return 2 * 4 * int(np.prod(self.x_shape)) * len(self.samples) + 2**20


class Entry(NamedTuple):
    """One sample of a submission."""

    x_hat: np.ndarray
    spec: Mapping[str, float]


class Submission(NamedTuple):
    """A submission as read: who, for which challenge, sample -> Entry, and the sha256 of the file."""

    modality: str
    tier: str
    method: str
    challenge_sha256: str
    samples: Mapping[str, Entry]
    sha256: str


def write_submission(
    path: Path | str, *, modality: str, tier: str, method: str, challenge_sha256: str, samples: Mapping[str, Entry]
) -> None:
    """Write a submission, whole or not at all.

    Args:
        path: HDF5 file.
        modality, tier, challenge_sha256: of the challenge that is answered (`read_challenge`).
        method: at most 128 ASCII characters.
        samples: `sample_00` ... -> Entry(x_hat, spec).
    """
    if not method.isascii() or not 0 < len(method) <= h5strict.TEXT_BYTES:
        raise ValueError(f"method is {method!r}; expected 1 to {h5strict.TEXT_BYTES} ASCII characters")
    values = (FORMAT, VERSION, modality, tier, method, challenge_sha256)
    with replacing_hdf5(path) as file:
        stamp(file, dict(zip(_ROOT, values, strict=True)))
        for name, entry in samples.items():
            group = file.create_group(name)
            group.create_dataset("x_hat", data=np.asarray(entry.x_hat, np.float32), fletcher32=True)
            group.attrs.update({n: float(v) for n, v in entry.spec.items()})


def read_identity(path: Path | str, *, limit: int) -> dict[str, str]:
    """Only the root attributes."""
    with h5strict.staged(path, limit=limit) as (file, _):
        return identity(file, _ROOT, kind=FORMAT)


def read_submission(path: Path | str, contract: Contract) -> Submission:
    """Read a submission by its closed schema; the first violation is a ValueError in one line."""
    found, problems = examine(path, contract)
    if problems or found is None:
        raise ValueError(problems[0])
    return found


def examine(path: Path | str, contract: Contract) -> tuple[Submission | None, list[str]]:
    """The submission, or None, and every problem in one line each; a damaged sample does not hide the next one's."""
    problems: list[str] = []
    entries: dict[str, Entry] = {}
    try:
        with h5strict.staged(path, limit=contract.largest_file) as (file, sha256):
            said = identity(file, _ROOT, kind=FORMAT)
            problems += _foreign(h5strict.where(file), said, contract)
            there = h5strict.expect_members(file, needed=(), optional=contract.samples)
            if not there:
                problems.append(f"{h5strict.where(file)} holds no sample; expected {contract.samples[0]} and so on")
            for name in sorted(there):
                try:
                    entries[name] = _read_entry(h5strict.group(file, name), contract)
                except ValueError as error:
                    problems.append(str(error))
            found = Submission(*(said[n] for n in _ROOT[2:]), entries, sha256)  # type: ignore[call-arg,arg-type]
    except ValueError as error:
        return None, [*problems, str(error)]
    return (None if problems else found), problems


def _foreign(where: str, said: Mapping[str, str], contract: Contract) -> list[str]:
    lines = [
        f"{where} is for {name} {said[name]!r}; expected {wanted!r}"
        for name, wanted in (("modality", contract.modality), ("tier", contract.tier))
        if said[name] != wanted
    ]
    told = said["challenge_sha256"]
    if len(told) != 64 or not set(told) <= _HEX:
        lines.append(f"{where} has challenge_sha256 {told!r}; expected 64 hexadecimal digits")
    elif contract.challenge_sha256 not in (None, told):
        wanted = str(contract.challenge_sha256)[:12]
        lines.append(f"{where} answers another challenge (sha256 {told[:12]}...); expected {wanted}...")
    if not said["method"].strip():
        lines.append(f"{where} has an empty method; expected a name")
    return lines


def _read_entry(group: h5py.Group, contract: Contract) -> Entry:
    h5strict.expect_members(group, needed=("x_hat",))
    h5strict.expect_attributes(group, needed=tuple(contract.ranges))
    spec = {n: h5strict.number(group, n) for n in contract.ranges}
    expect_in_range(h5strict.where(group), spec, contract.ranges)
    x_hat = h5strict.array(group, "x_hat", contract.x_shape)
    largest = float(np.abs(x_hat).max())
    if largest > LARGEST:
        here = f"{h5strict.where(group)}/x_hat"
        raise ValueError(f"{here} reaches {largest:.3g}; expected at most {LARGEST:g} in magnitude (x_true peaks at 1)")
    return Entry(x_hat, spec)


__all__ = ["SAMPLE_NAMES", "Contract", "Entry", "Submission", "examine", "read_identity", "read_submission", "write_submission"]
