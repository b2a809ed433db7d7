"""Worker of benchmarks/peers.py in the environment of a peer that cannot live beside diffphys; it needs numpy and scipy there.

    PEER_PYTHON benchmarks/peers_elsewhere.py {scico,flowdec,chromatix} PART FOLDER ROUNDS

Reads FOLDER/problem.npz, writes FOLDER/rows.json: the peer's rows, and those of scipy in the same process, by which they can be
compared with the rows of other processes.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers_common as common
import scipy.fft
from environment import versions
from peers_common import ITERATIONS, TV_SIGMA, TV_TAU, TV_WEIGHT, Contender

Problem = dict[str, np.ndarray]
OPTICS = {"na": 1.4, "index": 1.515, "wavelength": 0.52, "step": 0.2, "pixel": 0.08}  # micrometres
THETA = (0.05, 0.1, 1.525)  # added to the step (micrometres); spherical aberration (waves rms); index


def yardstick(part: str, given: Problem) -> dict[str, Contender]:
    """The same work in scipy; the first row is what others are divided by."""
    if part in ("psf", "joint"):
        shape = given["x"].shape
        name = "scipy, pupil FFT per plane: scalar, paraxial, wide-field"
        if part == "psf":
            return {name: Contender(partial(pupil_psf, shape))}
        return {f"{name}; value and image gradient only": Contender(partial(_value_and_image_gradient, given))}
    loop = common.richardson_lucy if part == "richardson_lucy" else common.total_variation
    spectrum = common.spectrum_of(given["psf"])
    rows = {}
    for workers in sorted({1, common.CORES}):
        call = partial(loop, given["y"], spectrum, given["start"], workers=workers)
        rows[f"scipy loop, {workers} worker{'s' * (workers > 1)}"] = Contender(call, given["result"], units=ITERATIONS)
    return rows


def pupil_psf(shape: tuple[int, int, int], theta: tuple[float, ...] = THETA) -> np.ndarray:
    """Scalar paraxial wide-field PSF, one FFT per plane, centred on n//2, unit sum."""
    nz, n, _ = shape
    frequency = np.fft.fftfreq(n, OPTICS["pixel"]).astype(np.float32)
    squared = frequency[:, None] ** 2 + frequency**2
    z = (np.arange(nz) - nz // 2) * (OPTICS["step"] + theta[0])
    limit = OPTICS["na"] / OPTICS["wavelength"]
    phase = 2 * np.pi * theta[1] * _spherical(squared / limit**2) - (
        np.pi * OPTICS["wavelength"] / theta[2] * z[:, None, None].astype(np.float32) * squared
    )
    field = scipy.fft.ifft2(np.where(squared <= limit**2, np.exp(1j * phase), 0).astype(np.complex64), workers=common.CORES)
    h = scipy.fft.fftshift(field.real**2 + field.imag**2, axes=(1, 2))
    return h / h.sum()


def _spherical(rho_squared: Any) -> Any:
    return np.sqrt(5).astype(np.float32) * (6 * rho_squared**2 - 6 * rho_squared + 1)


def _value_and_image_gradient(given: Problem) -> tuple[np.ndarray, np.ndarray]:
    spectrum = scipy.fft.rfftn(scipy.fft.ifftshift(pupil_psf(given["x"].shape)), workers=common.CORES)
    back = partial(scipy.fft.irfftn, s=given["x"].shape, workers=common.CORES)
    rest = back(scipy.fft.rfftn(given["x"], workers=common.CORES) * spectrum) - given["y"]
    return np.sum(rest**2), 2 * back(scipy.fft.rfftn(rest, workers=common.CORES) * spectrum.conj())


def flowdec(part: str, given: Problem) -> dict[str, Contender]:
    """flowdec's Richardson-Lucy without padding, in both of its domains."""
    from flowdec.data import Acquisition
    from flowdec.restoration import RichardsonLucyDeconvolver

    data, rows = Acquisition(data=given["y"], kernel=given["psf"]), {}
    for domain, real in (("complex FFT", False), ("real FFT", True)):
        solver = RichardsonLucyDeconvolver(3, pad_mode="NONE", real_domain_fft=real).initialize()
        call = lambda solver=solver: solver.run(data, niter=ITERATIONS).data  # noqa: E731
        note = "a TensorFlow session per call" + ("; mirrors the PSF about another voxel" if real else "")
        rows[f"flowdec, no padding, {domain}"] = Contender(call, given["result"], note, units=ITERATIONS)
    return rows


def scico(part: str, given: Problem) -> dict[str, Contender]:
    """scico's circular convolution and optimiser."""
    import jax
    import jax.numpy as jnp
    from scico import linop

    y, start = jnp.asarray(given["y"]), jnp.asarray(given["start"])
    h = jnp.asarray(scipy.fft.ifftshift(given["psf"] / given["psf"].sum()).astype(np.float32))
    blur = linop.CircularConvolve(h, input_shape=y.shape, input_dtype=np.float32)
    if part == "total_variation":
        return {"scico PDHG": Contender(_scico_pdhg(blur, y, start), given["result"], units=ITERATIONS + 1)}

    def step(x: Any) -> Any:
        return x * jnp.maximum(blur.adj(y / jnp.maximum(blur(x), 1e-6)), 0)

    def python_loop() -> Any:
        x = start
        for _ in range(ITERATIONS):
            x = step(x)
        return jax.block_until_ready(x)

    loop = jax.jit(lambda x: jax.lax.fori_loop(0, ITERATIONS, lambda _, x: step(x), x))
    return {
        "scico operator, jitted loop": Contender(lambda: jax.block_until_ready(loop(start)), given["result"], units=ITERATIONS),
        "scico operator, Python loop": Contender(python_loop, given["result"], units=ITERATIONS),
    }


def _scico_pdhg(blur: Any, y: Any, start: Any) -> Callable[[], Any]:
    """Steps of scico's optimiser, one more than of the others: its first only fills the duals, x stays at the start."""
    import jax
    from scico import functional, linop, loss
    from scico.optimize import PDHG

    both = linop.VerticalStack([blur, linop.FiniteDifference(y.shape, input_dtype=np.float32, append=0)])
    terms = functional.SeparableFunctional([loss.SquaredL2Loss(y), TV_WEIGHT * functional.L21Norm()])
    positive = functional.NonNegativeIndicator()

    def call() -> Any:
        solver = PDHG(positive, terms, both, tau=TV_TAU, sigma=TV_SIGMA, x0=start)
        for _ in range(ITERATIONS + 1):
            solver.step()
        return jax.block_until_ready(solver.x)

    return call


def chromatix(part: str, given: Problem) -> dict[str, Contender]:
    """chromatix' scalar paraxial 4f microscope, alone and with a JAX convolution behind it."""
    import jax
    import jax.numpy as jnp

    shape, theta = given["x"].shape, jnp.asarray(THETA, jnp.float32)
    x, y, target = (jnp.asarray(given[k]) for k in ("x", "y", "target"))
    psf = jax.jit(partial(_chromatix_psf, shape))

    def misfit(theta: Any, x: Any) -> Any:
        spectrum = jnp.fft.rfftn(jnp.fft.ifftshift(_chromatix_psf(shape, theta)))
        return jnp.sum((jnp.fft.irfftn(jnp.fft.rfftn(x) * spectrum, s=shape) - y) ** 2)

    model = "chromatix, pupil FFT per plane: scalar, paraxial, wide-field"
    if part == "psf":
        value = jax.jit(jax.value_and_grad(lambda theta: jnp.sum(target * _chromatix_psf(shape, theta))))
        return {
            model: Contender(lambda: jax.block_until_ready(psf(theta)), pupil_psf(shape)),
            f"{model}; value and gradient of 3": Contender(lambda: jax.block_until_ready(value(theta))),
        }
    joint = jax.jit(jax.value_and_grad(misfit, argnums=(0, 1)))

    def call() -> Any:
        value, (_, image) = jax.block_until_ready(joint(theta, x))
        return value, image

    return {f"{model}; JAX convolution": Contender(call, _value_and_image_gradient(given))}


def _chromatix_psf(shape: tuple[int, int, int], theta: Any) -> Any:
    import jax.numpy as jnp
    from chromatix.functional import ff_lens, objective_point_source, phase_change

    (nz, n, _), focal = shape, 2000.0
    spacing = focal * OPTICS["wavelength"] / (OPTICS["index"] * n * OPTICS["pixel"])
    radius = focal * OPTICS["na"] / OPTICS["index"]
    at = (np.arange(n) - n // 2) * spacing / radius
    mask = _spherical(at[:, None] ** 2 + at**2).astype(np.float32)
    z = (jnp.arange(nz) - nz // 2) * (OPTICS["step"] + theta[0])
    # the pupil's coordinates are those of the nominal index: that is where the grid was laid
    field = objective_point_source(
        (n, n), spacing, OPTICS["wavelength"], z * OPTICS["index"] / theta[2], focal, OPTICS["index"], OPTICS["na"]
    )
    h = ff_lens(phase_change(field, 2 * jnp.pi * theta[1] * mask), focal, OPTICS["index"]).intensity.reshape(shape)
    return h / h.sum()


PEERS = {"scico": scico, "flowdec": flowdec, "chromatix": chromatix}
PARTS = {"scico": ("richardson_lucy", "total_variation"), "flowdec": ("richardson_lucy",), "chromatix": ("psf", "joint")}
PACKAGES = ("scico", "flowdec", "chromatix", "jax", "jaxlib", "tensorflow-cpu", "numpy", "scipy")


def main() -> None:
    name, part, folder, rounds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    with np.load(folder / "problem.npz") as file:
        given = {k: file[k] for k in file.files}
    rows = common.measure(yardstick(part, given) | PEERS[name](part, given), rounds)
    (folder / "rows.json").write_text(json.dumps({"rows": rows, "versions": versions(PACKAGES)}))


if __name__ == "__main__":
    main()
