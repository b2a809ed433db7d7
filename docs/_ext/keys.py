"""Tables that the code knows: keys of the file formats, mismatch parameters, the benchmark's tiers, methods and codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin


def parts() -> dict[str, str]:
    """Name of the part -> Markdown to include."""
    from diffphys import confocal, shg
    from diffphys.io.run_record import CalibrationRecord, RunRecord

    found = {f"optics_{m.NAME}": _optics(m) for m in (confocal, shg)}
    found |= {f"parameters_{m.NAME}": _parameters(m) for m in (confocal, shg)}
    found |= {"run_json": _record(RunRecord), "calibration_json": _record(CalibrationRecord)}
    return found | {"tiers": _tiers(), "methods": _methods(), "verdicts": _verdicts()}


def table(heading: tuple[str, ...], rows: Any) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines) + "\n"


def _parameters(modality: Any) -> str:
    ranges = modality.default_ranges(modality.Geometry())
    rows = [
        (f"`{f.name}`", f.symbol, f.unit, f"{f.nominal:g}", "{:g} … {:g}".format(*ranges[f.name]), f.kind)
        for f in modality.FIELDS
    ]
    return table(("parameter", "symbol", "unit", "nominal", "default range", "kind"), rows)


def _tiers() -> str:
    from diffphys.benchmark import tiers
    from diffphys.types import resolve

    units = {(m, f.name): f.unit for m in tiers.MODALITIES for f in resolve(m).FIELDS}
    rows = [
        (m, f"`{name}`", units[m, name], *("{:g} … {:g}".format(*tiers.ranges(m, t)[name]) for t in tiers.TIERS))
        for m in tiers.MODALITIES
        for name in tiers.ranges(m, "public")
    ]
    return table(("modality", "parameter", "unit", *tiers.TIERS), rows)


def _methods() -> str:
    from diffphys.benchmark.methods import METHODS

    rows = [(modality, row.name, f"`{row.solver}`", row.note) for modality, known in METHODS.items() for row in known]
    return table(("modality", "row", "method", "what it is"), rows)


def _verdicts() -> str:
    from diffphys.benchmark.runner.verdict import REMEDY

    return table(("code", "meaning"), [(f"`{code}`", text) for code, text in REMEDY.items() if text])


def _optics(modality: Any) -> str:
    """Keys of the optics file, section by section, with what the Geometry's docstring says of each."""
    from diffphys import Detector
    from diffphys.io import optics_file, optics_schema

    names = [f.name for f in modality.FIELDS]
    model = optics_schema.build(modality.Geometry, optics_file.REQUIRED[modality.NAME], names, modality.NAME)
    told = attributes(modality.Geometry) | attributes(Detector)
    rows = []
    for section, field in model.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner is None:
            rows.append((f"`{section}`", "text", "required", f"`{modality.NAME}`"))
            continue
        for key, entry in inner.items():
            note = told.get(key, "[low, high] to search; equal numbers fix it" if section == "ranges" else "")
            need = "required" if entry.is_required() else "`auto`" if section == "detector" else "optional"
            rows.append((f"`{section}.{key}`", kind(entry.annotation), need, note))
    return table(("key", "value", "", "meaning"), rows)


def _record(model: Any) -> str:
    return table(("key", "value"), [(f"`{path}`", told) for path, told in _entries(model, "")])


def _entries(model: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for name, entry in model.model_fields.items():
        inner = _model_in(entry.annotation)
        if inner is None:
            yield prefix + name, kind(entry.annotation)
            continue
        named = get_origin(entry.annotation) is dict
        yield from _entries(inner, f"{prefix}{name}.{'NAME.' if named else ''}")


def _model_in(annotation: Any) -> Any:
    """The record inside `Record`, `Record | None` or `dict[str, Record]`."""
    for candidate in (annotation, *get_args(annotation)):
        if inspect.isclass(candidate) and hasattr(candidate, "model_fields"):
            return candidate
    return None


def kind(annotation: Any) -> str:
    """A type in words."""
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    optional = " or null" if type(None) in get_args(annotation) else ""
    origin = get_origin(annotation)
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{a}`" for a in arguments)
    if str(origin) == "typing.Annotated" or hasattr(annotation, "__metadata__"):
        return kind(arguments[0])
    if origin is list:
        return f"[{kind(arguments[0])}, …]"
    if origin is tuple:
        return f"[{', '.join(kind(a) for a in arguments)}]"
    if origin is dict:
        return f"name → {kind(arguments[1])}"
    if arguments:
        return " or ".join(dict.fromkeys(kind(a) for a in arguments)) + optional
    words = {float: "number", int: "whole number", str: "text", bool: "true or false", Any: "anything"}
    return words.get(annotation, str(annotation))


def attributes(documented: Any) -> dict[str, str]:
    """name -> text of the docstring's Attributes section."""
    section = inspect.cleandoc(documented.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.split(r"^    (?=\w+(?:, \w+)*:)", section, flags=re.MULTILINE)[1:]
    found = {}
    for entry in entries:
        names, _, text = entry.partition(":")
        found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found
