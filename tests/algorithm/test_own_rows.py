"""A meta-parameter, a term of J and a term of J' that are added from outside of the package.

Gradient: the added weight is learned, and its meta-gradient is a finite difference of J' over it.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import central_difference, make_agent, random_batch

from meta_impala.algorithm import losses, meta_gradient
from meta_impala.config import hyper_parameters


def smallness(inputs: losses.TermInputs) -> tf.Tensor:
    """Σ logits², per step."""
    return tf.reduce_sum(tf.square(inputs.logits), axis=-1)


@pytest.fixture
def own_rows(monkeypatch):
    """Registers the row and both terms, and removes them again."""
    for table in (hyper_parameters.TABLE, losses.TERMS, losses.INNER_WEIGHTS,
                  losses.OWN_META_WEIGHTS):  # fmt: skip
        for name, value in list(table.items()):
            monkeypatch.setitem(table, name, value)
    hyper_parameters.register(
        hyper_parameters.HyperParameter(
            "smallness_cost", "g_s", "weight of small logits",
            lambda config: 0.1, lambda constant: (0.0, 1.0),
        )
    )  # fmt: skip
    losses.TERMS["smallness"] = smallness
    losses.INNER_WEIGHTS["smallness"] = "smallness_cost"
    losses.OWN_META_WEIGHTS["smallness"] = 0.5
    yield
    del hyper_parameters.TABLE["smallness_cost"], losses.TERMS["smallness"]
    del losses.INNER_WEIGHTS["smallness"], losses.OWN_META_WEIGHTS["smallness"]


FED = {"eta_embedding_size": 3, "embedded_meta_parameters": "smallness_cost"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        # J' is fed the current weight, as a constant.
        {
            **FED,
            "reference_tracking": "smallness_cost",
            "meta_gradient_paths": "importance_weights",
        },
    ],
    ids=["learned", "learned and tracked"],
)
def test_a_registered_weight_of_ones_own_is_learned(own_rows, settings):
    agent = make_agent(tf.float64, meta_parameters="gamma,smallness_cost", lambda_=0.7, **settings)
    factory, state = agent.learner.factory, agent.learner.state
    np.testing.assert_allclose(tf.sigmoid(state.x[1]), 0.1, rtol=1e-6)
    batch, meta_batch = random_batch(agent, 0), random_batch(agent, 1, batch_size=3)
    rate = tf.constant(1e-2, tf.float64)
    parts = factory.parts(batch, meta_batch, rate)
    steps = [mode(*parts).meta_gradient[0].numpy() for mode in (
        meta_gradient.nested_tapes, meta_gradient.reverse_over_forward)]  # fmt: skip
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-10)
    # J' has its own term too, and no target in it moves: so θ' alone carries x to it.
    weights = [v.read_value() for v in agent.network.trainable_variables]
    step = meta_gradient.inner_step(*parts[:4])
    _, _, sensitivity = meta_gradient.meta_loss_and_gradient(parts.meta_objective, step.parameters)

    def along(x):
        logits = tf.constant([float(state.x[0]), x[0]], tf.float64)
        there = meta_gradient.inner_step(weights, [logits], parts.inner_objective,
                                         parts.update_rule).parameters  # fmt: skip
        return sum(float(tf.reduce_sum(s * p)) for s, p in zip(sensitivity, there, strict=True))

    expected = central_difference(along, np.array([float(state.x[1])]), 1e-4)
    assert abs(expected[0]) > 1e-9
    np.testing.assert_allclose(steps[0][1], expected[0], rtol=1e-6)
    without = {**parts.meta_objective.weights, "smallness": 0.0}
    assert without != parts.meta_objective.weights


@pytest.mark.parametrize("settings", [FED, {"meta_objective": "bootstrapped", "inner_steps": 2}])
@pytest.mark.usefixtures("eager")
def test_a_tracked_row_of_ones_own_is_its_number_in_the_meta_objective(own_rows, settings):
    """J' and the step of x are those at the current number, and not those at another."""

    def found(**chosen):
        agent = make_agent(
            tf.float64, **settings | chosen, meta_parameters="gamma,smallness_cost", lambda_=0.7,
            meta_optimizer="sgd",
        )  # fmt: skip
        agent.learner.state.x.assign([1.5, -0.5])
        for updates in range(agent.config.inner_steps):
            batch, other = random_batch(agent, updates), random_batch(agent, 9)
            row, _ = agent.learner.update(batch, other, updates, 0)
        return np.array([row.meta_loss, *agent.learner.state.x.numpy() - [1.5, -0.5]])

    tracked = found(reference_tracking="smallness_cost")
    number = float(tf.sigmoid(tf.constant(-0.5, tf.float64)))
    fixed, other = (
        found(meta_parameter_references=f"smallness_cost:{value!r}") for value in (number, 0.9)
    )
    np.testing.assert_allclose(tracked, fixed, rtol=1e-6)
    assert np.all(np.abs(tracked - other) > 1e-4 * np.abs(tracked))


def test_a_name_cannot_be_registered_twice(own_rows):
    with pytest.raises(ValueError, match="smallness_cost"):
        hyper_parameters.register(hyper_parameters.TABLE["smallness_cost"])
