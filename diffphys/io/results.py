"""Calibration <-> `calibration.json`, and plain JSON without NaN."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffphys.io.atomic import write_text
from diffphys.spec import expect_names, names, parse
from diffphys.types import Calibration, Modality, Reconstruction, resolve

CALIBRATION_FORMAT = "diffphys-calibration"
_MAX_JSON_BYTES = 16 * 2**20


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, whole or not at all; NaN and infinity become null."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """The value in JSON's own types: arrays as lists, enums by name, non-finite numbers as None."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (bool, str, type(None))):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "__array__"):  # numpy and jax arrays and scalars
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} has no plain JSON form")


def calibration_as_dict(calibration: Calibration, modality: Modality | str) -> dict[str, Any]:
    """Everything of a calibration in plain values, units beside the numbers."""
    units = {f.name: f.unit for f in resolve(modality).FIELDS}
    values, sigma = calibration.values, calibration.sigma
    content = {
        "format": CALIBRATION_FORMAT,
        "version": 1,
        "modality": resolve(modality).NAME,
        "status": calibration.status,
        "remedy": calibration.remedy,
        "parameters": {
            n: {"value": values[n], "sigma": sigma[n], "unit": units[n], "range": calibration.ranges[n]} for n in values
        },
        "derived": {n: {"value": v, "sigma": s} for n, (v, s) in calibration.derived.items()},
        "undetermined": calibration.undetermined,
        "names": calibration.names,
        "covariance": calibration.covariance,
        "correlation": calibration.correlation,
        "detector": calibration.detector,
        "warnings": calibration.warnings,
        "diagnostics": calibration.diagnostics,
    }
    return plain(content)


def reconstruction_as_dict(found: Reconstruction, spec: Any, detector: Any) -> dict[str, Any]:
    """How a reconstruction went, for `run.json`; `spec` is None where a measured PSF was used."""
    told = ("status", "remedy", "iterations", "curve_name", "curve", "warnings")
    return {"spec": spec, "detector": detector, **{n: getattr(found, n) for n in told}}


def write_calibration(path: Path | str, calibration: Calibration, modality: Modality | str) -> None:
    """Write `calibration.json`."""
    write_json(path, calibration_as_dict(calibration, modality))


def read_spec(path: Path | str, modality: Modality | str) -> Any:
    """The spec of a `calibration.json`; ValueError if it is no such file or belongs to another modality."""
    path, modality = Path(path), resolve(modality)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes; expected a calibration.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stated = content["parameters"]
        values = {n: float(stated[n]["value"]) for n in stated}
        told = content["format"], content["modality"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path.name} is not a calibration.json of diffphys (or is damaged)") from None
    if told != (CALIBRATION_FORMAT, modality.NAME):
        raise ValueError(f"{path.name} is a {told[0]} of modality {told[1]}; expected {CALIBRATION_FORMAT} of {modality.NAME}")
    return checked_spec(values, modality)


def parse_spec(text: str, modality: Modality | str, geometry: Any) -> Any:
    """A spec from `name=value,name=value`; names left out keep their nominal value."""
    modality = resolve(modality)
    known, nominal = names(modality.FIELDS), modality.nominal(geometry)
    stated: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = (s.strip() for s in part.partition("="))
        expect_names("spec", [name], known, all_needed=False)
        try:
            stated[name] = float(value)
        except ValueError:
            raise ValueError(f"spec has {part!r}; expected name=number, e.g. {known[0]}=0.5") from None
    return checked_spec({n: stated.get(n, float(getattr(nominal, n))) for n in known}, modality)


def checked_spec(values: Mapping[str, float], modality: Modality) -> Any:
    """A modality's spec from exactly its names, all finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"spec has {name} = {value}; expected a finite number")
    return parse(modality.Spec, modality.FIELDS, values)
