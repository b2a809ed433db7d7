"""One accelerator: copy bandwidth, Richardson-Lucy, PSF, joint gradient, a large volume, calibration, networks.

    PYTHONPATH=. python benchmarks/gpu.py --output FILE [--only NAME ...] [--small]

Peers on the same card where they are installed (torch, cupy), interleaved in one process; medians of blocked wall time after a
warm-up call, compilation apart. The record is written after every section, so that a run that is stopped keeps what it has, and
a section that fails leaves its error. `--small` runs every section at sizes that a CPU does in minutes: a check of this file,
no measurement.

Least bytes of one circular Richardson-Lucy iteration on N voxels, single precision, H = nz ny (nx/2 + 1) complex numbers:

    4 real transforms   4 (4 N + 24 H)  two passes each: 4 N real and three times 8 H complex bytes read or written
    2 products          2 (24 H)        image spectrum and transfer function read, one written
    ratio, update       2 (12 N)        two images read, one written, each

Two passes are the least for a 3-D transform of an array that no cache holds: one or two axes in the first, the rest in the
second. One kernel per axis needs three, 4 (4 N + 40 H). Fusing the products into the transforms would save up to 32 H. Ours
also reads the sensitivity, 4 N more. What fits in the card's cache (64 x 256 x 256: 16 MiB an array) may exceed the bandwidth.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import math
import os
import platform
import pstats
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch and cupy share the card

import environment as facts
import jax
import jax.numpy as jnp
import numpy as np
from in_turns import Call, interleave

import diffphys
from diffphys import confocal, demo, fft
from diffphys.calibrate import lanes
from diffphys.noise import Detector, sample
from diffphys.operator import from_psf
from diffphys.reconstruct import problem_with
from diffphys.reconstruct.iterate import Problem
from diffphys.reconstruct.richardson_lucy import State, Step, make_fit, start
from diffphys.scale import memory, settle, solve
from diffphys.scale.plan import Plan, make_plan
from diffphys.scale.tiles import cut, halo_of

Shape = tuple[int, int, int]
SPEC = confocal.Spec(jnp.float32(50.0), jnp.float32(0.1), jnp.float32(1.525))
CHUNK = (32, 128, 128)  # of the volume's plan, as OME-Zarr output has it
SCENES = 8  # distinct specimens and instruments of the calibration; further stacks are new noise on them
PER_SIZE_S = 60  # a batch that takes longer is the last
SHOWN = (
    "bytes_per_s", "wall_median_ms", "share_of_copy", "ms_per_image", "stacks_per_minute", "device_share", "voxels_per_s",
    "largest_difference", "largest_difference_in_sigma", "error",
)  # fmt: skip


@dataclass
class Bench:
    """One run: its size, its clock, what has been measured."""

    small: bool
    seconds: float
    record: dict[str, Any]
    began: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.began)

    @property
    def copy(self) -> float:
        """Bytes per second of a copy; NaN where it was not measured."""
        return float(self.record.get("bandwidth", {}).get("bytes_per_s", math.nan))


def timed(call: Call) -> tuple[Any, float]:
    """What a blocking call returns, and its wall seconds."""
    began = time.perf_counter()
    found = call()
    return found, time.perf_counter() - began


def compiled(function: Callable, *arguments: Any) -> tuple[Call, float]:
    """The function compiled for its arguments, as a call that blocks, and the seconds that compiling took."""
    program, seconds = timed(lambda: jax.jit(function).lower(*arguments).compile())
    return lambda: jax.block_until_ready(program(*arguments)), seconds


def optional(name: str) -> Any:
    """A peer, or None where it is absent or does not work."""
    try:
        return __import__(name)
    except Exception:  # a CUDA package without its driver raises what it likes
        return None


def release() -> None:
    """Give the card back what the peers keep for themselves."""
    gc.collect()
    torch, cupy = optional("torch"), optional("cupy")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.fft.config.get_plan_cache().clear()


def torch_device(torch: Any) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_wait(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory_now(name: str) -> int | None:
    """A number of the device's allocator; None on a CPU."""
    return (jax.devices()[0].memory_stats() or {}).get(name)


