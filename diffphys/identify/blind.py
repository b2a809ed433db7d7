"""What a measurement cannot tell whatever is done with it: parameters whose blind bound is no better than their range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffphys.identify import fisher, result
from diffphys.identify import prior as priors
from diffphys.identify.fisher import Light
from diffphys.noise import Detector
from diffphys.spec import as_vector, from_vector, names
from diffphys.types import Calibration, Modality, Status

POINTS = 5  # specs of the box, besides the nominal one, at which the bound is taken; the median counts
NO_BETTER = 3**-0.5  # sigma over the half range of a flat distribution


def typical_bounds(
    y: np.ndarray, modality: Modality, *, geometry: Any, detector: Detector, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Median blind bound of each parameter over the box, the specimen's spectrum fitted to the counts `y`."""
    half = np.array([(ranges[f.name][1] - ranges[f.name][0]) / 2 for f in modality.FIELDS])
    nominal = modality.nominal(geometry)
    prior, peak = priors.of_stack(modality, nominal, y, geometry=geometry, detector=detector)
    light = Light(peak, float(detector.background), float(detector.read_sigma))
    starts = modality.starts(dict(ranges), geometry=geometry)
    thetas = [np.asarray(as_vector(nominal, modality.FIELDS)), *starts[np.linspace(0, len(starts) - 1, POINTS).astype(int)]]
    sigma = []
    for theta in thetas:
        spec = from_vector(modality.Spec, modality.FIELDS, jnp.asarray(theta, jnp.float32))
        matrix = fisher.marginal(modality, spec, prior, geometry=geometry, light=light)
        sigma.append(np.sqrt(np.diag(result.inverse(matrix, half))))
    return dict(zip(names(modality.FIELDS), np.median(sigma, axis=0).tolist(), strict=True))


def hopeless(
    y: np.ndarray, modality: Modality, *, geometry: Any, detector: Detector, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Parameters whose bound over most of the box says no more than their range does, with that bound.

    Only instruments whose geometry names a `detection` other than imaging are asked: elsewhere the fit itself tells.
    """
    if getattr(geometry, "detection", "imaging") == "imaging":
        return {}
    bounds = typical_bounds(y, modality, geometry=geometry, detector=detector, ranges=ranges)
    half = {n: (high - low) / 2 for n, (low, high) in ranges.items()}
    return {n: b for n, b in bounds.items() if half[n] > 0 and b > NO_BETTER * half[n]}


def held(ranges: Mapping[str, tuple[float, float]], modality: Modality, geometry: Any, which: Mapping[str, float]) -> dict:
    """The ranges with the hopeless parameters held at their nominal value."""
    nominal = modality.nominal(geometry)
    fixed = {n: (float(getattr(nominal, n)),) * 2 for n in which}
    return {n: fixed.get(n, pair) for n, pair in ranges.items()}


def refused(calibration: Calibration, modality: Modality, which: Mapping[str, float]) -> Calibration:
    """The calibration with the held parameters undetermined: their error is the blind bound."""
    if not which:
        return calibration
    covariance, undetermined = calibration.covariance.copy(), dict(calibration.undetermined)
    for i, field in enumerate(modality.FIELDS):
        if field.name in which:
            low, high = calibration.ranges[field.name]
            covariance[i, :] = covariance[:, i] = 0.0
            covariance[i, i] = which[field.name] ** 2
            sigma, width = f"{which[field.name]:.2g} {field.unit}", f"{high - low:.3g} {field.unit}"
            reason = f"blind bound sigma = {sigma}, no better than its range of {width}"
            undetermined[field.name] = f"{reason}; held at its nominal value"
    sound = calibration.status in (Status.CONVERGED, Status.AT_BOUND)
    status = Status.NOT_IDENTIFIABLE if sound else calibration.status
    return replace(calibration, covariance=covariance, undetermined=undetermined, status=status)
