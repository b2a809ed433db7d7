"""One figure per run: what was measured, what was restored, what is left over, and what the instrument was.

In: counts, a modality with its geometry, and whatever is known of calibration, reconstruction and truth. Out: a PNG, 1600
pixels wide, written whole or not at all. Nothing global of matplotlib is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from diffphys.io.atomic import replacing
from diffphys.noise import Detector
from diffphys.report import panels
from diffphys.report.residual import in_sigmas
from diffphys.types import Calibration, Modality, Reconstruction, Status, resolve

INCHES, DPI = (16.0, 10.8), 100


def figure(
    path: str | Path,
    *,
    y: Any,
    modality: Modality | str,
    geometry: Any,
    calibration: Calibration | None = None,
    reconstruction: Reconstruction | None = None,
    truth: Any = None,
    truth_spec: Any = None,
    title: str = "",
) -> None:
    """Write the figure of one run.

    Args:
        y: counts, (z, y, x) or (frame, y, x).
        geometry: nominal instrument; gives the pitch.
        truth: true specimen, axes of the reconstruction, at least its size; its centre is shown in the profiles.
        truth_spec: true parameters (a spec, or name -> value), marked beside the estimates.

    Raises:
        ValueError: `y` does not have the axes of the geometry.
        OSError: the folder is absent or not writable.
    """
    modality, y = resolve(modality), np.asarray(y, np.float64)
    volume = len(geometry.shape) == 3
    if y.ndim != 3 or tuple(y.shape[-2:]) != tuple(geometry.shape[-2:]):
        raise ValueError(f"y has shape {y.shape}; expected the field {tuple(geometry.shape)} of the geometry")
    if isinstance(truth, modality.Spec):
        truth, truth_spec = None, truth
    detector = calibration.detector if calibration is not None else Detector()
    views = _volume_views if volume else _frame_views
    sheet = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(sheet)
    grid = sheet.add_gridspec(3, 1, height_ratios=(1, 1, 0.95))
    views(sheet, grid, y, geometry, reconstruction, _crop(truth, reconstruction, y), detector)
    _bottom(sheet, grid[2].subgridspec(1, 3, width_ratios=(1.15, 1, 1.35)), modality, calibration, reconstruction, truth_spec)
    shares = f"images: {panels.SHARES[0]:g} to {panels.SHARES[1]:g} percentile; residuals: (measured − model) / noise σ"
    sheet.suptitle(f"{title}\n{shares}" if title else shares, fontsize=11)
    _save(sheet, path)


def residual_figure(
    path: str | Path,
    measured: Any,
    model: Any,
    *,
    voxel_um: Sequence[float],
    sigma: Any = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Measured point image against a fitted model: planes, square roots of xz, residuals and profiles.

    Args:
        measured: (z, y, x), a PSF or counts.
        model: same shape and unit, from `calibrate.point_source.predict`.
        voxel_um: pitch (z, y, x).
        sigma: noise of each voxel; residuals are in percent of the measured peak when it is None.
        notes: lines of text, such as parameters and goodness of fit.
    """
    measured, model = np.asarray(measured, np.float64), np.asarray(model, np.float64)
    if measured.ndim != 3 or measured.shape != model.shape:
        raise ValueError(f"measured has shape {measured.shape} and model {model.shape}; expected the same (z, y, x)")
    unit = np.asarray(sigma) if sigma is not None else 0.01 * np.ptp(measured)
    residual, label = (measured - model) / unit, "σ" if sigma is not None else "% of peak"
    peak = np.unravel_index(np.argmax(gaussian_filter(measured, [min(0.7, n / 16) for n in measured.shape])), measured.shape)
    depth = int(np.clip(np.ceil(0.25 * len(measured)), 1, 8))
    planes = [int(np.clip(peak[0] + k, 0, len(measured) - 1)) for k in (-depth, 0, depth)]
    sheet = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(sheet)
    axes = sheet.subplots(3, 5, width_ratios=(1, 1, 1, 1, 1.3))
    base = min(np.quantile(measured, 0.05), np.quantile(model, 0.05))

    def roots(stack: np.ndarray) -> np.ndarray:
        return np.sqrt(np.clip(stack[:, peak[1]] - base, 0, None))

    for row, (name, stack) in enumerate((("measured", measured), ("model", model), ("residual", residual))):
        left_over = name == "residual"
        for column, plane in enumerate(planes):
            where = f"{name}, z {(plane - peak[0]) * voxel_um[0]:+.2f} µm"
            panels.image(
                axes[row, column],
                stack[plane],
                pitch_um=voxel_um[1:],
                title=where,
                unit=label if left_over else "",
                residual=left_over,
                like=residual if left_over else measured[plane],
            )
        section = stack[:, peak[1]] if left_over else roots(stack)
        shown = "residual, xz" if left_over else f"√ {name}, xz"
        panels.image(
            axes[row, 3],
            section,
            pitch_um=(voxel_um[0], voxel_um[2]),
            title=shown,
            unit=label if left_over else "",
            residual=left_over,
            like=residual if left_over else roots(measured),
        )
    cuts = {"lateral (x)": (peak[0], peak[1], slice(None)), "axial (z)": (slice(None), peak[1], peak[2])}
    for row, (name, cut) in enumerate(cuts.items()):
        lines = {"measured": (measured[cut], panels.MEASURED), "model": (model[cut], panels.MODEL)}
        panels.profile(axes[row, 4], lines, pitch_um=voxel_um[2 if row == 0 else 0], title=name, xlabel="µm", unit="")
    panels.notes(axes[2, 4], notes, width=50, rows=16)
    shares = f"images: {panels.SHARES[0]:g} to {panels.SHARES[1]:g} percentile of the measured plane"
    sheet.suptitle(f"{title}\n{shares}" if title else shares, fontsize=11)
    _save(sheet, path)


