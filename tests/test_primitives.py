"""The eleven primitives against closed forms and other libraries; dot test and gradient check over all of them.

C has its own file, `test_convolve.py`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage, special
from skimage.transform import radon

from diffphys.noise import Detector
from diffphys.primitives.accumulate import accumulate, accumulate_adjoint
from diffphys.primitives.adjoint import adjoint, dot_test, linearise
from diffphys.primitives.convolve import convolve, convolve_adjoint
from diffphys.primitives.detect import detect, detect_linearised, saturating
from diffphys.primitives.disperse import disperse, disperse_adjoint
from diffphys.primitives.encode import encode, encode_adjoint, encode_grid, encode_grid_adjoint
from diffphys.primitives.modulate import modulate, modulate_adjoint
from diffphys.primitives.project import project, project_adjoint
from diffphys.primitives.propagate import propagate, propagate_adjoint
from diffphys.primitives.rotate import rotate, rotate_adjoint
from diffphys.primitives.sample import entries, illuminate, illuminate_adjoint, sample, sample_adjoint
from diffphys.primitives.transform import (
    attenuate,
    monochromator,
    power_law,
    spectral_filter,
    spectral_filter_adjoint,
    square_law,
    transform,
    transform_linearised,
)

RNG = np.random.default_rng(3)
# compiled once per shape: the checks below are bound by compilation of single operations otherwise
propagate = jax.jit(propagate, static_argnames="periodic")
rotate, project = jax.jit(rotate, static_argnames="axes"), jax.jit(project, static_argnames="axis")
encode, disperse = jax.jit(encode, static_argnames="chunk"), jax.jit(disperse, static_argnames="method")


def smooth(shape, sigma=1.5):
    """A band-limited positive test image."""
    return ndimage.gaussian_filter(RNG.random(shape), sigma, mode="wrap") + 0.1


# --- P ---------------------------------------------------------------------------------------------------------------


def test_propagate_gaussian_beam(float64):
    """Fresnel's closed form for a beam of waist 8 um, 0.5 um light: paraxial to (lambda / pi w)^4 k z / 8 = 3e-4."""
    wavelength, waist, z, n, pixel = 0.5, 8.0, 300.0, 256, 0.5
    r = (np.arange(n) - n // 2) * pixel
    r2 = r[:, None] ** 2 + r**2
    k, rayleigh = 2 * np.pi / wavelength, np.pi * waist**2 / wavelength
    q = z - 1j * rayleigh
    expected = -1j * rayleigh / q * np.exp(1j * k * (z + r2 / (2 * q)))
    field = propagate(z, wavelength, pixel, jnp.asarray(np.exp(-r2 / waist**2)))
    assert np.linalg.norm(field - expected) / np.linalg.norm(expected) < 1e-3


def test_propagate_square_aperture(float64):
    """Fresnel integrals (Goodman, Introduction to Fourier Optics, eq. 4-29): an edge has all frequencies, hence 3 %."""
    wavelength, half, z, n, pixel = 0.5, 20.0, 400.0, 400, 0.25
    r = (np.arange(n) - (n - 1) / 2) * pixel
    slit = (np.abs(r) < half).astype(float)
    scale = np.sqrt(2 / (wavelength * z))
    (s1, c1), (s0, c0) = special.fresnel(scale * (half - r)), special.fresnel(scale * (-half - r))
    line = ((c1 - c0) + 1j * (s1 - s0)) / np.sqrt(2)
    expected = line[:, None] * line * np.exp(2j * np.pi * z / wavelength) / 1j
    field = propagate(z, wavelength, pixel, jnp.asarray(slit[:, None] * slit))
    middle = slice(n // 4, -n // 4)
    gap = np.linalg.norm((field - expected)[middle, middle]) / np.linalg.norm(expected[middle, middle])
    assert gap < 0.03


def test_propagate_repeats_a_grating_at_its_talbot_distance(float64):
    """Three orders, so an exact self-image at lambda / (1 - sqrt(1 - (lambda / p)^2)), without the paraxial approximation."""
    wavelength, pixel, n, period = 0.5, 0.1, 64, 1.6
    grating = jnp.asarray(np.ones((4, 1)) * (1 + 0.7 * np.cos(2 * np.pi * np.arange(n) * pixel / period)))
    talbot = wavelength / (1 - np.sqrt(1 - (wavelength / period) ** 2))
    image = propagate(talbot, wavelength, pixel, grating, periodic=True)
    np.testing.assert_allclose(image, grating * np.exp(2j * np.pi * talbot / wavelength), atol=1e-11)
    half = propagate(talbot / 2, wavelength, pixel, grating, periodic=True)
    np.testing.assert_allclose(np.abs(half), 2 - np.asarray(grating), atol=1e-11)  # shifted by half a period


@pytest.mark.parametrize("z", [0.3, -0.3])
def test_propagate_evanescent_orders_decay(float64, z):
    """Period 0.4 um below the wavelength 0.5 um: amplitude exp(-kappa |z|)."""
    wave = np.cos(2 * np.pi * np.arange(64) * 0.1 / 0.4) * np.ones((4, 1))
    kappa = 2 * np.pi * np.sqrt(0.4**-2 - 0.5**-2)
    np.testing.assert_allclose(
        propagate(z, 0.5, 0.1, jnp.asarray(wave), periodic=True), wave * np.exp(-kappa * 0.3), atol=1e-12
    )


def test_propagate_adds_up_and_keeps_energy(float64):
    x = jnp.asarray(smooth((40, 41), 3) * np.exp(1j * smooth((40, 41), 3)))
    step = partial(propagate, periodic=True)
    twice = step(7.0, 0.5, (0.4, 0.3), step(5.0, 0.5, (0.4, 0.3), x))
    np.testing.assert_allclose(step(12.0, 0.5, (0.4, 0.3), x), twice, atol=1e-12)
    np.testing.assert_allclose(step(-12.0, 0.5, (0.4, 0.3), twice), x, atol=1e-12)
    assert abs(jnp.linalg.norm(twice) / jnp.linalg.norm(x) - 1) < 1e-12


def test_propagate_keeps_its_digits_in_float32():
    """Ten thousand wavelengths: the phase is 6e4 rad, 4e-3 of which would be lost without the piston split off."""
    x = np.exp(-(np.linspace(-2, 2, 64) ** 2))[:, None] * np.exp(-(np.linspace(-2, 2, 64) ** 2))
    single = np.asarray(propagate(5e3, 0.5, 2.0, jnp.asarray(x, jnp.float32)))
    with jax.enable_x64(True):
        double = np.asarray(propagate(5e3, 0.5, 2.0, jnp.asarray(x)))
    assert np.abs(single - double).max() < 2e-4 * np.abs(double).max()


# --- R, Pi -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 20), (21, 16)], ids=str)
@pytest.mark.parametrize("degrees", [17.0, -71.3, 200.0])
def test_rotate_as_scipy(float64, shape, degrees):
    x = RNG.random(shape)
    expected = ndimage.rotate(x, degrees, reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(rotate(np.deg2rad(degrees), jnp.asarray(x)), expected, atol=1e-12)


def test_rotate_by_quarter_turns_is_exact(float64):
    x = RNG.random((3, 9, 9))
    for quarter in range(-3, 4):
        expected = np.rot90(x, quarter, axes=(1, 2))
        np.testing.assert_allclose(rotate(quarter * np.pi / 2, jnp.asarray(x)), expected, atol=1e-13)


def test_rotate_in_any_plane_of_a_volume(float64):
    x = RNG.random((7, 8, 9))
    for axes in ((0, 1), (0, 2), (1, 2)):
        expected = ndimage.rotate(x, 33.0, axes=axes, reshape=False, order=1, mode="grid-constant")
        turned = rotate(np.deg2rad(33.0), jnp.asarray(x), axes=axes)
        np.testing.assert_allclose(turned, expected, atol=1e-12)


def test_project_as_radon(float64):
    """scikit-image turns about n // 2, the middle of an odd image; its warp rounds to 1e-7 or so."""
    n = 33
    inside = np.hypot(*np.mgrid[-16:17, -16:17]) < 15
    x, degrees = smooth((n, n)) * inside, np.array([0.0, 12.0, 45.0, 90.0, 133.7])
    expected = radon(x, degrees, circle=True, preserve_range=True)
    np.testing.assert_allclose(project(np.deg2rad(degrees), jnp.asarray(x)).T, expected, atol=1e-6 * expected.max())


def test_project_of_a_disc_is_its_chord(float64):
    """2 sqrt(R^2 - u^2) at every angle; a disc with soft edge, so half a pixel at the rim is the grid's error."""
    n, radius = 101, 40.0
    r = np.hypot(*np.mgrid[-50:51, -50:51])
    disc = np.clip(radius - r + 0.5, 0, 1)
    u = np.arange(-50, 51)
    chord = 2 * np.sqrt(np.clip(radius**2 - u**2, 0, None))
    inner = np.abs(u) < radius - 3
    for line in project(np.array([0.0, 0.5, 1.1]), jnp.asarray(disc)):
        np.testing.assert_allclose(line[inner], chord[inner], atol=0.6)
        assert abs(line.sum() - np.pi * radius**2) < 1e-3 * np.pi * radius**2
    assert n == disc.shape[0]


def test_project_of_a_volume_is_slicewise(float64):
    x, angles = smooth((4, 9, 11)), np.array([0.3, 2.0])
    for axis in range(3):
        planes = np.moveaxis(x, axis, 0)
        expected = np.stack([jax.jit(project)(angles, p) for p in planes], axis=1)
        np.testing.assert_allclose(project(angles, jnp.asarray(x), axis=axis), expected, atol=1e-12)


# --- F ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "chunk"), [((13,), 1024), ((8, 11), 7), ((5, 6, 7), 5)], ids=str)
def test_encode_as_a_direct_sum(float64, shape, chunk):
    x = RNG.normal(size=shape) + 1j * RNG.normal(size=shape)
    k = RNG.uniform(-0.7, 0.7, (23, len(shape)))
    places = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij")).reshape(len(shape), -1)
    expected = np.exp(-2j * np.pi * k @ places) @ x.ravel()
    np.testing.assert_allclose(encode(k, jnp.asarray(x), chunk=chunk), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 9), (7, 12)], ids=str)
def test_encode_on_the_grid_as_numpy(float64, shape):
    x, mask = RNG.normal(size=shape), RNG.random(shape) < 0.5
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x)))
    np.testing.assert_allclose(encode_grid(mask, jnp.asarray(x)), mask * spectrum, atol=1e-12)
    k = np.stack(np.meshgrid(*[np.fft.fftshift(np.fft.fftfreq(n)) for n in shape], indexing="ij"), -1).reshape(-1, 2)
    np.testing.assert_allclose(encode(k, jnp.asarray(x)).reshape(shape), spectrum, atol=1e-12)