# ---- bandwidth


def bandwidth(bench: Bench) -> dict[str, Any]:
    """x + 1 on a large array: bytes read and written per second."""
    count, repeats = (2**20, 2) if bench.small else (2**30, 10)
    x, plus = jnp.zeros(count, jnp.float32), jax.jit(lambda v: v + 1)

    def call() -> None:
        out = x
        for _ in range(repeats):  # queued without waiting: the launches hide behind the copies
            out = plus(out)
        jax.block_until_ready(out)

    row = interleave({"copy": call}, 5, per=repeats)["copy"]
    return {"array_bytes": 4 * count, **row, "bytes_per_s": 8 * count / (1e-3 * row["wall_median_ms"])}


# ---- Richardson-Lucy


def least_bytes(shape: Shape) -> dict[str, int]:
    """Of one iteration, by operation; see the head of this file."""
    n, half = math.prod(shape), shape[0] * shape[1] * (shape[2] // 2 + 1)
    parts = {"transforms": 4 * (4 * n + 24 * half), "products": 2 * 24 * half, "ratio_and_update": 2 * 12 * n}
    return {**parts, "total": sum(parts.values())}


def richardson_lucy(bench: Bench) -> dict[str, Any]:
    """Time per iteration at growing sizes."""
    if bench.small:
        return {"16x32x32": _rl_at(bench, (16, 32, 32), iterations=10, rounds=2)}
    sizes = {(64, 256, 256): (50, 10), (128, 512, 512): (20, 7), (256, 1024, 1024): (10, 5)}
    found = {}
    for shape, (iterations, rounds) in sizes.items():
        found["x".join(map(str, shape))] = _rl_at(bench, shape, iterations=iterations, rounds=rounds)
        release()
    return found


def _rl_at(bench: Bench, shape: Shape, *, iterations: int, rounds: int) -> dict[str, Any]:
    box = confocal.Geometry(shape=tuple(min(n, m) for n, m in zip(shape, (32, 64, 64), strict=True)))
    psf = jax.jit(partial(confocal.psf, geometry=box))(confocal.nominal())  # the time does not depend on the PSF's own size
    counts = jax.random.randint(jax.random.key(0), shape, 1, 41).astype(jnp.float32)
    operator = from_psf(psf, field=shape, margin=0)
    fit = jax.jit(make_fit)(Problem(operator, counts, jnp.float32(0), jnp.float32(0), jnp.ones(3)))
    ours, compile_s = compiled(partial(_our_loop, iterations), fit)
    four, _ = compiled(partial(_four_transforms, shape, iterations), fit.counts)
    y, spectrum = np.asarray(counts), np.asarray(operator.spectrum[0, 0])
    peers = _torch_loop(y, spectrum, iterations) | _cupy_loop(y, spectrum, iterations)
    image = np.asarray(ours())
    difference = {name: float(np.abs(call() - image).max() / image.max()) for name, (call, _) in peers.items()}
    contenders = {"diffphys": ours, "four transforms, JAX": four} | {name: call for name, (_, call) in peers.items()}
    table, least = interleave(contenders, rounds, per=iterations), least_bytes(shape)
    for name, row in table.items():
        moved = least["transforms" if name.startswith("four") else "total"]
        row["share_of_copy"] = moved / (1e-3 * row["wall_median_ms"]) / bench.copy
    told = {"iterations_per_call": iterations, "rounds": rounds, "compile_s": compile_s, "least_bytes": least}
    return {"per_iteration": table, "largest_difference": max(difference.values(), default=None), **told}


def _our_loop(iterations: int, fit: Any) -> Any:
    step = Step()
    return jax.lax.fori_loop(0, iterations, lambda _, s: step(fit, s)[0], State(start(fit))).x


def _four_transforms(shape: Shape, iterations: int, v: Any) -> Any:
    def one(_: int, v: Any) -> Any:
        for _ in range(2):
            v = fft.irfftn(fft.rfftn(v, shape), shape)
        return v

    return jax.lax.fori_loop(0, iterations, one, v)


def _torch_loop(y: np.ndarray, spectrum: np.ndarray, iterations: int) -> dict[str, tuple[Call, Call]]:
    """(its image on the host, the timed call)."""
    torch = optional("torch")
    if torch is None:
        return {}
    device = torch_device(torch)
    counts, h = torch.tensor(y, device=device), torch.tensor(spectrum, device=device)
    back, there, hc = partial(torch.fft.irfftn, s=counts.shape), torch.fft.rfftn, h.conj().resolve_conj()

    def loop() -> Any:
        x = torch.full_like(counts, float(counts.mean()))
        for _ in range(iterations):
            ratio = counts / back(there(x) * h).clamp_(min=1e-6)
            x = x * back(there(ratio) * hc).clamp_(min=0)
        torch_wait(torch)
        return x

    return {f"torch loop, {device}": (lambda: loop().cpu().numpy(), loop)}


def _cupy_loop(y: np.ndarray, spectrum: np.ndarray, iterations: int) -> dict[str, tuple[Call, Call]]:
    cupy = optional("cupy")
    if cupy is None or not cupy.cuda.is_available():
        return {}
    counts, h = cupy.asarray(y), cupy.asarray(spectrum)
    back, there, hc = partial(cupy.fft.irfftn, s=counts.shape), cupy.fft.rfftn, h.conj()

    def loop() -> Any:
        x = cupy.full_like(counts, counts.mean())
        for _ in range(iterations):
            mean = back(there(x) * h)
            ratio = counts / cupy.maximum(mean, np.float32(1e-6), out=mean)
            update = back(there(ratio) * hc)
            x = x * cupy.maximum(update, np.float32(0), out=update)
        cupy.cuda.Device().synchronize()
        return x

    return {"cupy loop": (lambda: cupy.asnumpy(loop()), loop)}


# ---- PSF and joint gradient


def psf(bench: Bench) -> dict[str, Any]:
    """The confocal PSF, and its value with the gradient in three parameters."""
    sizes = ((8, 16, 16),) if bench.small else ((32, 64, 64), (64, 256, 256))
    return {"x".join(map(str, shape)): _psf_at(shape, 2 if bench.small else 20) for shape in sizes}


def _psf_at(shape: Shape, rounds: int) -> dict[str, Any]:
    geometry, target = confocal.Geometry(shape=shape), jax.random.normal(jax.random.key(0), shape)
    value, first = compiled(lambda s: confocal.psf(s, geometry=geometry), SPEC)
    both, second = compiled(jax.value_and_grad(lambda s, t: jnp.sum(t * confocal.psf(s, geometry=geometry))), SPEC, target)
    table = interleave({"PSF": value, "PSF value and gradient": both}, rounds)
    return {"psf": table, "compile_s": [first, second], "rounds": rounds}


def joint_gradient(bench: Bench) -> dict[str, Any]:
    """Value and gradient of |y - h(spec) (*) x|^2 in the image and the instrument, the PSF included, circular."""
    shape, rounds = ((8, 16, 16), 2) if bench.small else ((64, 256, 256), 20)
    instrument = diffphys.bind(confocal, confocal.Geometry(shape=shape), geometry=None, margin=0)
    x, y = (jax.random.randint(jax.random.key(k), shape, 1, 41).astype(jnp.float32) for k in range(2))

    def loss(spec: Any, x: Any, y: Any) -> Any:
        return jnp.sum((instrument.apply(spec, x) - y) ** 2)

    ours, compile_s = compiled(jax.value_and_grad(loss, argnums=(0, 1)), SPEC, x, y)
    contenders = {"diffphys, vectorial confocal, 3 parameters": ours} | _torch_gradient(np.asarray(x), np.asarray(y))
    return {"x".join(map(str, shape)): {"gradient": interleave(contenders, rounds), "compile_s": compile_s, "rounds": rounds}}


def _torch_gradient(x: np.ndarray, y: np.ndarray) -> dict[str, Call]:
    """The same loss on another, simpler model: scalar pupils by FFT per plane, excitation times emission, no pinhole."""
    torch = optional("torch")
    if torch is None:
        return {}
    device = torch_device(torch)
    image, counts = torch.tensor(x, device=device, requires_grad=True), torch.tensor(y, device=device)
    parameters = torch.tensor([50.0, 0.1, 1.525, 0.05], device=device, requires_grad=True)
    there, back = torch.fft.rfftn, partial(torch.fft.irfftn, s=x.shape)

    def call() -> Any:
        spot = _torch_spot(torch, parameters, x.shape, 0.488) * _torch_spot(torch, parameters, x.shape, 0.520)
        loss = ((back(there(spot / spot.sum()) * there(image)) - counts) ** 2).sum()
        found = torch.autograd.grad(loss, (parameters, image))
        torch_wait(torch)
        return found

    return {f"torch, scalar pupil FFT per plane, 4 parameters, {device} (another algorithm)": call}


def _torch_spot(torch: Any, parameters: Any, shape: Any, wavelength_um: float) -> Any:
    """|field|^2 of a pupil in every plane, origin at index 0; z-step (nm), spherical (waves), index, astigmatism (waves)."""
    z_step, spherical, index, astigmatism = parameters
    geometry, frequencies = confocal.Geometry(shape=shape), partial(torch.fft.fftfreq, device=parameters.device)
    fy, fx = frequencies(shape[1], geometry.voxel_um[1])[:, None], frequencies(shape[2], geometry.voxel_um[2])[None, :]
    square, edge = fy**2 + fx**2, geometry.na / wavelength_um
    r2 = square / edge**2
    axial = torch.sqrt(torch.clamp((index / wavelength_um) ** 2 - square, min=1e-2))
    z = frequencies(shape[0], 1 / shape[0]) * (geometry.voxel_um[0] + 1e-3 * z_step)
    waves = spherical * 5**0.5 * (6 * r2**2 - 6 * r2 + 1) + astigmatism * 6**0.5 * (fx**2 - fy**2) / edge**2
    phase = 2 * math.pi * (z[:, None, None] * axial + waves)
    light = torch.fft.ifft2(torch.polar((r2 <= 1).to(phase.dtype).expand_as(phase), phase))
    return light.real**2 + light.imag**2


# ---- calibration


def calibration(bench: Bench) -> dict[str, Any]:
    """Stacks per minute by batch size, the share of the device programs, and whether a batch finds what one alone does."""
    shape, sizes = ((16, 32, 32), (1, 2)) if bench.small else ((32, 64, 64), (1, 16, 64, 256))
    stacks, found, alone, last = simulated(shape, max(sizes)), {}, None, 0.0
    for size in sizes:
        if last > PER_SIZE_S or bench.left < 2 * last:
            found[str(size)] = {"skipped": f"the size before took {last:.0f} s, {bench.left:.0f} s are left"}
            continue
        began = time.perf_counter()
        try:
            row, first = _batch(shape, stacks[:size])
            alone = first if alone is None else alone
            row["largest_difference_in_sigma"] = max(
                abs(first.values[n] - v) / max(alone.sigma[n], 1e-12) for n, v in alone.values.items()
            )
        except Exception as error:  # out of memory at one size: the smaller ones stand
            row = {"error": f"{type(error).__name__}: {error}"[:500]}
        found[str(size)], last = row, time.perf_counter() - began
    if bench.left > 60 or bench.small:
        few = min(16, max(sizes))
        found["host_profile"] = {"stacks": few, "functions": _profiled(lambda: _calibrated(shape, stacks[:few]))}
    return found


def simulated(shape: Shape, count: int) -> list[tuple[np.ndarray, Detector]]:
    """As `demo.simulated` for filaments in mismatched instruments, 300 photons at the brightest voxel; compiled once."""
    geometry = confocal.Geometry(shape=shape)
    forward, draw = jax.jit(partial(confocal.forward, geometry=geometry)), jax.jit(sample)
    margin = [round(demo.MARGIN * n) for n in shape]
    large, inside = [n + 2 * m for n, m in zip(shape, margin, strict=True)], tuple(slice(m, -m) for m in margin)
    scenes, stacks = [], []
    for seed in range(min(count, SCENES)):
        scene = confocal.scene("filaments", shape=tuple(large), seed=seed, haze=0.0, voxel_um=geometry.voxel_um)
        signal = forward(demo.random_spec(confocal, geometry, seed), jnp.asarray(scene / scene[inside].max(), jnp.float32))
        peak = 300.0 / float(jnp.max(signal))
        scenes.append((Detector(peak_photons=peak, background=300.0 * demo.BACKGROUND, read_sigma=1.0), signal))
    for seed in range(count):
        detector, signal = scenes[seed % len(scenes)]
        stacks.append((np.asarray(draw(jax.random.key(seed), detector, signal)), detector))
    return stacks


def _calibrated(shape: Shape, stacks: list[tuple[np.ndarray, Detector]]) -> Any:
    return diffphys.calibrate_batch(
        [y for y, _ in stacks],
        "confocal_3d",
        geometry=confocal.Geometry(shape=shape),
        detector=[detector for _, detector in stacks],
        width=len(stacks),
    )


def _batch(shape: Shape, stacks: list[tuple[np.ndarray, Detector]]) -> tuple[dict[str, Any], Any]:
    """One batch twice, the second with the seconds of every device program; and its first calibration."""
    _, first_s = timed(lambda: _calibrated(shape, stacks))
    programs: dict[str, dict[str, float]] = {}
    with device_programs(programs):
        found, seconds = timed(lambda: _calibrated(shape, stacks))
    device = sum(row["seconds"] for row in programs.values())
    row = {"first_call_s": first_s, "seconds": seconds, "stacks_per_minute": 60 * len(stacks) / seconds}
    return {
        **row,
        "device_s": device,
        "host_s": seconds - device,
        "device_share": device / seconds,
        "programs": programs,
    }, found[0]


@contextmanager
def device_programs(programs: dict[str, dict[str, float]]) -> Iterator[None]:
    """Adds up wall seconds and calls in `lanes.over` by the function that it runs: stacking, transfers, the device."""
    original = lanes._abreast  # what `over` does for each group; the callers hold `over` itself by name

    def watched(fn: Any, *rest: Any) -> Any:
        found, seconds = timed(lambda: original(fn, *rest))
        row = programs.setdefault(getattr(fn, "__name__", str(fn)), {"calls": 0, "seconds": 0.0})
        row["calls"], row["seconds"] = row["calls"] + 1, row["seconds"] + seconds
        return found

    lanes._abreast = watched
    try:
        yield
    finally:
        lanes._abreast = original


def _profiled(call: Call) -> list[list[Any]]:
    """The functions with the most time of their own: where, calls, own seconds, seconds with what they call."""
    profile = cProfile.Profile()
    profile.runcall(call)
    rows = sorted(pstats.Stats(profile).stats.items(), key=lambda item: -item[1][2])[:15]  # type: ignore[attr-defined]
    return [[f"{'/'.join(Path(at[0]).parts[-2:])}:{at[1]} {at[2]}", n, own, total] for at, (_, n, own, total, _) in rows]


# ---- a volume in tiles


def volume(bench: Bench) -> dict[str, Any]:
    """Richardson-Lucy of a volume in host memory, tile by tile into another array, within a share of the card's memory."""
    shape, block = ((32, 64, 64), (16, 32, 32)) if bench.small else ((512, 2048, 2048), (64, 128, 128))
    (y, detector), *_ = simulated(block, 1)
    counts = np.tile(np.clip(y, 0, None).astype(np.uint16), [n // m for n, m in zip(shape, block, strict=True)])
    geometry, spec = confocal.Geometry(shape=shape), confocal.nominal()
    near = diffphys.bind(confocal, spec, geometry=confocal.Geometry(shape=block))
    window = problem_with(y, near, confocal.Geometry(shape=block), detector)
    options = settle.richardson_lucy(window, {"iterations": 10, "stopping": "fixed"}, None)
    halo = halo_of(confocal, spec, geometry)
    core = (32, 32, 64) if bench.small else None  # more than one tile in a check too
    budget = int(0.8 * (memory.device_limit() or 2**32))
    plan, planning_s = timed(
        lambda: make_plan(
            shape, method="richardson_lucy", options=options, halo=halo, budget=budget, held=0, chunk=CHUNK, core=core
        )
    )
    solver = solve.Solver(confocal, spec, geometry, detector, "richardson_lucy", options, halo)
    return {"shape": shape, "planning_s": planning_s, "plan": plan._asdict(), **_restored(solver, plan, counts)}


def _restored(solver: solve.Solver, plan: Plan, counts: np.ndarray) -> dict[str, Any]:
    """All tiles; the first pays for compiling, so the rate is given without it too."""
    out = np.zeros(counts.shape, np.float32)  # the pages are touched by the tiles
    before, stages, tiles = memory_now("peak_bytes_in_use"), {"to_device": 0.0, "iterations": 0.0}, []
    with watched_stages(stages):
        for tile in cut(counts.shape, plan.core, plan.halo):
            image, seconds = timed(partial(solver.solve, tile, counts.__getitem__))
            written = timed(partial(out.__setitem__, tile.core, image))[1]
            tiles.append({"seconds": seconds, "writing_s": written, "voxels": image.size})
    total = sum(t["seconds"] + t["writing_s"] for t in tiles)
    stages["operator_and_back"] = sum(t["seconds"] for t in tiles) - sum(stages.values())
    later = tiles[1:] or tiles
    rate = sum(t["voxels"] for t in later) / sum(t["seconds"] + t["writing_s"] for t in later)
    return {
        "seconds": total,
        "first_tile_s": tiles[0]["seconds"],
        "stages_s": {**stages, "writing": sum(t["writing_s"] for t in tiles)},
        "voxels_per_s": rate,
        "voxels_per_s_with_compiling": out.size / total,
        "tiles": len(tiles),
        "finite": bool(np.isfinite(out[:: max(1, len(out) // 8)]).all()),
        "peak_bytes": memory_now("peak_bytes_in_use"),
        "peak_bytes_before": before,  # of the sections before: where the two are equal, the peak is not the volume's
        "bytes_limit": memory.device_limit(),
    }


@contextmanager
def watched_stages(seconds: dict[str, float]) -> Iterator[None]:
    """Adds up what a solver's tiles spend on counts -> device and on the iterations."""
    problem, known = solve.problem_with, dict(solve.TILED)

    def moved(*given: Any) -> Any:
        found, spent = timed(lambda: jax.block_until_ready(problem(*given)))
        seconds["to_device"] += spent
        return found

    def iterated(method: Callable, given: Any, **options: Any) -> Any:
        found, spent = timed(lambda: method(given, **options))  # blocks: it looks at the values
        jax.block_until_ready(found.x)
        seconds["iterations"] += spent
        return found

    solve.problem_with = moved
    solve.TILED.update({name: one._replace(restore=partial(iterated, one.restore)) for name, one in known.items()})
    try:
        yield
    finally:
        solve.problem_with = problem
        solve.TILED.update(known)


# ---- networks


def inference(bench: Bench) -> dict[str, Any]:
    """Shipped networks, time per image or stack."""
    fields = {2: (32, 32), 3: (8, 16, 16)} if bench.small else {2: (256, 256), 3: (32, 64, 64)}
    found: dict[str, Any] = {}
    for name in ("restormer_2d", "resunet_2d", "unet_3d", "swinir_3d"):
        for batch in (1, 2 if bench.small else 8):
            label, size = f"{name}, batch {batch}", fields[int(name[-2])]
            if bench.left < 0:
                found[label] = {"skipped": "no time is left"}
                continue
            try:
                found[label] = _inferred(name, batch, size, 2 if bench.small else 10)
            except Exception as error:  # one network, the others run
                found[label] = {"error": f"{type(error).__name__}: {error}"[:500]}
    return found


def _inferred(name: str, batch: int, size: tuple[int, ...], rounds: int) -> dict[str, Any]:
    from diffphys.networks.registry import CHANNELS, find  # flax: only this section needs it
    from diffphys.networks.weights import initial, pretrained, program

    run, network = program(name), find(name)
    try:
        weights, source = pretrained(name)[1], "shipped"
    except ValueError:  # a network that is being changed has no weights yet; the time does not depend on them
        weights, source = initial(network), "untrained"
    inputs = jax.random.uniform(jax.random.key(0), (batch, *size, CHANNELS[network.role][0]))

    def call() -> Any:
        return jax.block_until_ready(run(weights, inputs))

    _, first = timed(call)
    row = interleave({name: call}, rounds)[name]
    told = {"field": size, "weights": source, "first_call_s": first, "rounds": rounds}
    return {**told, "ms_per_image": row["wall_median_ms"] / batch}


# ---- all of it


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "bandwidth": bandwidth,
    "richardson_lucy": richardson_lucy,
    "psf": psf,
    "joint_gradient": joint_gradient,
    "volume": volume,  # before the calibration, which takes what time is left
    "calibration": calibration,
    "inference": inference,
}  # the order of importance


def surroundings(commit: str | None) -> dict[str, Any]:
    """As `environment.environment`; a machine with a copy of the files may have no git."""
    try:
        found = facts.environment()
    except OSError:
        found = {"python": platform.python_version(), "versions": {"jax": jax.__version__, "numpy": np.__version__}}
        found |= {"commit": "", "machine": platform.machine(), "cores": os.cpu_count()}
    peers = {n: getattr(optional(n), "__version__", None) for n in ("torch", "cupy")}
    return {**found, "peers": peers, "commit": commit or found["commit"]}


def section(name: str, bench: Bench) -> dict[str, Any]:
    """One section; its error where it fails, so that the others run."""
    if bench.left < 0:
        return {"skipped": f"{bench.seconds:.0f} s are over"}
    try:
        found, seconds = timed(lambda: SECTIONS[name](bench))
        return {**found, "section_s": seconds}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:1000], "traceback": traceback.format_exc()[-3000:]}
    finally:
        release()


def lines(at: str, value: Any) -> Iterator[str]:
    """What the table shows of a record."""
    for name, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield from lines(f"{at} {name}", item)
        elif name in SHOWN and item is not None:
            yield f"{at:90s} {name:28s} {item if isinstance(item, str) else format(item, '.4g')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--small", action="store_true", help="sizes for a check of this file on a CPU")
    parser.add_argument("--seconds", type=float, default=240.0, help="no section starts later than this")
    parser.add_argument("--commit", help="of the working tree, where git cannot tell")
    stated = parser.parse_args()
    record: dict[str, Any] = {"environment": surroundings(stated.commit), "device": jax.devices()[0].device_kind}
    bench = Bench(stated.small, stated.seconds, record | {"small": stated.small})
    for name in (n for n in SECTIONS if n in stated.only):
        bench.record[name] = section(name, bench)
        facts.write(stated.output, bench.record)
        print(f"{name}: {time.perf_counter() - bench.began:.0f} s since the start", flush=True)
    for name in stated.only:
        print(*lines(name, bench.record[name]), sep="\n")


if __name__ == "__main__":
    main()
