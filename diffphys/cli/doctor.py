"""`diffphys doctor`: what is installed, what runs where, and what to do about the rest."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from diffphys.cli.session import progress

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def doctor(as_json: AsJson = False) -> None:
    """Show versions, devices, memory, cache, FFT and its speed, extras, sandbox and shipped weights."""
    from diffphys.doctor import examine

    with progress("doctor") as update:
        found = examine(progress=update)
    print(json.dumps(found, indent=2) if as_json else "\n\n".join(_lines(part, held) for part, held in found.items()))


def _lines(part: str, held: dict[str, Any]) -> str:
    names = {name: name.replace("_mib", " (MiB)").replace("_ms", " (ms)").replace("_", " ") for name in held}
    width = max(map(len, names.values()), default=0)
    return "\n".join([part, *(f"  {names[name]:{width}}  {_told(value)}" for name, value in held.items())])


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_mib', ' MiB').replace('_', ' ')}: {_told(v)}" for name, v in value.items())
    return "not told" if value is None else str(value)
