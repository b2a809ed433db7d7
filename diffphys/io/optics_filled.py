"""The commented optics file of a modality, filled in with what an image's header states: `diffphys optics --init --from`.

Comes in: `Found` of a header. Goes out: the text, and one row for each key that says where its value is from, for the user to
confirm. A key that the file does not state keeps the template's line and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diffphys.io.ome_found import Found, Value
from diffphys.io.ome_light import confocal_only
from diffphys.io.optics_template import template

# the keys that a measurement decides; the others of a template are choices, not facts of the instrument
ASKED: Mapping[str, Sequence[str]] = {
    "confocal_3d": ("voxel_um", "na", "immersion_index", "excitation_nm", "emission_nm", "pinhole_au", "depth_um"),
    "shg": ("pixel_um", "na", "index", "excitation_nm", "slab_um", "phase_offsets_rad"),
}
_SHG_FROM_FILE = ("pixel_um", "excitation_nm")  # a header's objective lights the specimen; the collecting one is another
_LINE = r"^  (?:# )?{key}: .*$"


class Filled(NamedTuple):
    """`text` of the optics file; `rows` of key, value, origin; `problems` of one line each."""

    text: str
    rows: tuple[tuple[str, str, str], ...]
    problems: tuple[str, ...]


def fill(modality: str, found: Found) -> Filled:
    """Write the found values into the modality's template."""
    text = template(modality)  # also refuses an unknown modality
    found = found.copy()
    if modality == "shg":
        _as_shg(found)
    else:
        confocal_only(found)
    rows = []
    for key in ASKED[modality]:
        value = found.values.get(key)
        text = _written(text, key, value, _why(key, found))
        rows.append((key, "" if value is None else _plain(value), _origin(key, value, found)))
    for key in ("gain", "offset"):
        if key in found.remarks:
            text = _written(text, key, None, found.remarks[key])
    return Filled(text, tuple(rows), tuple(dict.fromkeys(found.problems.values())))


def _as_shg(found: Found) -> None:
    na = found.values.get("na")
    for key in [k for k in found.values if k not in _SHG_FROM_FILE]:
        del found.values[key]
    for key in [k for k in found.problems if k not in (*_SHG_FROM_FILE, "image")]:
        del found.problems[key]
    found.remarks.pop("na", None)
    if na is not None:
        found.remarks["na"] = f"the file's objective has NA {na.number:g}, but it does not say that this one collects"


def _why(key: str, found: Found) -> str:
    """Why a key has no value."""
    if key in found.problems:
        return f"left out: {found.problems[key]}"
    if key in ("na", "immersion_index") and "objective" in found.problems:
        return f"left out: {found.problems['objective']}"
    return found.remarks.get(key, "the file does not say: fill in")


def _origin(key: str, value: Value | None, found: Found) -> str:
    if value is None:
        why = _why(key, found)
        return why if why.startswith("left out") else f"not stated{_remark(key, found)}: please fill in"
    return f"assumed from {value.where}: {value.assumed}" if value.assumed else f"file: {value.where}"


def _remark(key: str, found: Found) -> str:
    return f" ({found.remarks[key]})" if key in found.remarks else ""


def _written(text: str, key: str, value: Value | None, why: str) -> str:
    """The text with the key's line filled in, or with the reason why it is not."""
    old = re.search(_LINE.format(key=key), text, re.MULTILINE)
    if old is None:
        raise KeyError(key)
    if value is None:
        new = f"{old.group()}{'' if old.group().endswith('.') else '.'} {why[0].upper()}{why[1:]}."
    else:
        new = f"  {key}: {_plain(value)}  # from the file: {value.where}"
        new += f"; ASSUMED: {value.assumed}" if value.assumed else ""
    return text[: old.start()] + new + text[old.end() :]


def _plain(value: Value) -> str:
    """YAML of a number or a list of them."""
    if isinstance(value.number, tuple):
        return f"[{', '.join(f'{n:.10g}' for n in value.number)}]"
    return f"{value.number:.10g}"
