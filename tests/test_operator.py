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


# --- an instrument: modality and geometry, the spec left open -----------------------------------------------------------


def instrument_case(name, *, dtype=jnp.float32, specimen=None):
    """Instrument, a spec off the symmetric points, specimen and measurement of random numbers."""
    modality, geometry = {"confocal": CASES["confocal"], "shg": (shg, shg.Geometry(shape=(12, 14)))}[name]
    instrument = bind(modality, geometry) if specimen is None else bind(modality, geometry, specimen=specimen)
    spec = jax.tree.map(lambda v: jnp.asarray(v, dtype) + 0.01, modality.nominal())
    rng = np.random.default_rng(9)
    return instrument, spec, *(jnp.asarray(rng.normal(size=s), dtype) for s in (instrument.specimen, instrument.measurement))


@pytest.mark.parametrize("specimen", [None, "larger"])
@pytest.mark.parametrize("name", ["confocal", "shg"])
def test_instrument_is_the_operator_at_every_spec(name, specimen):
    """Both boundaries; adjoint by transposition = the written one; shapes are those of the nominal spec."""
    modality, geometry = instrument_case(name)[0].modality, instrument_case(name)[0].geometry
    size = tuple(n + 4 for n in geometry.shape) if specimen else None
    instrument, spec, x, y = instrument_case(name, specimen=size)
    operator = bind(modality, spec, geometry=geometry, **({"specimen": size} if size else {"margin": instrument.margin}))
    assert operator.specimen == instrument.specimen == x.shape and operator.measurement == instrument.measurement
    image, back = (np.asarray(v) for v in (operator.apply(x), operator.adjoint(y)))
    np.testing.assert_allclose(jax.jit(instrument.apply)(spec, x), image, atol=2e-6 * np.abs(image).max())
    np.testing.assert_allclose(jax.jit(instrument.adjoint)(spec, y), back, atol=2e-6 * np.abs(back).max())
    np.testing.assert_allclose(instrument.norm(spec), operator.norm(), rtol=1e-5)
    if size:
        expected = np.asarray(modality.forward(spec, x, geometry=geometry))
        np.testing.assert_allclose(image, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["confocal", "shg"])
