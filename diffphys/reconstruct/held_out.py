"""Held-out photons: the noise level's own judge of how far a reconstruction may go.

Binomial thinning splits Poisson counts into two independent Poisson parts. One is reconstructed, the other scores it. With
read noise the counts are shifted by its variance first: their mean then equals their variance, which makes the two parts
uncorrelated though no longer independent.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from diffphys.reconstruct.iterate import Problem
from diffphys.types import Array

KEEP = 0.9  # share that is reconstructed; 0.5 to 0.9 choose alike at high counts, 0.9 is closest to the full data at low ones
SHARE = (1 - KEEP) / KEEP  # expected held-out photons per kept one
FEWEST = 50  # held-out photons below which their score is mostly chance
FLOOR = 1e-6  # photons; expected photons are kept above it


def allowed(problem: Problem) -> bool:
    """Whether the data are whole photons (or carry a known read noise), and enough of them."""
    photons = np.asarray(problem.photons)
    whole = bool(np.all(np.abs(photons - np.round(photons)) <= 1e-3 + 1e-5 * np.abs(photons)))
    return bool((1 - KEEP) * photons.clip(0).sum() >= FEWEST) and (whole or float(problem.read_variance) > 0)


def thin(problem: Problem, *, seed: int) -> tuple[Problem, Array]:
    """The same problem with KEEP of its photons, and the held-out counts (shifted by the read variance likewise)."""
    shifted = np.asarray(problem.photons) + float(problem.read_variance)
    whole = np.round(np.maximum(shifted, 0.0)).astype(np.int64)
    kept = np.random.default_rng(seed).binomial(whole, KEEP)
    less = problem._replace(
        photons=jnp.asarray(kept, problem.photons.dtype) - KEEP * problem.read_variance,
        background=KEEP * problem.background,
        read_variance=KEEP * problem.read_variance,
    )
    return less, jnp.asarray(whole - kept, problem.photons.dtype)


def deviance(counts: Array, mean: Array) -> Array:
    """Poisson deviance per voxel over two: negative log-likelihood relative to a perfect fit, in nats."""
    return jnp.mean(mean - counts + counts * jnp.log(jnp.maximum(counts, FLOOR) / mean))
