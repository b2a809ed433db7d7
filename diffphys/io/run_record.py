"""`run.json` and `calibration.json` read back: what a report shows of them, typed and checked.

Both files may have been edited or come from a stranger: a wrong type is one line that names the entry, not a crash later.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, model_validator

_MAX_BYTES = 16 * 2**20
Number = float | None  # None: not finite


class Input(BaseModel):
    path: str
    sha256: str


class DetectorNumbers(BaseModel):
    """As `diffphys.Detector`."""

    peak_photons: float
    background: float
    gain: float
    offset: float
    read_sigma: float


class Restored(BaseModel):
    """How the reconstruction went; `spec` is None where a measured PSF was used."""

    spec: dict[str, float] | None
    detector: DetectorNumbers
    status: str
    remedy: str
    iterations: int
    curve_name: str
    curve: list[Number]
    warnings: list[str]


class RunRecord(BaseModel):
    """Content of `run.json`, as `diffphys.io.provenance.run_record` writes it."""

    format: str
    command: list[str]
    directory: str = ""
    started: str
    finished: str
    seconds: dict[str, float]
    inputs: dict[str, Input]
    optics: dict[str, Any]
    options: dict[str, Any]
    versions: dict[str, str]
    git_commit: str | None
    device: dict[str, str | int]
    platform: str
    peak_memory_bytes: dict[str, int]
    warnings: list[str] = []
    reconstruction: Restored | None


class Estimate(BaseModel):
    value: Number
    sigma: Number


class Parameter(Estimate):
    unit: str
    range: tuple[float, float]


class CalibrationRecord(BaseModel):
    """Content of `calibration.json`; matrices follow `names`."""

    format: str
    modality: str
    status: str
    remedy: str
    parameters: dict[str, Parameter]
    derived: dict[str, Estimate]
    undetermined: dict[str, str]
    names: list[str]
    correlation: list[list[Number]]
    detector: DetectorNumbers
    warnings: list[str]

    @model_validator(mode="after")
    def _square(self) -> CalibrationRecord:
        count = len(self.names)
        if [len(row) for row in self.correlation] != [count] * count:
            raise ValueError(f"correlation is not {count} x {count}, one row and column per name")
        return self


Record = TypeVar("Record", RunRecord, CalibrationRecord)


def read(path: Path, kind: type[Record], *, like: str) -> Record:
    """The file's content; ValueError of one line when it is not `like`, the format's name, or is damaged."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.name} is larger than {_MAX_BYTES} bytes; expected a {like}")
    try:
        content = kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{path} cannot be used: {where}: {first['msg'].lower()}; repeat the run") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: not JSON; repeat the run") from None
    if content.format != like:
        raise ValueError(f"{path} has format {content.format!r}; expected {like!r}")
    return content
