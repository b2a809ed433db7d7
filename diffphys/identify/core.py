"""`identify`: how well an instrument can be calibrated at all, before anything is measured or from what was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.covariance import propagated
from diffphys.identify import fisher, result, suggest
from diffphys.identify import prior as priors
from diffphys.identify.fisher import Light
from diffphys.identify.prior import Prior
from diffphys.noise import Detector
from diffphys.spec import names, parse_ranges, pitch_um
from diffphys.types import Modality, resolve

BACKGROUND = 0.02  # of the photons, where no detector is stated
READ_SIGMA = 1.0
MARGIN = 8  # voxels a drawn specimen is larger than the field on each side
LARGEST = 2**22  # voxels up to which a known specimen's field is computed whole
FAMILY = {3: "beads", 2: "collagen"}  # specimen where none is stated, by the number of axes
IMAGES = ("unknown", "known")


def identify(
    modality: Modality | str,
    *,
    geometry: Any,
    spec: Any = None,
    photons: float = 300.0,
    image: str = "unknown",
    scene: Any = None,
    detector: Detector | None = None,
    ranges: Mapping[str, Sequence[float]] | None = None,
    suggest_changes: bool = True,
    seed: int = 0,
) -> result.Identification:
    """Cramer-Rao bounds of the mismatch parameters of one measurement, and what would lower them.

    Args:
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        geometry: nominal instrument.
        spec: where to take the bounds; the nominal spec if None.
        photons: expected signal of the brightest voxel (of the first frame), background excluded.
        image: "unknown" (calibration from the data alone) or "known" (a calibration sample).
        scene: specimen as an array (at least the field), the name of a scene family, or - unknown image only - a `Prior`.
            None: beads or collagen.
        detector: its background (photons per voxel) and read noise; None: 2 % of the photons and 1 electron.
        ranges: name -> (low, high) replaces a default range; low == high makes a parameter known beforehand.
        suggest_changes: whether to compute suggestions (about ten further bounds).
        seed: of a drawn scene.

    Returns:
        `Identification`.

    Raises:
        ValueError: in one line, for arguments that make no experiment.

    Source: Fisher information as in `diffphys.identify.fisher`; Kay, Estimation Theory, ch. 3.
    """
    modality = resolve(modality)
    spec = modality.nominal(geometry) if spec is None else spec
    box = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), ranges)
    modality.check_ranges(box, geometry)
    light = _light(photons, detector)
    if image not in IMAGES:
        raise ValueError(f"image is {image!r}; expected one of {list(IMAGES)}")
    if image == "known" and isinstance(scene, Prior):
        raise ValueError("scene is a Prior, but the image is known; pass the specimen's array or the name of a scene family")
    fields, half = names(modality.FIELDS), np.array([(h - low) / 2 for low, h in (box[f.name] for f in modality.FIELDS)])
    source = _Specimen(modality, scene, spec, geometry, seed)

    def information(case: suggest.Case) -> np.ndarray:
        if case.image == "known":
            local, share = _cropped(modality, case.geometry)
            x = source.array(local)
            return share * fisher.known(modality, case.spec, x, geometry=local, light=case.light)
        return fisher.marginal(modality, case.spec, source.prior, geometry=case.geometry, light=case.light)

    def bounds(case: suggest.Case) -> dict[str, float]:
        sigma = np.sqrt(np.diag(result.inverse(information(case), half)))
        return dict(zip(fields, sigma.tolist(), strict=True))

    case = suggest.Case(geometry, spec, light, image)
    matrix = information(case)
    if not np.isfinite(matrix).all():
        raise ValueError(f"no information can be computed at {_told(spec, fields)}: the spec lies outside the model's validity")
    covariance = result.inverse(matrix, half)
    worst = result.hardest(covariance, half)
    changes: tuple[suggest.Suggestion, ...] = ()
    if suggest_changes and half[worst] > 0:
        changes = suggest.suggestions(case, bounds, _once_known(matrix, half, fields), parameter=fields[worst])
    derived = propagated(modality, geometry, spec, covariance)
    units = tuple(f.unit for f in modality.FIELDS)
    return result.Identification(
        modality=modality.NAME,
        spec=spec,
        names=fields,
        units=units,
        ranges=box,
        fisher=matrix,
        covariance=covariance,
        derived=derived,
        worst=result.sentence(fields, units, covariance, half, derived),
        suggestions=changes,
        image=image,
        photons=light.photons,
        background=light.background,
        prior=source.prior if image == "unknown" else None,
    )


def _light(photons: float, detector: Detector | None) -> Light:
    if not (np.isfinite(photons) and photons > 0):
        raise ValueError(f"photons is {photons:g}; expected a positive number of photons in the brightest voxel")
    light = Light(float(photons), BACKGROUND * photons, READ_SIGMA)
    if detector is None:
        return light
    stated = (float(detector.background), float(detector.read_sigma))
    return Light(light.photons, *(s if np.isfinite(s) else usual for s, usual in zip(stated, light[1:], strict=True)))


def _once_known(matrix: np.ndarray, half: np.ndarray, fields: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Parameter -> all bounds once that parameter is known."""
    out = {}
    for i in np.flatnonzero(half > 0):
        others = half.copy()
        others[i] = 0.0
        out[fields[i]] = dict(zip(fields, np.sqrt(np.diag(result.inverse(matrix, others))).tolist(), strict=True))
    return out


