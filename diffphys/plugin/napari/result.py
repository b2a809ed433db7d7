"""What the widget shows of finished work: image layers in micrometres, and the parameters with error bars as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffphys.cli.load import Job
from diffphys.cli.show import verdicts
from diffphys.io.results import calibration_as_dict, plain, reconstruction_as_dict
from diffphys.plugin.napari.layers import LayerData, layer
from diffphys.report.residual import in_sigmas
from diffphys.report.text import number
from diffphys.types import Calibration, Modality, Reconstruction

WIDEST_SIGMA = 5.0  # of the residual's colours


def layers(
    job: Job, calibration: Calibration, restored: Reconstruction, spec: Any, detector: Any, *, name: str, translate: Any
) -> list[LayerData]:
    """Residual, uncertainty where the method has one, reconstruction: the last one is on top and seen."""
    known = {
        "modality": job.modality.NAME,
        "calibration": calibration_as_dict(calibration, job.modality),
        "reconstruction": plain(reconstruction_as_dict(restored, spec, detector)),
    }
    told: dict[str, Any] = {"known": known, "translate": translate}
    residual = in_sigmas(job.y, restored.prediction.reshape(job.y.shape), detector).astype("float32")
    limits = (-WIDEST_SIGMA, WIDEST_SIGMA)
    look: dict[str, Any] = {"colormap": "PiYG", "contrast_limits": limits, "visible": False}
    made = [layer(residual, f"{name} residual (sigma)", job.voxel_um, **told, **look)]
    if restored.uncertainty is not None:
        made.append(layer(restored.uncertainty, f"{name} uncertainty", job.voxel_um, **told, visible=False))
    return [*made, layer(restored.image, f"{name} reconstruction", job.voxel_um, **told)]


def text(modality: Modality, calibration: Calibration, restored: Reconstruction | None, warnings: Sequence[str]) -> str:
    """Parameters with error bars, status with its remedy, warnings; one line each."""
    lines = [*_parameters(modality, calibration), *verdicts(calibration, restored)]
    return "\n".join([*lines, *(f"warning: {w}" for w in dict.fromkeys(warnings))])


def _parameters(modality: Modality, calibration: Calibration) -> list[str]:
    units = {f.name: "" if f.unit == "1" else f" {f.unit}" for f in modality.FIELDS}
    lines = []
    for name, value in calibration.values.items():
        sigma, (low, high) = calibration.sigma[name], calibration.ranges[name]
        note = " (fixed)" if low == high else " (not determined)" if name in calibration.undetermined else ""
        bar = f" ± {number(sigma, sigma)}" if low < high else ""
        lines.append(f"{name} = {number(value, sigma)}{bar}{units[name]}{note}")
    nothing = " (not determined)" if set(calibration.names) <= set(calibration.undetermined) else ""
    return lines + [f"{n} = {number(v, s)} ± {number(s, s)}{nothing}" for n, (v, s) in calibration.derived.items()]
