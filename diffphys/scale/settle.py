"""What all tiles of a volume must share, so that they agree where they meet: decided once, on a representative window.

A method that looks at its data to choose (when to stop, how strong a prior) would choose differently in every tile. So it
chooses on the window, and every tile is told: Richardson-Lucy the number of iterations and the level of its flat start,
Wiener the specimen's spectrum and the noise variance, total variation its weight and the level that its steps follow, a network
Wiener's and the unit of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from diffphys.reconstruct import richardson_lucy as rl
from diffphys.reconstruct import tv, wiener
from diffphys.reconstruct.iterate import Callback, Problem, noise_weight
from diffphys.scale import networks

Choice = tuple[str, dict[str, Any]]


def settle(problem: Problem, method: str, options: Mapping[str, Any], *, callback: Callback | None = None) -> Choice:
    """Method and options for every tile.

    Args:
        problem: the window's data and operator.
        method: a name of `SETTLED`.
        options: what the user stated of the method's own options; kept.
        callback: of the run on the window.

    Raises:
        ValueError: the method cannot be fixed over tiles.
    """
    return settled(method)(problem, dict(options), callback)


def settled(method: str) -> Callable[[Problem, dict[str, Any], Callback | None], Choice]:
    """The function that fixes a method; ValueError with what is allowed for one that has none."""
    if method not in SETTLED:
        raise ValueError(f"method {method} is not available for volumes in tiles; expected one of {sorted(SETTLED)}")
    return SETTLED[method]


def _level(problem: Problem) -> float:
    return float(rl.flux_level(rl.make_fit(problem)))


def _richardson_lucy(problem: Problem, options: dict[str, Any], callback: Callback | None) -> Choice:
    level = options.pop("level", None) or _level(problem)
    found = rl.richardson_lucy(problem, level=level, callback=callback, **options)
    fixed = {n: v for n, v in options.items() if n in ("accelerate", "tv_weight")}
    return "richardson_lucy", fixed | {"iterations": max(found.iterations, 1), "stopping": "fixed", "level": level}


def _richardson_lucy_tv(problem: Problem, options: dict[str, Any], callback: Callback | None) -> Choice:
    sensitivity = float(jnp.max(problem.operator.adjoint(jnp.ones(problem.operator.measurement, problem.photons.dtype))))
    weight = options.pop("strength", rl.STRENGTH_TV) * noise_weight(problem) / max(sensitivity, 1e-30)
    return _richardson_lucy(problem, {**options, "tv_weight": weight}, callback)


def _wiener(problem: Problem, options: dict[str, Any], callback: Callback | None) -> Choice:
    law, variance = wiener.fitted_spectrum(problem)
    fixed = {"variance": variance, **options}
    return "wiener", fixed if "noise_to_signal" in options else {"spectrum": law, **fixed}


def _tv(problem: Problem, options: dict[str, Any], callback: Callback | None) -> Choice:
    seed, weight = options.pop("seed", 0), options.pop("weight", None)
    if weight is None:
        known = rl.allowed(problem)
        weight = tv.held_out_weight(problem, seed=seed, callback=callback)[0] if known else tv.STRENGTH * noise_weight(problem)
    return "tv", {"level": _level(problem), **options, "weight": weight}


def _network(family: str) -> Callable[[Problem, dict[str, Any], Callback | None], Choice]:
    return lambda problem, options, callback: (family, networks.settled(problem, options, callback))


SETTLED: dict[str, Callable[[Problem, dict[str, Any], Callback | None], Choice]] = {
    "richardson_lucy": _richardson_lucy,
    "richardson_lucy_tv": _richardson_lucy_tv,
    "wiener": _wiener,
    "tv": _tv,
    **{family: _network(family) for family in networks.FAMILIES},
}
