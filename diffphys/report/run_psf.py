"""The point-spread function a run was restored with, beside the nominal one: pictures, profiles, widths.

Stacks: planes through the middle along and across the axis. Frames: every frame's PSF and the profile of its transfer function.
Pictures show square roots, so that the rings are seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffphys.primitives.convolve import support
from diffphys.report import run_images as images
from diffphys.report.run_chart import Line, chart
from diffphys.spec import pitch_um

LARGEST = 128  # side of the grid that is computed
ENERGY, LEAST = 0.97, 4  # what is shown holds this share of the energy along each axis, and this many voxels to each side


def collect(run: Any) -> dict[str, Any] | None:
    """Pictures and charts in plain data; None where the run has no PSF that could be shown."""
    if run.spec is None and run.psf is None:
        return None
    pitch = pitch_um(run.geometry)
    block = run.modality.block(run.geometry, tuple(min(n, LARGEST) for n in run.geometry.shape))
    pair = {n: np.asarray(run.modality.psf(s, geometry=block), np.float64) for n, s in _specs(run).items()}
    if run.psf is not None:
        pair = {"measured": _middle(run.psf, block.shape), **pair}
    found = _stack(pair, pitch) if len(block.shape) == 3 else _frames(pair, pitch, run.geometry.phase_offsets_rad)
    restored = run.record.reconstruction is not None
    if getattr(run.geometry, "depth_anchors", 1) > 1:
        found["text"] += " At the depth of the first plane; it changes with depth."
    if list(pair) == ["nominal"] and restored:
        found["text"] = "The image was restored with the nominal instrument. " + found["text"]
    return found


def _window(psfs: list[np.ndarray]) -> tuple[int, ...]:
    """Odd sides around index n//2 that show all of them; even where the grid is smaller."""
    halves = np.max([support(p, energy=ENERGY) for p in psfs], axis=0)
    return tuple(min(n, 2 * max(LEAST, int(h)) + 1) for n, h in zip(psfs[0].shape, halves, strict=True))


def _specs(run: Any) -> dict[str, Any]:
    """Name -> spec; what the run used first."""
    used = "calibrated" if run.calibration is not None else "given"
    nominal = run.modality.nominal(run.geometry)
    if run.spec is None:
        return {"nominal": nominal}
    same = all(float(getattr(run.spec, f.name)) == float(getattr(nominal, f.name)) for f in run.modality.FIELDS)
    return {"nominal": nominal} if same else {used: run.spec, "nominal": nominal}


def _middle(psf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Its part of `shape` around index n//2."""
    starts = [n // 2 - s // 2 for n, s in zip(psf.shape, shape, strict=True)]
    return np.asarray(psf, np.float64)[tuple(slice(a, a + s) for a, s in zip(starts, shape, strict=True))]


def _stack(pair: dict[str, np.ndarray], pitch: tuple[float, ...]) -> dict[str, Any]:
    """Stacks (z, y, x)."""
    pictures, lateral, axial, widths = [], [], [], []
    shape = _window(list(pair.values()))
    for hue, (name, whole) in enumerate(pair.items()):
        psf = _middle(whole, shape)
        z, y, x = np.unravel_index(int(np.argmax(psf)), psf.shape)
        pictures += [_picture(f"{name}, xy", psf[z], pitch[1:]), _picture(f"{name}, xz", psf[:, y], pitch[::2])]
        across, along = psf[z, y] / psf.max(), psf[:, y, x] / psf.max()
        lateral.append(_profile(name, across, pitch[2], hue))
        axial.append(_profile(name, along, pitch[0], hue))
        widths.append((name, _width(across, pitch[2]), _width(along, pitch[0])))
    charts = [
        chart(lateral, xlabel="x, µm", ylabel="share of the peak"),
        chart(axial, xlabel="z, µm", ylabel="share of the peak"),
    ]
    rows = [(name, *(f"{w:.3f} µm" if w else "–" for w in both)) for name, *both in widths]
    return {
        "pictures": pictures,
        "charts": [c for c in charts if c],
        "widths": {"head": ("PSF", "width in x", "width in z"), "rows": rows},
        "text": "Square roots of the intensity, on the stack's voxels, through the peak. Widths at half maximum.",
    }


def _frames(pair: dict[str, np.ndarray], pitch: tuple[float, ...], offsets: tuple[float, ...]) -> dict[str, Any]:
    """PSFs (frame, y, x) with their middle at index n//2."""
    pictures, transfer, rows = [], [], []
    shape = _window([psf for psfs in pair.values() for psf in psfs])
    for name, psfs in pair.items():
        for k, psf in enumerate(psfs):
            frame = f"{name}, frame {k + 1}"
            pictures.append(_picture(frame, _middle(psf, shape), pitch))
            line = np.abs(np.fft.rfft(psf.sum(0)))
            frequencies = np.fft.rfftfreq(psf.shape[1], pitch[1])
            transfer.append(Line(frame, frequencies, line / line[0], dashed=name == "nominal" and len(pair) > 1, hue=k))
            width = _width(psf[psf.shape[0] // 2], pitch[1])
            rows.append((frame, f"{offsets[k]:+.2f} rad", f"{width:.3f} µm" if width else "–"))
    drawn = chart(transfer, xlabel="spatial frequency along x, 1/µm", ylabel="transfer")
    return {
        "pictures": pictures,
        "charts": [drawn] if drawn else [],
        "widths": {"head": ("PSF", "phase offset", "width in x"), "rows": rows},
        "text": "Square roots of the intensity, and the transfer of each frame, unit at frequency 0. Widths at half maximum.",
    }


def _picture(label: str, plane: np.ndarray, pitch: tuple[float, ...]) -> dict[str, Any]:
    roots = np.sqrt(np.clip(plane, 0, None))
    return {"label": label, "uri": images.coloured(roots, (0.0, float(roots.max()))), **images.frame(plane.shape, pitch)}


def _profile(name: str, values: np.ndarray, step: float, hue: int) -> Line:
    """Distances are from the middle of the grid, which is the nominal focus."""
    return Line(name, step * (np.arange(len(values)) - len(values) // 2), values, dashed=name == "nominal", hue=hue)


def _width(values: np.ndarray, step: float) -> float | None:
    """Full width at half maximum by linear interpolation; None where the line does not fall to half on both sides."""
    half, peak = 0.5 * values.max(), int(np.argmax(values))
    sides = []
    for line in (values[peak:], values[peak::-1]):
        below = np.flatnonzero(line < half)
        if not below.size:
            return None
        k = int(below[0])
        sides.append(k - 1 + (line[k - 1] - half) / (line[k - 1] - line[k]))
    return step * sum(sides)
