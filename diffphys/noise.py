"""Detection D: gain, offset, background, Poisson-Gaussian sampling and log-likelihood.

counts = offset + gain * ( Poisson(peak_photons * signal + background) + Normal(0, read_sigma) )
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from diffphys.types import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Detector:
    """Detector of a microscope; every number is a traced leaf.

    Attributes:
        peak_photons: photons that unit signal gives (signal = blurred specimen). 1: the specimen is in photons.
        background: photons per voxel that do not come from the specimen.
        gain: counts per photon.
        offset: counts without light.
        read_sigma: read noise, photo-electrons rms.
    """

    peak_photons: Array | float = 1.0
    background: Array | float = 0.0
    gain: Array | float = 1.0
    offset: Array | float = 0.0
    read_sigma: Array | float = 0.0


def expected_photons(detector: Detector, signal: Array) -> Array:
    """Expected photons per voxel, background included; axes as `signal`."""
    return detector.peak_photons * signal + detector.background


def expected_counts(detector: Detector, signal: Array) -> Array:
    """Noiseless counts; axes as `signal`."""
    return detector.offset + detector.gain * expected_photons(detector, signal)


def to_photons(detector: Detector, y: Array) -> Array:
    """Counts -> photons, background still in; axes as `y`."""
    return (y - detector.offset) / detector.gain


def sample(key: Array, detector: Detector, signal: Array) -> Array:
    """Counts drawn from the Poisson-Gaussian law; axes as `signal`, its dtype."""
    key_shot, key_read = jax.random.split(key)
    mean = jnp.maximum(expected_photons(detector, signal), 0.0)
    shot = jax.random.poisson(key_shot, mean, mean.shape).astype(mean.dtype)
    read = detector.read_sigma * jax.random.normal(key_read, mean.shape, mean.dtype)
    return detector.offset + detector.gain * (shot + read)


def log_likelihood(detector: Detector, signal: Array, y: Array) -> Array:
    """Log density of counts `y`, in nats, summed over all axes.

    Shifted Poisson: photons + read_sigma**2 is taken as Poisson with mean expected + read_sigma**2, which has the right
    mean and variance (Snyder, Hammoud & White, JOSA A 10:1014, 1993). Exact for read_sigma = 0 and integer photons.
    """
    shift = jnp.asarray(detector.read_sigma) ** 2
    photons = jnp.maximum(to_photons(detector, y) + shift, 0.0)
    mean = jnp.maximum(expected_photons(detector, signal) + shift, 1e-6)
    per_voxel = photons * jnp.log(mean) - mean - gammaln(photons + 1.0)
    return jnp.sum(per_voxel) - y.size * jnp.log(jnp.asarray(detector.gain))
