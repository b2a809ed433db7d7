"""The benchmark's files of the organiser: a tier's challenge, and the truth that stays beside the secret.

`{modality}_challenge_{tier}.h5`: the measurement file of `diffphys.io.hdf5`, with the tier's name; the truth in it exactly when
the tier is public. `{modality}_truth_{tier}.h5`, mode 0600:

    /               format, version, modality, tier, challenge_sha256 (fixed-length text)
    /sample_00 ...  x_true, y_second (another noise draw), y_ideal (counts of the nominal instrument); group true_spec; family
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from diffphys.io import h5strict
from diffphys.io.h5write import replacing_hdf5
from diffphys.io.hdf5 import (
    SAMPLE_NAMES,
    VERSION,
    MeasurementFile,
    Sample,
    frame_shapes,
    identity,
    read_opened,
    stamp,
    write_measurement,
)
from diffphys.types import Modality, resolve

TIERS = ("public", "dev", "hidden")
TRUTH_FORMAT = "diffphys-truth"
LARGEST_FILE = 512 * 2**20
_TRUTH_ROOT = ("format", "version", "modality", "tier", "challenge_sha256")
_ARRAYS = ("x_true", "y_second", "y_ideal")


class Challenge(NamedTuple):
    """A tier as a contestant sees it, and the sha256 of its file."""

    held: MeasurementFile
    sha256: str

    @property
    def modality(self) -> str:
        return self.held.modality

    @property
    def tier(self) -> str:
        return self.held.tier

    @property
    def samples(self) -> Mapping[str, Sample]:
        return self.held.samples


class Truth(NamedTuple):
    """What the organiser knows of one sample; float32 arrays as in the challenge."""

    x_true: np.ndarray
    spec: Mapping[str, float]
    y_second: np.ndarray
    y_ideal: np.ndarray
    family: str


class TruthFile(NamedTuple):
    """The truth of a tier: name of the sample -> Truth."""

    modality: str
    tier: str
    challenge_sha256: str
    samples: Mapping[str, Truth]


def challenge_name(modality: str, tier: str) -> str:
    return f"{modality}_challenge_{tier}.h5"


def truth_name(modality: str, tier: str) -> str:
    return f"{modality}_truth_{tier}.h5"


def write_challenge(
    path: Path | str, modality: Modality | str, tier: str, *, geometry: Any, ranges: Mapping[str, Any], samples: Mapping
) -> None:
    """Write a tier's challenge, whole or not at all; ValueError where it holds a truth it must not or lacks one it must."""
    _check_tier(Path(path).name, tier, samples, ranges)
    write_measurement(path, modality, geometry=geometry, samples=samples, ranges=ranges, tier=tier)


def read_challenge(path: Path | str) -> Challenge:
    """Read a tier's challenge by its closed schema; ValueError in one line that says what came and what is allowed."""
    with h5strict.staged(path, limit=LARGEST_FILE) as (file, sha256):
        held = read_opened(file)
    _check_tier(Path(path).name, held.tier, held.samples, held.ranges)
    return Challenge(held, sha256)


def write_truth(path: Path | str, modality: str, tier: str, *, challenge_sha256: str, samples: Mapping[str, Truth]) -> None:
    """Write a tier's truth with mode 0600, whole or not at all."""
    values = (TRUTH_FORMAT, VERSION, modality, tier, challenge_sha256)
    with replacing_hdf5(path, mode=0o600) as file:
        stamp(file, dict(zip(_TRUTH_ROOT, values, strict=True)))
        for name, truth in samples.items():
            group = file.create_group(name)
            for array in _ARRAYS:
                group.create_dataset(array, data=np.asarray(getattr(truth, array), np.float32), fletcher32=True)
            group.create_group("true_spec").attrs.update({n: float(v) for n, v in truth.spec.items()})
            group.attrs["family"] = np.bytes_(truth.family)


def read_truth(path: Path | str, *, geometry: Any) -> TruthFile:
    """Read a tier's truth; `geometry` is the challenge's, and says the shapes."""
    with h5strict.staged(path, limit=LARGEST_FILE) as (file, _):
        said = identity(file, _TRUTH_ROOT, kind=TRUTH_FORMAT)
        modality = resolve(said["modality"])
        if not isinstance(geometry, modality.Geometry):
            raise ValueError(f"{h5strict.where(file)} is of modality {modality.NAME}; the challenge is of another")
        names = sorted(h5strict.expect_members(file, needed=(), optional=SAMPLE_NAMES))
        samples = {n: _truth_of(h5strict.group(file, n), modality, geometry) for n in names}
    return TruthFile(said["modality"], said["tier"], said["challenge_sha256"], samples)


def _truth_of(group: h5py.Group, modality: Modality, geometry: Any) -> Truth:
    h5strict.expect_members(group, needed=(*_ARRAYS, "true_spec"))
    h5strict.expect_attributes(group, needed=("family",))
    y_shape, x_shape = frame_shapes(modality, geometry)
    entry, names = h5strict.group(group, "true_spec"), [f.name for f in modality.FIELDS]
    h5strict.expect_attributes(entry, needed=names)
    x, second, ideal = (h5strict.array(group, n, x_shape if n == "x_true" else y_shape) for n in _ARRAYS)
    return Truth(x, {n: h5strict.number(entry, n) for n in names}, second, ideal, h5strict.text(group, "family"))


def _check_tier(name: str, tier: str, samples: Mapping[str, Sample], ranges: Mapping[str, Any]) -> None:
    if tier not in TIERS:
        raise ValueError(f"{name} has tier {tier!r}; expected one of {list(TIERS)}")
    for label, sample in samples.items():
        told = (sample.x_true is not None, sample.true_spec is not None, sample.family is not None)
        if told != (tier == "public",) * 3:
            rule = "x_true, true_spec and family" if tier == "public" else "no truth"
            raise ValueError(f"{name}:/{label} of tier {tier} must hold {rule}")
        expect_in_range(f"{name}:/{label}/true_spec", sample.true_spec or {}, ranges)


def expect_in_range(where: str, spec: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise for a parameter outside its range; single-precision rounding of the range's own edge is forgiven."""
    for name, value in spec.items():
        low, high = ranges[name]
        slack = 1e-6 * max(abs(low), abs(high))
        if not low - slack <= value <= high + slack:
            raise ValueError(f"{where}: {name} is {value:g}; expected a value in its range [{low:g}, {high:g}]")
