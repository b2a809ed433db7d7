"""Arrays -> small pictures as data URIs: slices for the viewer within a budget of bytes, projections, PSF views.

Every picture says between which values it is drawn. Values that are not finite are drawn black, a constant image is drawn
black as well; neither is an error here. Large planes are averaged over blocks, never thinned; of many planes some are shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffphys.report.panels import RESIDUAL_LIMIT, SHARES, nice_length

VIEWER_BYTES = 5_500_000  # of base64, all slices together
STEPS = ((512, 64, "PNG"), (512, 64, "JPEG"), (384, 64, "JPEG"), (256, 64, "JPEG"), (256, 32, "JPEG"), (192, 24, "JPEG"))
PROJECTION_PIXELS = 384
LEVELS = 17  # of the residual, odd: the middle one is transparent
_SAMPLE = 2_000_000  # values that decide the grey scale


class Layer(NamedTuple):
    """One channel of the viewer.

    Attributes:
        key, label, unit: what it is called.
        total: how many planes or frames it has; one that has fewer than the others shows its only one to all of them.
        plane: index -> (y, x).
        limits: values drawn black and white.
        span: the same in words.
        residual: in noise sigmas, drawn on a diverging scale.
    """

    key: str
    label: str
    unit: str
    total: int
    plane: Callable[[int], np.ndarray]
    limits: tuple[float, float]
    span: str
    residual: bool = False


def limits(image: np.ndarray) -> tuple[float, float]:
    """The values between which an image is drawn, SHARES of its finite values; (0, 1) where there are none."""
    sample = np.asarray(image.reshape(-1)[:: max(1, image.size // _SAMPLE)], np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, SHARES))
    if high <= low:  # a few bright points on nothing
        low, high = float(sample.min()), float(sample.max())
    return low, high


def spanned(span: tuple[float, float], *, scale: float = 1.0, bright: str = "white") -> str:
    """The limits in words, `scale` units per value."""
    low, high = (scale * v for v in span)
    if high <= low:
        return f"constant {_short(low)}"
    low = 0.0 if abs(low) < 1e-3 * abs(high) else low
    return f"black {_short(low)}, {bright} {_short(high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def intensity(key: str, label: str, unit: str, stack: np.ndarray, *, scale: float = 1.0) -> Layer:
    """The layer of a stack (plane, y, x), or of one image (y, x) that belongs to all planes; `scale` units per value."""
    stack, span = (stack if stack.ndim == 3 else stack[None]), limits(stack)
    words = spanned(span, scale=scale)
    return Layer(key, label, unit, len(stack), lambda k: np.asarray(stack[k], np.float64), span, words)


def viewer(layers: Sequence[Layer], *, pitch_um: Sequence[float], budget: int = VIEWER_BYTES) -> dict[str, Any]:
    """The slices of all layers, as many and as large as the budget of base64 bytes allows.

    Args:
        pitch_um: (y, x).

    Returns:
        planes: indices shown, of `total`; layers: those given with their slices (data URIs); factor: side of the averaged
        blocks; jpeg: whether the greys are; aspect and scale bar as of `frame`.
    """
    shape, total = layers[0].plane(0).shape, max(layer.total for layer in layers)
    factor, planes, kind = _plan(layers, shape, total, budget)
    slices = {layer.key: [_slice(layer, k, factor, kind) for k in _own(layer, planes)] for layer in layers}
    shown = [{**layer._asdict(), "slices": slices[layer.key]} for layer in layers]
    how = {"planes": planes, "total": total, "factor": factor, "jpeg": kind == "JPEG"}
    return {"layers": shown, **how, **frame(shape, pitch_um)}


def _plan(layers: Sequence[Layer], shape: Sequence[int], total: int, budget: int) -> tuple[int, list[int], str]:
    """Block side, planes and format: the first of STEPS that fits if all planes are as the first, middle or last one; the
    middle one is on the page twice."""
    for side, most, kind in STEPS:
        factor, planes = max(1, -(-max(shape) // side)), chosen(total, most)
        probes = planes[0], planes[len(planes) // 2], planes[-1]
        sizes = ((len(_own(layer, planes)) + 1) * max(len(_slice(layer, k, factor, kind)) for k in probes) for layer in layers)
        if sum(sizes) <= budget:
            break
    return factor, planes, kind


def chosen(total: int, most: int) -> list[int]:
    """At most `most` of `total` indices, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()


def _own(layer: Layer, planes: Sequence[int]) -> Sequence[int]:
    return planes if layer.total > 1 else [0]


