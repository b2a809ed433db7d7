"""Reconstruction: counts and a forward model -> image. One algorithm per file, one registry, one loop."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.noise import Detector, expected_counts, to_photons
from diffphys.operator import Operator, bind, from_psf
from diffphys.reconstruct import blind_spot, learned, pnp, richardson_lucy, sampling, splitting, tv, wiener
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.spec import did_you_mean, pitch_um
from diffphys.types import Array, Modality, Reconstruction, resolve

METHODS: dict[str, Callable[..., Solution]] = {
    "richardson_lucy": richardson_lucy.richardson_lucy,
    "richardson_lucy_tv": richardson_lucy.richardson_lucy_tv,
    "wiener": wiener.wiener,
    "tv": tv.tv,
    "pnp_fista": pnp.pnp_fista,
    "unet": learned.unet,
    "care": learned.care,
    "resunet": learned.resunet,
    "restormer": learned.restormer,
    "restormer_plus": learned.restormer_plus,
    "deconvformer": learned.deconvformer,
    "swinir": learned.swinir,
    "pnp_dncnn": splitting.pnp_dncnn,
    "ircnn": splitting.ircnn,
    "noise2void": blind_spot.noise2void,
    "diffdeconv": sampling.diffdeconv,
    "scoremicro": sampling.scoremicro,
    "diffusionmicro": sampling.diffusionmicro,
}
LARGEST = 1e12  # counts; beyond it float32 sums and transforms may overflow
ALIASES = {
    "rl": "richardson_lucy",
    "rl_tv": "richardson_lucy_tv",
    "wiener_3d": "wiener",
    "wiener_filter": "wiener",
    "pnp": "pnp_fista",
    "tv_deconvolution": "tv",
    "total_variation": "tv",
    "u_net": "unet",
    "u_net_3d": "unet",
    "unet_3d": "unet",
    "restormer_3d": "restormer",
    "restormer+": "restormer_plus",
    "swinir_3d": "swinir",
    "dncnn": "pnp_dncnn",
    "ircnn_confocal": "ircnn",
    "n2v": "noise2void",
}


def method_name(method: str) -> str:
    """The registry's name for any spelling: "Richardson-Lucy", "Wiener-3D", "TV-Deconvolution", ..."""
    key = re.sub(r"[^a-z0-9+]+", "_", method.lower()).strip("_")
    key = ALIASES.get(key, key)
    if key not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {sorted(METHODS)}{did_you_mean(key, list(METHODS))}")
    return key


def reconstruct(
    y: Any,
    modality: Modality | str | None,
    spec: Any,
    *,
    geometry: Any,
    detector: Detector,
    method: str = "richardson_lucy",
    psf: Any = None,
    margin: Any = None,
    callback: Callback | None = None,
    **options: Any,
) -> Reconstruction:
    """Image from counts.

    Args:
        y: counts, (z, y, x) or (frame, y, x).
        modality: `diffphys.confocal`, `diffphys.shg` or their names; may be None with `psf`.
        spec: instrument to deconvolve with; may be None with `psf`.
        geometry: nominal instrument; may be None with `psf` (isotropic voxels are then assumed, one frame per PSF frame).
        detector: gain, offset, background, read noise.
        method: a name of `METHODS`, spelled freely.
        psf: replaces the model's: (*axes) or (frame, *axes), centred on index n//2, sampled as the stack.
        margin: pixels by which the specimen exceeds the field on each side; None: from the PSF (see `operator.bind`).
        callback: (iteration, watched value) -> False to stop; the image so far is returned.
        options: keyword-only parameters of the method's function.

    Returns:
        Reconstruction; image float32 in photons per voxel over `detector.peak_photons`, its blur reproduces the flux of y.
    """
    name = method_name(method)
    _expect_options(name, options)
    problem = problem_of(y, modality, spec, geometry=geometry, detector=detector, psf=psf, margin=margin)
    solution = METHODS[name](problem, callback=callback, **options)
    return _report(solution, problem.operator, detector)


def problem_of(
    y: Any, modality: Any, spec: Any, *, geometry: Any, detector: Detector, psf: Any = None, margin: Any = None
) -> Problem:
    """What a method is given: photons and operator, checked at the door; arguments as of `reconstruct`."""
    return problem_with(y, _operator(y, modality, spec, geometry, psf, margin), geometry, detector)


def _expect_options(name: str, options: dict[str, Any]) -> None:
    parameters = inspect.signature(METHODS[name]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "callback"]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; allowed: {known}{did_you_mean(option, known)}")


def _operator(y: Any, modality: Any, spec: Any, geometry: Any, psf: Any, margin: Any) -> Operator:
    if psf is None:
        if modality is None or spec is None or geometry is None:
            raise ValueError("modality, spec or geometry is None without a psf; pass all three, or a psf")
        return bind(resolve(modality), spec, geometry=geometry, margin=margin)
    if geometry is None:
        return from_psf(psf, field=y.shape[y.ndim - np.ndim(psf) :] if np.ndim(psf) < y.ndim else y.shape, margin=margin)
    field = tuple(geometry.shape)
    if len(field) < y.ndim and np.ndim(psf) == len(field):
        psf = np.broadcast_to(psf, (len(y), *np.shape(psf)))  # one PSF for all frames
    return from_psf(psf, field=field, margin=margin)


def problem_with(y: Any, operator: Operator, geometry: Any, detector: Detector) -> Problem:
    """Counts -> photons, checked at the door."""
    if tuple(np.shape(y)) != operator.measurement:
        raise ValueError(f"y has shape {tuple(np.shape(y))}; expected {operator.measurement} as the instrument records it")
    counts = jnp.asarray(y, jnp.float32)
    bad = int(jnp.sum(~jnp.isfinite(counts)))
    if bad:
        raise ValueError(f"y has {bad} values that are not finite; expected counts (replace or crop them)")
    if float(jnp.max(jnp.abs(counts), initial=0.0)) > LARGEST:
        raise ValueError(
            f"y reaches {float(jnp.max(jnp.abs(counts))):.3g}; expected counts below {LARGEST:g} (rescale, set gain)"
        )
    if not float(detector.gain) > 0:
        raise ValueError(f"detector.gain is {detector.gain}; expected more than 0 counts per photon")
    pitch = np.ones(len(operator.field)) if geometry is None else np.asarray(pitch_um(geometry), np.float64)
    return Problem(
        operator,
        to_photons(detector, counts),
        jnp.asarray(detector.background, jnp.float32),
        jnp.asarray(detector.read_sigma, jnp.float32) ** 2,
        jnp.asarray(pitch / pitch.min(), jnp.float32),
    )


def _report(solution: Solution, operator: Operator, detector: Detector) -> Reconstruction:
    """Photons -> the detector's units, field only, with the counts it predicts."""
    seen = operator.apply(solution.x / detector.peak_photons)
    return Reconstruction(
        image=_seen(solution.x, operator, detector),
        status=solution.status,
        iterations=solution.iterations,
        curve=solution.curve,
        curve_name=solution.curve_name,
        prediction=np.asarray(jax.device_get(expected_counts(detector, seen)), np.float32),
        warnings=solution.warnings,
        uncertainty=None if solution.uncertainty is None else _seen(solution.uncertainty, operator, detector),
    )


def _seen(x: Array, operator: Operator, detector: Detector) -> np.ndarray:
    """The field of a specimen, in the detector's unit."""
    return np.asarray(operator.crop(x / detector.peak_photons), np.float32)
