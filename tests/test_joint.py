"""The joint estimator: right gradients, descent, what it finds from the ratio of frames, and the bias that it is known for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffphys import confocal, demo, shg
from diffphys.calibrate import joint as module
from diffphys.calibrate.joint import joint
from diffphys.spec import Box, as_vector, parse
from diffphys.types import Status

FRAMES = shg.Geometry(shape=(64, 64), phase_offsets_rad=(0.0, 1.5))
STACK = confocal.Geometry(shape=(16, 32, 32))


def measured(modality, geometry, family, **values):
    spec = parse(modality.Spec, modality.FIELDS, values)
    return demo.simulated(modality, spec, geometry=geometry, family=family, seed=3, photons=1000.0)


def setting_of(modality, geometry, data, spec):
    box = Box.of(modality.FIELDS, modality.default_ranges(geometry))
    return module.prepare(spec, data.y, modality, geometry=geometry, detector=data.detector, box=box)


@pytest.mark.parametrize(("modality", "geometry", "family"), [(confocal, STACK, "beads"), (shg, FRAMES, "wavy")])
def test_gradient_of_the_objective(float64, modality, geometry, family):
    data = demo.simulated(modality, modality.nominal(geometry), geometry=geometry, family=family, seed=4)
    wide = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64), setting_of(modality, geometry, data, modality.nominal(geometry))
    )
    start = np.random.default_rng(5).normal(0.3, 0.4, wide.instrument.specimen)
    turn = np.random.default_rng(6).normal(size=start.shape)

    def along(step, theta):
        return module.objective(wide, jnp.asarray(start) + step * turn, theta) / 1e4

    check_grads(jax.jit(along), (jnp.float64(0.0), jnp.array([0.2, -0.3, 0.1])), order=1, modes=("rev",), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheme", module.SCHEMES)
@pytest.mark.parametrize("optimiser", module.OPTIMISERS)
def test_two_frames_tell_the_phase_mismatch_to_it_too(scheme, optimiser):
    data = measured(shg, FRAMES, "wavy", phase_matching_error=0.7, excitation_power_fluctuation=0.0, collection_na_mismatch=0.0)
    known = {"collection_na_mismatch": (0.0, 0.0), "excitation_power_fluctuation": (0.0, 0.0)}
    found = joint(
        data.y, shg, geometry=FRAMES, detector=data.detector, ranges=known, scheme=scheme, optimiser=optimiser, iterations=80
    )
    curve = found.reconstruction.curve
    assert found.reconstruction.status in (Status.CONVERGED, Status.OUT_OF_STEPS)
    assert curve[-1] < 0.2 * curve[0] and found.reconstruction.image.min() >= 0
    assert float(found.spec.phase_matching_error) == pytest.approx(0.7, abs=0.05)
    assert float(found.spec.collection_na_mismatch) == 0.0
    assert demo.psnr(found.reconstruction.image, data.x) > 20


def test_its_objective_prefers_a_sharper_psf_than_the_true_one():
    """The reason why it is not the default: started at the truth, it leaves it, downhill, for less aberration."""
    data = measured(confocal, STACK, "beads", z_step=0.0, spherical_aberr=0.12, refractive_index=1.515)
    known = {"refractive_index": (1.515, 1.515)}
    options = {"geometry": STACK, "detector": data.detector, "iterations": 150, "spec": data.spec}
    held = known | {"spherical_aberr": (0.12, 0.12), "z_step": (0.0, 0.0)}
    at_truth = joint(data.y, confocal, ranges=held, **options)
    free = joint(data.y, confocal, ranges=known, **options)
    assert free.reconstruction.curve[-1] < at_truth.reconstruction.curve[-1] - 50  # nats
    moved = as_vector(free.spec, confocal.FIELDS) - as_vector(data.spec, confocal.FIELDS)
    assert abs(float(moved[0])) > 5 or abs(float(moved[1])) > 0.01  # far beyond the error bars of the evidence


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="expected \\['simultaneous', 'alternating'\\]"):
        joint(np.ones((16, 32, 32)), confocal, geometry=STACK, detector=demo.Detector(), scheme="both")
    for y, message in ((np.ones((16, 32)), "y has shape"), (np.full((16, 32, 32), np.nan), "NaN or infinite")):
        with pytest.raises(ValueError, match=message):
            joint(y, confocal, geometry=STACK, detector=demo.Detector())
