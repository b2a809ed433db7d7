"""How badly a restoration under a spec explains the counts: what tells a spec from its twin, which has the same |OTF|.

A restoration needs an idea of what specimens look like, and the twin whose restoration looks less like one explains the counts
worse. The judge is a network where voxels are shaped like those it was trained at, elsewhere positivity (Richardson-Lucy from
a flat start), to which a haze leaves little to say. Both are valid only between specs that share |OTF|; between others they
prefer the sharper PSF.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.calibrate.lanes import ONE, Lanes, over
from diffphys.cores import at_once
from diffphys.operator import Operator, bind
from diffphys.reconstruct.iterate import Problem
from diffphys.reconstruct.learned import Glance, familiar, glanced
from diffphys.reconstruct.richardson_lucy import restored
from diffphys.reconstruct.wiener import fitted_spectrum
from diffphys.spec import pitch_um
from diffphys.types import Array, Modality

JUDGE = "judge"  # network; U-Net, four times the work, tells specs apart no better
LARGEST = (48, 96, 96)  # the brightest part of a larger stack decides as well
FLOOR = 1e-3  # expected photons
# contrast of a restoration below which it tells nothing: 18 of 18 Gaussian fields lie below, 1 of 24 others (by U-Net 17, 2)
TELLING = 1.015
SAMPLE = 15_000  # frequencies that a specimen's spectrum is fitted to
SETTLED, FITTED = 20, 50  # Richardson-Lucy iterations: to choose between two specs, to measure a small difference


class Case(NamedTuple):
    """Counts in photons with their background, read-noise variance added to both, and the model that may explain them."""

    operator: Operator
    counts: np.ndarray
    background: np.float32
    pitch: np.ndarray


def models(
    photons: np.ndarray, background: float, spec: Any, modality: Modality, geometry: Any, *, largest: tuple[int, ...] = LARGEST
) -> Callable[[Any], Case]:
    """spec -> case, on the part of a stack that decides; all have the margin that the given spec needs, so that they compete on
    the same number of unknowns."""
    part = brightest(photons, largest)
    local = modality.block(geometry, part.shape)
    margin = tuple(w.start for w in bind(modality, spec, geometry=local).window)
    counts, light = np.maximum(part, 0.0).astype(np.float32), np.float32(background)
    pitch = np.asarray(pitch_um(local))
    bound = _bound(modality, local, margin)
    return lambda at: Case(bound(at), counts, light, pitch)


@lru_cache(maxsize=32)
def _bound(modality: Modality, geometry: Any, margin: tuple[int, ...]) -> Callable[[Any], Operator]:
    """`bind`, compiled."""
    return jax.jit(lambda spec: bind(modality, spec, geometry=geometry, margin=margin))


def brightest(photons: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The window of at most `shape` around the centre of light, inside the stack."""
    light = np.maximum(photons - np.median(photons), 0.0)
    corner = []
    for axis, (n, b) in enumerate(zip(photons.shape, shape, strict=True)):
        profile = light.sum(axis=tuple(a for a in range(photons.ndim) if a != axis))
        centre = int(np.argmax(np.convolve(profile, np.ones(min(n, b)), mode="valid")))
        corner.append(slice(centre, centre + min(n, b)))
    return photons[tuple(corner)]


def judge_of(pitch: Any) -> str:
    """Who judges restorations at voxels of this size (any unit)."""
    return "network" if len(pitch) == 3 and familiar(pitch) else "positivity"


class Margin(NamedTuple):
    """Which of two cases explains the counts better.

    Attributes:
        nats: by how many the first does.
        noise: what photon noise alone does to that.
        contrast: of the better restoration, over that of the linear one which its network saw. A network that adds none sees
            a Gaussian field, in which nothing tells the sign of an aberration. Infinite where positivity judges.
    """

    nats: float
    noise: float
    contrast: float = np.inf


