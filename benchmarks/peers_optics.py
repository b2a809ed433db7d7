"""PSF, its gradient, and the joint gradient in image and optics, in this process: diffphys, PyTorch, psfmodels, deepinv.

theta is (z-step nm, spherical aberration waves, specimen index) in every model. Where models differ, the difference is that of
the models; the rows that are the same model say so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers_torch
import torch
from fft_and_rl import ENGINES, compiled
from peers_common import CORES, Contender

import diffphys
from diffphys import confocal

Rows = dict[str, Contender]
Shape = tuple[int, int, int]
THETA = (50.0, 0.1, 1.525)
CONFOCAL, WIDE = "vectorial confocal", "vectorial wide-field"
TORCH = {  # name -> model, how it is labelled, whether diffphys's confocal PSF is what it should return
    "radial": (peers_torch.radial, f"torch, radial Bessel: {CONFOCAL}", "diffphys's algorithm and tables"),
    "pupil": (peers_torch.pupil, f"torch, pupil FFT per plane: {CONFOCAL}", "the same physics; edge of the aperture on pixels"),
    "scalar": (peers_torch.scalar, "torch, pupil FFT per plane: scalar, wide-field", "less physics"),
}


def arrays(shape: Shape) -> dict[str, np.ndarray]:
    """Image, data, and weights of a PSF."""
    rng = np.random.default_rng(0)
    x, y = (rng.poisson(20.0, shape).astype(np.float32) for _ in range(2))
    return {"x": x, "y": y, "target": rng.normal(size=shape).astype(np.float32)}


def psf_rows(shape: Shape, given: dict[str, np.ndarray]) -> tuple[Rows, dict[str, str]]:
    """Value, and value with gradient, of every model."""
    torch.set_num_threads(CORES)
    rows, target, weights, references = {}, jnp.asarray(given["target"]), torch.from_numpy(given["target"]), {}
    for name, geometry in _geometries(shape).items():
        psf = partial(confocal.psf, geometry=geometry)
        both = jax.value_and_grad(lambda spec, psf=psf: jnp.sum(target * psf(spec)))
        value, gradient = compiled("native", psf, _spec()), compiled("native", both, _spec())
        references[name] = np.asarray(value()), _flat(gradient())
        label = f"diffphys, radial Bessel: {name}"
        rows[label] = Contender(value)
        rows[f"{label}; value and gradient of 3"] = Contender(gradient)
    theta = torch.tensor(THETA)
    for name, (make, label, note) in TORCH.items():
        model = make(_geometries(shape)[CONFOCAL])
        reference = references[WIDE if name == "scalar" else CONFOCAL]
        rows[label] = Contender(lambda model=model: model(theta).numpy(), reference[0], note)
        call = partial(peers_torch.weighted, model, weights, theta)
        rows[f"{label}; value and gradient of 3"] = Contender(_numpy(call), reference[1], note)
    absent = {}
    for name, peer in {"psfmodels": _psfmodels, "deepinv": _deepinv}.items():
        try:
            rows |= peer(shape, given["target"])
        except ImportError as error:
            absent[name] = str(error)
    return rows, absent


def joint_rows(shape: Shape, given: dict[str, np.ndarray]) -> tuple[Rows, dict[str, str]]:
    """|y - h(theta) * x|^2 (circular) with its gradients in x and theta, the PSF included."""
    torch.set_num_threads(CORES)
    rows, x, y, references = {}, jnp.asarray(given["x"]), jnp.asarray(given["y"]), {}
    for name, geometry in _geometries(shape).items():
        instrument = diffphys.bind(confocal, geometry, geometry=None, margin=0)
        loss = jax.value_and_grad(lambda spec, x, at=instrument: jnp.sum((at.apply(spec, x) - y) ** 2), argnums=(0, 1))
        for engine in ENGINES:
            call = compiled(engine, loss, _spec(), x)
            references.setdefault(name, _joint(call))
            rows[f"diffphys, {engine} FFT, radial Bessel: {name}"] = Contender(partial(_joint, call), references[name])
    theta, image, data = torch.tensor(THETA), torch.from_numpy(given["x"]), torch.from_numpy(given["y"])
    for name, (make, label, note) in TORCH.items():
        model = make(_geometries(shape)[CONFOCAL])
        call = _numpy(partial(peers_torch.joint, model, image, data, theta))
        rows[label] = Contender(call, references[WIDE if name == "scalar" else CONFOCAL], note)
    return rows, {}


def _geometries(shape: Shape) -> dict[str, Any]:
    return {CONFOCAL: confocal.Geometry(shape=shape), WIDE: confocal.Geometry(shape=shape, excitation_nm=None)}


def _spec() -> Any:
    return confocal.Spec(*map(jnp.float32, THETA))


def _flat(given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Value, and the gradient in units of its largest entry's."""
    value, spec = given
    return np.asarray(value), np.array([spec.z_step, spec.spherical_aberr, spec.refractive_index])


