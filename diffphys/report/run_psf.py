"""The point-spread function a run was restored with, beside the nominal one: pictures, profiles, widths.

Stacks: planes through the middle along and across the axis. Frames: every frame's PSF and the profile of its transfer function.
Pictures show square roots, so that the rings are seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffphys.report import run_images as images
from diffphys.report.run_chart import Line, chart
from diffphys.spec import pitch_um

LATERAL, AXIAL, FRAME = 33, 41, 128  # largest side of what is shown


def collect(run: Any) -> dict[str, Any] | None:
    """Pictures and charts in plain data; None where the run has no PSF that could be shown."""
    if run.spec is None and run.psf is None:
        return None
    pitch = pitch_um(run.geometry)
    if len(run.geometry.shape) == 2:
        block = run.modality.block(run.geometry, tuple(min(n, FRAME) for n in run.geometry.shape))
        pair = {n: np.asarray(run.modality.psf(s, geometry=block), np.float64) for n, s in _specs(run).items()}
        return _frames(pair, pitch, run.geometry.phase_offsets_rad)
    sizes = zip(run.geometry.shape, (AXIAL, LATERAL, LATERAL), strict=True)
    block = run.modality.block(run.geometry, tuple(min(n, most) for n, most in sizes))
    pair = {n: np.asarray(run.modality.psf(s, geometry=block), np.float64) for n, s in _specs(run).items()}
    if run.psf is not None:
        pair = {"measured": _middle(run.psf, block.shape), **pair}
    return _stack(pair, pitch)


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
    """Stacks (z, y, x) with their middle at index n//2."""
    pictures, lateral, axial, widths = [], [], [], []
    for hue, (name, psf) in enumerate(pair.items()):
        z, y, x = (n // 2 for n in psf.shape)
        pictures += [_picture(f"{name}, xy", psf[z], pitch[1:]), _picture(f"{name}, xz", psf[:, y], pitch[::2])]
        across, along = psf[z, y] / psf.max(), psf[:, y, x] / psf.max()
        lateral.append(_profile(name, across, x, pitch[2], hue))
        axial.append(_profile(name, along, z, pitch[0], hue))
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
        "text": "Square roots of the intensity on the stack's voxels. Widths at half maximum, along lines through the middle.",
    }


def _frames(pair: dict[str, np.ndarray], pitch: tuple[float, ...], offsets: tuple[float, ...]) -> dict[str, Any]:
    """PSFs (frame, y, x) with their middle at index n//2."""
    pictures, transfer, rows = [], [], []
    for name, psfs in pair.items():
        for k, psf in enumerate(psfs):
            frame = f"{name}, frame {k + 1}"
            y, x = (n // 2 for n in psf.shape)
            small = _middle(psf, (min(psf.shape[0], LATERAL), min(psf.shape[1], LATERAL)))
            pictures.append(_picture(frame, small, pitch))
            line = np.abs(np.fft.rfft(psf.sum(0)))
            frequencies = np.fft.rfftfreq(psf.shape[1], pitch[1])
            transfer.append(Line(frame, frequencies, line / line[0], dashed=name == "nominal" and len(pair) > 1, hue=k))
            width = _width(psf[y] / psf.max(), pitch[1])
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


def _profile(name: str, values: np.ndarray, middle: int, step: float, hue: int) -> Line:
    return Line(name, step * (np.arange(len(values)) - middle), values, dashed=name == "nominal", hue=hue)


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
