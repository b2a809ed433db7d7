"""Speed against peers on the same work: PSF and gradient, Richardson-Lucy, calibration; interleaved in one process.

    python benchmarks/speed.py

Wall minimum and median of process CPU time over interleaved rounds after a warm-up. PSF rows are different models of the same
optics (named), so their times compare algorithms; Richardson-Lucy rows return the same iterate, which is checked.
Result: benchmarks/results/speed.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psfmodels
import scipy.fft
from environment import environment, write
from in_turns import interleave
from skimage.restoration import richardson_lucy as skimage_rl

import diffphys
from diffphys import confocal, demo
from diffphys.operator import from_psf
from diffphys.reconstruct.iterate import Problem
from diffphys.reconstruct.richardson_lucy import State, Step, make_fit, start

RESULTS = Path(__file__).parent / "results"


def psf_and_gradient(shape: tuple[int, int, int], rounds: int, *, peers: bool) -> dict[str, Any]:
    """PSF, value + gradient of three parameters, and psfmodels' PSF on the same grid (odd, centred, as it wants)."""
    geometry = confocal.Geometry(shape=shape)
    spec = confocal.Spec(jnp.float32(50.0), jnp.float32(0.1), jnp.float32(1.525))
    target = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    psf = jax.jit(lambda s: confocal.psf(s, geometry=geometry))
    grad = jax.jit(jax.value_and_grad(lambda s, t: jnp.sum(t * confocal.psf(s, geometry=geometry))))
    contenders: dict[str, Callable[[], Any]] = {
        "diffphys, vectorial confocal PSF": lambda: jax.block_until_ready(psf(spec)),
        "diffphys, PSF value and gradient": lambda: jax.block_until_ready(grad(spec, target)),
    }
    if peers:
        z, nx = (np.arange(shape[0]) - shape[0] // 2) * 0.2, shape[1] + 1
        common = {"zv": z + 10.0, "nx": nx, "dxy": 0.08, "pz": 10.0, "wvl": 0.52}
        parameters = {
            "NA": 1.4,
            "ng0": 1.515,
            "ng": 1.515,
            "ni0": 1.515,
            "ni": 1.515,
            "ns": 1.525,
            "ti0": 150,
            "tg": 170,
            "tg0": 170,
        }
        contenders["psfmodels, vectorial wide-field PSF"] = lambda: psfmodels.vectorial_psf(**common, params=parameters)
        contenders["psfmodels, scalar wide-field PSF"] = lambda: psfmodels.scalar_psf(**common, params=parameters)
    return interleave(contenders, rounds)


def richardson_lucy(shape: tuple[int, int, int], rounds: int, *, iterations: int = 6, image: bool = True) -> dict[str, Any]:
    """Circular Richardson-Lucy per iteration: ours, a scipy loop with the same iterate, its four transforms, scikit-image."""
    rng = np.random.default_rng(0)
    geometry = confocal.Geometry(shape=shape)
    psf = np.asarray(jax.jit(lambda s: confocal.psf(s, geometry=geometry))(confocal.nominal()))
    y = rng.poisson(20.0, shape).astype(np.float32) + 1.0
    operator = from_psf(psf, field=shape, margin=0)
    problem = Problem(operator, jnp.asarray(y), jnp.float32(0), jnp.float32(0), jnp.ones(3))

    @jax.jit
    def ours(problem: Any) -> Any:
        fit, step = make_fit(problem), Step()
        return jax.lax.fori_loop(0, iterations, lambda _, s: step(fit, s)[0], State(start(fit))).x

    spectrum = scipy.fft.rfftn(np.fft.ifftshift(psf).astype(np.float32), workers=2)

    def scipy_loop() -> np.ndarray:
        x = np.full(shape, y.mean(), np.float32)
        for _ in range(iterations):
            mean = scipy.fft.irfftn(scipy.fft.rfftn(x, workers=2) * spectrum, s=shape, workers=2)
            ratio = scipy.fft.rfftn(y / np.maximum(mean, 1e-6), workers=2)
            x = x * np.maximum(scipy.fft.irfftn(ratio * spectrum.conj(), s=shape, workers=2), 0)
        return x

    def four_transforms() -> None:
        for _ in range(iterations):
            for _ in range(2):
                scipy.fft.irfftn(scipy.fft.rfftn(y, workers=2), s=shape, workers=2)

    mine = np.asarray(ours(problem))
    difference = float(np.abs(mine - scipy_loop()).max() / mine.max())
    contenders: dict[str, Callable[[], Any]] = {
        "diffphys": lambda: jax.block_until_ready(ours(problem)),
        "scipy loop": scipy_loop,
        "four scipy transforms": four_transforms,
    }
    if image:
        contenders["scikit-image (padded)"] = partial(skimage_rl, y / y.max(), psf, num_iter=iterations)
    table = interleave(contenders, rounds, per=iterations)
    return {"per_iteration": table, "largest_difference_to_scipy": difference}


def calibration(draws: int) -> dict[str, dict[str, float]]:
    """Blind calibration of 32 x 64 x 64 confocal stacks and pairs of 128 x 128 SHG frames, each called twice: what it needs is
    compiled in the first call, the second is timed. Specimens, specs and photons (100, 1000) change from draw to draw."""
    out = {}
    for modality, geometry, scenes in (
        (confocal, confocal.Geometry(), confocal.scenes),
        (diffphys.shg, diffphys.shg.Geometry(shape=(128, 128), phase_offsets_rad=(0.0, 1.5)), diffphys.shg.scenes),
    ):
        seconds = []
        for seed in range(draws):
            truth, family = demo.random_spec(modality, geometry, seed), scenes.FAMILIES[seed // 2 % 3]
            light = (100.0, 1000.0)[seed % 2]
            measured = demo.simulated(modality, truth, geometry=geometry, family=family, seed=seed, photons=light, offset=0.0)
            for _ in range(2):
                started = time.perf_counter()
                diffphys.calibrate(measured.y, modality, geometry=geometry, detector=measured.detector)
                took = time.perf_counter() - started
            seconds.append(took)
        told = {"min_s": min(seconds), "median_s": float(np.median(seconds)), "max_s": max(seconds)}
        out[modality.NAME] = {"draws": draws, **told}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--draws", type=int, default=24, help="calibrations of each modality")
    options = parser.parse_args()
    few = max(3, options.rounds // 5)
    record = {
        "environment": environment(),
        "psf": {
            "32x64x64": psf_and_gradient((32, 64, 64), options.rounds, peers=True),
            "64x256x256": psf_and_gradient((64, 256, 256), few, peers=True),
        },
        "richardson_lucy": {
            "32x64x64": richardson_lucy((32, 64, 64), options.rounds),
            "64x256x256": richardson_lucy((64, 256, 256), few, image=False),
        },
        "calibration": calibration(options.draws),
    }
    write(RESULTS / "speed.json", record)
    for group, value in record.items():
        if group != "environment":
            print(group, value)


if __name__ == "__main__":
    main()