def test_instrument_derivatives(name, float64):
    """jvp against central differences, in spec and specimen at once; vjp by the dot test; both under vmap and grad."""
    instrument, spec, x, y = instrument_case(name, dtype=jnp.float64)
    steps = jax.tree.map(lambda v, s: jnp.asarray(s), spec, type(spec)(*(1.0, -0.3, 0.01)))
    dx = jnp.asarray(np.random.default_rng(2).normal(size=x.shape))
    value, tangent = jax.jit(instrument.jvp)(spec, x, steps, dx)

    @jax.jit
    def along(t):
        return instrument.apply(jax.tree.map(lambda v, s: v + t * s, spec, steps), x + t * dx)

    scale = np.abs(tangent).max()
    np.testing.assert_allclose(value, along(0.0), atol=1e-12)
    np.testing.assert_allclose(tangent, (along(1e-5) - along(-1e-5)) / 2e-5, atol=1e-7 * scale)
    only_spec = jax.jit(instrument.jvp)(spec, x, steps, jnp.zeros_like(x))[1]
    assert np.abs(only_spec).max() > 1e-3 * scale  # the spec matters

    back_spec, back_x = jax.jit(instrument.vjp)(spec, x, y)
    forward = float(jnp.vdot(tangent, y))
    backward = sum(float(jnp.vdot(a, b)) for a, b in zip(jax.tree.leaves(steps), jax.tree.leaves(back_spec), strict=True))
    backward += float(jnp.vdot(dx, back_x))
    assert abs(forward - backward) < 1e-11 * float(jnp.linalg.norm(tangent.ravel()) * jnp.linalg.norm(y.ravel()))

    gradient = jax.jit(jax.grad(lambda s: jnp.vdot(instrument.apply(s, x), y)))(spec)
    many = jax.jit(jax.vmap(instrument.vjp, (0, None, None)))(jax.tree.map(lambda v: jnp.stack([v, v]), spec), x, y)
    for a, b, c in zip(*(jax.tree.leaves(t) for t in (gradient, back_spec, many[0])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
        np.testing.assert_allclose(c, [b, b], rtol=1e-10)


@pytest.mark.parametrize("name", ["confocal", "shg"])
def test_instrument_norm_is_the_largest_singular_value(name, float64):
    """Against SciPy's Lanczos; the estimate is from above, within 4 %."""
    from scipy.sparse.linalg import LinearOperator, svds

    instrument, spec, x, y = instrument_case(name, dtype=jnp.float64)
    apply, adjoint = (jax.jit(f) for f in (instrument.apply, instrument.adjoint))
    linear = LinearOperator(
        (y.size, x.size),
        matvec=lambda v: np.asarray(apply(spec, jnp.asarray(v).reshape(x.shape))).ravel(),
        rmatvec=lambda v: np.asarray(adjoint(spec, jnp.asarray(v).reshape(y.shape))).ravel(),
        dtype=float,
    )
    largest = svds(linear, k=1, return_singular_vectors=False, v0=np.ones(min(linear.shape)), random_state=0)[0]
    estimate = float(jax.jit(instrument.norm)(spec))
    assert largest <= estimate <= 1.04 * largest


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from diffphys import confocal, shg
from diffphys.operator import bind

assert jax.device_count() == 8, jax.devices()
mesh = Mesh(np.array(jax.devices()), ("batch",))
split = NamedSharding(mesh, PartitionSpec("batch"))
for modality, geometry in ((confocal, confocal.Geometry(shape=(4, 10, 12))), (shg, shg.Geometry(shape=(12, 14)))):
    instrument = bind(modality, geometry)
    shifts = jnp.linspace(0.0, 0.02, 8)
    specs = jax.tree.map(lambda v: v.astype(float) + shifts, modality.nominal())
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((8, *instrument.specimen)))
    y = jnp.asarray(rng.random((8, *instrument.measurement)))
    for method, argument in (("apply", (x,)), ("adjoint", (y,)), ("vjp", (x, y))):
        many = jax.vmap(getattr(instrument, method))
        batch = jax.jit(many)(*jax.device_put((specs, *argument), split))
        alone = jax.jit(many)(*jax.device_put((specs, *argument), jax.devices()[0]))
        for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
            assert len(a.sharding.device_set) == 8 and len(b.sharding.device_set) == 1, (method, a.sharding)
            gap = np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()
            assert gap < 1e-9, (modality.NAME, method, gap)
print("agree")
"""


def test_instrument_on_eight_devices():
    """A batch of specs and specimens over eight simulated devices: one each, results equal to those of one device.

    In double precision: in single, the spec's cotangent is a cancelling sum (the PSF has unit sum) good to 2e-5 only.
    """
    import os
    import subprocess
    import sys
    from pathlib import Path

    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
    }
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0 and done.stdout.strip() == "agree", done.stderr[-2000:]


def test_instrument_is_an_argument_of_jit():
    """Static, no leaves, equal ones share a trace."""
    traces = []

    @jax.jit
    def energy(instrument, spec, x):
        traces.append(1)
        return jnp.sum(instrument.apply(spec, x) ** 2)

    for shift in (0.0, 0.1):
        instrument, spec, x, _ = instrument_case("shg")
        energy(instrument, jax.tree.map(lambda v, s=shift: v + s, spec), x)
    assert len(traces) == 1 and not jax.tree.leaves(instrument)


def test_bind_says_what_is_missing():
    geometry = confocal.Geometry(shape=(4, 8, 8))
    with pytest.raises(ValueError, match="neither a geometry nor geometry="):
        bind("confocal_3d", confocal.nominal())
    with pytest.raises(ValueError, match="two geometries and no spec"):
        bind("confocal_3d", geometry, geometry=geometry)
    with pytest.raises(ValueError, match="neither a geometry"):
        bind("shg", geometry)
