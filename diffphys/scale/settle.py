"""What all tiles of a volume must share, so that they agree where they meet: decided once, on a representative window.

A method that looks at its data to choose (when to stop, how strong a prior) would choose differently in every tile. So it
chooses on the window, and every tile is told: Richardson-Lucy the number of iterations and the level of its flat start,
Wiener the specimen's spectrum and the noise variance, total variation its weight and the level that its steps follow, a network
Wiener's and the unit of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from diffphys.reconstruct import richardson_lucy as rl
from diffphys.reconstruct import tv as total_variation
from diffphys.reconstruct.iterate import Callback, Problem, noise_weight
from diffphys.reconstruct.wiener import fitted_spectrum


def richardson_lucy(problem: Problem, options: Mapping[str, Any], callback: Callback | None) -> dict[str, Any]:
    level = options.get("level") or _level(problem)
    found = rl.richardson_lucy(problem, callback=callback, **{**options, "level": level})
    fixed = {n: v for n, v in options.items() if n in ("accelerate", "tv_weight")}
    return fixed | {"iterations": max(found.iterations, 1), "stopping": "fixed", "level": level}


def richardson_lucy_tv(problem: Problem, options: Mapping[str, Any], callback: Callback | None) -> dict[str, Any]:
    sensitivity = float(jnp.max(problem.operator.adjoint(jnp.ones(problem.operator.measurement, problem.photons.dtype))))
    stated = dict(options)
    weight = stated.pop("strength", rl.STRENGTH_TV) * noise_weight(problem) / max(sensitivity, 1e-30)
    return richardson_lucy(problem, {**stated, "tv_weight": weight}, callback)


def wiener(problem: Problem, options: Mapping[str, Any], callback: Callback | None) -> dict[str, Any]:
    law, variance = fitted_spectrum(problem)
    fixed = {"variance": variance, **options}
    return fixed if "noise_to_signal" in options else {"spectrum": law, **fixed}


def tv(problem: Problem, options: Mapping[str, Any], callback: Callback | None) -> dict[str, Any]:
    stated = dict(options)
    seed, weight = stated.pop("seed", 0), stated.pop("weight", None)
    if weight is None and rl.allowed(problem):
        weight = total_variation.held_out_weight(problem, seed=seed, callback=callback)[0]
    elif weight is None:
        weight = total_variation.STRENGTH * noise_weight(problem)
    return {"level": _level(problem), **stated, "weight": weight}


def _level(problem: Problem) -> float:
    return float(rl.flux_level(rl.make_fit(problem)))
