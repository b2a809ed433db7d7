"""The real FFT pair: the primitives against NumPy, JAX's derivatives and the dot test; the choice; MKL where it is installed.

Tolerances are shares of the peak. float32 rounding grows like sqrt(log N) from 6e-8, so 1e-6 is far above it and far below any
wrong factor, sign or column.
"""

from __future__ import annotations

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffphys import fft
from diffphys.fft import mkl
from diffphys.fft.primitives import c2r, r2c
from diffphys.primitives.adjoint import dot_test

SHAPES = [(16, 12), (15, 9), (8, 15), (15, 8), (6, 10, 8), (5, 9, 7), (4, 5, 6), (5, 4, 9)]
ALL = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(scope="module", params=["native", "mkl"])
def lowering(request):
    """The primitives lowered to JAX's transforms, then to MKL's for arrays of every size."""
    if request.param == "mkl":
        if mkl.installed() is None:
            pytest.skip("the accelerator is not installed (220 MB): pip install 'diffphys[mkl]'")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mkl, "SMALL", 0)
            mkl.enable(mkl.installed())
            jax.clear_caches()
            yield request.param
        jax.clear_caches()
    else:
        yield request.param


def real(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def spectrum(shape, seed=1):
    """Any half spectrum: not the transform of a real array."""
    half = (*shape[:-1], shape[-1] // 2 + 1)
    return real(half, seed) + 1j * real(half, seed + 1)


def pair(shape):
    """(forward, back) as primitives, and as JAX has them."""
    ndim, axes = len(shape), tuple(range(-len(shape), 0))
    ours = partial(r2c.bind, ndim=ndim), partial(c2r.bind, ndim=ndim, width=shape[-1])
    return ours, (partial(jnp.fft.rfftn, axes=axes), partial(jnp.fft.irfftn, s=shape, axes=axes))


def near(value, expected, tolerance=1e-6):
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape and value.dtype == expected.dtype
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@ALL
def test_values_are_those_of_numpy(shape, lowering):
    (there, back), _ = pair(shape)
    x, z = real((3, *shape)), spectrum((3, *shape))
    axes = tuple(range(1, x.ndim))
    near(jax.jit(there)(x), np.fft.rfftn(np.asarray(x), axes=axes).astype(np.complex64))
    near(jax.jit(back)(z), np.fft.irfftn(np.asarray(z), s=shape, axes=axes).astype(np.float32))
    near(z, spectrum((3, *shape)), 0)  # the caller's spectrum is not overwritten
    assert ("diffphys_mkl_c2r" in jax.jit(back).lower(z).as_text()) == (lowering == "mkl")


@ALL
def test_derivatives_are_those_of_jax(shape, lowering):
    """Forward mode and transposes, on cotangents that no real array has."""
    x, z, dx, dz = real(shape), spectrum(shape), real(shape, 5), spectrum(shape, 7)
    for ours, theirs, at, direction, cotangent in zip(*pair(shape), (x, z), (dx, dz), (dz, dx), strict=True):

        @partial(jax.jit, static_argnums=0)
        def all_modes(fn, at=at, direction=direction, cotangent=cotangent):
            return (*jax.jvp(fn, (at,), (direction,)), jax.vjp(fn, at)[1](cotangent)[0])

        for mine, reference in zip(all_modes(ours), all_modes(theirs), strict=True):
            near(mine, reference)


@pytest.mark.parametrize("shape", [(8, 15), (5, 4, 6)], ids=str)
def test_dot_test_vmap_and_second_derivatives(shape, lowering):
    (there, back), _ = pair(shape)
    key = jax.random.key(0)
    assert dot_test(key, there, real(shape)) < 1e-6
    assert dot_test(key, back, spectrum(shape)) < 1e-6
    stack = jnp.moveaxis(real((3, *shape)), 0, 1)
    near(jax.vmap(there, in_axes=1)(stack), jnp.stack([there(stack[:, k]) for k in range(3)]), 3e-7)

    def loss(x):  # quartic in x, so that its second derivative depends on x
        return jnp.sum(back(there(x) * jnp.conj(there(x))) ** 2)

    def plain(x):
        axes = tuple(range(x.ndim))
        return jnp.sum(jnp.fft.irfftn(jnp.abs(jnp.fft.rfftn(x)) ** 2, s=shape, axes=axes) ** 2)

    x, v = real(shape), real(shape, 3)
    near(*(jax.jit(jax.jvp, static_argnums=0)(jax.grad(f), (x,), (v,))[1] for f in (loss, plain)), 1e-5)


def test_padding_and_cropping_through_the_door(monkeypatch):
    """The two ways through `fft` give the same, also where the array is smaller or larger than the transform."""
    x, z = real((2, 6, 9, 7)), spectrum((2, 6, 9, 7))
    given = {}
    for name in ("native", "mkl"):  # the primitives' own lowering here
        monkeypatch.setattr(fft, "choice", lambda name=name: fft.Choice(name, "test"))
        given[name] = fft.rfftn(x, (8, 5, 9)), fft.irfftn(z, (4, 10, 12)), fft.rfftn(x, (6, 9, 7))
    for mine, theirs in zip(given["mkl"], given["native"], strict=True):
        near(mine, theirs)


def test_the_choice_and_its_refusals(monkeypatch, tmp_path, caplog):
    decide = fft.choice.__wrapped__
    nowhere = mkl.Files("2026", tmp_path / "libmkl_rt.so.3", tmp_path / "libtbb.so.12", tmp_path)
    monkeypatch.setattr(mkl, "folder", lambda part: tmp_path / part)
    for wanted, found, name, why in (
        ("native", nowhere, "native", "DIFFPHYS_FFT=native"),
        ("", None, "native", "not installed: pip install 'diffphys[mkl]'"),
        ("mkl", None, ValueError, "packages mkl and mkl-include are absent; pip install"),
        ("fftw", None, ValueError, "'fftw'; expected native or mkl"),
        ("", nowhere, "native", "does not compile mkl.cc"),
        ("mkl", nowhere, ValueError, "DIFFPHYS_FFT=mkl cannot be had: .* does not compile mkl.cc"),
    ):
        monkeypatch.setenv("DIFFPHYS_FFT", wanted)
        monkeypatch.setattr(mkl, "installed", lambda found=found: found)
        monkeypatch.setenv("CXX", "false")
        if name is ValueError:
            with pytest.raises(ValueError, match=why):
                decide()
            continue
        with caplog.at_level(logging.WARNING):
            got = decide()
        assert got.name == name and why in got.why
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]  # one line, once
    assert not list((tmp_path / "fft").iterdir())  # nothing half-written


def test_without_a_compiler_the_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(mkl, "folder", lambda part: tmp_path / part)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler .*apt-get install g\+\+"):
        mkl.build(mkl.Files("2026", tmp_path, tmp_path, tmp_path))
