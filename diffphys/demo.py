"""The main job on simulated measurements: a mismatched instrument, calibrated and reconstructed, truth against estimate.

In: a modality and a seed. Out: the measurement with its truth, and the PSNR of three reconstructions of it: with the nominal
spec, with the calibrated one, with the true one (oracle). Scenes are larger than the field, so nothing is periodic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.noise import Detector, sample
from diffphys.spec import parse
from diffphys.types import Calibration, Modality, Reconstruction, resolve

MARGIN = 0.25  # of the field, on each side
BACKGROUND = 0.02  # of the peak


class Simulated(NamedTuple):
    """One simulated measurement.

    Attributes:
        y: float32 counts.
        x: the specimen in the field, peak 1.
        spec: true mismatch.
        detector: what made the counts.
    """

    y: np.ndarray
    x: np.ndarray
    spec: Any
    detector: Detector


class Outcome(NamedTuple):
    """Calibration of a simulated measurement and its three reconstructions with their PSNR in dB (data range 1)."""

    calibration: Calibration
    reconstructions: dict[str, Reconstruction]
    psnr: dict[str, float]


def random_spec(modality: Modality, geometry: Any, seed: int) -> Any:
    """A spec drawn uniformly from the modality's default ranges."""
    rng, ranges = np.random.default_rng([seed, 17]), modality.default_ranges(geometry)
    return parse(modality.Spec, modality.FIELDS, {f.name: rng.uniform(*ranges[f.name]) for f in modality.FIELDS})


def simulated(
    modality: Modality | str,
    spec: Any,
    *,
    geometry: Any,
    family: str | Callable[..., np.ndarray],
    seed: int,
    photons: float = 1000.0,
    gain: float = 1.0,
    offset: float = 100.0,
    read_sigma: float = 1.0,
    haze: float = 0.0,
) -> Simulated:
    """Simulate one measurement of a scene that is larger than the field.

    Args:
        modality: the modality or its name.
        spec: true mismatch.
        geometry: nominal instrument.
        family: scene family of the modality, or a function with the arguments of its `scene` but the first.
        seed: of scene and noise.
        photons: expected signal of the brightest voxel, background excluded.
        gain: counts per photon.
        offset: counts without light.
        read_sigma: photo-electrons rms.
        haze: diffuse light of the scene, share of its peak.
    """
    modality = resolve(modality)
    shape, margin = tuple(geometry.shape), tuple(round(MARGIN * n) for n in geometry.shape)
    large = tuple(n + 2 * m for n, m in zip(shape, margin, strict=True))
    pitch = {name: getattr(geometry, name) for name in ("voxel_um", "pixel_um") if hasattr(geometry, name)}
    make = family if callable(family) else partial(modality.scene, family)  # type: ignore[attr-defined]
    scene = make(shape=large, seed=seed, haze=haze, **pitch)
    field = tuple(slice(m, m + n) for m, n in zip(margin, shape, strict=True))
    x = jnp.asarray(scene / scene[field].max(), jnp.float32)
    signal = jax.jit(partial(modality.forward, geometry=geometry))(spec, x)
    peak = photons / float(jnp.max(signal[0] if signal.ndim > len(shape) else signal))
    detector = Detector(peak_photons=peak, background=BACKGROUND * photons, gain=gain, offset=offset, read_sigma=read_sigma)
    y = jax.jit(sample)(jax.random.key(seed), detector, signal)
    return Simulated(np.asarray(y), np.asarray(x[field]), spec, detector)


def run(
    modality: Modality | str,
    measured: Simulated,
    *,
    geometry: Any,
    seed: int = 0,
    method: str = "richardson_lucy",
    progress: Callable[[float, str], None] | None = None,
) -> Outcome:
    """Calibrate a simulated measurement from y alone, then reconstruct it with the nominal, estimated and true spec."""
    from diffphys.calibrate import calibrate
    from diffphys.reconstruct import reconstruct

    modality, detector = resolve(modality), measured.detector
    calibration = calibrate(measured.y, modality, geometry=geometry, detector=detector, seed=seed, progress=progress)
    specs = {"nominal": modality.nominal(geometry), "estimated": calibration.spec, "oracle": measured.spec}
    restored = {
        name: reconstruct(measured.y, modality, spec, geometry=geometry, detector=detector, method=method)
        for name, spec in specs.items()
    }
    return Outcome(calibration, restored, {n: psnr(r.image, measured.x) for n, r in restored.items()})


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, data range 1; larger is better."""
    return float(-10 * np.log10(np.mean((np.asarray(image, np.float64) - truth) ** 2)))
