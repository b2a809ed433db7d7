"""The joint estimator: image and spec together, by gradient descent on one objective. Offered and measured; never the default.

    min over x >= 0 and spec in its ranges of   -log p(y | H(spec) x + b) + w TV(x)

Why it is biased. A sharp PSF with a smooth image and a blurred PSF with a rough image explain the data about equally well,
and total variation prefers the smooth image: the objective falls towards the sharpest PSF that the ranges allow, also from
the truth ("no-blur" solution; Levin et al., CVPR 2009). More photons do not cure it, since as many unknowns as data are
maximised over. `diffphys.calibrate` integrates over the image instead; benchmarks/joint_bias.py has both in one table. What
the ratio of frames tells (SHG: phase_matching_error from two frames on) the joint estimator finds as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.blind import checked
from diffphys.noise import Detector, to_photons
from diffphys.operator import Instrument, bind
from diffphys.reconstruct.differences import gradient
from diffphys.reconstruct.iterate import CHUNK, Callback, Problem, noise_weight, run
from diffphys.reconstruct.richardson_lucy import make_fit, start
from diffphys.reconstruct.tv import STRENGTH
from diffphys.spec import Box, as_vector, from_vector, parse_ranges, pitch_um
from diffphys.types import Array, Modality, Reconstruction, resolve

SCHEMES = {"simultaneous": (("image", "spec"),), "alternating": (("image",), ("spec",))}
OPTIMISERS = ("adam", "lbfgs")
RATE = 0.05  # Adam's: of the image's scale, and of half a range
SMOOTH = 0.02  # of the mean image: below it a difference counts quadratically, so that TV has a gradient
EDGE = 0.999  # of the range: nearest that a start may lie to its end
FLOOR = 1e-6  # photons
SETTLED = 1e-5  # relative gain of the objective over a chunk of updates


class Joint(NamedTuple):
    """Result: the spec and the image where the objective ended; the curve is the objective in nats."""

    spec: Any
    reconstruction: Reconstruction


class Setting(NamedTuple):
    """Constants of a run, in photons. `scale` is the mean image."""

    instrument: Instrument
    counts: Array
    pedestal: Array
    weight: Array
    pitch: Array
    scale: Array
    box: Box


class State(NamedTuple):
    """`x`: image before softplus and scale; `theta`: box-scaled spec before tanh; one optimiser's memory per block."""

    x: Array
    theta: Array
    memory: tuple[Any, ...]


def image_of(setting: Setting, x: Array) -> Array:
    """Specimen in photons, positive; shape of the specimen."""
    return setting.scale * jax.nn.softplus(x)


def spec_of(setting: Setting, theta: Array) -> Any:
    """The spec, inside its ranges."""
    modality = setting.instrument.modality
    return from_vector(modality.Spec, modality.FIELDS, setting.box.decode(jnp.tanh(theta)))


def objective(setting: Setting, x: Array, theta: Array) -> Array:
    """Nats: Poisson misfit relative to a perfect fit, read-noise variance added to data and model, plus smoothed TV."""
    image = image_of(setting, x)
    mean = jnp.maximum(setting.instrument.apply(spec_of(setting, theta), image) + setting.pedestal, FLOOR)
    y = setting.counts
    misfit = jnp.sum(mean - y + jnp.where(y > 0, y * jnp.log(jnp.where(y > 0, y, 1.0) / mean), 0.0))
    slopes = sum((g**2 for g in gradient(image, setting.pitch)), (SMOOTH * setting.scale) ** 2)
    return misfit + setting.weight * jnp.sum(jnp.sqrt(slopes) - SMOOTH * setting.scale)


@dataclass(frozen=True)
class Step:
    """One update of every block in turn; the value is the objective before it."""

    scheme: str
    optimiser: str

    @property
    def rule(self) -> Any:
        import optax  # heavy: loaded where it is used

        return optax.adam(RATE) if self.optimiser == "adam" else optax.lbfgs(memory_size=8)

    def init(self, x: Array, theta: Array) -> State:
        parts = {"image": x, "spec": theta}
        return State(x, theta, tuple(self.rule.init({n: parts[n] for n in block}) for block in SCHEMES[self.scheme]))

    def __call__(self, setting: Setting, state: State) -> tuple[State, Array]:
        parts, memories, values = {"image": state.x, "spec": state.theta}, [], []
        for block, memory in zip(SCHEMES[self.scheme], state.memory, strict=True):
            others = {n: v for n, v in parts.items() if n not in block}

            def value_of(part: dict[str, Array], others: dict[str, Array] = others) -> Array:
                everything = {**others, **part}
                return objective(setting, everything["image"], everything["spec"])

            here = {n: parts[n] for n in block}
            value, slope = jax.value_and_grad(value_of)(here)
            told = {} if self.optimiser == "adam" else {"value": value, "grad": slope, "value_fn": value_of}
            change, memory = self.rule.update(slope, memory, here, **told)
            parts |= jax.tree.map(jnp.add, here, change)
            memories.append(memory)
            values.append(value)
        return State(parts["image"], parts["spec"], tuple(memories)), values[0]


