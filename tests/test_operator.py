"""The operator: adjoint, agreement with the forward models, boundary, norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffphys import confocal, shg
from diffphys.operator import bind, from_psf
from diffphys.spec import parse

STACK = {"shape": (8, 16, 18), "attenuation_per_um": 0.3}
CASES = {
    "confocal": (confocal, confocal.Geometry(**STACK)),
    "confocal, two anchors": (confocal, confocal.Geometry(**STACK, depth_anchors=2)),
    "shg, one frame": (shg, shg.Geometry(shape=(20, 24), phase_offsets_rad=(0.0,))),
    "shg, two frames": (shg, shg.Geometry(shape=(20, 24))),
}
MISMATCH = {
    "confocal_3d": {"z_step": 40.0, "spherical_aberr": 0.1, "refractive_index": 1.525},
    "shg": {"phase_matching_error": 0.6, "excitation_power_fluctuation": 2.0, "collection_na_mismatch": 0.01},
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    modality, geometry = CASES[request.param]
    return modality, parse(modality.Spec, modality.FIELDS, MISMATCH[modality.NAME]), geometry


def random(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("larger", [None, 0, 5], ids=["torus", "field", "larger"])
def test_adjoint_is_the_transpose(case, larger):
    modality, spec, geometry = case
    specimen = None if larger is None else tuple(n + larger for n in geometry.shape)
    op = bind(modality, spec, geometry=geometry, specimen=specimen)
    x, y = random(0, op.specimen), random(1, op.measurement)
    transpose = jax.linear_transpose(op.apply, x)(y)[0]
    scale = float(jnp.max(jnp.abs(transpose)))
    np.testing.assert_allclose(op.adjoint(y), transpose, atol=2e-6 * scale)  # float32 FFTs
    dots = float(jnp.vdot(op.apply(x), y)), float(jnp.vdot(x, op.adjoint(y)))
    assert abs(dots[0] - dots[1]) < 1e-5 * float(jnp.linalg.norm(x) * jnp.linalg.norm(y))


def test_apply_is_the_forward_model(case):
    modality, spec, geometry = case
    for more in (0, 1, 7):
        x = jnp.abs(random(more, tuple(n + more for n in geometry.shape)))
        op = bind(modality, spec, geometry=geometry, specimen=x.shape)
        expected = modality.forward(spec, x, geometry=geometry)
        assert op.measurement == expected.shape
        np.testing.assert_allclose(op.apply(x), expected, atol=1e-6 * float(expected.max()))


def test_torus_differs_from_zero_outside_by_the_tails_only(case):
    modality, spec, geometry = case
    torus = bind(modality, spec, geometry=geometry, margin=tuple(n // 2 for n in geometry.shape))
    x = jnp.abs(random(3, torus.specimen))
    plain = bind(modality, spec, geometry=geometry, specimen=torus.specimen)
    difference = torus.apply(x) - plain.apply(x)
    assert float(jnp.max(jnp.abs(difference))) < 1e-2 * float(plain.apply(x).max())  # the margin holds the PSF's half width


def test_bind_is_pure_in_the_spec(case):
    modality, spec, geometry = case
    specimen = tuple(n + 4 for n in geometry.shape)
    x = jnp.abs(random(4, specimen))

    @jax.jit
    def blur(spec):
        return bind(modality, spec, geometry=geometry, specimen=specimen).apply(x)

    eager = bind(modality, spec, geometry=geometry, specimen=specimen).apply(x)
    np.testing.assert_allclose(blur(spec), eager, atol=1e-5 * float(eager.max()))
    with pytest.raises(ValueError, match="specimen is None inside jit"):
        jax.jit(lambda s: bind(modality, s, geometry=geometry).apply(x))(spec)


@pytest.mark.parametrize("size", [(5, 7), (6, 4), (31, 40)], ids=str)
@pytest.mark.parametrize("specimen", [None, (11, 13), (14, 20)], ids=str)
def test_measured_psf_of_any_size(size, specimen):
    """Against direct summation; on the torus, tails come back once per period."""
    psf = np.random.default_rng(5).random(size)
    op = from_psf(3.0 * psf, field=(11, 13), specimen=specimen)
    x = np.random.default_rng(6).random(op.specimen)
    h, expected = psf / psf.sum(), np.zeros(op.specimen)
    for (i, j), value in np.ndenumerate(h):
        dy, dx = i - size[0] // 2, j - size[1] // 2
        if specimen is None:
            expected += value * np.roll(x, (dy, dx), (0, 1))
        else:
            moved = np.zeros_like(x)
            source = x[max(0, -dy) : max(0, x.shape[0] - dy), max(0, -dx) : max(0, x.shape[1] - dx)]
            moved[max(0, dy) : max(0, dy) + source.shape[0], max(0, dx) : max(0, dx) + source.shape[1]] = source[
                : max(0, x.shape[0] - max(0, dy)), : max(0, x.shape[1] - max(0, dx))
            ]
            expected += value * moved
    np.testing.assert_allclose(op.apply(jnp.asarray(x, jnp.float32)), expected[op.window], rtol=2e-5)


def test_frames_keep_their_efficiencies():
    psf = np.zeros((2, 5, 5))
    psf[0, 2, 2], psf[1, 2, 2] = 2.0, 3.0
    op = from_psf(psf, field=(6, 7))
    y = op.apply(jnp.ones(op.specimen))
    np.testing.assert_allclose(y[0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(y[1], 1.5, rtol=1e-6)


def test_norm_is_a_close_upper_estimate(case):
    modality, spec, geometry = case
    op = bind(modality, spec, geometry=geometry, specimen=tuple(n // 2 + n for n in geometry.shape))
    small = bind(modality, spec, geometry=geometry, specimen=geometry.shape) if len(geometry.shape) == 3 else op
    basis = jnp.eye(int(np.prod(small.specimen))).reshape(-1, *small.specimen)
    if basis.shape[0] > 1000:  # a dense matrix is too large: a long power iteration instead
        exact = float(small.norm(iterations=400)) / 1.02
    else:
        exact = np.linalg.norm(np.asarray(jax.vmap(small.apply)(basis)).reshape(basis.shape[0], -1), 2)
    assert exact <= float(small.norm()) <= 1.05 * exact


def test_callers_mistakes_are_named():
    spec, geometry = confocal.nominal(), confocal.Geometry(shape=(4, 8, 8))
    with pytest.raises(ValueError, match="expected at least the field"):
        bind("confocal_3d", spec, geometry=geometry, specimen=(3, 8, 8))
    with pytest.raises(ValueError, match="margin is -1"):
        bind("confocal_3d", spec, geometry=geometry, margin=-1)
    with pytest.raises(ValueError, match="expected 2 axes"):
        from_psf(np.ones(3), field=(8, 8))
    with pytest.raises(ValueError, match="positive finite sum"):
        from_psf(np.zeros((3, 3)), field=(8, 8))