def _volume_views(
    sheet: Figure, grid: Any, y: np.ndarray, geometry: Any, restored: Reconstruction | None, truth: Any, detector: Any
) -> None:
    """xy and xz through the brightest structure, and the profiles along x and z."""
    dz, dy, dx = geometry.voxel_um
    shown = np.asarray(restored.image, np.float64) if restored is not None else y
    at = _brightest(shown)
    stacks = _stacks(y, restored, detector)
    cuts = (
        ("xy", (at[0],), (dy, dx), (at[0], at[1], slice(None)), dx, "x (µm)"),
        ("xz", (slice(None), at[1]), (dz, dx), (slice(None), at[1], at[2]), dz, "z (µm)"),
    )
    for row, (name, plane, pitch, line, step, xlabel) in enumerate(cuts):
        cells = grid[row].subgridspec(1, len(stacks) + 1, width_ratios=[1] * len(stacks) + [1.25])
        for column, (label, unit, stack) in enumerate(stacks):
            panels.image(
                sheet.add_subplot(cells[column]),
                stack[plane],
                pitch_um=pitch,
                title=f"{label}, {name}",
                unit=unit,
                residual=unit == "σ",
            )
        panels.profile(
            sheet.add_subplot(cells[-1]),
            _lines(y, restored, truth, line),
            pitch_um=step,
            title=f"profile along {xlabel[0]} through the brightest structure",
            xlabel=xlabel,
            unit="counts",
        )


def _frame_views(
    sheet: Figure, grid: Any, y: np.ndarray, geometry: Any, restored: Reconstruction | None, truth: Any, detector: Any
) -> None:
    """Frames and reconstruction above, residuals and the profile below."""
    dy, dx = geometry.pixel_um
    shown = np.asarray(restored.image, np.float64) if restored is not None else y[0]
    at = _brightest(shown)
    top = [(f"frame {k}", "counts", frame) for k, frame in enumerate(y)]
    bottom: list[tuple[str, str, np.ndarray]] = []
    if restored is not None:
        top.append(("reconstruction", _restored_unit(detector), shown))
        bottom = [(f"residual of frame {k}", "σ", frame) for k, frame in enumerate(_residual(y, restored, detector))]
    cells = grid[0].subgridspec(1, len(top))
    for column, (label, unit, plane) in enumerate(top):
        panels.image(sheet.add_subplot(cells[column]), plane, pitch_um=(dy, dx), title=label, unit=unit)
    cells = grid[1].subgridspec(1, len(bottom) + 1, width_ratios=[1] * len(bottom) + [1.3])
    for column, (label, unit, plane) in enumerate(bottom):
        panels.image(sheet.add_subplot(cells[column]), plane, pitch_um=(dy, dx), title=label, unit=unit, residual=True)
    panels.profile(
        sheet.add_subplot(cells[-1]),
        _lines(y[0], restored, truth, (at[0], slice(None)), first_frame=True),
        pitch_um=dx,
        title="profile along x through the brightest structure, frame 0",
        xlabel="x (µm)",
        unit="counts",
    )


