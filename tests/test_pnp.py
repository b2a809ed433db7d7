"""Plug-and-play FISTA and its wavelet shrinkage."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffphys
from diffphys import confocal, demo, shg
from diffphys.reconstruct.wavelets import denoise
from diffphys.types import Status

pytestmark = pytest.mark.usefixtures("optimised")
GEOMETRY = {"shg": shg.Geometry(shape=(64, 64)), "confocal_3d": confocal.Geometry(shape=(16, 32, 32))}
FAMILY = {"shg": "collagen", "confocal_3d": "filaments"}


@pytest.mark.parametrize("shape", [(20, 33), (9, 16, 13)])
def test_no_threshold_changes_nothing_and_a_large_one_leaves_the_mean(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    np.testing.assert_allclose(denoise(x, jnp.float32(0), levels=3), x, atol=1e-5)
    flat = denoise(x, jnp.float32(1e6), levels=3)
    assert float(jnp.std(flat)) < 0.5 * float(jnp.std(x))


def test_shrinkage_removes_noise_and_keeps_an_edge():
    x = jnp.zeros((64, 64)).at[:, 32:].set(1.0)
    noisy = x + 0.2 * jax.random.normal(jax.random.key(0), x.shape)
    clean = denoise(noisy, jnp.float32(0.4), levels=4)
    assert float(jnp.mean((clean - x) ** 2)) < 0.25 * float(jnp.mean((noisy - x) ** 2))


@pytest.mark.parametrize("name", ["shg", "confocal_3d"])
def test_it_beats_the_measurement_and_is_not_negative(name):
    geometry = GEOMETRY[name]
    spec = demo.random_spec(diffphys.types.resolve(name), geometry, 1)
    made = demo.simulated(name, spec, geometry=geometry, family=FAMILY[name], seed=1, photons=300.0)
    known = {"geometry": geometry, "detector": made.detector, "method": "pnp_fista"}
    found = diffphys.reconstruct(made.y, name, spec, iterations=80, **known)
    start = diffphys.reconstruct(made.y, name, spec, iterations=1, **known)
    assert found.status in (Status.CONVERGED, Status.OUT_OF_STEPS) and found.image.min() >= 0
    assert demo.psnr(found.image, made.x) > demo.psnr(start.image, made.x) + 1


@pytest.mark.parametrize("option", [{"levels": 0}, {"strength": -1.0}, {"iterations": 0}, {"stopping": "never"}])
def test_bad_options_are_refused(option):
    geometry = GEOMETRY["shg"]
    y = np.ones((2, 64, 64), np.float32)
    with pytest.raises(ValueError, match="expected"):
        diffphys.reconstruct(
            y, "shg", shg.nominal(), geometry=geometry, detector=diffphys.noise.Detector(), method="pnp_fista", **option
        )