def _slice(layer: Layer, plane: int, factor: int, kind: str) -> str:
    image = layer.plane(min(plane, layer.total - 1))
    if layer.residual:
        return sigmas(binned(image, factor, noise=True))
    return grey(binned(image, factor), layer.limits, kind=kind)


def frame(shape: Sequence[int], pitch_um: Sequence[float]) -> dict[str, Any]:
    """Aspect of a picture (row, column) in micrometres, and its scale bar in percent of the width."""
    height, width = (n * p for n, p in zip(shape, pitch_um, strict=True))
    length = nice_length(0.3 * width)
    return {"aspect": width / height, "width_um": width, "bar_um": length, "bar_percent": 100 * length / width}


def binned(image: np.ndarray, factor: int, *, noise: bool = False) -> np.ndarray:
    """Means over square blocks, the last ones smaller; with `noise` sums over the root of the count, which keeps unit
    variance: the residual of a block in its own sigmas."""
    if factor == 1:
        return image
    starts = [np.arange(0, n, factor) for n in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image, starts[0], 0), starts[1], 1)
    counts = np.outer(*(np.diff([*s, n]) for s, n in zip(starts, image.shape, strict=True)))
    return sums / (np.sqrt(counts) if noise else counts)


def grey(image: np.ndarray, span: tuple[float, float], *, kind: str = "PNG") -> str:
    """Grey picture between two values, as a data URI."""
    return _encode(_bytes(image, span), kind)


def coloured(image: np.ndarray, span: tuple[float, float]) -> str:
    """The same in the colours of the figures (magma), as a PNG."""
    from matplotlib import colormaps

    return _encode(_bytes(image, span), "PNG", palette=colormaps["magma"](np.arange(256), bytes=True)[:, :3])


def sigmas(image: np.ndarray) -> str:
    """Residual in sigmas: red above the model, blue below, transparent where neither; in LEVELS steps."""
    half = LEVELS // 2
    steps = np.rint(np.nan_to_num(image / RESIDUAL_LIMIT * half, nan=0.0, posinf=half, neginf=-half))
    index = (np.clip(steps, -half, half) + half).astype(np.uint8)
    strength = np.abs(np.arange(LEVELS) - half) / half
    colours = np.where(np.arange(LEVELS)[:, None] > half, (255, 92, 70), (70, 150, 255))
    alpha = bytes((255 * strength).astype(np.uint8).tolist())
    return _encode(index, "PNG", palette=colours.astype(np.uint8), alpha=alpha)


def _bytes(image: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    low, high = span
    scaled = (image - low) / (high - low) if high > low else np.zeros(image.shape)
    return np.rint(255 * np.clip(np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0), 0, 1)).astype(np.uint8)


def _encode(pixels: np.ndarray, kind: str, *, palette: np.ndarray | None = None, alpha: bytes | None = None) -> str:
    from PIL import Image

    picture, out = Image.fromarray(pixels), io.BytesIO()
    if palette is not None:
        picture.putpalette(palette.tobytes())
    options: dict[str, Any] = {"quality": 88} if kind == "JPEG" else {"compress_level": 9}
    picture.save(out, kind, **options, **({"transparency": alpha} if alpha is not None else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def projections(stack: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Maxima of a stack (z, y, x) along z, y and x: views xy (y, x), xz (z, x), zy (y, z). Read plane by plane."""
    z, y, x = stack.shape
    views = np.full((y, x), -np.inf), np.full((z, x), -np.inf), np.full((z, y), -np.inf)
    for k in range(z):
        plane = np.asarray(stack[k], np.float64)
        plane = np.where(np.isfinite(plane), plane, -np.inf)
        np.maximum(views[0], plane, out=views[0])
        views[1][k], views[2][k] = plane.max(0), plane.max(1)
    yield from (("xy", views[0]), ("xz", views[1]), ("zy", views[2].T))


def projected(stack: np.ndarray, pitch_um: Sequence[float], *, scale: float = 1.0) -> dict[str, Any]:
    """The three projections as pictures, with the size in micrometres that they have to be drawn in."""
    dz, dy, dx = pitch_um
    pitches = {"xy": (dy, dx), "xz": (dz, dx), "zy": (dy, dz)}
    views = dict(projections(stack))
    span = limits(views["xy"])
    pictures = {}
    for name, view in views.items():
        small = binned(view, max(1, -(-max(view.shape) // PROJECTION_PIXELS)))
        pictures[name] = {"uri": coloured(small, span), **frame(view.shape, pitches[name])}
    return {"views": pictures, "span": spanned(span, scale=scale, bright="bright")}
