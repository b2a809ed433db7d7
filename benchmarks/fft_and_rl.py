"""FFT pairs, Richardson-Lucy and the joint gradient, with JAX's FFT and with MKL's, against scipy; interleaved in one process.

    pip install 'diffphys[mkl]' pyfftw && python benchmarks/fft_and_rl.py

Wall minimum and median of process CPU time over interleaved rounds after a warm-up, in ms. On a shared machine trust the CPU
time first. All rows of a table return the same numbers, which is checked. Rows of what is not installed are absent.
Result: benchmarks/results/fft_and_rl.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from environment import environment, write
from in_turns import interleave

import diffphys
from diffphys import confocal, fft
from diffphys.operator import from_psf
from diffphys.reconstruct.iterate import Problem
from diffphys.reconstruct.richardson_lucy import State, Step, make_fit, start

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # threads that wait do not spin: torch is loaded later
RESULTS = Path(__file__).parent / "results"
ITERATIONS = 6
ENGINES = ("native", "mkl") if fft.choice().name == "mkl" else ("native",)
Contenders = dict[str, Callable[[], Any]]


def compiled(engine: str, function: Callable, *arguments: Any) -> Callable[[], Any]:
    """The function with one of the two FFTs, compiled for its arguments; calling it blocks."""
    chosen = fft.choice
    fft.choice = lambda: fft.Choice(engine, "benchmark")  # type: ignore[assignment]
    jax.clear_caches()
    try:
        program = jax.jit(function).lower(*arguments).compile()
    finally:
        fft.choice = chosen
    return lambda: jax.block_until_ready(program(*arguments))


def pairs(shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """One r2c and one c2r over all axes."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def pair(v: Any) -> Any:
        return fft.irfftn(fft.rfftn(v, shape), shape)

    contenders: Contenders = {f"JAX, {engine}": compiled(engine, pair, jnp.asarray(x)) for engine in ENGINES}
    for workers in (1, 2):
        share = {"workers": workers}
        contenders[f"scipy, workers={workers}"] = lambda s=share: scipy.fft.irfftn(scipy.fft.rfftn(x, **s), s=shape, **s)
    contenders |= _fftw(x) | _torch(x)
    difference = max(float(np.abs(np.asarray(call()) - x).max()) for call in contenders.values()) / float(np.abs(x).max())
    return {"pair": interleave(contenders, rounds), "largest_difference": difference, "rounds": rounds}


