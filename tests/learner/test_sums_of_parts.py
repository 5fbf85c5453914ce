"""Windows, bootstrapped targets and auxiliary heads, with learners and micro-batches that each have
a part of the columns (equivalence, float64): every update and every meta step is that of the whole.
"""

import functools

import numpy as np
import pytest
from support.helpers import perturb, random_batch
from support.learners import Learners

ALL_OF_U = "learning_rate_factor,rmsprop_decay,max_gradient_norm"
BOOTSTRAPPED = {"meta_objective": "bootstrapped", "bootstrap_steps": 2}


SETTINGS = {
    "one update, U learned": {},
    "window": {"inner_steps": 2, "meta_kl_cost": 1.0},
    "window of three, Adam, LSTM": {
        "inner_steps": 3, "inner_optimizer": "adam", "core": "lstm", "core_size": 4,
        "meta_parameters": "gamma,entropy_cost,learning_rate_factor"},
    "bootstrapped": BOOTSTRAPPED,
    "heads": {"auxiliary_heads": 2},
    "window, bootstrapped, heads": BOOTSTRAPPED | {"inner_steps": 2, "auxiliary_heads": 2},
    "paths, second critic": {
        "inner_steps": 2, "eta_embedding_size": 3, "meta_gradient_paths": "importance_weights",
        "meta_value_head": "reference", "meta_baseline_cost": 0.5},
    "window, second critic, tracked": {
        "inner_steps": 2, "meta_value_head": "reference", "meta_baseline_cost": 0.5,
        "reference_tracking": "gamma,lambda,vtrace_alpha"},
    "bootstrapped, tracked": BOOTSTRAPPED | {
        "reference_tracking": f"gamma,entropy_cost,vtrace_alpha,{ALL_OF_U}"},
    "judged by itself": {"inner_steps": 2, "meta_data": "same"},
}  # fmt: skip
SIZES = ((2, 1), (1, 2), (2, 3))  # learners, micro-batches of each
# One of each in the ordinary run: everything at once, in parts of parts.
QUICK = ("window, bootstrapped, heads", 2, 3)


def made(size, parts, settings):
    """The learners, before the first update."""
    return Learners(
        size,
        **{
            "environment": "Catch", "network": "mlp", "mlp_sizes": "6", "batch_size": 6,
            "meta_batch_size": 6, "unroll_length": 3, "lambda_": 0.7, "gamma": 0.9,
            "eta_embedding_size": 0, "learning_rate": 2.0**-7, "reward_clip": 0.0,
            "max_gradient_norm": 1.5, "meta_learning_rate": 0.1, "micro_batches": parts,
            "meta_parameters": f"gamma,lambda,entropy_cost,vtrace_alpha,{ALL_OF_U}",
            "meta_gradient_mode": "reverse_over_forward", "learning_rate_schedule": "constant",
        }
        | settings,
    )  # fmt: skip


def run(learners, settings, batches):
    """Rows of two meta steps and, of a window, of an update of the next one."""
    for agent in learners.agents:
        perturb(agent, 1)
    rows = []
    for updates in range(2 * settings.get("inner_steps", 1) + 1):
        ahead = batches[updates + 1 : updates + 1 + settings.get("bootstrap_steps", 1)]
        if settings.get("meta_data") == "same":
            ahead = [batches[updates]]
        rows.append([row.numbers() for row, _ in learners.update(batches[updates], ahead, updates)])
    return rows


@functools.cache
def of_whole(name):
    """The batches, the state of one learner without micro-batches after them, and its rows."""
    settings = SETTINGS[name]
    whole = made(1, 1, settings)
    batches = [random_batch(whole.agents[0], seed) for seed in range(9)]
    rows = run(whole, settings, batches)
    (state,) = whole.states
    start = whole.agents[0].learner.meta_parameters.initial_logits()
    assert np.all(np.abs(state.x.numpy() - start) > 1e-3)
    return batches, state, rows


def assert_same_state(one, other):
    for ours, theirs in zip(one.shared_variables, other.shared_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12, err_msg=ours.name)


@pytest.mark.parametrize(
    ("name", "size", "parts"),
    [
        pytest.param(name, *sizes, marks=() if (name, *sizes) == QUICK else pytest.mark.slow)
        for name in SETTINGS
        for sizes in SIZES
    ],
)
def test_parts_make_the_update_of_the_whole(name, size, parts):
    batches, state, expected = of_whole(name)
    of_parts = made(size, parts, SETTINGS[name])
    found = run(of_parts, SETTINGS[name], batches)
    for other in of_parts.states:
        assert_same_state(other, state)
    for (one,), others in zip(expected, found, strict=True):
        for other in others:
            assert other.keys() == one.keys()
            for name, number in other.items():
                np.testing.assert_allclose(number, one[name], rtol=2e-5, atol=1e-6, err_msg=name)
