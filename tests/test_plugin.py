"""The plug-in in JAX: the operator's steps against dense linear algebra, the NNX layer, unrolled training."""

from __future__ import annotations

import copy
import doctest
import importlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffphys import bind, confocal, shg
from diffphys.plugin.layer import Mismatch, Optics
from diffphys.plugin.physics import physics_of
from diffphys.plugin.unrolled import Unrolled, objective
from diffphys.reconstruct.held_out import FLOOR, deviance
from diffphys.spec import parse

TINY = {"confocal_3d": (confocal.Geometry(shape=(3, 4, 5)), (3, 5, 6)), "shg": (shg.Geometry(shape=(5, 6)), (7, 6))}


def instrument_of(modality):
    geometry, specimen = TINY[modality.NAME]
    return bind(modality, geometry, geometry=None, specimen=specimen)


def spec_at(modality, share):
    """The spec at a share (0 .. 1) of every default range; several shares give one spec per image."""
    ranges = modality.default_ranges(TINY[modality.NAME][0])
    raw = {name: low + np.asarray(share) * (high - low) for name, (low, high) in ranges.items()}
    return parse(modality.Spec, modality.FIELDS, raw, dtype=jnp.result_type(float))


@jax.jit
def columns(physics):
    units = jnp.eye(int(np.prod(physics.specimen)), dtype=physics.operator.modulation.dtype)
    return physics.apply(units.reshape(-1, *physics.specimen))


def dense(physics):
    """The operator as a matrix."""
    return np.asarray(columns(physics), np.float64).reshape(int(np.prod(physics.specimen)), -1).T


def random(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.result_type(float))


def test_a_batch_is_a_loop_over_the_forward_model(modality):
    """One spec per image against the modality's own `forward`; adjoint, gradient and norm against dense matrices."""
    instrument, geometry = instrument_of(modality), TINY[modality.NAME][0]
    shares = (0.3, 0.8)
    x, y = random((2, *instrument.specimen)), random((2, *instrument.measurement), 1)
    weight = random(y.shape, 2)
    each = physics_of(spec_at(modality, shares), instrument=instrument)
    forward = jax.jit(lambda spec, v: modality.forward(spec, v, geometry=geometry))
    images = jax.jit(lambda physics: (physics.apply(x), physics.adjoint(y), physics.gradient(x, y, precision=weight)))(each)
    for i, share in enumerate(shares):
        signal, back, gradient = (np.asarray(v[i]) for v in images)
        np.testing.assert_allclose(signal, forward(spec_at(modality, share), x[i]), rtol=1e-4, atol=1e-6)  # two FFT grids
        matrix = dense(physics_of(spec_at(modality, share), instrument=instrument))
        np.testing.assert_allclose(back.ravel(), matrix.T @ y[i].ravel(), rtol=1e-4, atol=1e-6)
        residual = weight[i].ravel() * (matrix @ x[i].ravel() - y[i].ravel())
        np.testing.assert_allclose(gradient.ravel(), matrix.T @ residual, rtol=1e-4, atol=2e-6)
        square, bound = np.linalg.norm(matrix, 2) ** 2, float(each.lipschitz()[i])
        assert square <= 1.0001 * bound <= 2.0 * square  # loosest on few planes, where most light leaves the volume
    assert each.crop(x).shape == (2, *geometry.shape)


def test_the_proximal_step_is_the_minimum_and_so_is_its_derivative(float64):
    """Against the normal equations of the dense matrix; its slope in the spec against central differences of them."""
    modality, instrument = shg, instrument_of(shg)
    x, y, weight = random(instrument.specimen), random(instrument.measurement, 1), random(instrument.measurement, 2)

    def exact(share):
        matrix = dense(physics_of(spec_at(modality, share), instrument=instrument))
        normal = matrix.T @ (weight.ravel()[:, None] * matrix) + 0.3 * np.eye(x.size)
        return np.linalg.solve(normal, matrix.T @ (weight * y).ravel() + 0.3 * x.ravel())

    @jax.jit
    def ours(spec):
        physics = physics_of(spec, instrument=instrument)
        return physics.proximal(x, y, weight=0.3, precision=weight, gradients=60)

    here, there = spec_at(modality, 0.7), spec_at(modality, 0.71)
    along = jax.tree.map(lambda a, b: (b - a) / 0.01, here, there)
    value, slope = jax.jvp(ours, (here,), (along,))
    np.testing.assert_allclose(value.ravel(), exact(0.7), atol=3e-5)  # 1e-5: where the conjugate gradients stop
    expected = (exact(0.701) - exact(0.699)) / 0.002
    assert np.linalg.norm(slope.ravel() - expected) < 1e-3 * np.linalg.norm(expected)


