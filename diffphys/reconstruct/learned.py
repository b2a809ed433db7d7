"""Supervised networks: the calibrated Wiener image, the measured image and its noise in, the restored image out.

One file for all of them, since they differ in their network alone. Weights ship with the package (`networks/shipped`); what a
network was trained on stands in its card. Outside the field, where nothing was recorded, the Wiener image is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.reconstruct.iterate import Callback, Problem, Solution
from diffphys.reconstruct.wiener import white, wiener
from diffphys.types import Array, Status

CURVE = "network passes"
SPREADS = (0.3, 0.1, 0.03, 1.0)  # of the bank's white priors, in units of the image's scale
PULL = 0.05
PITCH = {2: (1.0, 1.0), 3: (2.5, 1.0, 1.0)}  # relative voxel size that the networks were trained at
UNLIKE = 0.25  # log of a size's ratio to it


class Prepared(NamedTuple):
    """What every network starts from: `inputs` (*field, 3) in units of `unit` photons; the Wiener estimate on the specimen."""

    inputs: np.ndarray
    unit: float
    wiener: Solution
    warnings: tuple[str, ...]


def unet(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """U-Net; images and stacks."""
    return _supervised("unet", problem, callback)


def resunet(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """U-Net of residual blocks; images."""
    return _supervised("resunet", problem, callback)


def restormer(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """Transposed-attention transformer; images and stacks."""
    return _supervised("restormer", problem, callback)


def swinir(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """Shifted-window transformer; stacks."""
    return _supervised("swinir", problem, callback)


def care(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """CARE: the mean of a Laplace distribution per voxel, its standard deviation as the uncertainty; images and stacks."""
    from diffphys.train.losses import bounded

    ready = prepare(problem)
    found = turned(name_of("care", problem), ready.inputs)
    spread = np.sqrt(2.0) * np.exp(np.asarray(bounded(jnp.asarray(found[..., 1]))))
    return finished(problem, ready, found[..., 0], callback, uncertainty=spread)


def deconvformer(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """Transformer on Wiener deconvolutions at several strengths, mixed in feature space; images."""
    ready = prepare(problem)
    inputs = np.concatenate([bank(problem, ready), ready.inputs], axis=-1)
    return finished(problem, ready, turned(name_of("deconvformer", problem), inputs)[..., 0], callback)


def restormer_plus(problem: Problem, *, callback: Callback | None = None) -> Solution:
    """Restormer unrolled: its estimate, a data step through the operator, and a second network on both; images."""
    ready = prepare(problem)
    first = through(name_of("restormer", problem), ready.inputs)[..., 0]
    inputs = np.concatenate([second_stage(problem, ready, first), ready.inputs], axis=-1)
    return finished(problem, ready, turned(name_of("restormer_plus", problem), inputs)[..., 0], callback)


def bank(problem: Problem, ready: Prepared) -> np.ndarray:
    """(*field, n) Wiener images under white priors of several spreads. Learned filters commute with them: mixing these is
    deconvolution in feature space (Dong et al., NeurIPS 2020) with a learned regularisation per feature."""
    images = white(problem, jnp.asarray(SPREADS) * ready.unit)
    return np.stack([np.asarray(problem.operator.crop(image)) for image in images], axis=-1) / ready.unit


def second_stage(problem: Problem, ready: Prepared, first: np.ndarray) -> np.ndarray:
    """(*field, 2): the first estimate, and that after a data step which trusts it to PULL times the scale."""
    from diffphys.reconstruct.splitting import data_of, data_step

    x = finished(problem, ready, first, None).x
    pulled = data_step(data_of(problem), x, towards=x, weight=jnp.asarray(1 / (PULL * ready.unit) ** 2, x.dtype))
    return np.stack([first, np.asarray(problem.operator.crop(pulled)) / ready.unit], axis=-1)


def _supervised(family: str, problem: Problem, callback: Callback | None) -> Solution:
    ready = prepare(problem)
    return finished(problem, ready, turned(name_of(family, problem), ready.inputs)[..., 0], callback)


def name_of(family: str, problem: Problem) -> str:
    """Name of the family's network for images or stacks; ValueError where it has none."""
    from diffphys.networks.registry import NETWORKS

    ndim = len(problem.operator.field)
    name = f"{family}_{ndim}d"
    if name not in NETWORKS:
        known = sorted({n.rsplit("_", 1)[0] for n in NETWORKS if n.endswith(f"{ndim}d")})
        raise ValueError(f"{family} has no network for {ndim}-D data; networks that have one: {known}")
    return name


