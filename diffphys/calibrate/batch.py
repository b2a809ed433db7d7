"""Calibration of many stacks of one instrument's geometry: each for itself, or one spec for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffphys.calibrate.blind import checked, together
from diffphys.calibrate.lanes import lanes
from diffphys.noise import Detector
from diffphys.types import Calibration, Modality, resolve

WIDTH = 16  # stacks at a time


def calibrate_batch(
    stacks: Sequence[Any],
    modality: Modality | str,
    *,
    geometry: Any,
    detector: Detector | Sequence[Detector | None] | None = None,
    ranges: Mapping[str, Sequence[float]] | None = None,
    shared: bool = False,
    width: int = WIDTH,
    devices: Sequence[Any] | None = None,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> list[Calibration]:
    """`calibrate` for many stacks of one shape: one compiled program, spread over the devices.

    Args:
        stacks: counts, (stack, z, y, x) or (stack, frame, y, x), or a sequence of such stacks.
        modality, geometry, ranges, seed: as of `calibrate`; the geometry's shape is that of each stack.
        detector: of all stacks, or one per stack; NaN entries (or None) are estimated per stack.
        shared: one spec for all stacks, each with its own noise level and spectrum. Its error bars are those of all the data.
        width: stacks at a time; more need more memory.
        devices: local devices that share the work; None: all of them.
        progress: called with (fraction done, what is being done).

    Returns:
        One `Calibration` per stack, equal to `calibrate`'s; with `shared` they all have the same spec and covariance.

    Raises:
        ValueError: in one line that names the stack, when one cannot be calibrated at all.
    """
    modality, count = resolve(modality), len(stacks)
    if count < 1 or width < 1:
        raise ValueError(f"there are {count} stacks, width is {width}; expected at least one of each")
    given = [detector] * count if detector is None or isinstance(detector, Detector) else list(detector)
    if len(given) != count:
        raise ValueError(f"there are {len(given)} detectors for {count} stacks; expected one for all or one per stack")
    for number, y in enumerate(stacks):
        try:
            checked(y, modality, geometry)
        except ValueError as error:
            raise ValueError(f"stack {number}: {error}") from None
    tell, how = progress or (lambda fraction, text: None), lanes(min(width, count), devices=devices)
    options: dict[str, Any] = {"geometry": geometry, "ranges": ranges, "seed": seed, "how": how}
    if shared:
        from diffphys.calibrate.shared import shared_spec

        return shared_spec(stacks, modality, detectors=given, progress=tell, **options)
    found: list[Calibration] = []
    for first in range(0, count, width):
        part = slice(first, first + width)

        def part_done(fraction: float, text: str, first: int = first, size: int = len(given[part])) -> None:
            tell((first + fraction * size) / count, f"stacks {first + 1} to {first + size} of {count}: {text}")

        found += together(stacks[part], modality, detectors=given[part], progress=part_done, **options)
    return found