def restorations(
    cases: Sequence[Case], judge: str, *, laws: Sequence[Any] | None = None, iterations: int = FITTED, how: Lanes = ONE
) -> list[Glance]:
    """A restoration per case, photons per voxel, on the specimen; `laws` as of `glances`, `iterations` Richardson-Lucy's, whose
    contrast is infinite."""
    if judge == "network":
        return glances(cases, laws=laws)
    return [Glance(x, np.inf) for x in over(_restored, (iterations,), [case[:3] for case in cases], how)]


def glances(cases: Sequence[Case], *, network: str = JUDGE, laws: Sequence[Any] | None = None) -> list[Glance]:
    """A network's restorations; `laws` are the specimens' spectra, fitted where they are not given."""
    spectra = laws_of(cases, "network") if laws is None else laws

    def glance(item: tuple[Case, Any]) -> Glance:
        return glanced(network, _problem(item[0]), spectrum=item[1])

    return at_once(glance, list(zip(cases, spectra, strict=True)), ("glances", network, *_sizes(cases)))


def laws_of(cases: Sequence[Case], judge: str) -> list[Any]:
    """The specimens' spectra as the counts have them; None each where the judge needs none."""
    if judge != "network":
        return [None] * len(cases)
    return at_once(lambda case: fitted_spectrum(_problem(case), sample=SAMPLE)[0], cases, ("laws", *_sizes(cases)))


Pair = tuple[Case, Case]  # of the same counts


def margins(
    pairs: Sequence[Pair], judge: str, *, laws: Sequence[Any] | None = None, iterations: int = FITTED, how: Lanes = ONE
) -> list[Margin]:
    """A margin per pair; `laws` per pair, `iterations` are Richardson-Lucy's."""
    own = laws_of([first for first, _ in pairs], judge) if laws is None else laws
    cases, each = both(pairs, own)
    return compared(pairs, restorations(cases, judge, laws=each, iterations=iterations, how=how))


def both(pairs: Sequence[Pair], laws: Sequence[Any]) -> tuple[list[Case], list[Any]]:
    """The cases of pairs and the law of each: one for both, since fitted to each it would differ by chance."""
    return [case for pair in pairs for case in pair], [law for law in laws for _ in range(2)]


def compared(pairs: Sequence[Pair], found: Sequence[Glance]) -> list[Margin]:
    """A margin per pair from the restorations of both."""
    return [_margin(*pair, *seen) for pair, *seen in zip(pairs, found[::2], found[1::2], strict=True)]


def _margin(one: Case, two: Case, first: Glance, second: Glance) -> Margin:
    nats, noise = _told(one.operator, two.operator, first.x, second.x, one.counts, one.background)
    return Margin(float(nats), float(noise), first.contrast if nats >= 0 else second.contrast)


def _sizes(cases: Sequence[Case]) -> list[Any]:
    """What compiled programs depend on."""
    return sorted({(case.counts.shape, case.operator.specimen) for case in cases})


def _problem(case: Case) -> Problem:
    pitch = jnp.asarray(case.pitch / np.min(case.pitch), jnp.float32)
    return Problem(case.operator, jnp.asarray(case.counts), jnp.asarray(case.background), jnp.zeros(()), pitch)


@jax.jit
def _told(first: Operator, second: Operator, one: Array, two: Array, counts: Array, background: Array) -> tuple[Array, Array]:
    """Log-likelihood ratio without half a margin at each border, and its noise, that of independent counts."""
    for_one, for_two = (jnp.maximum(op.apply(x) + background, FLOOR) for op, x in ((first, one), (second, two)))
    inside = tuple(slice(w.start // 2, n - w.start // 2) for w, n in zip(first.window, first.field, strict=True))
    ratio = jnp.log(for_one / for_two)
    gain = counts * ratio - (for_one - for_two)
    return jnp.sum(gain[inside]), jnp.sqrt(jnp.sum((counts * ratio**2)[inside]))


def _restored(iterations: int, operator: Operator, counts: Array, background: Array) -> Array:
    return restored(operator, counts, background, iterations=iterations)
