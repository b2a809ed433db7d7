"""What OME-XML says of the instrument: each value with its place in the file, nothing that the file does not say.

Comes in: the header's text and a channel. Goes out: `Found`: values in the units of an optics file, each with the attribute it
was read from; and one line for each statement that contradicts another or is impossible, whose value is then left out.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from diffphys.io import ome_light, ome_xml
from diffphys.io.ome_found import Found, Value, length, number_of
from diffphys.io.voxel import WIDEST_UM

# assumed indices of the standard's media (Objective/@Immersion, ObjectiveSettings/@Medium), near 520 nm and room temperature;
# Multi and Other name no medium
MEDIA = {"oil": 1.515, "water": 1.333, "waterdipping": 1.333, "glycerol": 1.47, "glycerine": 1.47, "air": 1.0, "dry": 1.0}
_INDEX_MATCH = 0.03  # a stated index farther from its medium's contradicts it (immersion oils span 1.51 to 1.53)
_LARGEST_NA, _LARGEST_INDEX = 1.75, 1.9


def find(text: str, *, name: str, channel: str | None = None) -> Found:
    """Read the first image of the header.

    Args:
        text: OME-XML.
        name: what messages call the file.
        channel: number or name; needed when the image has more than one.

    Raises:
        ValueError: no OME-XML, no such channel, or a header that is refused; one line.
    """
    root = ome_xml.parse(text, name=name)
    image = ome_xml.child(root, "Image")
    pixels = ome_xml.child(image, "Pixels")
    if image is None or pixels is None:
        raise ValueError(f"the OME-XML of {name} describes no image; leave out --from")
    found = Found({}, {}, {})
    images = len(ome_xml.children(root, "Image"))
    if images > 1:
        found.problems["image"] = f"{name} has {images} images; the values are those of the first"
    _voxel(pixels, found)
    objective, place = _objective(root, image, found)
    _aperture(image, objective, place, found)
    number = ome_light.pick(pixels, channel, name)
    if number is not None:
        line, at = ome_xml.children(pixels, "Channel")[number], f"Image[0]/Pixels/Channel[{number}]"
        ome_light.wavelengths(line, at, found)
        ome_light.pinhole(line, at, objective, place, found)
        ome_light.detector(root, line, found)
    return found


def _voxel(pixels: Element, found: Found) -> None:
    sizes = [length(pixels, f"PhysicalSize{axis}", "µm", found, "voxel_um") for axis in "ZYX"]
    for axis, size in zip("ZYX", sizes, strict=True):
        if size is not None and not 0 < size <= WIDEST_UM:
            found.problems["voxel_um"] = f"PhysicalSize{axis} is {size:g} um; expected more than 0 and at most {WIDEST_UM:g}"
            return
    known = [f"{axis} {size:g}" for axis, size in zip("ZYX", sizes, strict=True) if size is not None]
    for key, last in (("voxel_um", 3), ("pixel_um", 2)):
        numbers = tuple(size for size in sizes[-last:] if size is not None)
        if len(numbers) == last:
            found.values[key] = Value(numbers, "Image[0]/Pixels/@PhysicalSize" + ",".join("ZYX"[-last:]))
        elif known:
            found.remarks[key] = f"the file says {', '.join(known)} um only"


def _objective(root: Element, image: Element, found: Found) -> tuple[Element | None, str]:
    """The image's objective and its place; None where the file does not say which, or has none."""
    all_ = [
        (o, f"Instrument[{i}]/Objective[{j}]")
        for i, instrument in enumerate(ome_xml.children(root, "Instrument"))
        for j, o in enumerate(ome_xml.children(instrument, "Objective"))
    ]
    settings = ome_xml.child(image, "ObjectiveSettings")
    if settings is not None and settings.get("ID"):
        named = [pair for pair in all_ if pair[0].get("ID") == settings.get("ID")]
        if len(named) == 1:
            return named[0]
        if all_:
            found.problems["objective"] = f"ObjectiveSettings names an objective that the file has {len(named)} times"
    elif len(all_) == 1:
        return all_[0]
    elif all_:
        found.problems["objective"] = f"the file has {len(all_)} objectives and does not say which one took the image"
    return None, ""


def _aperture(image: Element, objective: Element | None, place: str, found: Found) -> None:
    na = None if objective is None else number_of(objective, "LensNA", found, "na")
    if na is not None and not 0 < na <= _LARGEST_NA:
        found.problems["na"] = f"LensNA is {na:g}; expected more than 0 and at most {_LARGEST_NA:g}"
        na = None
    index = _immersion(image, objective, place, found)
    if na is not None and index is not None and isinstance(index.number, float) and na >= index.number:
        why = f"LensNA {na:g} is not below the immersion's index {index.number:g}; both are left out"
        found.problems["na"] = found.problems["immersion_index"] = why
        return
    if na is not None:
        found.values["na"] = Value(na, f"{place}/@LensNA")
    if index is not None:
        found.values["immersion_index"] = index


def _immersion(image: Element, objective: Element | None, place: str, found: Found) -> Value | None:
    """The stated index; else that of the named medium. Names that differ, or an index that no named medium has, are refused."""
    settings, at = ome_xml.child(image, "ObjectiveSettings"), "Image[0]/ObjectiveSettings"
    named = {}
    for element, attribute, where in ((settings, "Medium", at), (objective, "Immersion", place)):
        medium = "" if element is None else element.get(attribute, "").replace(" ", "")
        if medium.lower() in MEDIA:
            named[f"{where}/@{attribute}"] = medium
    indices = {MEDIA[m.lower()] for m in named.values()}
    if len(indices) > 1:
        found.problems["immersion_index"] = f"the file names two media, {' and '.join(named.values())}"
        return None
    stated = None if settings is None else number_of(settings, "RefractiveIndex", found, "immersion_index")
    if stated is not None:
        if not 1 <= stated <= _LARGEST_INDEX:
            found.problems["immersion_index"] = f"RefractiveIndex is {stated:g}; expected 1 to {_LARGEST_INDEX:g}"
            return None
        if indices and abs(stated - min(indices)) > _INDEX_MATCH:
            medium = next(iter(named.values()))
            found.problems["immersion_index"] = f"RefractiveIndex {stated:g} contradicts the medium {medium} ({min(indices):g})"
            return None
        return Value(stated, f"{at}/@RefractiveIndex")
    if "immersion_index" in found.problems or not named:
        return None
    where, medium = next(iter(named.items()))
    return Value(min(indices), where, f"{medium} is taken as {min(indices):g}")
