"""Further inputs of the roles deconvolve and refine, computed once per example through the operator and kept beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffphys.benchmark import tiers
from diffphys.io.atomic import replacing
from diffphys.networks.registry import Network
from diffphys.noise import Detector
from diffphys.reconstruct import problem_of
from diffphys.reconstruct.iterate import Solution
from diffphys.reconstruct.learned import Prepared, bank, second_stage, through
from diffphys.spec import parse
from diffphys.train.stream import Example, Examples
from diffphys.types import Status, resolve

NEEDED = ("deconvolve", "refine")
FIRST_STAGE = "restormer_2d"  # whose estimate the role refine starts from


def load(network: Network, examples: Examples, *, progress: Callable[[float, str], None] | None = None) -> np.ndarray:
    """(count, *axes, C) float16 of all examples; those that are missing are made."""
    folder = examples.folder / f"{network.role}_{_version(network)}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(examples.count):
        path = folder / f"{index:05d}.npy"
        if not path.exists():
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, extra(network, examples.modality, examples.read(index)), allow_pickle=False)
        rows.append(np.load(path, allow_pickle=False))
        if progress is not None and index % 10 == 0:
            progress(index / examples.count, f"inputs {index}")
    return np.stack(rows)


def extra(network: Network, modality: str, example: Example) -> np.ndarray:
    """(*axes, C) float16 of one example."""
    problem, ready = prepared(modality, example)
    if network.role == "deconvolve":
        return np.asarray(bank(problem, ready), np.float16)
    first = through(FIRST_STAGE, ready.inputs)[..., 0]
    return np.asarray(second_stage(problem, ready, first), np.float16)


def prepared(modality: str, example: Example) -> tuple[Any, Prepared]:
    """The problem of an example at its assumed spec, and its inputs as they were kept."""
    known, geometry = resolve(modality), tiers.geometry(modality)
    peak, background, gain, offset, read = map(float, example.detector)
    detector = Detector(peak_photons=peak, background=background, gain=gain, offset=offset, read_sigma=read)
    spec = parse(known.Spec, known.FIELDS, dict(zip((f.name for f in known.FIELDS), map(float, example.spec), strict=True)))
    problem = problem_of(example.y, modality, spec, geometry=geometry, detector=detector)
    unit = float(example.unit) * peak
    inputs = np.stack([example.wiener, example.measured, example.noise], axis=-1).astype(np.float32)
    pad = [(w.start, n - w.stop) for w, n in zip(problem.operator.window, problem.operator.specimen, strict=True)]
    around = jnp.pad(unit * inputs[..., 0], pad, mode="symmetric")  # the Wiener image outside the field was not kept
    return problem, Prepared(inputs, unit, Solution(around, Status.CONVERGED, 0, np.zeros(0), ""), ())


def _version(network: Network) -> str:
    """Changes where the inputs would: the first stage's weights."""
    if network.role == "deconvolve":
        return "v1"
    from diffphys.networks.weights import load as load_weights

    return str(load_weights(FIRST_STAGE)[1]["sha256"])[:12]