def _joint(call: Callable[[], Any]) -> tuple[np.ndarray, ...]:
    value, (spec, image) = call()
    return np.asarray(value), np.asarray(image), np.array([spec.z_step, spec.spherical_aberr, spec.refractive_index])


def _numpy(call: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[np.ndarray, ...]]:
    return lambda: tuple(np.asarray(v) for v in call())


def _psfmodels(shape: Shape, target: np.ndarray) -> Rows:
    """Specimen of the immersion's index, the value only; odd and centred, cut to the even grid for the comparison."""
    import psfmodels

    matched = {"NA": 1.4, "ng0": 1.515, "ng": 1.515, "ni0": 1.515, "ni": 1.515, "ns": 1.515, "ti0": 150, "tg": 170, "tg0": 170}
    z = (np.arange(shape[0]) - shape[0] // 2) * 0.2
    ideal = np.asarray(confocal.psf(confocal.nominal(), geometry=_geometries(shape)[WIDE]))
    rows = {}
    for name, function in {"vectorial": psfmodels.vectorial_psf, "scalar": psfmodels.scalar_psf}.items():

        def call(function: Any = function) -> np.ndarray:
            h = function(zv=z, nx=shape[1] + 1, dxy=0.08, pz=0.0, wvl=0.52, params=matched)[:, : shape[1], : shape[2]]
            return h / h.sum()

        note = "no gradient; linear between radii; compared without aberration"
        rows[f"psfmodels, radial integral in C++: {name} wide-field"] = Contender(call, ideal, note)
    return rows


def _deepinv(shape: Shape, target: np.ndarray) -> Rows:
    deepinv = peers_torch.deepinv()
    weights, rows = torch.from_numpy(target), {}
    cut, wave = 1.4 / 0.52 * 0.08, 1.515 / 0.52 * 0.08
    for size in sorted({shape[1], 512}):
        generator = deepinv.physics.generator.DiffractionBlurGenerator3D(
            shape, zernike_index=(11,), fc=cut, kb=wave, pupil_size=(size, size), stepz_pixel=0.2 / 0.08
        )

        def psf(coefficient: Any, generator: Any = generator) -> Any:
            return generator.step(coeff=coefficient)["filter"][0, 0]

        def gradient(psf: Callable[[Any], Any] = psf) -> Any:
            coefficient = torch.zeros(1, 1, requires_grad=True)
            value = (weights * psf(coefficient)).sum()
            return torch.autograd.grad(value, coefficient)[0].numpy()

        label = f"deepinv DiffractionBlurGenerator3D, {size}² pupil: scalar, wide-field"
        note = "no plane in focus: planes at ±nz/2 of nz"
        rows[label] = Contender(lambda psf=psf: psf(torch.zeros(1, 1)).numpy(), None, note)
    rows[f"{label}; value and gradient of 1"] = Contender(gradient)
    return rows