def test_wrong_shapes_are_named_at_the_door(modality):
    physics = physics_of(spec_at(modality, 0.5), instrument=instrument_of(modality))
    with pytest.raises(ValueError, match=r"x has shape .* expected .* or \(batch"):
        physics.apply(jnp.zeros((2, 3, *physics.specimen)))
    with pytest.raises(ValueError, match="y has shape"):
        physics.gradient(jnp.zeros(physics.specimen), jnp.zeros((1,)))


def test_a_layer_stays_in_its_ranges_and_its_gradient_is_right(float64):
    """One parameter is trained, the others stay; the gradient through the box against central differences."""
    modality, (geometry, specimen) = shg, TINY["shg"]
    start, moving = spec_at(modality, 0.6), modality.FIELDS[0].name
    layer = Optics(modality, geometry, spec=start, trainable=[moving], specimen=specimen)
    assert layer.values == pytest.approx({f.name: float(getattr(start, f.name)) for f in modality.FIELDS}, rel=1e-6)
    x = random(specimen)

    @nnx.jit
    def value(model):
        return jnp.sum(model(x) ** 2)

    slope = nnx.grad(value)(layer)["theta"][...]
    assert slope[0] != 0 and not slope[1:].any()

    def beside(step):
        moved = nnx.clone(layer)
        moved.theta[...] = moved.theta[...].at[0].add(step)
        return value(moved)

    np.testing.assert_allclose(slope[0], (beside(1e-4) - beside(-1e-4)) / 2e-4, rtol=1e-5)
    assert [p for p, _ in nnx.to_flat_state(nnx.state(layer, Mismatch))] == [("theta",)]
    layer.theta[...] = jnp.full(3, -40.0)
    assert layer.values[moving] == pytest.approx(modality.default_ranges(geometry)[moving][0])


def test_what_a_layer_refuses():
    geometry, specimen = TINY["confocal_3d"]
    with pytest.raises(ValueError, match="z_step starts at 0, outside its range 10 to 20"):
        Optics("confocal_3d", geometry, ranges={"z_step": (10, 20)}, specimen=specimen)
    with pytest.raises(ValueError, match=r"trainable has unknown name 'zstep'.*did you mean 'z_step'"):
        Optics("confocal_3d", geometry, trainable=["zstep"], specimen=specimen)


def test_an_instrument_can_be_copied_and_sent_to_a_process(modality):
    """Equal to the original, so that compiled programs are found again; also where the modality is no Python module."""
    for kind in (modality, modality.with_zernike((5, 6))):
        instrument = bind(kind, TINY[modality.NAME][0], geometry=None, specimen=TINY[modality.NAME][1])
        for other in (copy.deepcopy(instrument), pickle.loads(pickle.dumps(instrument))):
            assert other == instrument and hash(other) == hash(instrument)


def test_an_unrolled_solver_trains_with_its_optics():
    """Simulated stacks, true z-step 60 nm, start at 0: the loss falls, images get better, the spec comes home.

    Photon noise of about 50 photons per voxel leaves 1 nm; Adam's last steps of 3 nm are the larger share.
    """
    optics = Optics("confocal_3d", confocal.Geometry(shape=(6, 12, 12)), trainable=["z_step"])
    rng = np.random.default_rng(0)
    points = rng.random((2, *optics.specimen)) < 0.05
    x = jnp.asarray(1e3 * points * rng.random(points.shape), jnp.float32)
    expected = optics(x, spec=confocal.Spec(z_step=60.0, spherical_aberr=0.0, refractive_index=1.515))
    y = jnp.asarray(rng.poisson(np.maximum(expected, 0.0)), jnp.float32)
    floor = float(deviance(y, jnp.maximum(expected, FLOOR)))  # misfit at the truth
    model = Unrolled(optics, steps=2, width=4, rngs=nnx.Rngs(0))
    of_weights = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.All(nnx.Param, nnx.Not(Mismatch)))
    of_optics = nnx.Optimizer(model, optax.adam(0.15), wrt=Mismatch)

    @nnx.jit
    def update(model, of_weights, of_optics):
        loss, slope = nnx.value_and_grad(objective)(model, x, y)
        spec, weights = nnx.split_state(slope, Mismatch, ...)
        of_optics.update(model, spec)
        of_weights.update(model, weights)
        return loss

    losses = [float(update(model, of_weights, of_optics)) - floor for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert abs(model.optics.values["z_step"] - 60.0) < 15.0
    assert model.optics.values["spherical_aberr"] == 0.0


def test_the_example_of_the_docstring_runs():
    tried = doctest.testmod(importlib.import_module("diffphys.plugin.layer"))
    assert tried.attempted >= 8 and tried.failed == 0
