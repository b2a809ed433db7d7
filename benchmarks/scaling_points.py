"""One point of benchmarks/scaling.py, in its own process; the last line it prints is the result in JSON.

python benchmarks/scaling_points.py volume EXPONENT SECONDS
python benchmarks/scaling_points.py batch WIDTH DEVICES Z Y X
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

STACKS = 16


def engines() -> tuple[str, ...]:
    """FFTs that this environment has."""
    from diffphys.fft import mkl

    return ("native", "mkl") if mkl.installed() else ("native",)


def shape_of(exponent: int) -> tuple[int, int, int]:
    """2^exponent voxels: lengths that are powers of two, as equal as can be, depth the smallest."""
    return tuple(2 ** ((exponent + k) // 3) for k in range(3))  # type: ignore[return-value]


def volume(exponent: int, seconds: float) -> dict[str, Any]:
    """Richardson-Lucy on a torus with a short PSF: an iteration is four real FFTs of the volume and the passes between them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from diffphys import fft
    from diffphys.operator import from_psf
    from diffphys.reconstruct.iterate import Problem
    from diffphys.reconstruct.richardson_lucy import State, Step, make_fit, start

    shape, iterations = shape_of(exponent), 2 if exponent > 24 else 6
    at = np.meshgrid(*(np.linspace(-2, 2, 7),) * 3, indexing="ij")
    psf = np.exp(-sum(v**2 for v in at)).astype(np.float32)
    y = jax.random.uniform(jax.random.key(0), shape, jnp.float32, 10.0, 30.0)
    operator = from_psf(psf, field=shape, margin=0)
    fit = jax.jit(make_fit)(Problem(operator, y, jnp.float32(0), jnp.float32(0), jnp.ones(3)))

    @jax.jit
    def loop(fit: Any) -> Any:
        step = Step()
        return jax.lax.fori_loop(0, iterations, lambda _, s: step(fit, s)[0], State(start(fit))).x

    jax.block_until_ready(loop(fit))
    wall, cpu = _repeated(lambda: jax.block_until_ready(loop(fit)), seconds, least=2)
    row = {"exponent": exponent, "voxels": 2**exponent, "shape": shape, "fft": fft.choice().name}
    return row | {"seconds": min(wall) / iterations, "cpu_seconds": median(cpu) / iterations, "calls": len(wall)}


def batch(width: int, devices: int, *shape: int) -> dict[str, Any]:
    """`calibrate_batch` after compilation, `width` stacks at a time of those of benchmarks/batch_calibration.py.

    At least the same STACKS for every width: one stack takes several times as long as another.
    """
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    import batch_calibration

    import diffphys

    batch_calibration.SHAPE = shape
    count = max(width, STACKS)
    measured, geometry = batch_calibration.stacks(count), diffphys.confocal.Geometry(shape=shape)
    began = time.perf_counter()

    def call() -> Any:
        return diffphys.calibrate_batch(
            [m.y for m in measured], "confocal_3d", geometry=geometry, detector=[m.detector for m in measured], width=width
        )

    call()
    first = time.perf_counter() - began
    wall, cpu = _repeated(call, 10.0, least=1)
    row = {"width": width, "stacks": count, "devices": len(jax.local_devices()), "first_call_s": first, "calls": len(wall)}
    return row | {"seconds": min(wall), "cpu_seconds": median(cpu), "per_second": count / min(wall)}


def _repeated(call: Callable[[], Any], seconds: float, *, least: int) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of calls until `seconds` are spent; at least `least`, at most 50."""
    wall: list[float] = []
    cpu: list[float] = []
    while len(wall) < least or (sum(wall) < seconds and len(wall) < 50):
        began, busy = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
    return wall, cpu


def main() -> None:
    part, *numbers = sys.argv[1:]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    print(json.dumps(volume(int(numbers[0]), float(numbers[1])) if part == "volume" else batch(*map(int, numbers))))


if __name__ == "__main__":
    main()
