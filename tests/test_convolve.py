"""Primitives C and M against SciPy, with every parity, and without wrap-around."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import fftconvolve, oaconvolve

from diffphys.primitives.convolve import convolve, filter_field, otf, padded_shape, smooth_length, support
from diffphys.primitives.detect import detect
from diffphys.primitives.modulate import modulate

RNG = np.random.default_rng(0)


def by_scipy(psf, x, field, method=fftconvolve):
    """Linear convolution whose PSF is centred on n//2, cut to the centred field."""
    full = method(x, psf, mode="full")
    start = [(s - n) // 2 + p // 2 for s, n, p in zip(x.shape, field, psf.shape, strict=True)]
    return full[tuple(slice(a, a + n) for a, n in zip(start, field, strict=True))]


@pytest.mark.parametrize(
    ("specimen", "psf", "field"), list(itertools.product((15, 16, 23), (1, 2, 7, 8, 15, 16, 40), (9, 10, 15)))
)
def test_one_axis_of_every_parity(float64, specimen, psf, field):
    """Specimen, PSF and field of either parity, PSF shorter and longer than the rest; rounding of double FFTs."""
    x, h = RNG.normal(size=specimen), RNG.normal(size=psf)
    ours = convolve(jnp.asarray(h), jnp.asarray(x), field=(field,))
    np.testing.assert_allclose(ours, by_scipy(h, x, (field,)), atol=1e-12)


@pytest.mark.parametrize("psf", [(4, 5, 6), (5, 8, 8), (9, 3, 12)], ids=str)
@pytest.mark.parametrize("field", [(6, 9, 8), (8, 12, 11), None], ids=str)
def test_three_axes(float64, psf, field):
    x, h = RNG.normal(size=(8, 12, 11)), RNG.normal(size=psf)
    ours = convolve(jnp.asarray(h), jnp.asarray(x), field=field)
    np.testing.assert_allclose(ours, by_scipy(h, x, field or x.shape, oaconvolve), atol=1e-12)


def test_float32_against_scipy():
    """Unit-sum PSF on data of order 1: ten units in the last place."""
    x, h = RNG.random((40, 37)), RNG.random((21, 20))
    h /= h.sum()
    ours = convolve(jnp.asarray(h, jnp.float32), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, by_scipy(h, x, x.shape), atol=1e-6)


@pytest.mark.parametrize("n", [16, 17])
def test_no_wrap_around(float64, n):
    """An impulse on one edge reaches half a PSF; the other edge stays dark to rounding."""
    x = jnp.zeros((n, n)).at[0, 0].set(1.0)
    image = np.array(convolve(jnp.ones((n, n)), x))
    reach = (n - 1) // 2  # pixels to the right of the centre n//2
    assert np.abs(image[reach + 1 :]).max() <= 1e-13 and np.abs(image[:, reach + 1 :]).max() <= 1e-13
    np.testing.assert_allclose(image[: reach + 1, : reach + 1], 1.0, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 7, 11, 64, 97, 129, 769])
def test_lengths_are_5_smooth_and_the_smallest(n):
    def smooth(m):
        for prime in (2, 3, 5):
            while m % prime == 0:
                m //= prime
        return m == 1

    assert smooth_length(n) == next(m for m in range(n, 2 * n + 1) if smooth(m))


def test_centred_impulse_is_the_identity(float64):
    for n in (6, 7):
        delta = jnp.zeros((n, n)).at[n // 2, n // 2].set(1.0)
        x = jnp.asarray(RNG.normal(size=(12, 13)))
        np.testing.assert_allclose(convolve(delta, x), x, atol=1e-13)


def test_filter_field_is_batched_over_leading_axes(float64):
    x, psfs = jnp.asarray(RNG.normal(size=(14, 15))), jnp.asarray(RNG.normal(size=(3, 7, 8)))
    padded = padded_shape((10, 9), x.shape, psfs.shape[-2:])
    many = filter_field(otf(psfs, padded), x, padded=padded, field=(10, 9))
    for h, image in zip(psfs, many, strict=True):
        np.testing.assert_allclose(image, convolve(h, x, field=(10, 9)), atol=1e-12)


def test_adjoint_of_convolution_and_modulation():
    """Dot-product test of the primitives in float32; 1e-6 of the norms is rounding."""
    x, h, mask = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((20, 21), (9, 8), (12, 1)))
    apply = lambda v: modulate(mask, convolve(h, v, field=(12, 16)))  # noqa: E731
    image = apply(x)
    y = jnp.asarray(RNG.normal(size=image.shape), jnp.float32)
    (back,) = jax.linear_transpose(apply, x)(y)
    gap = abs(float(jnp.vdot(image, y) - jnp.vdot(x, back)))
    assert gap <= 1e-6 * float(jnp.linalg.norm(image) * jnp.linalg.norm(y))


def test_detect_is_the_noiseless_detector():
    from diffphys.noise import Detector

    counts = detect(Detector(peak_photons=200.0, background=4.0, gain=0.5, offset=100.0), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(counts, [102.0, 202.0], rtol=1e-6)  # 100 + 0.5 (200 s + 4)


def test_specimen_smaller_than_the_field_is_refused():
    with pytest.raises(ValueError, match="at least the field"):
        convolve(jnp.ones(3), jnp.ones(8), field=(9,))


def test_support_holds_the_energy():
    """A box PSF of half width 3 needs 3 pixels; a point none."""
    box = np.zeros((21, 30))
    box[10 - 3 : 10 + 4, 15] = 1.0
    assert support(box) == (3, 0)
    assert support(np.pad([[1.0]], 4)) == (0, 0)
