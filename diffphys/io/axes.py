"""From a file's axes to the modality's: pick the channel, drop single entries, refuse what has no meaning.

Letters: z y x, c channel, t time, f frame of a frame modality, s colour sample; any other letter is unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Arranged(NamedTuple):
    """`data` (z, y, x) or (frame, y, x) in the file's dtype; `axes` as they were understood."""

    data: np.ndarray
    axes: str
    channel: int
    channels: tuple[str, ...]
    warnings: tuple[str, ...]


def arrange(
    raw: np.ndarray,
    said: str,
    *,
    volume: bool,
    name: str,
    channel: int | str | None = None,
    names: tuple[str, ...] = (),
    override: str | None = None,
) -> Arranged:
    """Bring an array with the file's axes `said` (or the user's `override`) into canonical order; ValueError if it has none."""
    axes = _override(override, raw, name) if override else said.lower()
    if "s" in axes and raw.shape[axes.index("s")] > 1:
        raise ValueError(
            f"{name} is an RGB image (axes {said}, shape {raw.shape}); expected one grey channel: export the raw channel, or "
            "name the axes with --axes (yxf: three frames)"
        )
    if "y" not in axes or "x" not in axes:
        raise ValueError(f"{name} has axes {said}; expected y and x among them: name the axes with --axes, e.g. zyx")
    index, channels = _pick_channel(axes, raw.shape, channel, names, name)
    if "c" in axes:
        raw, axes = raw.take(index, axes.index("c")), axes.replace("c", "")
    raw, axes = _squeeze(raw, axes, keep="yxz" if volume else "yxf")
    if "t" in axes:
        remedy = "save one time point" if volume else "save one time point, or say that time points are frames with --axes"
        raise ValueError(f"{name} has a time axis of {raw.shape[axes.index('t')]}; expected a single time: {remedy}")
    axes, warnings = _as_volume(axes, raw, name) if volume else _as_frames(axes, raw, name)
    order = ("zyx" if volume else "fyx") if len(axes) == 3 else "yx"
    data = raw.transpose([axes.index(a) for a in order])
    return Arranged(data if len(axes) == 3 else data[None], order, index, channels, warnings)


def _override(override: str, raw: np.ndarray, name: str) -> str:
    axes = override.lower()
    letters_ok = set(axes) <= set("zyxctf") and len(set(axes)) == len(axes) and {"y", "x"} <= set(axes)
    if not letters_ok or len(axes) != raw.ndim:
        raise ValueError(
            f"axes is {override!r} for {name} of shape {raw.shape}; expected {raw.ndim} different letters of z y x c t f, "
            "y and x among them"
        )
    return axes


def _pick_channel(
    axes: str, shape: tuple[int, ...], channel: int | str | None, names: tuple[str, ...], name: str
) -> tuple[int, tuple[str, ...]]:
    count = shape[axes.index("c")] if "c" in axes else 1
    channels = tuple(names[i] if i < len(names) and names[i] else str(i) for i in range(count))
    there = ", ".join(str(i) if c == str(i) else f"{i} ({c})" for i, c in enumerate(channels))
    if channel is None:
        if count > 1:
            raise ValueError(f"{name} has {count} channels: {there}; pick one with --channel")
        return 0, channels
    if str(channel) in channels:
        return channels.index(str(channel)), channels
    if str(channel).isdecimal() and int(channel) < count:
        return int(channel), channels
    raise ValueError(f"channel is {str(channel)!r}; {name} has {there}")


def _squeeze(raw: np.ndarray, axes: str, *, keep: str) -> tuple[np.ndarray, str]:
    drop = tuple(i for i, a in enumerate(axes) if raw.shape[i] == 1 and a not in keep)
    return raw.squeeze(drop), "".join(a for i, a in enumerate(axes) if i not in drop)


def _as_volume(axes: str, raw: np.ndarray, name: str) -> tuple[str, tuple[str, ...]]:
    if len(axes) == 2:
        raise ValueError(
            f"{name} is a 2-D image, a single plane of shape {raw.shape}; the confocal model needs a stack (z, y, x)"
        )
    warnings: tuple[str, ...] = ()
    if len(axes) == 3 and "z" not in axes and "f" not in axes:
        unknown = next(a for a in axes if a not in "yx")
        warnings = (f"the header of {name} calls one axis {unknown.upper()}: it is taken as z (--axes says otherwise)",)
        axes = axes.replace(unknown, "z")
    if sorted(axes) != ["x", "y", "z"]:
        raise ValueError(f"{name} has axes {axes.upper()} of shape {raw.shape}; expected z, y and x: name them with --axes zyx")
    if raw.shape[axes.index("z")] == 1:
        raise ValueError(f"{name} has a single plane; the confocal model needs at least 2 planes along z")
    return axes, warnings


def _as_frames(axes: str, raw: np.ndarray, name: str) -> tuple[str, tuple[str, ...]]:
    if "z" in axes:
        planes = raw.shape[axes.index("z")]
        raise ValueError(
            f"{name} has {planes} planes along z; the SHG model takes frames of one plane: save one plane, or say that the "
            "planes are frames with --axes fyx"
        )
    if len(axes) == 2:
        return axes, ()
    unknown = [a for a in axes if a not in "yxf"]
    if len(axes) != 3:
        raise ValueError(f"{name} has axes {axes.upper()} of shape {raw.shape}; expected frame, y and x: name them with --axes")
    if not unknown:
        return axes, ()
    warning = f"the header of {name} calls one axis {unknown[0].upper()}: it is taken as frames (--axes says otherwise)"
    return axes.replace(unknown[0], "f"), (warning,)
