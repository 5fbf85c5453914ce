"""Several inner updates per meta step, through `Learner.update`.

Ground truth: the step of x at the end of a window is that of the oracle's finite difference.
Determinism: a state that is saved within a window and restored goes on to the bit. Equivalence: the
inner updates of a window are those of plain IMPALA as long as x stands still.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import central_difference, make_agent, random_batch
from support.update_oracle import make_case

SMALL = {"batch_size": 3, "meta_batch_size": 3, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9, "learning_rate": 2.0**-7,
         "learning_rate_schedule": "constant", "inner_steps": 2}  # fmt: skip


def run(agent, batches, start=0, stop=None):
    rows = []
    for updates in range(start, len(batches) - 1 if stop is None else stop):
        row, snapshot = agent.learner.update(batches[updates], batches[updates + 1], updates, 0)
        rows.append(row)
    return rows, snapshot


def variables_of(agent):
    return [variable.numpy() for variable in agent.learner.state.variables]


@pytest.mark.parametrize("mode", ["nested_tapes", "reverse_over_forward"])
@pytest.mark.usefixtures("eager")
def test_the_step_of_x_is_through_both_updates(mode):
    case = make_case(
        20.0, **SMALL, meta_parameters="gamma,entropy_cost,learning_rate_factor",
        meta_optimizer="sgd", meta_learning_rate=0.5, meta_gradient_mode=mode,
        max_gradient_norm=0.0,
    )  # fmt: skip
    state = case.agent.learner.state
    state.x.assign(case.x)
    batches = [case.batch, *(random_batch(case.agent, 20 + k) for k in range(2))]
    case.meta_batch = batches[2]
    last, _ = case.after_window(batches[:2], case.x)
    meta_objective = case.meta_objective(at=last)
    expected = central_difference(
        lambda x: meta_objective(case.after_window(batches[:2], x)[0]), case.x, 1e-4
    )
    (first, second), snapshot = run(case.agent, batches)
    assert math.isnan(first.meta_loss) and first.applied == second.applied == 1.0
    assert math.isnan(first.meta_applied) and second.meta_applied == 1.0
    np.testing.assert_allclose(state.x.numpy() - case.x, -0.5 * expected, rtol=1e-6, atol=1e-10)
    for ours, theirs in zip(snapshot.parameters, last, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert state.window.made == 0
    steps = np.sum(~batches[2].truncations.numpy()[1:])
    np.testing.assert_allclose(second.meta_loss, meta_objective(last) / steps, rtol=1e-5)
    np.testing.assert_allclose(second.others["meta_gradient_entropy_cost"], expected[1], rtol=1e-4)
    np.testing.assert_allclose(
        second.others["x_step_learning_rate_factor"], -0.5 * expected[2], rtol=1e-4
    )
    # The next update still reports the last meta step.
    row, _ = case.agent.learner.update(batches[0], batches[1], 2, 0)
    assert row.meta_loss == second.meta_loss and state.window.made == 1
    assert math.isnan(row.meta_applied)
    np.testing.assert_allclose(snapshot.eta.values[0], tf.sigmoid(state.x[0]), rtol=1e-6)


def test_a_state_saved_within_a_window_continues_to_the_bit(tmp_path):
    agents = [make_agent(**SMALL) for _ in range(2)]
    batches = [random_batch(agents[0], seed) for seed in range(5)]
    run(agents[0], batches, stop=3)
    assert agents[0].learner.state.window.made == 1
    path = str(tmp_path / "state")
    tf.train.Checkpoint(learner=agents[0].learner.state).write(path)
    tf.train.Checkpoint(learner=agents[1].learner.state).read(path).assert_consumed()
    rows = [run(agent, batches, start=3)[0] for agent in agents]
    assert rows[0] == rows[1]
    for one, other in zip(*map(variables_of, agents), strict=True):
        np.testing.assert_array_equal(one, other)
    assert agents[0].learner.state.window.made == 0


@pytest.mark.usefixtures("eager")
def test_an_update_that_is_not_finite_ends_the_window():
    agent = make_agent(**SMALL)
    batches = [random_batch(agent, seed) for seed in range(5)]
    bad = batches[1]._replace(rewards=batches[1].rewards * float("nan"))
    x = agent.learner.state.x.numpy()
    run(agent, [batches[0], batches[2]])
    assert agent.learner.state.window.made == 1
    (row,), _ = run(agent, [bad, batches[2]])
    assert row.applied == 0.0 and agent.learner.state.window.made == 0
    np.testing.assert_array_equal(agent.learner.state.x, x)
    for variable in agent.learner.state.variables:
        assert np.all(np.isfinite(variable.numpy()))
    run(agent, batches[:3])
    assert np.all(agent.learner.state.x.numpy() != x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.usefixtures("eager")
def test_a_meta_step_that_is_not_finite_leaves_a_state_that_can_be_saved(bad):
    agent = make_agent(**SMALL, reward_clip=0.0)
    first, second, ahead = (random_batch(agent, seed) for seed in range(3))
    x = agent.learner.state.x.numpy()
    bad_ahead = ahead._replace(rewards=ahead.rewards * bad)
    (_, row), _ = run(agent, [first, second, bad_ahead])
    assert row.applied == 1.0 and row.meta_applied == 0.0 and not math.isfinite(row.meta_loss)
    np.testing.assert_array_equal(agent.learner.state.x, x)
    # And where a reward of τ_k is infinite but clipped.
    clipped = make_agent(**SMALL)
    (row,), _ = run(clipped, [first._replace(rewards=first.rewards * float("inf")), second])
    assert row.applied == 1.0
    for state in (agent.learner.state, clipped.learner.state):
        for variable in state.finite_variables:
            assert np.all(np.isfinite(variable.numpy()))


@pytest.mark.usefixtures("eager")
def test_the_inner_updates_are_those_of_one_inner_step():
    """With x held still (β tiny), K = 2 and K = 1 make the same θ."""
    still = {"meta_optimizer": "sgd", "meta_learning_rate": 1e-30}
    agents = [make_agent(**SMALL | still | {"inner_steps": count}) for count in (1, 2)]
    batches = [random_batch(agents[0], seed) for seed in range(4)]
    ends = [run(agent, batches)[1].parameters for agent in agents]
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_graphs_of_mixed_mode_do_not_grow_with_the_window():
    """Must be zero. With one graph around the window each update cost 80 MiB on images."""
    sizes = []
    for count in (2, 4):
        settings = SMALL | {"inner_steps": count, "meta_gradient_mode": "reverse_over_forward"}
        functions = make_agent(**settings).learner.window_step.functions
        graphs = [function.get_concrete_function().graph for function in functions]
        sizes.append([len(graph.get_operations()) for graph in graphs])
    assert sizes[0] == sizes[1]
