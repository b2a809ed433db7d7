"""The contract every modality passes: linear in x with its adjoint, right gradients in the spec, one trace, honest ranges."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffphys import confocal, shg
from diffphys.primitives.convolve import convolve
from diffphys.spec import Box, as_vector, from_vector, names, parse, parse_ranges
from diffphys.types import Modality, resolve

GEOMETRY = {
    "confocal_3d": confocal.Geometry(shape=(12, 24, 20), depth_anchors=2, attenuation_per_um=0.05),
    "shg": shg.Geometry(shape=(40, 36)),
}
LARGER = {"confocal_3d": (18, 31, 27), "shg": (53, 48)}
# Shares of the ranges, away from symmetric points where a true zero could hide a missing gradient; both signs of each.
INSIDE = (0.2, 0.5, 0.87)


def at(modality, share, dtype=jnp.float64):
    """The spec at a share (0 .. 1) of every default range."""
    ranges = modality.default_ranges(GEOMETRY[modality.NAME])
    raw = {name: low + share * (high - low) for name, (low, high) in ranges.items()}
    return parse(modality.Spec, modality.FIELDS, raw, dtype=dtype)


def specimen(modality, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(3).random(shape), dtype)


def widths(modality):
    """High minus low of the default ranges, in the order of the fields."""
    return np.array([high - low for low, high in modality.default_ranges(GEOMETRY[modality.NAME]).values()])


def functional(modality, geometry, dtype=jnp.float64):
    """A random linear functional of the recorded signal of a random specimen, as a function of the parameter vector."""
    x = specimen(modality, geometry.shape, dtype)
    shape = jax.eval_shape(lambda: modality.forward(modality.nominal(geometry), x, geometry=geometry)).shape
    probe = jnp.asarray(np.random.default_rng(4).normal(size=shape), dtype)

    def value(vector):
        spec = from_vector(modality.Spec, modality.FIELDS, vector)
        return jnp.sum(probe * modality.forward(spec, x, geometry=geometry))

    return value


def test_modality_offers_the_protocol(modality):
    assert isinstance(modality, Modality)
    assert resolve(modality.NAME) is modality
    assert names(modality.FIELDS) == tuple(f.name for f in dataclasses.fields(modality.Spec))
    assert set(modality.MODULATION_FIELDS) <= set(names(modality.FIELDS))


def test_the_siblings_offer_the_same_names():
    """`efficiency`, the power trace and the scanning path are the only extras: a third modality is a copy of a sibling."""
    public = [{n for n in dir(m) if not n.startswith("_")} for m in (confocal, shg)]
    assert public[1] - public[0] == {"efficiency", "point_scanning", "power_trace", "reference_trace"}
    assert public[0] - public[1] == set()


def test_every_parameter_has_a_right_gradient(modality, float64):
    """Against central differences in float64, steps of 1e-4 of the range.

    Truncation is of the order 1e-8, rounding 1e-16 / 1e-4. 5e-6 for c_n, as the rational J0 and J1 (5e-8) are not exactly
    each other's derivatives.
    """
    geometry = GEOMETRY[modality.NAME]
    value = jax.jit(functional(modality, geometry))
    gradient = jax.jit(jax.grad(value))
    width = widths(modality)
    for share in INSIDE:
        here = as_vector(at(modality, share), modality.FIELDS)
        steps = jnp.diag(jnp.asarray(1e-4 * width))
        theirs = np.array([(value(here + step) - value(here - step)) / 2e-4 for step in steps])
        ours = np.array(gradient(here)) * width
        largest = np.abs(ours).max()
        for f, a, b in zip(modality.FIELDS, ours, theirs, strict=True):
            tolerance = 5e-6 if f.name == "collection_na_mismatch" else 1e-6
            assert abs(a - b) <= tolerance * max(abs(b), 1e-3 * largest), (f.name, share)
            assert abs(a) > 1e-5 * largest > 0, f"{f.name} has no gradient"


def test_float32_gradient_against_float64(modality, float64):
    """Sums of 1e4 terms of either sign lose a digit or two of 1e-7: 5e-6 measured, 2e-5 of the largest scaled gradient."""
    geometry, width = GEOMETRY[modality.NAME], widths(modality)
    in_double = jax.jit(jax.grad(functional(modality, geometry)))
    in_single = jax.jit(jax.grad(functional(modality, geometry, jnp.float32)))
    for share in INSIDE:
        single = as_vector(at(modality, share, jnp.float32), modality.FIELDS)
        exact, rounded = np.array(in_double(single.astype(jnp.float64))) * width, in_single(single)
        assert rounded.dtype == jnp.float32
        assert np.abs(np.array(rounded, np.float64) * width - exact).max() <= 2e-5 * np.abs(exact).max()


def test_both_modes_of_differentiation(modality, float64):
    """Forward and reverse mode against a random direction; the tolerance covers the differences of check_grads itself."""
    value = jax.jit(functional(modality, GEOMETRY[modality.NAME]))
    box = Box.of(modality.FIELDS, modality.default_ranges(GEOMETRY[modality.NAME]), jnp.float64)
    check_grads(lambda u: value(box.decode(u)), (jnp.array([0.3, -0.4, 0.2]),), order=1, modes=("fwd", "rev"), rtol=1e-4)


@pytest.mark.parametrize("larger", [False, True], ids=["field", "larger specimen"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_adjoint_dot_product(modality, float64, larger, dtype):
    """<A x, y> = <x, A^T y> by transposition: rounding only, 1e-5 of the norms in float32."""
    geometry, spec = GEOMETRY[modality.NAME], at(modality, 0.8, dtype)
    x = specimen(modality, LARGER[modality.NAME] if larger else geometry.shape, dtype)
    apply = jax.jit(lambda v: modality.forward(spec, v, geometry=geometry))
    image = apply(x)
    y = jnp.asarray(np.random.default_rng(5).normal(size=image.shape), dtype)
    (back,) = jax.linear_transpose(apply, x)(y)
    assert image.dtype == back.dtype == dtype and back.shape == x.shape
    gap = abs(float(jnp.vdot(image, y)) - float(jnp.vdot(x, back)))
    assert gap <= (1e-5 if dtype == jnp.float32 else 1e-13) * float(jnp.linalg.norm(image) * jnp.linalg.norm(y))


def test_forward_applies_the_transfer(modality, float64):
    """forward = modulation * sum over anchors of psf (*) (weight x), with an independent loop over frames and anchors."""
    geometry, spec = GEOMETRY[modality.NAME], at(modality, 0.8)
    x = specimen(modality, geometry.shape, jnp.float64)
    parts = modality.transfer(spec, geometry=geometry)
    frames = [
        modulation * sum(convolve(psf, weight * x) for psf, weight in zip(psfs, parts.weights, strict=True))
        for psfs, modulation in zip(parts.psfs, parts.modulation, strict=True)
    ]
    image = modality.forward(spec, x, geometry=geometry)
    expected = np.stack(frames).reshape(image.shape)  # one frame has no axis of its own in a stack
    np.testing.assert_allclose(image, expected, rtol=1e-9, atol=1e-12)  # FFT rounding


def test_light_from_outside_enters_a_larger_specimen(modality, float64):
    """The field of a larger specimen = the specimen cut to the field, plus what its surroundings send in: linear, >= 0."""
    geometry, spec = GEOMETRY[modality.NAME], at(modality, 0.6)
    big = LARGER[modality.NAME]
    x = specimen(modality, big, jnp.float64)
    window = tuple(slice((b - n) // 2, (b - n) // 2 + n) for b, n in zip(big, geometry.shape, strict=True))
    inside = modality.forward(spec, x[window], geometry=geometry)
    outside = modality.forward(spec, x.at[window].set(0.0), geometry=geometry)
    np.testing.assert_allclose(modality.forward(spec, x, geometry=geometry), inside + outside, rtol=1e-9, atol=1e-12)
    assert float(outside.max()) > 1e-3 and float(outside.min()) > -1e-12


def test_double_precision_stays_double(modality, float64):
    """Specs with float64 leaves make every output float64."""
    geometry, spec = GEOMETRY[modality.NAME], at(modality, 0.7)
    x = specimen(modality, geometry.shape, jnp.float64)
    outputs = (
        modality.psf(spec, geometry=geometry),
        modality.otf_quadrant(spec, geometry=geometry),
        modality.forward(spec, x, geometry=geometry),
        modality.transfer(spec, geometry=geometry),
        modality.derived(spec, geometry=geometry),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {np.dtype(np.float64)}


@pytest.mark.parametrize(("odd", "finer"), [(0, 1), (1, 1), (1, 2)], ids=["even", "odd", "odd, half step"])
def test_otf_quadrant_is_the_fourier_transform_of_the_psf(modality, float64, odd, finer):
    """Every frame, against numpy's FFT of the zero-padded PSF with its centre moved to index 0; rounding."""
    geometry = GEOMETRY[modality.NAME]
    geometry = dataclasses.replace(geometry, shape=tuple(n + odd for n in geometry.shape))
    spec = at(modality, 0.8)
    real, imag = modality.otf_quadrant(spec, geometry=geometry, finer=(finer,) * len(geometry.shape))
    psf = np.array(modality.psf(spec, geometry=geometry)).reshape(-1, *geometry.shape)
    if modality is shg:
        psf *= np.array(shg.efficiency(spec, geometry=geometry))[:, None, None]
    axes, padded = tuple(range(1, psf.ndim)), [finer * n for n in geometry.shape]
    full = np.pad(psf, [(0, 0), *((0, m - n) for m, n in zip(padded, geometry.shape, strict=True))])
    full = np.fft.fftn(np.roll(full, [-(n // 2) for n in geometry.shape], axes), axes=axes)
    quadrant = full[(slice(None), *(slice(m // 2 + 1) for m in padded))]
    np.testing.assert_allclose(real + 1j * np.array(imag), quadrant, atol=1e-12)


def test_compiled_equals_plain(modality):
    """XLA may reorder float32 sums: a few units in the last place of the maximum."""
    geometry, spec = GEOMETRY[modality.NAME], at(modality, 0.7, jnp.float32)
    x = specimen(modality, geometry.shape)
    with jax.disable_jit():
        plain = modality.forward(spec, x, geometry=geometry)
    compiled = jax.jit(modality.forward, static_argnames="geometry")(spec, x, geometry=geometry)
    np.testing.assert_allclose(compiled, plain, atol=2e-6 * float(plain.max()))


def test_batch_equals_loop(modality):
    """vmap over specs; a batched matrix product may sum in another order than a single one."""
    geometry = GEOMETRY[modality.NAME]
    specs = [at(modality, s, jnp.float32) for s in INSIDE]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *specs)
    x = specimen(modality, geometry.shape)
    run = lambda s: modality.forward(s, x, geometry=geometry)  # noqa: E731
    one_by_one = jax.jit(run)
    for one, many in zip(specs, jax.jit(jax.vmap(run))(batch), strict=True):
        np.testing.assert_allclose(many, one_by_one(one), atol=2e-6 * float(many.max()))


def test_equal_shapes_share_one_trace(modality):
    """Values of a spec are traced: ints, floats and arrays of one dtype compile once."""
    geometry, traces = GEOMETRY[modality.NAME], []

    @jax.jit
    def run(spec):
        traces.append(1)
        return modality.psf(spec, geometry=geometry)

    base = {f.name: f.nominal for f in modality.FIELDS}
    first = modality.FIELDS[0].name
    for value in (0, 0.5, np.float64(0.25), jnp.float32(0.1), np.ones((), np.float32)):
        run(parse(modality.Spec, modality.FIELDS, {**base, first: value}))
    run(modality.nominal(geometry))
    assert len(traces) == 1


def test_ranges_starts_and_blocks(modality):
    geometry = GEOMETRY[modality.NAME]
    ranges = modality.default_ranges(geometry)
    modality.check_ranges(ranges, geometry)
    assert list(ranges) == list(names(modality.FIELDS))
    nominal = modality.nominal(geometry)
    assert all(low <= float(getattr(nominal, name)) <= high for name, (low, high) in ranges.items())
    starts = modality.starts(ranges, geometry=geometry)
    low, high = np.array(list(ranges.values())).T
    assert starts.shape == (15, len(modality.FIELDS)) and (starts >= low).all() and (starts <= high).all()
    fixed = parse_ranges(modality.FIELDS, ranges, {modality.FIELDS[0].name: (0.1, 0.1)})
    assert np.unique(modality.starts(fixed, geometry=geometry)[:, 0]).tolist() == [0.1]
    small = modality.block(geometry, tuple(n // 2 for n in geometry.shape))
    assert small.shape == tuple(n // 2 for n in geometry.shape)
    assert hash(small) != hash(geometry) and hash(geometry) == hash(dataclasses.replace(geometry))


def test_wrong_axes_are_refused(modality):
    with pytest.raises(ValueError, match="expected axes"):
        modality.forward(modality.nominal(), jnp.ones((4, 4, 4, 4)), geometry=GEOMETRY[modality.NAME])
    with pytest.raises(ValueError, match="at least the field"):
        tiny = jnp.ones(tuple(4 for _ in GEOMETRY[modality.NAME].shape))
        modality.forward(modality.nominal(), tiny, geometry=GEOMETRY[modality.NAME])


SCENES = [(confocal, f, {"voxel_um": (0.2, 0.08, 0.08)}, (12, 48, 48)) for f in ("beads", "filaments", "cells")]
SCENES += [(shg, f, {"pixel_um": (0.1, 0.1)}, (96, 96)) for f in ("collagen", "wavy", "sparse")]


@pytest.mark.parametrize(("owner", "family", "pitch", "shape"), SCENES, ids=[s[1] for s in SCENES])
def test_scenes(owner, family, pitch, shape):
    """Peak 1, not negative, dim background, reproducible, different per seed, and no seam that a period would close."""
    x = owner.scene(family, shape=shape, seed=1, **pitch)
    assert x.shape == shape and x.dtype == np.float64
    assert x.max() == 1.0 and x.min() >= 0.0 and 0.02 < x.mean() < 0.6
    np.testing.assert_array_equal(x, owner.scene(family, shape=shape, seed=1, **pitch))
    assert np.abs(x - owner.scene(family, shape=shape, seed=2, **pitch)).max() > 0.1
    inner = np.abs(np.diff(x, axis=-1)).mean()
    seam = np.mean(
        [np.abs(y[..., 0] - y[..., -1]).mean() for y in (owner.scene(family, shape=shape, seed=s, **pitch) for s in range(4))]
    )
    assert seam > 1.3 * inner  # opposite edges are strangers
    bare = owner.scene(family, shape=shape, seed=1, haze=0.0, **pitch)
    assert np.median(bare) < np.median(x)
    assert owner.scene(family, shape=tuple(min(n, 6) for n in shape), seed=0, **pitch).max() == 1.0


def test_scene_families_are_checked(modality):
    with pytest.raises(ValueError, match="expected one of"):
        modality.scene("nonsense", shape=(8, 8, 8), seed=0, **{"voxel_um" if modality is confocal else "pixel_um": (0.1,) * 3})
