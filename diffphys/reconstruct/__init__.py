"""Reconstruction: counts and a forward model -> image. One algorithm per file, one registry, one loop."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.noise import Detector, expected_counts, to_photons
from diffphys.operator import Operator, bind, from_psf
from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.registry import ALIASES as ALIASES
from diffphys.reconstruct.registry import METHODS as METHODS
from diffphys.reconstruct.registry import known_methods as known_methods
from diffphys.reconstruct.registry import method_name as method_name
from diffphys.reconstruct.registry import register_method as register_method
from diffphys.reconstruct.registry import unregister_method as unregister_method
from diffphys.spec import did_you_mean, pitch_um
from diffphys.types import Array, Modality, Reconstruction, resolve

LARGEST = 1e12  # counts; beyond it float32 sums and transforms may overflow


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
        method: a name of `known_methods()`, spelled freely.
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
    _expect_solution(name, solution, problem.operator)
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


def _expect_solution(name: str, solution: Any, operator: Operator) -> None:
    """Raise unless a method, which may be a stranger's, kept its promise."""
    if not isinstance(solution, Solution):
        raise ValueError(f"method {name!r} returned {type(solution).__name__}; expected a diffphys.reconstruct.Solution")
    if np.shape(solution.x) != operator.specimen:
        raise ValueError(
            f"method {name!r} returned x of shape {np.shape(solution.x)}; expected the specimen {operator.specimen}"
        )


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