def _bottom(
    sheet: Figure,
    cells: Any,
    modality: Modality,
    calibration: Calibration | None,
    restored: Reconstruction | None,
    truth_spec: Any,
) -> None:
    """Parameters, stopping curve, text."""
    left, middle, right = (sheet.add_subplot(c) for c in cells)
    if calibration is not None:
        panels.parameters(left, modality.FIELDS, calibration, truth=truth_spec)
    else:
        panels.notes(left, ["not calibrated: nominal or measured PSF"], width=50, rows=2)
    if restored is not None and np.size(restored.curve) > 1:
        panels.curve(middle, restored.curve, name=restored.curve_name, iterations=restored.iterations)
    else:
        middle.axis("off")
    panels.notes(right, _text(calibration, restored), width=84, rows=15)


def _text(calibration: Calibration | None, restored: Reconstruction | None) -> list[str]:
    lines: list[str] = []
    if calibration is not None:
        lines.append(f"calibration: {calibration.status.name.lower().replace('_', ' ')} ({calibration.remedy})")
        least = "at least " if calibration.status == Status.MISFIT else ""
        lines += [f"{name} = {value:.4g} ± {least}{error:.2g}" for name, (value, error) in calibration.derived.items()]
        d = calibration.detector
        numbers = ((n, float(np.asarray(getattr(d, n)))) for n in ("gain", "offset", "background", "read_sigma"))
        lines.append("detector: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers))
        lines += [f"undetermined: {name}, {why}" for name, why in calibration.undetermined.items()]
    if restored is not None:
        lines.append(_restored_line(calibration, restored))
    warned = [*(calibration.warnings if calibration is not None else ()), *(restored.warnings if restored is not None else ())]
    return lines + [f"! {line}" for line in dict.fromkeys(warned)]


def _restored_line(calibration: Calibration | None, restored: Reconstruction) -> str:
    """How the iteration ended. That it converged does not make the image right where the calibration is in doubt."""
    line = f"reconstruction: {restored.status.name.lower().replace('_', ' ')}"
    if restored.status != Status.CONVERGED:
        return f"{line} ({restored.remedy})"
    sure = calibration is None or calibration.status == Status.CONVERGED
    return line if sure else f"{line}, no better than the calibration it rests on"


def _stacks(y: np.ndarray, restored: Reconstruction | None, detector: Any) -> list[tuple[str, str, np.ndarray]]:
    stacks = [("measurement", "counts", y)]
    if restored is not None:
        stacks.append(("reconstruction", _restored_unit(detector), np.asarray(restored.image, np.float64)))
        stacks.append(("residual", "σ", _residual(y, restored, detector)))
    return stacks


def _restored_unit(detector: Any) -> str:
    peak = float(np.asarray(detector.peak_photons))
    return "photons" if peak == 1 else f"× {peak:g} photons"


def _residual(y: np.ndarray, restored: Reconstruction, detector: Any) -> np.ndarray:
    """(measured - model) / noise, the noise from the model's own brightness."""
    return in_sigmas(y, np.asarray(restored.prediction, np.float64).reshape(y.shape), detector)


def _lines(
    y: np.ndarray, restored: Reconstruction | None, truth: Any, cut: tuple[Any, ...], *, first_frame: bool = False
) -> dict[str, tuple[np.ndarray, str]]:
    lines = {"measured": (y[cut], panels.MEASURED)}
    if restored is not None:
        prediction = np.asarray(restored.prediction, np.float64)
        prediction = prediction.reshape(-1, *y.shape)[0] if first_frame else prediction.reshape(y.shape)
        lines["model"] = (prediction[cut], panels.MODEL)
        lines["→ reconstruction"] = (np.asarray(restored.image, np.float64)[cut], panels.RESTORED)
        if truth is not None:
            lines["→ truth"] = (truth[cut], panels.TRUTH)
    return lines


def _crop(truth: Any, restored: Reconstruction | None, y: np.ndarray) -> np.ndarray | None:
    """The centre of the true specimen, as large as the reconstruction."""
    if truth is None or restored is None:
        return None
    truth, shape = np.asarray(truth, np.float64), restored.image.shape
    if truth.ndim != len(shape) or any(t < n for t, n in zip(truth.shape, shape, strict=True)):
        raise ValueError(f"truth has shape {truth.shape}; expected at least that of the reconstruction {shape}")
    return truth[tuple(slice((t - n) // 2, (t - n) // 2 + n) for t, n in zip(truth.shape, shape, strict=True))]


def _brightest(image: np.ndarray) -> tuple[int, ...]:
    """Index of the brightest structure, after smoothing over a voxel so that noise is not taken for it."""
    smooth = gaussian_filter(image, [min(1.0, n / 16) for n in image.shape])
    return tuple(int(i) for i in np.unravel_index(np.argmax(smooth), smooth.shape))


def _save(sheet: Figure, path: str | Path) -> None:
    with replacing(path) as temporary:
        sheet.savefig(temporary, format="png", dpi=DPI)