# --- W ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "fourier"])
def test_disperse_by_whole_pixels(float64, method):
    x = RNG.random((3, 10, 12))
    moved = disperse(0.0, 20.0, np.array([-0.1, 0.0, 0.15]), jnp.asarray(x), method=method)
    expected = np.stack([np.roll(band, s, 1) for band, s in zip(x, (-2, 0, 3), strict=True)])
    if method == "linear":
        expected[0, :, -2:] = expected[2, :, :3] = 0
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    along_y = disperse(np.pi / 2, 20.0, np.array([-0.1, 0.0, 0.15]), jnp.asarray(x), method="fourier")
    np.testing.assert_allclose(along_y[2], np.roll(x[2], 3, 0), atol=1e-12)


def test_disperse_between_pixels(float64):
    """A sine by Fourier exactly; linear interpolation as scipy's."""
    n, shift = 16, 0.37
    wave = lambda s: np.sin(2 * np.pi * 3 * (np.arange(n) - s) / n) * np.ones((4, 1))  # noqa: E731
    moved = disperse(0.0, 1.0, np.array([shift]), jnp.asarray(wave(0.0))[None], method="fourier")
    np.testing.assert_allclose(moved[0], wave(shift), atol=1e-12)
    x = RNG.random((1, 9, 8))
    moved = disperse(0.7, 2.0, np.array([0.6]), jnp.asarray(x))
    expected = ndimage.shift(x[0], 1.2 * np.array([np.sin(0.7), np.cos(0.7)]), order=1, mode="grid-constant")
    np.testing.assert_allclose(moved[0], expected, atol=1e-12)


