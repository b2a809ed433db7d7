"""Richardson-Lucy and total variation per iteration in this process: diffphys with both FFTs, scipy, peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers_common as common
from fft_and_rl import ENGINES, compiled
from peers_common import ITERATIONS, TV_SIGMA, TV_TAU, TV_WEIGHT, Contender

from diffphys import confocal
from diffphys.operator import from_psf
from diffphys.reconstruct import richardson_lucy, tv
from diffphys.reconstruct.iterate import Problem

Rows = dict[str, Contender]
PADDED = 2  # iterations and rounds of the rows that pad to eight times the volume


def problem(part: str, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Counts, PSF, flat start, and what scipy makes of them."""
    psf = np.array(jax.jit(lambda s: confocal.psf(s, geometry=confocal.Geometry(shape=shape)))(confocal.nominal()))
    y = np.random.default_rng(0).poisson(20.0, shape).astype(np.float32) + 1.0
    start = np.full(shape, y.mean(), np.float32)
    loop = common.richardson_lucy if part == "richardson_lucy" else common.total_variation
    return {"psf": psf, "y": y, "start": start, "result": loop(y, common.spectrum_of(psf), start)}


def contenders(part: str, given: dict[str, np.ndarray]) -> tuple[Rows, dict[str, str]]:
    """Rows of one part, and the reasons of those that are absent."""
    spectrum, rows = common.spectrum_of(given["psf"]), {}
    for engine in ENGINES:
        rows[f"diffphys, {engine} FFT"] = Contender(_ours(part, given, engine), given["result"], units=ITERATIONS)
    absent = {}
    for name, peer in PEERS.items() if part == "richardson_lucy" else ():
        try:
            rows |= peer(given, spectrum)
        except ImportError as error:
            absent[name] = str(error)
    return rows, absent


def _ours(part: str, given: dict[str, np.ndarray], engine: str) -> Callable[[], Any]:
    y = jnp.asarray(given["y"])
    operator = from_psf(given["psf"], field=y.shape, margin=0)
    fit = jax.jit(richardson_lucy.make_fit)(Problem(operator, y, jnp.float32(0), jnp.float32(0), jnp.ones(3)))
    if part == "richardson_lucy":
        step, state = richardson_lucy.Step(), richardson_lucy.State(richardson_lucy.start(fit))
    else:
        step, x, one = tv.Step("gaussian"), jnp.asarray(given["start"]), jnp.float32(1)
        sizes = (jnp.float32(TV_WEIGHT), jnp.ones(3), jnp.float32(TV_TAU), jnp.float32(TV_SIGMA), jnp.float32(TV_SIGMA))
        fit = tv.Fit(operator, y, jnp.float32(0), one, *sizes)
        state = tv.State(x, x, jnp.zeros_like(y), (jnp.zeros_like(y),) * 3)
    return compiled(engine, lambda f, s: jax.lax.fori_loop(0, ITERATIONS, lambda _, s: step(f, s)[0], s).x, fit, state)


def _torch(given: dict[str, np.ndarray], spectrum: np.ndarray) -> Rows:
    import peers_torch
    import torch

    torch.set_num_threads(common.CORES)
    call = partial(peers_torch.richardson_lucy, torch.from_numpy(given["y"]), torch.from_numpy(spectrum), ITERATIONS)
    return {"torch, plain loop": Contender(call, given["result"], units=ITERATIONS)}


def _deepinv(given: dict[str, np.ndarray], spectrum: np.ndarray) -> Rows:
    import torch
    from peers_torch import deepinv as load

    deepinv = load()
    y, psf = (torch.from_numpy(given[k])[None, None] for k in ("y", "psf"))
    blur = deepinv.physics.Blur(filter=psf / psf.sum(), padding="circular", use_fft=True)
    solver = deepinv.optim.MLEM(max_iter=ITERATIONS)

    def call() -> np.ndarray:
        with torch.no_grad():
            return solver(y, blur)[0, 0].numpy()

    note = "with its own bookkeeping and A^T 1"
    return {"deepinv MLEM": Contender(call, given["result"], note, units=ITERATIONS)}


def _redlionfish(given: dict[str, np.ndarray], spectrum: np.ndarray) -> Rows:
    """It starts from the image: so does what it is compared with. It normalises: the sum is put back."""
    from RedLionfishDeconv import RLDeconv3DScipy as peer

    y, psf = given["y"], given["psf"]
    circular = common.richardson_lucy(y, spectrum, y)

    def call() -> np.ndarray:
        x = peer.doRLDeconvolution_DL2_4(y, psf, niter=ITERATIONS)
        return x * (circular.sum() / x.sum())

    note = "starts from the image; turns the PSF about another voxel"
    padded = partial(peer.doRLDeconvolution12, y, psf, niter=PADDED)
    return {
        "RedLionfish, circular": Contender(call, circular, note, units=ITERATIONS),
        "RedLionfish, padded": Contender(padded, None, "zero outside, eight times the volume", units=PADDED, rounds=PADDED),
    }


def _sdeconv(given: dict[str, np.ndarray], spectrum: np.ndarray) -> Rows:
    import torch
    from sdeconv.deconv import SRichardsonLucy

    solver = SRichardsonLucy(torch.from_numpy(given["psf"]), niter=ITERATIONS)
    reference = common.richardson_lucy(given["y"], spectrum, given["y"])
    note = "starts from the image; mirrors the PSF along two of three axes"
    return {"sdeconv": Contender(lambda: solver(torch.from_numpy(given["y"])).numpy(), reference, note, units=ITERATIONS)}


def _scikit_image(given: dict[str, np.ndarray], spectrum: np.ndarray) -> Rows:
    from skimage.restoration import richardson_lucy as peer

    call = partial(peer, given["y"] / given["y"].max(), given["psf"], num_iter=PADDED, clip=False)
    note = "zero outside, eight times the volume"
    return {"scikit-image, padded": Contender(call, None, note, units=PADDED, rounds=PADDED)}


PEERS: dict[str, Callable[[dict[str, np.ndarray], np.ndarray], Rows]] = {
    "torch": _torch,
    "deepinv": _deepinv,
    "RedLionfish": _redlionfish,
    "sdeconv": _sdeconv,
    "scikit-image": _scikit_image,
}