def _cropped(modality: Modality, geometry: Any) -> tuple[Any, float]:
    """The field, or a part of it small enough for a known specimen, and how many such parts the field has."""
    shape = list(geometry.shape)
    while np.prod(shape) > LARGEST:
        shape[int(np.argmax(shape))] //= 2
    if tuple(shape) == tuple(geometry.shape):
        return geometry, 1.0
    return modality.block(geometry, tuple(shape)), float(np.prod(geometry.shape) / np.prod(shape))


def _told(spec: Any, fields: tuple[str, ...]) -> str:
    return ", ".join(f"{n} = {float(getattr(spec, n)):g}" for n in fields)


class _Specimen:
    """The stated scene as an array for a field, and as a prior."""

    def __init__(self, modality: Modality, scene: Any, spec: Any, geometry: Any, seed: int) -> None:
        self.modality, self.seed = modality, seed
        self.given = None
        self.family = FAMILY[len(geometry.shape)] if scene is None or isinstance(scene, Prior) else scene
        if not isinstance(self.family, str):
            self.family, self.given = None, np.asarray(scene, np.float64)
            if self.given.ndim != len(geometry.shape) or any(
                g < n for g, n in zip(self.given.shape, geometry.shape, strict=True)
            ):
                raise ValueError(f"scene has shape {self.given.shape}; expected at least the field {tuple(geometry.shape)}")
            if not (np.isfinite(self.given).all() and self.given.min() >= 0 and np.ptp(self.given) > 0):
                raise ValueError("scene is constant, negative somewhere or not finite; expected brightnesses of 0 or more")
        self.prior = scene if isinstance(scene, Prior) else self._fitted(spec, geometry)

    def array(self, geometry: Any) -> np.ndarray:
        """The specimen around the field of `geometry`."""
        if self.given is not None:
            return self.given
        return _drawn(self.modality, self.family, tuple(n + 2 * MARGIN for n in geometry.shape), pitch_um(geometry), self.seed)

    def _fitted(self, spec: Any, geometry: Any) -> Prior:
        local, _ = _cropped(self.modality, geometry)
        x = self.array(local)
        signal = np.asarray(jax.jit(partial(self.modality.forward, geometry=local))(spec, jnp.asarray(x, jnp.float32)))
        peak = float((signal if signal.ndim == x.ndim else signal[0]).max())
        field = tuple(slice((s - n) // 2, (s - n) // 2 + n) for s, n in zip(x.shape, local.shape, strict=True))
        return priors.of_specimen(x[field], local, peak=peak)


@lru_cache(maxsize=8)
def _drawn(modality: Any, family: str, shape: tuple[int, ...], pitch: tuple[float, ...], seed: int) -> np.ndarray:
    if not hasattr(modality, "scene"):
        raise ValueError(f"modality {modality.NAME!r} draws no specimens; pass scene= an array that covers the field")
    size = {"voxel_um" if len(shape) == 3 else "pixel_um": pitch}
    x = modality.scene(family, shape=shape, seed=seed, **size)
    x.flags.writeable = False
    return x