def _fftw(x: np.ndarray) -> Contenders:
    """FFTW as a yardstick (GPL: nothing of it is part of the package): planned by measuring, its own buffers."""
    try:
        import pyfftw
    except ImportError:
        return {}
    real = pyfftw.empty_aligned(x.shape, "float32")
    half = pyfftw.empty_aligned((*x.shape[:-1], x.shape[-1] // 2 + 1), "complex64")
    plan = partial(pyfftw.FFTW, axes=tuple(range(x.ndim)), flags=("FFTW_MEASURE",), threads=1)
    there, back = plan(real, half), plan(half, real, direction="FFTW_BACKWARD")

    def pair() -> np.ndarray:
        real[:] = x
        there()
        return back()

    return {"pyFFTW, 1 thread": pair}


def _torch(x: np.ndarray) -> Contenders:
    """PyTorch's transforms (MKL), on one thread and on two."""
    torch = _torch_module()
    if torch is None:
        return {}
    v = torch.from_numpy(x)

    def pair(threads: int) -> Any:
        torch.set_num_threads(threads)
        return torch.fft.irfftn(torch.fft.rfftn(v), s=v.shape)

    return {f"torch, {n} thread{'s' * (n > 1)}": partial(pair, n) for n in (1, 2)}


def _torch_module() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def _torch_loop(y: np.ndarray, spectrum: np.ndarray, threads: int) -> np.ndarray:
    torch = _torch_module()
    torch.set_num_threads(threads)
    counts, h = torch.from_numpy(y), torch.from_numpy(spectrum)
    back, there, hc = partial(torch.fft.irfftn, s=counts.shape), torch.fft.rfftn, h.conj()
    x = torch.full_like(counts, float(counts.mean()))
    for _ in range(ITERATIONS):
        ratio = counts / back(there(x) * h).clamp_(min=1e-6)
        x = x * back(there(ratio) * hc).clamp_(min=0)
    return x.numpy()


def richardson_lucy(shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Circular Richardson-Lucy per iteration: alone and with its curve, its four transforms, and the loops in scipy."""
    psf = np.asarray(jax.jit(lambda s: confocal.psf(s, geometry=confocal.Geometry(shape=shape)))(confocal.nominal()))
    y = np.random.default_rng(0).poisson(20.0, shape).astype(np.float32) + 1.0
    operator = from_psf(psf, field=shape, margin=0)
    problem = Problem(operator, jnp.asarray(y), jnp.float32(0), jnp.float32(0), jnp.ones(3))
    fit, step = jax.jit(make_fit)(problem), Step()

    def loop(fit: Any) -> Any:
        return jax.lax.fori_loop(0, ITERATIONS, lambda _, s: step(fit, s)[0], State(start(fit))).x

    def loop_with_curve(fit: Any) -> Any:
        return jax.lax.scan(lambda s, _: step(fit, s), State(start(fit)), length=ITERATIONS)

    def four_transforms(v: Any) -> Any:
        def one(_: int, v: Any) -> Any:
            for _ in range(2):
                v = fft.irfftn(fft.rfftn(v, shape), shape)
            return v

        return jax.lax.fori_loop(0, ITERATIONS, one, v)

    contenders: Contenders = {}
    for engine in ENGINES:
        contenders[f"diffphys, {engine}"] = compiled(engine, loop, fit)
        contenders[f"diffphys with its curve, {engine}"] = compiled(engine, loop_with_curve, fit)
        contenders[f"four transforms, {engine}"] = compiled(engine, four_transforms, fit.counts)
    images = [np.asarray(contenders[f"diffphys, {engine}"]()) for engine in ENGINES]
    spectrum = scipy.fft.rfftn(scipy.fft.ifftshift(psf / psf.sum()).astype(np.float32))
    for workers in (1, 2):
        contenders[f"scipy loop, workers={workers}"] = call = partial(_scipy_loop, y, spectrum, workers)
        contenders[f"four scipy transforms, workers={workers}"] = partial(_scipy_four, y, workers)
        images.append(call())
    if _torch_module() is not None:
        for threads in (1, 2):
            contenders[f"torch loop, {threads} thread{'s' * (threads > 1)}"] = call = partial(_torch_loop, y, spectrum, threads)
            images.append(call())
    difference = max(float(np.abs(image - images[0]).max()) for image in images) / float(images[0].max())
    table = interleave(contenders, rounds, per=ITERATIONS)
    return {"per_iteration": table, "largest_difference": difference, "rounds": rounds}


def _scipy_loop(y: np.ndarray, spectrum: np.ndarray, workers: int) -> np.ndarray:
    there, back = partial(scipy.fft.rfftn, workers=workers), partial(scipy.fft.irfftn, s=y.shape, workers=workers)
    x = np.full(y.shape, y.mean(), np.float32)
    for _ in range(ITERATIONS):
        ratio = y / np.maximum(back(there(x) * spectrum), 1e-6)
        x = x * np.maximum(back(there(ratio) * spectrum.conj()), 0)
    return x


def _scipy_four(y: np.ndarray, workers: int) -> None:
    for _ in range(2 * ITERATIONS):
        scipy.fft.irfftn(scipy.fft.rfftn(y, workers=workers), s=y.shape, workers=workers)


def joint_gradient(shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Value and gradient of |y - h(spec) (*) x|^2 in the image and the three instrument parameters, the PSF included."""
    rng = np.random.default_rng(0)
    instrument = diffphys.bind(confocal, confocal.Geometry(shape=shape), geometry=None, margin=0)
    spec = confocal.Spec(jnp.float32(50.0), jnp.float32(0.1), jnp.float32(1.525))
    x, y = (jnp.asarray(rng.poisson(20.0, shape), jnp.float32) for _ in range(2))

    def loss(spec: Any, x: Any, y: Any) -> Any:
        return jnp.sum((instrument.apply(spec, x) - y) ** 2)

    gradient = jax.value_and_grad(loss, argnums=(0, 1))
    contenders = {f"diffphys, {engine}": compiled(engine, gradient, spec, x, y) for engine in ENGINES}
    given = [jax.tree.leaves(call()) for call in contenders.values()]
    difference = max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for g in given for a, b in zip(g, given[0], strict=True))
    return {"joint_gradient": interleave(contenders, rounds), "largest_difference": difference, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="of the small sizes; the large ones take a quarter")
    rounds = parser.parse_args().rounds
    few = max(3, rounds // 4)
    extra = [name for name in ("mkl", "tbb", "pyfftw") if _version(name)]
    record = {
        "environment": {**environment(), "extra": {n: _version(n) for n in extra}, "load_average": os.getloadavg()},
        "fft": {"x".join(map(str, s)): pairs(s, n) for s, n in (((32, 64, 64), rounds), ((512, 512), rounds))},
        "richardson_lucy": {"64x256x256": richardson_lucy((64, 256, 256), few)},
        "joint_gradient": {"64x256x256": joint_gradient((64, 256, 256), few)},
    }
    record["fft"]["64x256x256"] = pairs((64, 256, 256), few)
    write(RESULTS / "fft_and_rl.json", record)
    for group in ("fft", "richardson_lucy", "joint_gradient"):
        for size, value in record[group].items():
            print(f"{group} {size}: largest difference {value['largest_difference']:.1e}, n = {value['rounds']}")
            for name, row in next(iter(value.values())).items():
                print(f"  {name:32s} wall min {row['wall_min_ms']:8.2f}  CPU median {row['cpu_median_ms']:8.2f}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