def prepare(problem: Problem) -> Prepared:
    """Wiener estimate and the networks' inputs; kept for the last problem, which several methods may be given in turn."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(problem):
        digest.update(np.asarray(leaf).tobytes())
    key = (digest.hexdigest(), problem.operator.specimen)
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = prepared(problem)
    return _LAST[key]


_LAST: dict[tuple[str, tuple[int, ...]], Prepared] = {}


def prepared(problem: Problem, *, unit: float | None = None, **options: Any) -> Prepared:
    """`prepare` with a stated unit and options of the Wiener filter."""
    from diffphys.networks.inputs import measured, scale_of

    start = wiener(problem, **options)
    image = np.asarray(problem.operator.crop(start.x))
    seen, noise = measured(problem)
    unit = scale_of(image, noise) if unit is None else unit
    inputs = np.stack([image, seen, noise], axis=-1).astype(np.float32) / unit
    return Prepared(inputs, unit, start, unfamiliar(problem))


class Glance(NamedTuple):
    """A specimen, and its standard deviation over that of the linear restoration which it is made from."""

    x: Array
    contrast: float


def glanced(family: str, problem: Problem, *, spectrum: Sequence[float] | None = None) -> Glance:
    """The specimen by one pass on the filter alone: as good where restorations are only compared, and ten times faster."""
    ready = prepared(problem, spectrum=spectrum, iterations=0)
    x = finished(problem, ready, through(name_of(family, problem), ready.inputs)[..., 0], None).x
    linear = np.maximum(ready.inputs[..., 0] * ready.unit, 0.0)
    return Glance(x, float(np.std(problem.operator.crop(x)) / max(float(np.std(linear)), 1e-9)))


def through(name: str, inputs: np.ndarray, *, weights: Any = None) -> np.ndarray:
    """(*axes, C) -> (*axes, outputs) by a network, with its shipped weights unless others are given."""
    return _passes(name, [inputs], weights)[0]


def turned(name: str, inputs: np.ndarray) -> np.ndarray:
    """`through`, averaged over the plane and its half turn, which the optics do not tell apart: 0.05 to 0.1 dB better."""
    straight, half = _passes(name, [inputs, np.ascontiguousarray(np.flip(inputs, (-3, -2)))])
    return (straight + np.flip(half, (-3, -2))) / 2


def _passes(name: str, images: list[np.ndarray], weights: Any = None) -> list[np.ndarray]:
    from diffphys.networks import tiled
    from diffphys.networks.weights import pretrained, program

    run, used = program(name), pretrained(name)[1] if weights is None else weights
    return tiled.apply(lambda part: run(used, part), images, like=name)


def finished(
    problem: Problem, ready: Prepared, image: np.ndarray, callback: Callback | None, *, uncertainty: Any = None
) -> Solution:
    """An image on the field, in units, as a Solution on the specimen; not below zero."""
    field = problem.operator.window
    sound = bool(np.isfinite(image).all())
    corner = tuple(w.start for w in field)
    x = _placed(ready.wiener.x, image, ready.unit, corner) if sound else jnp.maximum(ready.wiener.x, 0.0)
    spread = None if uncertainty is None else jnp.zeros_like(x).at[field].set(jnp.asarray(uncertainty) * ready.unit)
    if callback is not None:
        callback(1, 0.0)
    status = ready.wiener.status if sound else Status.NONFINITE
    return Solution(x, status, 1, np.zeros(0), CURVE, ready.warnings, spread)


@jax.jit
def _placed(around: Array, image: Array, unit: Array, corner: tuple[Array, ...]) -> Array:
    placed = (jnp.maximum(image, 0.0) * unit).astype(around.dtype)
    return jax.lax.dynamic_update_slice(jnp.maximum(around, 0.0), placed, corner)


def familiar(pitch: Any) -> bool:
    """Whether voxels are shaped like those of the training, whatever their unit."""
    pitch = np.asarray(pitch, np.float64)
    return bool(np.max(np.abs(np.log(pitch / pitch.min() / PITCH[len(pitch)]))) < UNLIKE)


def unfamiliar(problem: Problem) -> tuple[str, ...]:
    """A warning where the voxels are not shaped like those of the training."""
    if familiar(problem.pitch):
        return ()
    sizes_of = (np.asarray(problem.pitch), PITCH[len(problem.pitch)])
    seen, known = (" x ".join(f"{p:.2g}" for p in sizes) for sizes in sizes_of)
    return (f"the network was trained on voxels shaped {known}, these are {seen}: check the image",)
