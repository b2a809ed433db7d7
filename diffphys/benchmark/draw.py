"""One sample of a tier from its key: specimen, mismatch, light level, and the noise draws of its measurement.

The specimen is larger than the field and cropped after the forward model, so that light from outside enters y. A specimen on
which zeros or a constant would score more than DULLEST in the image terms is drawn again.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.benchmark import figures, tiers
from diffphys.benchmark.keys import stream
from diffphys.noise import Detector, sample
from diffphys.spec import parse
from diffphys.types import resolve

ATTEMPTS = 200


class Drawn(NamedTuple):
    """One sample.

    Attributes:
        y: float32 counts of the mismatched instrument, (frame, y, x) or (z, y, x).
        y_second: another noise draw of the same, kept by the organiser.
        y_ideal: counts of the nominal instrument (scenario I).
        x: the specimen in the field, float32, peak 1.
        spec: name -> true value.
        detector: what made the counts.
        family: scene family.
        attempts: specimens that were drawn until one was accepted.
    """

    y: np.ndarray
    y_second: np.ndarray
    y_ideal: np.ndarray
    x: np.ndarray
    spec: dict[str, float]
    detector: Detector
    family: str
    attempts: int


def draw(key: bytes, modality: str, tier: str, index: int, *, geometry: Any = None) -> Drawn:
    """Sample `index` of a tier; the same arguments give the same sample.

    Args:
        key: of the tier, see `keys.key_of`.
        modality, tier, index: which sample.
        geometry: another nominal instrument, for trials; the benchmark's own if None.
    """
    geometry = geometry or tiers.geometry(modality)
    family = tiers.families(modality, tier)[index % len(tiers.families(modality, tier))]
    known = resolve(modality)
    scene, attempts = accepted_scene(key, modality, tier, index, family, geometry)
    field = field_of(geometry.shape, scene.shape)
    spec = draw_spec(key, modality, tier, index)
    photons = np.exp(stream(key, modality, tier, index, "photons").uniform(*np.log(tiers.PEAK_PHOTONS)))
    x = jnp.asarray(scene, jnp.float32)
    forward = forward_of(modality, geometry)
    signal = forward(parse(known.Spec, known.FIELDS, spec), x)
    detector = Detector(
        peak_photons=float(photons / jnp.max(signal)),
        background=tiers.BACKGROUND * photons,
        gain=tiers.GAIN,
        offset=tiers.OFFSET,
        read_sigma=tiers.READ_SIGMA,
    )

    def measured(signal: Any, purpose: str) -> np.ndarray:
        return np.asarray(_sample(key_of(key, modality, tier, index, purpose), detector, signal), np.float32)

    ideal = forward(known.nominal(geometry), x)
    return Drawn(
        measured(signal, "noise"), measured(signal, "second noise"), measured(ideal, "ideal noise"),
        np.asarray(x[field]), spec, detector, family, attempts,
    )  # fmt: skip


def key_of(key: bytes, modality: str, tier: str, index: int, purpose: str) -> Any:
    """jax's key of one purpose of one sample."""
    words = stream(key, modality, tier, index, purpose).integers(0, 2**32, 2, dtype=np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words))


def draw_spec(key: bytes, modality: str, tier: str, index: int) -> dict[str, float]:
    """Mismatch parameters, each uniform in its tier's range; single precision, as the models use them."""
    rng = stream(key, modality, tier, index, "spec")
    return {n: float(np.float32(rng.uniform(low, high))) for n, (low, high) in tiers.ranges(modality, tier).items()}


def accepted_scene(key: bytes, modality: str, tier: str, index: int, family: str, geometry: Any) -> tuple[np.ndarray, int]:
    """The specimen with its surroundings, peak 1 in the field, and how many were drawn."""
    for attempt in range(ATTEMPTS):
        rng = stream(key, modality, tier, index, "scene", attempt=attempt)
        scene = _scene(rng, modality, family, geometry)
        if scene is not None and dullness(scene[field_of(geometry.shape, scene.shape)]) <= tiers.DULLEST:
            return scene, attempt + 1
    raise ValueError(f"{family}: none of {ATTEMPTS} specimens has enough structure; expected a family with some")


def dullness(x: np.ndarray) -> float:
    """The larger of the image terms that zeros and the best constant reach on a specimen."""
    levels = np.concatenate([[0.0], np.quantile(x, np.linspace(0.02, 0.98, 17)), [x.mean()]])
    return max(flat_terms(x, float(level)) for level in levels)


def flat_terms(x: np.ndarray, level: float) -> float:
    """Image terms of a constant image."""
    flat = np.full(x.shape, level)
    return figures.image_terms(figures.psnr(flat, x), figures.ssim(flat, x))


def _scene(rng: np.random.Generator, modality: str, family: str, geometry: Any) -> np.ndarray | None:
    """One specimen larger than the field; None where its background leaves HAZE once the field's peak is 1."""
    large = enlarged(geometry.shape)
    pitch = {name: getattr(geometry, name) for name in ("voxel_um", "pixel_um") if hasattr(geometry, name)}
    haze, seed = rng.uniform(*tiers.HAZE), int(rng.integers(0, 2**63))
    texture = {"haze": haze, "grain_um": tiers.GRAIN_UM[modality], "contrast": tiers.CONTRAST}
    density = tiers.DENSITY.get(family, 1.0)
    scene = resolve(modality).scene(  # type: ignore[attr-defined]
        family, shape=large, seed=seed, density=density, **texture, **pitch
    )
    peak = scene[field_of(geometry.shape, large)].max()
    return scene / peak if haze <= tiers.HAZE[1] * peak else None


def enlarged(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The specimen's shape around a field."""
    return tuple(n + 2 * round(tiers.MARGIN * n) for n in shape)


def field_of(shape: tuple[int, ...], large: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the field lies in its specimen."""
    return tuple(slice((s - n) // 2, (s - n) // 2 + n) for n, s in zip(shape, large, strict=True))


@lru_cache(maxsize=8)
def forward_of(modality: str, geometry: Any) -> Any:
    """The jitted forward model of an instrument."""
    return jax.jit(partial(resolve(modality).forward, geometry=geometry))


_sample = jax.jit(sample)
