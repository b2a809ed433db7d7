"""The training stream: example `index` of a modality, the same for everyone, with the physics in it.

An example is a specimen, an instrument drawn over the hull of the tiers' ranges, its counts, and what calibration would hand
on: a spec with a calibration-sized error and the Wiener image at that spec. Two thirds of the specimens are of the public
families, one third of `scenes.FAMILIES`; families and keys of dev and hidden are never touched. Examples are kept in a folder
as they are made, so the second reading is fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffphys.benchmark import draw, tiers
from diffphys.benchmark.keys import stream as random_stream
from diffphys.io.atomic import replacing
from diffphys.networks.inputs import measured, scale_of
from diffphys.noise import Detector, sample
from diffphys.reconstruct import problem_of
from diffphys.reconstruct.wiener import wiener
from diffphys.spec import parse, pitch_um
from diffphys.train import scenes
from diffphys.types import resolve

VERSION = "1"  # of the stream: a change here makes other examples, and other weights
KEY = b"diffphys training stream " + VERSION.encode()
DIM_PHOTONS, BRIGHT_PHOTONS = (80.0, 1200.0), (1200.0, 12000.0)
BRIGHT = 0.3  # share of examples with BRIGHT_PHOTONS
OTHER = 1 / 3  # share of specimens from `scenes.FAMILIES`
CALIBRATION_ERROR = {  # 1 sigma of what blind calibration leaves, in the parameters' units
    "shg": {"phase_matching_error": 0.02, "excitation_power_fluctuation": 0.1, "collection_na_mismatch": 0.002},
    "confocal_3d": {"z_step": 8.0, "spherical_aberr": 0.005, "refractive_index": 0.0006},
}


class Example(NamedTuple):
    """Images (*axes) of one example in units of its scale; float16 in the folder.

    Attributes:
        x: the specimen in the field.
        wiener: Wiener image at the assumed spec.
        measured: signal over the instrument's flux, frames combined.
        noise: standard deviation of `measured`.
        unit: what the scale is on the specimen's own axis, where it peaks at 1.
        y: counts, float32, axes of the measurement.
        spec: assumed spec, one number per field of the modality.
        detector: peak_photons, background, gain, offset, read_sigma.
    """

    x: np.ndarray
    wiener: np.ndarray
    measured: np.ndarray
    noise: np.ndarray
    unit: np.ndarray
    y: np.ndarray
    spec: np.ndarray
    detector: np.ndarray


def example(modality: str, index: int) -> Example:
    """Make one example; depends on its arguments and VERSION alone, to the last bit on one thread (more reorder sums)."""
    geometry, known = tiers.geometry(modality), resolve(modality)
    x = _specimen(modality, index, geometry)
    true, assumed = _specs(modality, index)
    rng = random_stream(KEY, modality, "training", index, "photons")
    photons = np.exp(rng.uniform(*np.log(BRIGHT_PHOTONS if rng.random() < BRIGHT else DIM_PHOTONS)))
    signal = draw.forward_of(modality, geometry)(parse(known.Spec, known.FIELDS, true), jnp.asarray(x, jnp.float32))
    detector = Detector(
        peak_photons=float(photons / jnp.max(signal)), background=tiers.BACKGROUND * photons, gain=tiers.GAIN,
        offset=tiers.OFFSET, read_sigma=tiers.READ_SIGMA,
    )  # fmt: skip
    y = np.asarray(sample(draw.key_of(KEY, modality, "training", index, "noise"), detector, signal), np.float32)
    problem = problem_of(y, modality, parse(known.Spec, known.FIELDS, assumed), geometry=geometry, detector=detector)
    image = np.asarray(problem.operator.crop(wiener(problem).x))
    seen, noise = measured(problem)
    unit = scale_of(image, noise)
    truth = x[draw.field_of(geometry.shape, x.shape)] * detector.peak_photons

    def kept(photons: Any) -> np.ndarray:
        return np.asarray(photons / unit, np.float16)

    numbers = (detector.peak_photons, detector.background, detector.gain, detector.offset, detector.read_sigma)
    return Example(
        kept(truth), kept(image), kept(seen), kept(noise),
        np.asarray(unit / detector.peak_photons, np.float32), y,
        np.array(list(assumed.values()), np.float32), np.array(numbers, np.float32),
    )  # fmt: skip


def _specimen(modality: str, index: int, geometry: Any) -> np.ndarray:
    """Larger than the field, peak 1 in it."""
    rng = random_stream(KEY, modality, "training", index, "family")
    if rng.random() >= OTHER:
        family = str(rng.choice(tiers.families(modality, "public")))
        return draw.accepted_scene(KEY, modality, "training", index, family, geometry)[0]
    family = str(rng.choice(list(scenes.FAMILIES)))
    shape = draw.enlarged(geometry.shape)
    haze, seed = rng.uniform(0.02, tiers.HAZE[1]), int(rng.integers(0, 2**63))
    x = scenes.scene(family, shape=shape, pitch_um=pitch_um(geometry), seed=seed, haze=haze)
    return x / x[draw.field_of(geometry.shape, shape)].max()


def _specs(modality: str, index: int) -> tuple[dict[str, float], dict[str, float]]:
    """True spec over the hull of the tiers' ranges, and what calibration would find."""
    rng, true, assumed = random_stream(KEY, modality, "training", index, "spec"), {}, {}
    for field in resolve(modality).FIELDS:
        true[field.name] = float(np.float32(rng.uniform(field.low, field.high)))
        assumed[field.name] = float(np.float32(true[field.name] + CALIBRATION_ERROR[modality][field.name] * rng.normal()))
    return true, assumed


class Examples:
    """The first `count` examples of a modality, made once and kept in a folder; `load` reads the images into memory."""

    def __init__(self, modality: str, *, count: int, folder: Path | str) -> None:
        self.modality, self.count = modality, count
        self.folder = Path(folder) / f"v{VERSION}" / modality

    def path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.npz"

    def make(self, *, workers: int = 1, progress: Callable[[float, str], None] | None = None) -> None:
        """Make those that are missing; may be stopped and run again, alone or beside others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [i for i in range(self.count) if not self.path(i).exists()]
        keep = partial(_keep, self)
        if workers == 1:
            made: Any = map(keep, missing)
        else:
            import multiprocessing

            pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
            made = pool.map(keep, missing)
        for done, index in enumerate(made, 1):
            if progress is not None:
                progress(done / len(missing), f"example {index}")

    def read(self, index: int) -> Example:
        with np.load(self.path(index), allow_pickle=False) as kept:
            return Example(**{name: kept[name] for name in Example._fields})

    def load(self, names: tuple[str, ...] = ("x", "wiener", "measured", "noise", "unit")) -> dict[str, np.ndarray]:
        """name -> (count, *axes), float16."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for index in range(self.count):
            with np.load(self.path(index), allow_pickle=False) as kept:
                for name in names:
                    rows[name].append(kept[name])
        return {name: np.stack(values) for name, values in rows.items()}


def _keep(examples: Examples, index: int) -> int:
    with replacing(examples.path(index)) as temporary, temporary.open("wb") as file:
        np.savez(file, **example(examples.modality, index)._asdict())
    return index


def default_folder() -> Path:
    """Where examples are kept unless told otherwise: DIFFPHYS_EXAMPLES, or the user's cache."""
    return Path(os.environ.get("DIFFPHYS_EXAMPLES") or Path.home() / ".cache" / "diffphys" / "examples")
