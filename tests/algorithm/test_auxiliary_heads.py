"""Policy and value heads with an η of their own each (STACX), in float64.

Gradient: both derivations, by the x of every head, against finite differences of the oracle, whose
∇_θ J is the sum over the heads. Must be zero: what only the first head does.
"""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import central_difference, make_agent, random_batch
from support.update_oracle import make_case

from meta_impala.algorithm.meta_gradient import nested_tapes, reverse_over_forward

SMALL = {"batch_size": 3, "meta_batch_size": 2, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9, "auxiliary_heads": 2}  # fmt: skip
NAMES = "gamma,lambda,baseline_cost,learning_rate_factor"
LOGITS = np.array([[1.5, 0.8, 0.4, -0.3], [0.7, -0.2, 0.1, 0.9], [-0.4, 0.5, -0.6, 0.2]])


@contextlib.contextmanager
def seen_by_head(case, index):
    """The oracle, with the outputs of an auxiliary head in place of the first ones."""
    forward = case.forward

    def of_head(batch, eta_input):
        output = forward(batch, eta_input)
        return output._replace(**output.auxiliary[index]._asdict())

    case.forward = of_head
    yield
    del case.forward


def gradient_at(case, logits):
    """∇_θ J of all heads."""
    total = case.inner_gradient(logits[0])
    for index, of_head in enumerate(logits[1:]):
        with seen_by_head(case, index):
            parts = case.inner_gradient(of_head)
        total = [one + other for one, other in zip(total, parts, strict=True)]
    return total


@pytest.mark.parametrize("paths", ["returns"])
def test_every_head_has_the_derivative_of_its_own_eta(paths):
    case = make_case(None, **SMALL, meta_parameters=NAMES, meta_kl_cost=1.0)
    case.x = LOGITS[0]
    state = case.agent.learner.state
    for variable, values in zip(state.auxiliary_x, LOGITS[1:], strict=True):
        variable.assign(values)
    parameters, _, objective, rule, meta_objective = case.arguments()
    x = [variable.read_value() for variable in state.logits]
    steps = [mode(parameters, x, objective, rule, meta_objective) for mode in (nested_tapes,
             reverse_over_forward)]  # fmt: skip

    def updated(flat):
        logits = flat.reshape(LOGITS.shape)
        return case.updated(gradient_at(case, logits), x=logits[0])

    of_oracle = case.meta_objective(at=updated(LOGITS.ravel()))
    expected = central_difference(lambda flat: of_oracle(updated(flat)), LOGITS.ravel(), 1e-4)
    expected = expected.reshape(LOGITS.shape)
    nested, mixed = (np.array([g.numpy() for g in step.meta_gradient]) for step in steps)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(nested, expected, rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(mixed, nested, rtol=1e-10, atol=1e-12 * scale)
    assert np.all(np.abs(nested[:, :3]) > 1e-10)
    np.testing.assert_array_equal(nested[1:, 3], 0.0)  # the rule is of the first η


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.usefixtures("eager")
def test_the_learner_moves_the_eta_of_every_head(inner_steps):
    agents = [
        make_agent(
            tf.float64, **SMALL, inner_steps=inner_steps, meta_gradient_mode=mode,
            meta_parameters="gamma,baseline_cost",
        )
        for mode in ("nested_tapes", "reverse_over_forward")
    ]  # fmt: skip
    batches = [random_batch(agents[0], seed) for seed in range(4)]
    for agent in agents:
        before = [variable.numpy() for variable in agent.learner.state.logits]
        for updates in range(2):
            row, snapshot = agent.learner.update(batches[updates], batches[updates + 1], updates, 0)
        for old, variable in zip(before, agent.learner.state.logits, strict=True):
            assert np.all(variable.numpy() != old)
        assert snapshot.eta.values.shape == (2,) and row.applied == 1.0
    for one, other in zip(*(agent.learner.state.logits for agent in agents), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-9)