def joint(
    y: Any,
    modality: Modality | str,
    *,
    geometry: Any,
    detector: Detector,
    spec: Any = None,
    ranges: Mapping[str, Sequence[float]] | None = None,
    weight: float | None = None,
    scheme: str = "simultaneous",
    optimiser: str = "lbfgs",
    iterations: int = 200,
    callback: Callback | None = None,
) -> Joint:
    """Image and spec at once by `jax.grad`; biased, see the head of this file.

    Args:
        y: counts, (z, y, x) confocal or (frame, y, x) SHG.
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        geometry: nominal instrument.
        detector: gain, offset, background, read noise.
        spec: start; the nominal spec if None.
        ranges: name -> (low, high) replaces a default range; low == high fixes that parameter.
        weight: of the total variation, nats per photon of difference; None: the noise's, as in TV reconstruction.
        scheme: "simultaneous", or "alternating" between one step of the image and one of the spec.
        optimiser: "adam" or "lbfgs" (optax).
        iterations: updates.
        callback: (iterations done, objective) -> False to stop.

    Returns:
        `Joint`; its reconstruction's status is CONVERGED, OUT_OF_STEPS, NONFINITE or INTERRUPTED.

    Raises:
        ValueError: counts of another shape or not finite, an unknown scheme or optimiser, ranges that the model does not cover.
    """
    modality = resolve(modality)
    if scheme not in SCHEMES or optimiser not in OPTIMISERS:
        raise ValueError(f"scheme is {scheme!r}, optimiser {optimiser!r}; expected {list(SCHEMES)} and {list(OPTIMISERS)}")
    y = checked(y, modality, geometry)
    box = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), ranges)
    modality.check_ranges(box, geometry)
    nominal = modality.nominal(geometry) if spec is None else spec
    setting = prepare(
        nominal, y, modality, geometry=geometry, detector=detector, box=Box.of(modality.FIELDS, box), weight=weight
    )
    step = Step(scheme, optimiser)
    unit = jnp.clip(setting.box.encode(as_vector(nominal, modality.FIELDS)), -EDGE, EDGE)
    flat = jnp.full(setting.instrument.specimen, float(np.log(np.expm1(1.0))), jnp.float32)

    def settled(values: Sequence[float]) -> bool:
        return len(values) > CHUNK and values[-1 - CHUNK] - values[-1] < SETTLED * abs(values[-1])

    options: dict[str, Any] = {"iterations": iterations, "finished": settled, "callback": callback}
    ended = run(step, setting, step.init(flat, jnp.arctanh(unit)), **options)
    image, found = image_of(setting, ended.state.x), spec_of(setting, ended.state.theta)
    operator = setting.instrument.at(found)
    prediction = operator.apply(image) * detector.gain + detector.offset + detector.gain * detector.background
    restored = Reconstruction(
        image=np.asarray(operator.crop(image) / detector.peak_photons),
        status=ended.status,
        iterations=len(ended.values),
        curve=ended.values,
        curve_name="objective (nats)",
        prediction=np.asarray(prediction),
    )
    return Joint(found, restored)


def prepare(
    spec: Any, y: Any, modality: Modality, *, geometry: Any, detector: Detector, box: Box, weight: float | None = None
) -> Setting:
    """Constants of a run; the default weight is that of TV reconstruction at `spec`."""
    instrument = bind(modality, geometry)
    photons = jnp.asarray(to_photons(detector, jnp.asarray(y, jnp.float32)), jnp.float32)
    pitch = np.asarray(pitch_um(geometry), np.float32)
    read2 = jnp.float32(detector.read_sigma) ** 2
    problem = Problem(instrument.at(spec), photons, jnp.float32(detector.background), read2, jnp.asarray(pitch / pitch.min()))
    fit = make_fit(problem)
    weight = STRENGTH * noise_weight(problem) if weight is None else weight
    return Setting(
        instrument, fit.counts, fit.pedestal, jnp.float32(weight), problem.pitch, jnp.max(start(fit)), box
    )  # fmt: skip
