"""Policy and value heads with an η of their own each (STACX), in float64.

Gradient: both derivations, by the x of every head, against finite differences of the oracle, whose
∇_θ J is the sum over the heads. Must be zero: what only the first head does.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import central_difference, make_agent, random_batch
from support.update_oracle import make_case
from support.windows import assign_logits, with_heads

from meta_impala.algorithm.meta_gradient import nested_tapes, reverse_over_forward

SMALL = {"batch_size": 3, "meta_batch_size": 2, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9, "auxiliary_heads": 2}  # fmt: skip
NAMES = "gamma,lambda,baseline_cost,learning_rate_factor"
LOGITS = np.array([[1.5, 0.8, 0.4, -0.3], [0.7, -0.2, 0.1, 0.9], [-0.4, 0.5, -0.6, 0.2]])


@pytest.mark.parametrize("paths", ["returns"])
def test_every_head_has_the_derivative_of_its_own_eta(paths):
    case = make_case(None, **SMALL, meta_parameters=NAMES, meta_kl_cost=1.0)
    case.x = LOGITS[0]
    parameters, _, objective, rule, meta_objective = case.arguments()
    case = with_heads(case, LOGITS)
    assign_logits(case)
    x = [variable.read_value() for variable in case.agent.learner.state.logits]
    steps = [mode(parameters, x, objective, rule, meta_objective) for mode in (nested_tapes,
             reverse_over_forward)]  # fmt: skip

    def updated(flat):
        return case.updated(case.inner_gradient(flat), x=flat)

    of_oracle = case.meta_objective(at=updated(case.x))
    expected = central_difference(lambda flat: of_oracle(updated(flat)), case.x, 1e-4)
    expected = expected.reshape(LOGITS.shape)
    nested, mixed = (np.array([g.numpy() for g in step.meta_gradient]) for step in steps)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(nested, expected, rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(mixed, nested, rtol=1e-10, atol=1e-12 * scale)
    assert np.all(np.abs(nested[:, :3]) > 1e-10)
    np.testing.assert_array_equal(nested[1:, 3], 0.0)  # the rule is of the first η


def assert_reports_every_head(row, used, logits):
    """The value that the update used, and the step that its meta-gradient made."""
    for head, (old, new) in enumerate(zip(used[1:], logits[1:], strict=True), 2):
        np.testing.assert_allclose(row[f"gamma_head_{head}"], 1.0 / (1.0 + np.exp(-old[0])), 1e-6)
        moved = new.numpy()[1] - old[1]
        np.testing.assert_allclose(row[f"x_step_baseline_cost_head_{head}"], moved, rtol=1e-6)
        of_x = row[f"meta_gradient_baseline_cost_head_{head}"]
        np.testing.assert_allclose(-0.5 * of_x, moved, rtol=1e-5)
    assert len({row[f"meta_gradient_gamma{head}"] for head in ("", "_head_2", "_head_3")}) == 3


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.usefixtures("eager")
def test_the_learner_moves_the_eta_of_every_head(inner_steps):
    agents = [
        make_agent(
            tf.float64, **SMALL, inner_steps=inner_steps, meta_gradient_mode=mode,
            meta_parameters="gamma,baseline_cost", meta_optimizer="sgd", meta_learning_rate=0.5,
        )
        for mode in ("nested_tapes", "reverse_over_forward")
    ]  # fmt: skip
    batches = [random_batch(agents[0], seed) for seed in range(4)]
    for agent in agents:
        before = [variable.numpy() for variable in agent.learner.state.logits]
        for updates in range(2):
            used = [variable.numpy() for variable in agent.learner.state.logits]
            row, snapshot = agent.learner.update(batches[updates], batches[updates + 1], updates, 0)
        assert_reports_every_head(row.numbers(), used, agent.learner.state.logits)
        for old, variable in zip(before, agent.learner.state.logits, strict=True):
            assert np.all(variable.numpy() != old)
        assert snapshot.eta.values.shape == (2,) and row.applied == 1.0
    for one, other in zip(*(agent.learner.state.logits for agent in agents), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-9)
