"""Sign of the aberration: a spec and its twin have the same |OTF|, so no second-order statistic tells them apart.

Positivity does: the Poisson likelihood after a fixed number of Richardson-Lucy iterations from a flat start. It is valid
only between twins that share |OTF|; anywhere else it prefers the sharper PSF. So the twin that competes is the exact one,
also where it lies outside the ranges: what the ranges leave of it may have another index and thereby another |OTF|.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.operator import Operator, bind
from diffphys.reconstruct.richardson_lucy import profile_likelihood
from diffphys.types import Modality

ITERATIONS = 20  # more fit the noise: of 60 simulated stacks 5 signs were wrong after 20, 7 after 50
LARGEST = (48, 96, 96)  # the brightest part of a larger stack decides as well


@partial(jax.jit, static_argnames=("iterations",))
def profile(operator: Operator, photons: Any, background: Any, *, iterations: int) -> Any:
    """`profile_likelihood`, compiled."""
    return profile_likelihood(operator, photons, background, iterations=iterations)


def brightest(photons: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The window of at most `shape` around the centre of light, inside the stack."""
    light = np.maximum(photons - np.median(photons), 0.0)
    corner = []
    for axis, (n, b) in enumerate(zip(photons.shape, shape, strict=True)):
        profile = light.sum(axis=tuple(a for a in range(photons.ndim) if a != axis))
        centre = int(np.argmax(np.convolve(profile, np.ones(min(n, b)), mode="valid")))
        corner.append(slice(centre, centre + min(n, b)))
    return photons[tuple(corner)]


def margin(photons: np.ndarray, modality: Modality, geometry: Any, specs: tuple[Any, Any], *, background: float) -> float:
    """Log-likelihood of the first spec minus that of its twin, nats; positive: keep the first.

    Args:
        photons: stack in photons, read-noise variance added to data and background alike.
        background: photons, the same variance added.
    """
    part = brightest(photons, LARGEST)
    local = modality.block(geometry, part.shape)
    counts = jnp.asarray(np.maximum(part, 0.0), jnp.float32)
    # one margin for both, so that they compete on the same number of unknowns
    kept = bind(modality, specs[0], geometry=local)
    operators = [bind(modality, spec, geometry=local, specimen=kept.specimen) for spec in specs]
    cost = [float(profile(op, counts, jnp.float32(background), iterations=ITERATIONS)) for op in operators]
    return cost[1] - cost[0]
