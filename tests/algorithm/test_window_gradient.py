"""The meta-gradient through K inner updates, in float64.

Gradient: nested tapes and mixed mode against finite differences of the oracle, K from 1 to 3, the
optimiser's memory carried along, coefficients of U learned. Equivalence: K = 1 is the meta-gradient
of one update. Must be zero (or not): a target is constant in ∇_θ J and not in the next θ.
"""

import numpy as np
import pytest
from support.helpers import central_difference, random_batch
from support.update_oracle import directions_of, make_case
from support.windows import MODES, window_gradients

from meta_impala.algorithm.meta_gradient import nested_tapes

SMALL = {"batch_size": 3, "meta_batch_size": 2, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9, "learning_rate": 2.0**-7,
         "learning_rate_schedule": "constant"}  # fmt: skip


def make_window(length, norm=20.0, **settings):
    """A case, and the batches of a window of this length."""
    case = make_case(norm, **(SMALL | settings), inner_steps=length)
    batches = [case.batch, *(random_batch(case.agent, 20 + k) for k in range(length - 1))]
    return case, batches


def assert_is_the_derivative(length, norm=20.0, step=1e-4, rtol=1e-6, count=3, **settings):
    """Both modes against the oracle, in `count` directions."""
    case, batches = make_window(length, norm, **settings)
    found, last = window_gradients(case, batches)
    theta, _ = case.after_window(batches, case.x)
    for ours, theirs in zip(last, theta, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    meta_objective = case.meta_objective(at=theta)
    directions = directions_of(case, count)
    expected = central_difference(
        lambda distances: meta_objective(
            case.after_window(batches, case.x + distances @ directions)[0]
        ),
        np.zeros(len(directions)),
        step,
    )
    nested, mixed = (found[mode].meta_gradient[0].numpy() for mode in MODES)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(mixed, nested, rtol=1e-10, atol=1e-11 * scale)
    np.testing.assert_allclose(directions @ nested, expected, rtol=rtol, atol=1e-7 * scale + 1e-11)
    for mode in MODES:
        np.testing.assert_allclose(found[mode].meta_loss, meta_objective(theta), rtol=1e-9)
    return nested


@pytest.mark.parametrize(
    ("length", "norm"),
    [
        (2, 80.0),
        (3, 20.0),
        pytest.param(2, 20.0, marks=pytest.mark.slow),
        pytest.param(3, 80.0, marks=pytest.mark.slow),
    ],
)
def test_the_window_is_the_finite_difference(length, norm):
    names = "gamma,lambda,entropy_cost,vtrace_alpha,learning_rate_factor,rmsprop_decay"
    actual = assert_is_the_derivative(length, norm, meta_parameters=names, count=6)
    assert np.all(np.abs(actual) > 1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"inner_optimizer": "adam", "adam_epsilon": 1e-2, "meta_kl_cost": 1.0},
        {"inner_optimizer": "sgd", "core": "lstm", "core_size": 4},
        {"meta_gradient_paths": "importance_weights", "eta_embedding_size": 3,
         "eta_embedding_place": "heads", "meta_value_head": "reference",
         "meta_baseline_cost": 0.5},
    ],
)  # fmt: skip
def test_other_optimisers_and_paths(settings):
    assert_is_the_derivative(2, **settings)


@pytest.mark.parametrize("mode", MODES)
def test_a_window_of_one_is_one_update(mode):
    case, batches = make_window(1, meta_parameters="gamma,learning_rate_factor")
    found = window_gradients(case, batches)[0][mode]
    expected = case.meta_step(nested_tapes)
    np.testing.assert_allclose(
        found.meta_gradient[0], expected.meta_gradient[0], rtol=1e-11, atol=1e-14
    )
    np.testing.assert_allclose(found.meta_loss, expected.meta_loss, rtol=1e-12)


def test_micro_batches_add_up():
    results = []
    for count in (1, 2):
        case, batches = make_window(
            2, batch_size=4, meta_batch_size=2, micro_batches=count,
            meta_gradient_mode="reverse_over_forward",
        )  # fmt: skip
        results.append(window_gradients(case, batches, modes=MODES[1:])[0][MODES[1]])
    one, two = results
    np.testing.assert_allclose(two.meta_gradient[0], one.meta_gradient[0], rtol=1e-9)
    np.testing.assert_allclose(two.meta_loss, one.meta_loss, rtol=1e-10)
