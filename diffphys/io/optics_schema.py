"""The optics file's schema, derived from a modality's Geometry: types, unknown keys, one-line messages."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from diffphys.spec import did_you_mean


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return value


Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
AutoNumber = Literal["auto"] | Number
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
_TYPES = {
    bool: bool,
    float: Number,
    float | None: Number | None,
    int: Annotated[int, BeforeValidator(_no_bool)],
    tuple[float, float, float]: Annotated[list[Number], Field(min_length=3, max_length=3)],
    tuple[float, ...]: list[Number],
}
_BY_NAME = {"pixel_um": Number | Pair, "power_trace": str}  # fields whose hint is Any


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DetectorSection(_Strict):
    """Numbers of `diffphys.Detector`; `auto` is estimated from the data."""

    gain: AutoNumber = "auto"
    offset: AutoNumber = "auto"
    background: AutoNumber = "auto"
    read_sigma: AutoNumber = "auto"
    peak_photons: AutoNumber = "auto"


def build(geometry_type: Any, required: tuple[str, ...], parameters: list[str], modality: str) -> type[BaseModel]:
    """The file's model: sections modality, geometry, detector, ranges; extra keys are forbidden everywhere."""
    hints, entries = get_type_hints(geometry_type), {}
    for field in fields(geometry_type):
        if field.name == "shape":  # the recording says it
            continue
        hint = hints[field.name]
        kind = _BY_NAME.get(field.name) or (hint if get_origin(hint) is Literal else _TYPES[hint])
        stated = field.name in required or field.default is MISSING
        entries[field.name] = (kind, ...) if stated else (kind | None, None)
    geometry: Any = create_model("geometry", __base__=_Strict, **entries)  # type: ignore[call-overload]
    ranges: Any = create_model("ranges", __base__=_Strict, **dict.fromkeys(parameters, (Pair | None, None)))  # type: ignore[call-overload]
    return create_model(
        modality, __base__=_Strict, modality=(str, modality), geometry=(geometry, ...),
        detector=(DetectorSection, Field(default_factory=DetectorSection)), ranges=(ranges, Field(default_factory=ranges)),
    )  # fmt: skip


def validate(model: type[BaseModel], raw: dict[str, Any], *, name: str) -> dict[str, Any]:
    """Plain dict of the validated file; one-line ValueError for the first thing wrong."""
    raw = {section: value for section, value in raw.items() if value is not None or section not in ("detector", "ranges")}
    try:
        stated = model.model_validate(raw).model_dump()
    except ValidationError as error:
        raise ValueError(f"{name}: {_one_line(error, model)}") from None
    stated["ranges"] = {n: pair for n, pair in stated["ranges"].items() if pair is not None}
    return stated


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key also makes one missing
    path = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "list[", "literal["))]
    key = ".".join(path[:2])
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        return f"unknown key {key!r}; allowed: {', '.join(known)}{did_you_mean(path[-1], known)}"
    if first["type"] == "missing":
        return f"{key} is missing; add it (`diffphys optics --init {model.__name__}` shows a complete file)"
    return f"{key} is {_given(first)!r}; expected {_allowed(key, first)}"


def _known_keys(model: type[BaseModel], section: list[str]) -> list[str]:
    if section:
        annotation = model.model_fields[section[0]].annotation
        return list(annotation.model_fields)  # type: ignore[union-attr]
    return list(model.model_fields)


def _given(first: Any) -> Any:
    text = first["input"]
    return text if len(repr(text)) < 60 else type(text).__name__


def _allowed(key: str, first: Any) -> str:
    if first["type"] in ("model_type", "model_attributes_type"):
        return "a section with indented `key: value` lines"
    if key.startswith("detector."):
        return "a finite number or auto"
    if key.startswith("ranges."):
        return "[low, high], two finite numbers"
    if first["type"] == "literal_error":
        return first["ctx"]["expected"]
    kinds = {
        "list_type": "a list of numbers in [ ]",
        "string_type": "text",
        "int_parsing": "a whole number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
    }
    if first["type"] in ("too_short", "too_long"):
        length = first["ctx"].get("min_length") or first["ctx"].get("max_length")
        return f"a list of {length} numbers"
    return kinds.get(first["type"], "a finite number")


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice (plain YAML silently keeps the last)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        twice = [k for i, k in enumerate(keys) if k in keys[:i]]
        if twice:
            raise ValueError(f"key {twice[0]!r} is given twice; keep one of them")
        return super().construct_mapping(node, deep=deep)


def load_yaml(text: str, *, name: str) -> dict[str, Any]:
    """The text's mapping; one-line ValueError if it is no YAML mapping."""
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ValueError(f"{name} is not valid YAML{where}: {getattr(error, 'problem', None) or 'syntax error'}") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{name} holds no sections; expected modality, geometry, detector, ranges")
    return raw
