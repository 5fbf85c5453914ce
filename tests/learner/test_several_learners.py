"""The update of several learners, each with a part of the columns, is that of one with all of them,
in float64. Equivalence; and what would be lost if each differentiated through its own part alone.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.together import Together, parts_of
from support.update_oracle import make_case

from meta_impala.algorithm.meta_gradient import (
    inner_step,
    meta_loss_and_gradient,
    nested_tapes,
    reverse_over_forward,
)

CASES = {  # norm of g (the clip is at 40), number of learners, settings
    "below the clip": (20.0, 2, {}),
    "above the clip": (80.0, 3, {}),
    "lstm, adam": (80.0, 2, {"core": "lstm", "core_size": 5, "inner_optimizer": "adam"}),
    "state": (
        80.0,
        2,
        {
            "meta_parameters": "gamma,lambda,entropy_cost,rho_clip,max_gradient_norm",
            "meta_parameter_scope": "gamma,entropy_cost,rho_clip",
        },
    ),
    "all paths and terms": (
        80.0,
        2,
        {
            "meta_gradient_paths": "importance_weights", "eta_embedding_size": 4,
            "meta_baseline_cost": 0.3, "meta_entropy_cost": 0.2, "meta_kl_cost": 0.7,
            "meta_value_head": "reference",
        },
    ),
}  # fmt: skip


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_the_update_of_parts_is_the_update_of_the_whole(name):
    norm, size, settings = CASES[name]
    sizes = {"batch_size": 2 * size, "meta_batch_size": 2 * size, "unroll_length": 3}
    whole = make_case(norm, **sizes, **settings)
    expected = reverse_over_forward(*whole.arguments())
    assert (expected.inner.update_auxiliary[2] < 1.0) == (norm > 40.0)
    together = Together(size)
    learners = parts_of(whole, size)
    steps = together.run(
        lambda i: reverse_over_forward(*learners[i].arguments(), reduce=together.reduce)
    )
    assert together.rounds == 3
    for step in steps:
        close(step.inner.inner_loss, expected.inner.inner_loss)
        close(step.meta_loss, expected.meta_loss)
        close(step.meta_gradient[0], expected.meta_gradient[0])
        for ours, theirs in zip(step.inner.parameters, expected.inner.parameters, strict=True):
            close(ours, theirs)
        tf.nest.map_structure(
            close, step.inner.update_auxiliary, expected.inner.update_auxiliary
        )  # slots, norm, coefficient

    # With tapes around each learner's own part the way of one part's η through θ' to another
    # part's J' is lost, and the clip is not that of the sum.
    alone = sum(nested_tapes(*learner.arguments()).meta_gradient[0] for learner in learners)
    difference = np.abs(alone - expected.meta_gradient[0]).max()
    assert difference > 1e-2 * np.abs(expected.meta_gradient[0]).max()


def test_without_a_meta_gradient_there_is_one_reduction():
    whole = make_case(80.0, meta_parameters="none", batch_size=4)
    expected = inner_step(*whole.arguments()[:-1])
    together, learners = Together(2), parts_of(whole, 2)
    steps = together.run(
        lambda i: inner_step(*learners[i].arguments()[:-1], reduce=together.reduce)
    )
    assert together.rounds == 1
    for step in steps:
        close(step.inner_loss, expected.inner_loss)
        for ours, theirs in zip(step.parameters, expected.parameters, strict=True):
            close(ours, theirs)


def test_the_meta_objective_is_the_sum_over_all_parts():
    """dJ'/dθ' of the whole is the sum of the parts' (what the second reduction rests on)."""
    whole = make_case(batch_size=4, meta_batch_size=4)
    parameters, *_, meta_objective = whole.arguments()
    _, _, expected = meta_loss_and_gradient(meta_objective, parameters)
    parts = [
        meta_loss_and_gradient(part.arguments()[-1], parameters)[2] for part in parts_of(whole, 2)
    ]
    for total, *terms in zip(expected, *parts, strict=True):
        close(sum(terms), total)
