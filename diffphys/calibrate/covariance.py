"""Honest covariance of the evidence fit: sandwich over frequency, spread between the spectra, measured inflation.

The Fisher matrix F is right where the specimen is the Gaussian field of the prior. Real specimens are not: the residual of
the spectrum is correlated over neighbouring frequencies. The sandwich F^-1 G F^-1 (Godambe 1960; Huber 1967) replaces the
information by the observed covariance G of the scores, summed over a neighbourhood of each frequency (Newey & West,
Econometrica 55:703, 1987; Conley, J. Econometrics 92:1, 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import scipy

from diffphys.calibrate.evidence import Point
from diffphys.spec import as_vector, from_vector
from diffphys.types import Modality

BANDWIDTH = 2.0  # bins, standard deviation of the neighbourhood


def scores(point: Point, weight: np.ndarray, *, ndim: int | None = None) -> np.ndarray:
    """(Q, *quadrant) gradient of the NLL bin by bin; sums to the gradient without the prior.

    Depth windows in front of the quadrant's `ndim` axes are summed: they overlap and see one specimen, so what the model
    misses in a bin it misses in all of them.
    """
    whitened, residual = np.asarray(point.whitened, np.float64), np.asarray(point.residual, np.float64)
    u = 0.5 * np.asarray(weight) * np.einsum("qjk...,jk...->q...", whitened, residual)
    return u if ndim is None else u.sum(axis=tuple(range(1, u.ndim - ndim)))


def score_covariance(u: np.ndarray, *, bandwidth: float) -> np.ndarray:
    """(Q, Q) sum of u_nu u_nu'^T over pairs of bins, weighted by a Gaussian of their distance (1 at distance 0)."""
    ndim = u.ndim - 1
    if bandwidth <= 0:
        spread = u
    else:
        impulse = np.zeros((*(2 * int(4 * bandwidth) + 3,) * ndim,))
        impulse[(*(n // 2 for n in impulse.shape),)] = 1.0
        peak = scipy.ndimage.gaussian_filter(impulse, bandwidth, mode="constant").max()
        spread = np.stack([scipy.ndimage.gaussian_filter(v, bandwidth, mode="constant") for v in u]) / peak
    flat, wide = u.reshape(len(u), -1), spread.reshape(len(u), -1)
    matrix = flat @ wide.T
    return (matrix + matrix.T) / 2


def sandwich(point: Point, weight: np.ndarray, *, ndim: int | None = None, bandwidth: float = BANDWIDTH) -> np.ndarray:
    """(Q, Q) covariance of q: the larger of Fisher and sandwich in every direction of the latter's inflation."""
    inverse = np.linalg.inv(np.asarray(point.fisher, np.float64))
    observed = score_covariance(scores(point, weight, ndim=ndim), bandwidth=bandwidth)
    return larger(inverse, inverse @ observed @ inverse)


def larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest simple matrix that is at least both covariances: in the basis where a = 1, eigenvalues of b below 1 become 1."""
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 1e-300))
    inverse = (vectors / np.sqrt(np.maximum(values, 1e-300))).T
    stretch, turn = np.linalg.eigh(inverse @ ((b + b.T) / 2) @ inverse.T)
    factor = root @ turn
    return (factor * np.maximum(stretch, 1.0)) @ factor.T


def propagated(modality: Modality, geometry: Any, spec: Any, covariance: np.ndarray) -> dict[str, tuple[float, float]]:
    """The modality's derived quantities with the error that the covariance of the spec implies: name -> (value, 1 sigma)."""
    found = derivatives(modality, geometry, as_vector(spec, modality.FIELDS))
    return {name: (value, float(np.sqrt(max(slope @ covariance @ slope, 0.0)))) for name, (value, slope) in found.items()}


def doubled(modality: Modality, geometry: Any, spec: Any, covariance: np.ndarray) -> np.ndarray:
    """(P, P) what an unknown sign of the derived quantities adds to the covariance: errors of 0 or twice their value."""
    added = np.zeros_like(covariance)
    for value, slope in derivatives(modality, geometry, as_vector(spec, modality.FIELDS)).values():
        response = covariance @ slope / max(slope @ covariance @ slope, 1e-300)
        added += np.outer(response, response) * 2 * value**2
    return added


def derivatives(modality: Modality, geometry: Any, vector: Any) -> dict[str, tuple[float, np.ndarray]]:
    """Name -> a derived quantity and its gradient (P,) in the spec's parameters (P,)."""
    values, slopes = _derivatives(modality, geometry)(vector)
    return {name: (float(value), np.asarray(slopes[name], np.float64)) for name, value in values.items()}


@lru_cache(maxsize=32)
def _derivatives(modality: Modality, geometry: Any) -> Callable[[Any], Any]:
    """`derivatives` of a vector, compiled."""

    def of(vector: Any) -> Any:
        return modality.derived(from_vector(modality.Spec, modality.FIELDS, vector), geometry=geometry)

    return jax.jit(lambda vector: (of(vector), jax.jacfwd(of)(vector)))
