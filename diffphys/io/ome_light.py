"""What an OME-XML channel says of its light: wavelengths, pinhole, detector."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from diffphys.io import ome_xml
from diffphys.io.ome_found import Found, Value, length, number_of

_NM = (200.0, 2000.0)
_PINHOLE_AU = (0.05, 20.0)


def pick(pixels: Element, channel: str | None, name: str) -> int | None:
    """The channel's number; None where the header describes none."""
    names = [c.get("Name", "") for c in ome_xml.children(pixels, "Channel")]
    if channel is None:
        if len(names) > 1:
            there = ", ".join(f"{i} ({ascii(n)[1:-1]})" if n else str(i) for i, n in enumerate(names))
            raise ValueError(f"{name} has {len(names)} channels: {there}; pick one with --channel")
        return 0 if names else None
    if channel in names:
        return names.index(channel)
    if channel.isdecimal() and int(channel) < len(names):
        return int(channel)
    raise ValueError(f"channel is {channel!r}; {name} describes {len(names)}: expected a number from 0, or a name")


def wavelengths(line: Element, at: str, found: Found) -> None:
    """Excitation of the channel, else of its light source's settings; emission."""
    lit, colour = "excitation_nm", "emission_nm"
    light = ome_xml.child(line, "LightSourceSettings")
    options: list[tuple[str, Element, str, str]] = [(lit, line, at, "ExcitationWavelength")]
    if light is not None and line.get("ExcitationWavelength") is None:
        options = [(lit, light, f"{at}/LightSourceSettings", "Wavelength")]
    for key, element, where, attribute in (*options, (colour, line, at, "EmissionWavelength")):
        um = length(element, attribute, "nm", found, key)
        nm = None if um is None else round(um * 1e3, 6)
        if nm is not None and not _NM[0] <= nm <= _NM[1]:
            found.problems[key] = f"{attribute} is {nm:g} nm; expected {_NM[0]:g} to {_NM[1]:g}"
        elif nm is not None:
            found.values[key] = Value(nm, f"{where}/@{attribute}")
    if line.get("AcquisitionMode") in ("WideField", "TotalInternalReflection"):
        found.values.pop(lit, None)
        found.problems[lit] = (
            f"AcquisitionMode is {line.get('AcquisitionMode')}: no confocal image; write null for a wide-field one"
        )


def confocal_only(found: Found) -> None:
    """Leave out wavelengths that one-photon fluorescence cannot have: the excitation must be the shorter one."""
    lit, colour = found.values.get("excitation_nm"), found.values.get("emission_nm")
    if lit is not None and colour is not None and lit.number >= colour.number:  # type: ignore[operator]
        why = f"excitation {lit.number:g} nm is not below emission {colour.number:g} nm; both and the pinhole are left out"
        for key in ("excitation_nm", "emission_nm", "pinhole_au"):
            found.values.pop(key, None)
            found.problems[key] = why


def pinhole(line: Element, at: str, objective: Element | None, place: str, found: Found) -> None:
    """Diameter in Airy units of 1.22 emission M / NA in the objective's image; a relay behind it is not in the file."""
    size = length(line, "PinholeSize", "µm", found, "pinhole_au")
    if size is None:
        return
    found.remarks["pinhole_au"] = f"the file says a diameter of {size:g} um"
    na, emission = found.values.get("na"), found.values.get("emission_nm")
    named = [a for a in ("CalibratedMagnification", "NominalMagnification") if objective is not None and objective.get(a)]
    times = number_of(objective, named[0], found, "pinhole_au") if objective is not None and named else None
    if na is None or emission is None or times is None or times <= 0:
        lacking = [n for n, v in (("NA", na), ("emission", emission), ("magnification", times)) if v is None or v == 0]
        found.remarks["pinhole_au"] += f", but Airy units need {', '.join(lacking) or 'a positive magnification'} too"
        return
    airy = 1.22 * float(emission.number) * 1e-3 * times / float(na.number)  # type: ignore[arg-type]
    units = size / airy
    formula = f"{size:g} um / (1.22 x {emission.number:g} nm x {times:g} / NA {na.number:g}) = {units:.3g}"
    if not _PINHOLE_AU[0] <= units <= _PINHOLE_AU[1]:
        found.problems["pinhole_au"] = (
            f"PinholeSize gives {formula} Airy units; expected {_PINHOLE_AU[0]:g} to {_PINHOLE_AU[1]:g}"
        )
        return
    assumed = f"{formula}, magnification of {place}/@{named[0]} and no relay behind it"
    found.values["pinhole_au"] = Value(float(f"{units:.3g}"), f"{at}/@PinholeSize", assumed)


def detector(root: Element, line: Element, found: Found) -> None:
    """Gain and Offset are the maker's own scales (volts, steps), not counts per photon: told, not filled in."""
    settings = ome_xml.child(line, "DetectorSettings")
    if settings is None:
        return
    device = next((d for d in ome_xml.descendants(root, "Detector") if d.get("ID") == settings.get("ID")), None)
    for key in ("Gain", "Offset"):
        for element in (settings, device):
            number = None if element is None else number_of(element, key, found, key.lower())
            if number is not None:
                found.remarks[key.lower()] = f"the file says {key} {number:g}, on the detector's own scale"
                break
