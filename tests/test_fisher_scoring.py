"""The iteration under every calibration: minima of known functions, in and on the edge of a box."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffphys.calibrate import fisher_scoring as scoring

TRUTH = np.array([0.3, -0.2, 0.1], np.float32)
HESSIAN = np.array([[900.0, 60.0, 0.0], [60.0, 50.0, 2.0], [0.0, 2.0, 4.0]], np.float32)


def box(low=-1.0, high=1.0, step=0.5):
    return scoring.Box(*(jnp.full(3, value, jnp.float32) for value in (low, high, step)))


def counted(stiffness, offset=0.0):
    """A quadratic bowl whose Fisher matrix is the Hessian over `stiffness`, and the points at which it was asked."""
    asked = []

    def evaluate(q):
        jax.debug.callback(lambda at: asked.append(np.asarray(at)), q)
        away = q - TRUTH
        pull = jnp.asarray(HESSIAN) @ away
        return offset + 0.5 * away @ pull, pull, jnp.asarray(HESSIAN) / jnp.asarray(stiffness)

    return evaluate, asked


def ended(evaluate, where, iterations=40, **limits):
    state = scoring.minimise(
        evaluate, box(**limits), jnp.asarray(where, jnp.float32), mask=jnp.ones(3), iterations=jnp.int32(iterations)
    )
    jax.effects_barrier()
    return state


@pytest.mark.parametrize("stiffness", [1.0, 0.5, 3.0, 5.0])
def test_a_bowl_is_left_at_its_bottom_whatever_the_model_says_of_its_curvature(stiffness):
    """Specimens are not the prior's: the curvature is up to five times Fisher's, and undamped steps overshoot from twice on."""
    evaluate, asked = counted(stiffness)
    state = ended(evaluate, [-0.4, 0.5, 0.8])
    assert float(state.value) < 5 * scoring.SETTLED
    assert len(asked) < 40, "it stopped by itself"


def test_nothing_is_asked_again_and_again_where_rounding_hides_the_rest():
    """A value of 7000 nats has the last digit at 5e-4: at the bottom no step is better, and the foretold gain says so."""
    evaluate, asked = counted(1.0, offset=7000.0)
    state = ended(evaluate, TRUTH + np.float32(1e-3))
    np.testing.assert_allclose(state.q, TRUTH, atol=2e-3)
    assert len(asked) <= 5


def test_an_edge_holds_what_lies_beyond_it_and_lets_the_rest_go_on():
    evaluate, _ = counted(1.0)
    state = ended(evaluate, [-0.4, 0.5, 0.8], low=-0.1, high=0.6)
    assert float(state.q[1]) == pytest.approx(-0.1, abs=1e-6)
    free = [0, 2]
    inner = np.linalg.solve(HESSIAN[np.ix_(free, free)], -HESSIAN[free, 1] * (-0.1 - TRUTH[1]))
    np.testing.assert_allclose(np.asarray(state.q)[free], TRUTH[free] + inner, atol=5e-3)


def test_a_masked_parameter_stays():
    evaluate, _ = counted(1.0)
    start = jnp.asarray([-0.4, 0.5, 0.8], jnp.float32)
    state = scoring.minimise(evaluate, box(), start, mask=jnp.array([1.0, 0.0, 1.0]), iterations=jnp.int32(40))
    assert float(state.q[1]) == 0.5


def test_a_start_without_a_value_is_given_back_as_it_is():
    evaluate, asked = counted(1.0, offset=np.nan)
    state = ended(evaluate, [0.1, 0.1, 0.1])
    assert np.isinf(state.value) and len(asked) == 1
    np.testing.assert_array_equal(np.asarray(state.q), np.float32([0.1, 0.1, 0.1]))