# --- M, Sigma, S, D, Lambda ------------------------------------------------------------------------------------------


def test_simple_primitives_as_numpy(float64):
    x, mask, patterns = RNG.random((4, 5, 6)), RNG.random((5, 6)), RNG.random((3, 4, 5, 6))
    np.testing.assert_array_equal(modulate(mask, jnp.asarray(x)), mask * x)
    np.testing.assert_allclose(accumulate(jnp.asarray(x), axis=(0, 2)), x.sum((0, 2)), rtol=1e-14)
    keep = x > 0.5
    np.testing.assert_array_equal(sample(entries(keep), jnp.asarray(x)), x[keep])
    np.testing.assert_array_equal(illuminate(patterns, jnp.asarray(x)), patterns * x)
    np.testing.assert_allclose(spectral_filter(np.arange(4.0), jnp.asarray(x)), np.arange(4)[:, None, None] * x)


def test_detect_gain_and_response(float64):
    """Saturation: linear for few photons, the full well for many."""
    detector = Detector(peak_photons=200.0, background=4.0, gain=0.5, offset=100.0)
    x = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(detect(detector, x), [102.0, 202.0])
    bent = detect(detector, x, response=partial(saturating, 300.0))
    np.testing.assert_allclose(bent, 100 + 0.5 * 300 * (1 - np.exp(-np.array([4.0, 204.0]) / 300)), rtol=1e-14)
    np.testing.assert_allclose(saturating(1e12, jnp.array(50.0)), 50.0, rtol=1e-9)
    assert float(saturating(300.0, jnp.array(1e6))) == 300.0


