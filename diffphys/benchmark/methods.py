"""The table's rows by their names, and what each does: counts and a spec -> image in the specimen's unit (x_true peaks at 1).

Settings are fixed here, one set for all samples and tiers; what a method adapts (iterations, weights, spectra) it takes from
the measurement's own noise. "X + gradient" in the blind tables is X at the spec that `diffphys.calibrate` found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffphys.benchmark.tiers import expect_modality
from diffphys.noise import Detector
from diffphys.reconstruct import ALIASES, problem_of, reconstruct
from diffphys.spec import did_you_mean
from diffphys.types import Reconstruction, Status

Restore = Callable[..., Reconstruction]


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        name: as in the seeds' tables.
        solver: name in `diffphys.reconstruct.METHODS`.
        settings: its fixed options.
        note: what the row is here.
    """

    name: str
    solver: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def slug(self) -> str:
        """The name as part of a file's name."""
        return re.sub(r"[^a-z0-9+]+", "_", self.name.lower()).strip("_")

    def restore(self, y: Any, modality: str, spec: Any, *, geometry: Any, detector: Detector) -> Reconstruction:
        """Image of one sample."""
        given = {"geometry": geometry, "detector": detector}
        return reconstruct(y, modality, spec, method=self.solver, **given, **self.settings)


@dataclass(frozen=True)
class Baseline(Method):
    """A trivial row, which says what the score gives away: no deconvolution, one level everywhere, nothing."""

    def restore(self, y: Any, modality: str, spec: Any, *, geometry: Any, detector: Detector) -> Reconstruction:
        from diffphys.networks.inputs import measured

        problem = problem_of(y, modality, spec, geometry=geometry, detector=detector)
        image = measured(problem)[0] / detector.peak_photons
        image = image if self.solver == "measurement" else np.full_like(image, image.mean() if self.solver == "constant" else 0)
        nothing = np.zeros(0)
        return Reconstruction(np.asarray(image, np.float32), Status.CONVERGED, 0, nothing, "", nothing)


_BASELINES = (
    Baseline("Measurement", "measurement", {}, "the measured image, gain, offset and power removed, not deconvolved"),
    Baseline("Constant", "constant", {}, "the mean of the measured image everywhere"),
    Baseline("Zeros", "zeros", {}, "nothing"),
)
_RL = Method("Richardson-Lucy", "richardson_lucy", {}, "Poisson likelihood, stopped by held-out photons")
_WIENER = "joint over frames, spectrum of the specimen fitted to the data (evidence)"
_SUPERVISED = "trained on simulated pairs; input: Wiener image at the calibrated spec, measured image, noise map"
_CARE = Method("CARE", "care", {}, f"U-Net with a Laplace output; {_SUPERVISED}")
METHODS: dict[str, tuple[Method, ...]] = {
    "shg": (
        _RL,
        Method("Wiener Filter", "wiener", {}, _WIENER),
        Method(
            "TV-Deconvolution", "richardson_lucy_tv", {}, "Poisson likelihood with total variation (Dey), both set by the noise"
        ),
        Method("PnP-FISTA", "pnp_fista", {}, "FISTA with wavelet shrinkage, no training; stopped by held-out photons"),
        Method("PnP-DnCNN", "pnp_dncnn", {}, "half-quadratic splitting with one denoiser that is told its noise"),
        _CARE,
        Method("U-Net", "unet", {}, _SUPERVISED),
        Method("ResUNet", "resunet", {}, f"U-Net of residual blocks; {_SUPERVISED}"),
        Method("Restormer", "restormer", {}, f"transposed attention; {_SUPERVISED}"),
        Method("Restormer+", "restormer_plus", {}, "Restormer, a data step through the operator, a second Restormer on both"),
        Method("DeconvFormer", "deconvformer", {}, "Wiener deconvolution in feature space, then transposed attention"),
        Method("DiffDeconv", "diffdeconv", {}, "diffusion conditioned on the Wiener image; mean of the samples"),
        Method("ScoreMicro", "scoremicro", {}, "unconditional score network, posterior sampling through the operator"),
        *_BASELINES,
    ),
    "confocal_3d": (
        _RL,
        Method("Wiener-3D", "wiener", {}, _WIENER),
        Method("IRCNN-Confocal", "ircnn", {}, "half-quadratic splitting with a set of dilated denoisers"),
        Method("Noise2Void", "noise2void", {}, "blind-spot training on the measured stack, then Richardson-Lucy"),
        _CARE,
        Method("U-Net-3D", "unet", {}, _SUPERVISED),
        Method("SwinIR-3D", "swinir", {}, f"shifted windows; {_SUPERVISED}"),
        Method("Restormer-3D", "restormer", {}, f"transposed attention; {_SUPERVISED}"),
        Method("DiffusionMicro", "diffusionmicro", {}, "3-D score network, posterior sampling through the operator"),
        *_BASELINES,
    ),
}


def find(name: str, modality: str) -> Method:
    """The row of a modality by any spelling of its name; ValueError lists the names."""
    rows = METHODS[expect_modality(modality)]
    slugs = {row.slug: row for row in rows}
    key = re.sub(r"[^a-z0-9+]+", "_", name.lower()).strip("_")
    for row in rows:
        if ALIASES.get(key, key) in (ALIASES.get(row.slug, row.slug), row.solver):
            return row
    raise ValueError(f"method is {name!r}; {modality} has {[r.name for r in rows]}{did_you_mean(key, list(slugs))}")
