"""What a header was found to say: values with their places, remarks, problems; and how its numbers and lengths are read."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.etree.ElementTree import Element

from diffphys.io.voxel import UM


class Value(NamedTuple):
    """One value: a number or numbers in the optics file's unit, where it stands in the file, and what was assumed for it."""

    number: float | tuple[float, ...]
    where: str
    assumed: str = ""


class Found(NamedTuple):
    """Values by the optics file's key, remarks that are no values of it (key -> text), problems of one line each."""

    values: dict[str, Value]
    remarks: dict[str, str]
    problems: dict[str, str]

    def copy(self) -> Found:
        """An equal one of its own."""
        return Found(dict(self.values), dict(self.remarks), dict(self.problems))


def length(element: Element, attribute: str, unit: str, found: Found, key: str) -> float | None:
    """An attribute with its unit, in micrometres; None if absent or unusable, then with a problem."""
    number = number_of(element, attribute, found, key)
    if number is None:
        return None
    unit = element.get(f"{attribute}Unit", unit)
    scale = UM.get(unit.lower())
    if scale is None:
        found.problems[key] = f"{attribute} has unit {ascii(unit)[:24]}; expected a length such as nm or µm"
        return None
    return float(f"{number * scale:.10g}")


def number_of(element: Element, attribute: str, found: Found, key: str) -> float | None:
    """An attribute as a number; None if absent or unusable, then with a problem."""
    text = element.get(attribute)
    if text is None or not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        found.problems[key] = f"{attribute} is {ascii(text)[:24]}; expected a finite number"
        return None
    return number