def test_transform_pointwise_functions(float64):
    z = RNG.normal(size=5) + 1j * RNG.normal(size=5)
    np.testing.assert_allclose(transform(2.0, jnp.asarray(z)), 2 * np.abs(z) ** 2)
    np.testing.assert_allclose(transform(2.0, jnp.array([-1.0, 0.0, 3.0]), function=power_law), [0, 0, 9])
    np.testing.assert_allclose(transform(0.5, jnp.array([0.0, 2.0]), function=attenuate), [1, np.exp(-1)])
    half = monochromator(0.5, 0.02, np.array([0.49, 0.5, 0.51]))
    np.testing.assert_allclose(half, [0.5, 1.0, 0.5], rtol=1e-12)


# --- all of them -----------------------------------------------------------------------------------------------------

SHAPE = (6, 7)
K = np.random.default_rng(0).uniform(-0.5, 0.5, (9, 2))
MASK, PSF = np.random.default_rng(1).random(SHAPE), np.random.default_rng(2).random((2, 4, 5))
OMEGA = np.array([3, 17, 3, 40])
# name -> (function of (parameters, x), parameters, x's shape and dtype, its written adjoint or None where not linear)
LINEAR = {
    "propagate": (lambda p, x: propagate(*p, x), (2.3, 0.5, 0.31), SHAPE, complex, lambda p, y: propagate_adjoint(*p, y)),
    "propagate, periodic": (
        lambda p, x: propagate(*p, x, periodic=True),
        (2.3, 0.5, 0.21),
        SHAPE,
        complex,
        lambda p, y: propagate_adjoint(*p, y, periodic=True),
    ),
    "modulate": (modulate, MASK, SHAPE, float, modulate_adjoint),
    "modulate, frames": (modulate, PSF[:, :, :1], (4, 5), float, partial(modulate_adjoint, shape=(4, 5))),
    "project": (project, np.array([0.3, 1.7]), SHAPE, float, partial(project_adjoint, shape=SHAPE)),
    "project, volume": (
        partial(project, axis=1),
        np.array([0.3, 1.7]),
        (4, 3, 5),
        float,
        partial(project_adjoint, shape=(4, 3, 5), axis=1),
    ),
    "encode": (encode, K, SHAPE, complex, partial(encode_adjoint, shape=SHAPE)),
    "encode, grid": (encode_grid, MASK, SHAPE, complex, encode_grid_adjoint),
    "convolve": (convolve, PSF[0], SHAPE, float, partial(convolve_adjoint, shape=SHAPE)),
    "convolve, frames": (
        partial(convolve, field=(5, 4)),
        PSF,
        SHAPE,
        float,
        partial(convolve_adjoint, shape=SHAPE, field=(5, 4)),
    ),
    "accumulate": (lambda _, x: accumulate(x), (), SHAPE, float, lambda _, y: accumulate_adjoint(y, shape=SHAPE)),
    "sample": (lambda _, x: sample(OMEGA, x), (), SHAPE, float, lambda _, y: sample_adjoint(OMEGA, y, shape=SHAPE)),
    "illuminate": (illuminate, PSF, (4, 5), float, illuminate_adjoint),
    "rotate": (rotate, 0.4, SHAPE, float, rotate_adjoint),
    "rotate, volume": (partial(rotate, axes=(0, 2)), 0.4, (4, 3, 5), float, partial(rotate_adjoint, axes=(0, 2))),
    "disperse, linear": (
        lambda p, x: disperse(*p, x),
        (0.7, 2.1, np.array([-0.3, 0.4])),
        (2, 5, 6),
        float,
        lambda p, y: disperse_adjoint(*p, y),
    ),
    "disperse, fourier": (
        lambda p, x: disperse(*p, x, method="fourier"),
        (0.7, 2.1, np.array([-0.3, 0.4])),
        (2, 5, 6),
        float,
        lambda p, y: disperse_adjoint(*p, y, method="fourier"),
    ),
    "spectral filter": (spectral_filter, MASK[:, 0], SHAPE, float, spectral_filter_adjoint),
}
RESPONSE = partial(saturating, 3.0)
NONLINEAR = {
    "detect": (detect, Detector(2.0, 0.3, 0.5, 1.0, 0.0), detect_linearised),
    "detect, saturating": (
        partial(detect, response=RESPONSE),
        Detector(2.0, 0.3),
        partial(detect_linearised, response=RESPONSE),
    ),
    "transform, square": (partial(transform, function=square_law), 1.3, transform_linearised),
    "transform, power": (
        partial(transform, function=power_law),
        1.7,
        partial(transform_linearised, function=power_law),
    ),
    "transform, attenuate": (
        partial(transform, function=attenuate),
        0.8,
        partial(transform_linearised, function=attenuate),
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_dot_product(float64, name):
    """<A x, y> = <x, A* y> for the written adjoint, to rounding."""
    fn, parameters, shape, dtype, written = LINEAR[name]
    like = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    test = jax.jit(lambda key: dot_test(key, partial(fn, parameters), like, back=partial(written, parameters)))
    assert test(jax.random.key(1)) < 1e-13


@pytest.mark.parametrize("name", NONLINEAR)
def test_linearisation(float64, name):
    """Value, derivative against finite differences, and its adjoint by the dot test."""
    fn, parameters, linearised = NONLINEAR[name]
    x, dx = jnp.asarray(RNG.uniform(0.3, 1.5, SHAPE)), jnp.asarray(RNG.normal(size=SHAPE))
    y, push, pull = linearised(parameters, x)
    push, pull = jax.jit(push), jax.jit(pull)
    np.testing.assert_allclose(y, fn(parameters, x), rtol=1e-14)
    differences = (fn(parameters, x + 1e-6 * dx) - fn(parameters, x - 1e-6 * dx)) / 2e-6
    np.testing.assert_allclose(push(dx), differences, rtol=1e-6, atol=1e-8)
    assert dot_test(jax.random.key(2), push, x, back=pull) < 1e-13


def as_pair(z):
    return jnp.stack([jnp.real(z), jnp.imag(z)]) if jnp.iscomplexobj(z) else z


@pytest.mark.parametrize("name", [*LINEAR, *NONLINEAR])
def test_gradients(float64, name):
    """Both modes against finite differences, in every parameter and in the input; complex numbers as pairs of real ones."""
    fn, parameters, *rest = LINEAR[name] if name in LINEAR else (*NONLINEAR[name][:2], SHAPE, float)
    shape, dtype = rest[:2]
    x = RNG.uniform(0.3, 1.5, (2, *shape) if dtype is complex else shape)

    def real_fn(p, v):
        return as_pair(fn(p, v[0] + 1j * v[1] if dtype is complex else v))

    arguments = (jax.tree.map(jnp.asarray, parameters), jnp.asarray(x))
    check_grads(jax.jit(real_fn), arguments, order=1, rtol=1e-5, atol=1e-5, eps=1e-6)


def test_adjoint_of_a_real_image_is_real(float64):
    """A complex map of real images: the adjoint returns real ones and passes the dot test in the real inner product."""
    like = jax.ShapeDtypeStruct(SHAPE, jnp.dtype(float))
    assert jax.jit(lambda key: dot_test(key, partial(encode, K), like))(jax.random.key(3)) < 1e-13
    assert not jnp.iscomplexobj(adjoint(partial(encode, K), like)(jnp.ones(9, complex)))
    y, push, pull = linearise(lambda x: encode(K, x), jnp.ones(SHAPE))
    assert dot_test(jax.random.key(4), push, jnp.ones(SHAPE), back=pull) < 1e-13 and jnp.iscomplexobj(y)


def test_dot_test_notices_a_wrong_adjoint(float64):
    assert dot_test(jax.random.key(0), partial(rotate, 0.4), jnp.ones(SHAPE), back=partial(rotate, -0.4)) > 1e-4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: project(0.1, jnp.ones(3)), "x has shape .*expected an image"),
        (lambda: encode(K, jnp.ones((3, 3, 3))), r"expected \(point, 3\)"),
        (lambda: sample(np.array([99]), jnp.ones(SHAPE)), "flat indices 0 to 41"),
        (lambda: sample(np.array([0.5]), jnp.ones(SHAPE)), "flat indices"),
        (lambda: illuminate(MASK, jnp.ones(SHAPE)), "one axis more"),
        (lambda: disperse(0.0, 1.0, np.ones(3), jnp.ones((2, 4, 4))), r"expected \(band, y, x\)"),
        (lambda: disperse(0.0, 1.0, np.ones(2), jnp.ones((2, 4, 4)), method="cubic"), "method is 'cubic'"),
        (lambda: transform(1.0, jnp.ones(3), function=lambda t, x: t * x.sum()), "pointwise"),
        (lambda: spectral_filter(np.ones(3), jnp.ones((2, 4))), "one number per band"),
        (lambda: adjoint(accumulate, jnp.ones(SHAPE))(jnp.ones(6)), r"expected \(7,\)"),
    ],
)
def test_callers_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
