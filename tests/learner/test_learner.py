"""The learner's update. Equivalence (θ' with and without J' to the bit; a truncated batch and its
two pieces; both derivations), ground truth (Adam by hand, rows of a batch, schedules),
determinism (meta batch; a restored learner goes on alike)."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import FEATURES, IMAGES, make_agent, perturb, random_batch

from meta_impala.environments import Description
from meta_impala.learner.batch import trajectories_of
from meta_impala.learner.state import FIXED
from meta_impala.system.tensorflow_setup import set_graph_rewrites

META = ("meta_loss", "meta_gradient_norm", "meta_gradient_gamma", "meta_gradient_lambda",
        "x_step_gamma", "x_step_lambda")  # fmt: skip


def run(agent, batches, start=0):
    """One update per pair of successive batches; returns the statistics and last snapshot."""
    statistics = []
    for updates, (batch, following) in enumerate(
        zip(batches[:-1], batches[1:], strict=True), start=start
    ):
        row, snapshot = agent.learner.update(
            batch, following, updates, int(agent.learner.state.frames)
        )
        statistics.append(row)
    return statistics, snapshot


def weights_of(agent):
    return [variable.numpy() for variable in agent.network.trainable_variables]


def slots_of(agent):
    return [variable.numpy() for variable in agent.learner.state.slots["mean_squares"]]


def adam_of(agent):
    """First and second moment, and the count, of the optimiser of x."""
    slots = agent.learner.state.meta_slots
    return [slots[name][0].numpy() for name in ("first_moments", "second_moments", "count")]


def assert_bit_equal(first, second):
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


def differs(first, second):
    return any(np.any(one != two) for one, two in zip(first, second, strict=True))


# θ' is the step, not a virtual one.


@pytest.fixture
def graphs_as_written():
    """The graph rewrites of a real run, and afterwards what was set before."""
    before = tf.config.optimizer.get_experimental_options()
    set_graph_rewrites()
    yield
    names = ("constant_folding", "arithmetic_optimization")
    tf.config.optimizer.set_experimental_options({name: before.get(name, True) for name in names})


NETWORKS = {
    "mlp": {},
    "lstm": {
        "core": "lstm", "core_size": 5, "last_action_and_reward": True, "unroll_length": 3,
    },
    "shallow": {
        "description": IMAGES, "network": "shallow", "batch_size": 2, "meta_batch_size": 1,
        "unroll_length": 3,
    },
}  # fmt: skip


def pair(mode="nested_tapes", network="mlp", **settings):
    """A learner with the meta-gradient, and a plain one fixed at its starting η in float32."""
    shared = {"eta_embedding_size": 16, "gamma": 0.9, "lambda_": 0.8} | NETWORKS[network]
    meta = make_agent(
        meta_parameters="gamma,lambda", meta_gradient_mode=mode, **(shared | settings)
    )
    gamma, lambda_ = (float(value) for value in tf.sigmoid(meta.learner.state.x))
    fixed = {"gamma": gamma, "lambda_": lambda_, "meta_parameters": "none"}
    plain = make_agent(**(shared | settings | fixed))
    assert_bit_equal(weights_of(meta), weights_of(plain))
    return meta, plain


@pytest.mark.parametrize(
    ("mode", "network"),
    [
        ("nested_tapes", "mlp"),
        ("reverse_over_forward", "mlp"),
        ("reverse_over_forward", "lstm"),
        ("nested_tapes", "shallow"),
        pytest.param("nested_tapes", "lstm", marks=pytest.mark.slow),
        pytest.param("reverse_over_forward", "shallow", marks=pytest.mark.slow),
    ],
)
def test_the_update_is_the_same_to_the_bit_without_the_meta_objective(
    graphs_as_written, mode, network
):
    meta, plain = pair(mode, network)
    before = weights_of(meta)
    batches = [random_batch(meta, seed) for seed in (0, 1)]
    (ours,), our_snapshot = run(meta, batches)
    (theirs,), their_snapshot = run(plain, batches)
    assert_bit_equal(weights_of(meta), weights_of(plain))
    assert_bit_equal(slots_of(meta), slots_of(plain))
    assert_bit_equal(our_snapshot.parameters, their_snapshot.parameters)
    shared = [name for name in FIXED if name not in META]
    assert [getattr(ours, name) for name in shared] == [getattr(theirs, name) for name in shared]
    assert all(np.any(a != b) for a, b in zip(before, weights_of(meta), strict=True))
    assert not np.array_equal(meta.learner.state.x, [math.log(9.0), math.log(4.0)])


@pytest.mark.parametrize("mode", ["nested_tapes", "reverse_over_forward"])
def test_many_updates_with_fixed_eta_are_the_same_to_the_bit(graphs_as_written, mode):
    # A step of 1e-12 is lost in the rounding of x.
    meta, plain = pair(mode, meta_learning_rate=1e-12, rmsprop_epsilon=0.1)
    x = meta.learner.state.x.numpy()
    batches = [random_batch(meta, seed) for seed in range(9)]
    run(meta, batches)
    run(plain, batches)
    np.testing.assert_array_equal(meta.learner.state.x, x)
    first, _, count = adam_of(meta)
    assert count == 8 and np.all(first != 0)
    assert_bit_equal(weights_of(meta), weights_of(plain))
    assert_bit_equal(slots_of(meta), slots_of(plain))


def test_with_graph_optimisation_only_rounding_differs():
    meta, plain = pair()
    before = weights_of(meta)
    batches = [random_batch(meta, seed) for seed in (0, 1)]
    run(meta, batches)
    run(plain, batches)
    for start, ours, theirs in zip(before, weights_of(meta), weights_of(plain), strict=True):
        np.testing.assert_allclose(ours - start, theirs - start, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("eager")
def test_both_derivations_learn_the_same():
    agents = [
        make_agent(tf.float64, meta_gradient_mode=mode, learning_rate=1e-2, unroll_length=3)
        for mode in ("nested_tapes", "reverse_over_forward")
    ]
    batches = [random_batch(agents[0], seed) for seed in range(4)]
    rows = [run(agent, batches)[0] for agent in agents]
    np.testing.assert_allclose(*(agent.learner.state.x.numpy() for agent in agents), rtol=1e-10)
    np.testing.assert_allclose(
        *([list(row.numbers().values()) for row in of_agent] for of_agent in rows), rtol=1e-5
    )
    assert np.all(np.isfinite([list(row.numbers().values()) for row in rows[0]]))


@pytest.mark.usefixtures("eager")
def test_learning_eta_changes_what_follows():
    meta, plain = pair(meta_learning_rate=0.1)
    batches = [random_batch(meta, seed) for seed in range(3)]
    run(meta, batches)
    run(plain, batches)
    assert differs(weights_of(meta), weights_of(plain))


# What an update reads.


def test_rows_of_a_batch_are_arrivals():
    agent = make_agent(unroll_length=2, batch_size=2, meta_batch_size=1)
    batch = random_batch(agent, 0)._replace(
        last_actions=tf.constant([[0, 1], [2, 0], [1, 2]], tf.int32),
        rewards=tf.constant([[9.0, -9.0], [0.5, -3.0], [2.0, 0.25]]),
        terminations=tf.constant([[True, False], [False, True], [False, False]]),
        truncations=tf.constant([[False, True], [False, False], [True, False]]),
    )
    inputs, transitions, _, _ = trajectories_of(batch, 1.0, tf.float32)
    np.testing.assert_array_equal(transitions.actions, [[2, 0], [1, 2]])
    np.testing.assert_array_equal(transitions.rewards, [[0.5, -1.0], [1.0, 0.25]])
    np.testing.assert_array_equal(transitions.continues, [[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(transitions.step_mask, [[1.0, 1.0], [0.0, 1.0]])
    np.testing.assert_array_equal(transitions.behaviour_log_probs, batch.behaviour_log_probs)

    np.testing.assert_array_equal(inputs.last_actions, batch.last_actions)
    np.testing.assert_array_equal(inputs.last_rewards, [[1.0, -1.0], [0.5, -1.0], [1.0, 0.25]])
    np.testing.assert_array_equal(inputs.resets, [[True, True], [False, True], [True, False]])
    unclipped = trajectories_of(batch, 0.0, tf.float32).transitions
    np.testing.assert_array_equal(unclipped.rewards[0], [0.5, -3.0])


@pytest.mark.parametrize("core", ["none", "lstm"])
def test_a_truncated_batch_is_its_two_pieces(core):
    """J of a trajectory cut at step k: of k steps that bootstrap, and of those after the cut."""
    agent = make_agent(tf.float64, core=core, core_size=4, unroll_length=6, entropy_cost=0.1,
                       meta_parameters="none", gamma=0.9, lambda_=0.8)  # fmt: skip
    perturb(agent, 0)
    cut = 2
    batch = random_batch(agent, 1, ends=False)
    truncations = np.zeros(batch.truncations.shape, bool)
    truncations[cut + 1] = True  # found on arriving in state k + 1
    batch = batch._replace(truncations=tf.constant(truncations))

    def rows(start, stop):
        arrays = [array[start : stop + 1] for array in batch[:5]]
        return batch.__class__(
            *arrays, batch.behaviour_log_probs[start:stop], batch.core_state, batch.eta
        )

    def gradient(some):
        parameters = [v.read_value() for v in agent.network.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            of_some = agent.learner.factory.trajectories(some)
            objective = agent.learner.factory.inner_objective(of_some, parameters)
            loss, _ = objective(parameters, [tf.zeros([0], tf.float64)])
        return tape.gradient(loss, parameters)

    # The core starts anew in state k + 1, whatever state comes with the second piece.
    pieces = zip(gradient(rows(0, cut)), gradient(rows(cut + 1, 6)), strict=True)
    for joined, (first, second) in zip(gradient(batch), pieces, strict=True):
        np.testing.assert_allclose(joined, first + second, rtol=1e-9, atol=1e-12)


def test_selected_columns():
    agent = make_agent(core="lstm", core_size=4)
    batch = agent.learner.factory.trajectories(random_batch(agent, 0))
    assert len(batch.core_state) == 4
    chosen = batch.columns(tf.constant([3, 1]))
    assert len(chosen.core_state) == 2
    for before, after in zip(
        (*batch.inputs, *batch.transitions), (*chosen.inputs, *chosen.transitions), strict=True
    ):
        np.testing.assert_array_equal(after, before.numpy()[:, [3, 1]])
    for before, after in zip(batch[2:], chosen[2:], strict=True):
        np.testing.assert_array_equal(after, before.numpy()[[3, 1]])


@pytest.mark.usefixtures("eager")
def test_only_the_meta_batch_of_the_next_batch_is_used():
    def after(columns_to_change):
        agent = make_agent()
        batch, following = (random_batch(agent, seed) for seed in (0, 1))
        rewards = following.rewards.numpy()
        rewards[:, columns_to_change] *= -1.0
        (row,), _ = run(agent, [batch, following._replace(rewards=tf.constant(rewards))])
        return weights_of(agent), adam_of(agent)[0], row.meta_loss

    in_meta_batch = make_agent().learner.column_order(0)[:3]
    (spared,) = set(range(4)) - set(in_meta_batch.tolist())
    nothing, other, one = after([]), after([spared]), after([int(in_meta_batch[0])])
    # τ' never trains θ.
    assert_bit_equal(nothing[0], other[0])
    assert_bit_equal(nothing[0], one[0])
    np.testing.assert_array_equal(nothing[1], other[1])
    assert nothing[2] == other[2] and nothing[2] != one[2]
    assert np.all(nothing[1] != one[1])


def test_the_columns_are_in_a_seeded_order():
    learner = make_agent(batch_size=16, meta_batch_size=5).learner
    seen = set()
    for updates in range(200):
        columns = learner.column_order(updates)
        assert columns.dtype == np.int32 and sorted(columns) == list(range(16))
        np.testing.assert_array_equal(columns, learner.column_order(updates))
        seen.add(tuple(columns[:5]))
    assert len(seen) > 190
    assert {column for columns in seen for column in columns} == set(range(16))
    other = make_agent(batch_size=16, meta_batch_size=5, seed=2).learner
    assert any(tuple(other.column_order(u)) != tuple(learner.column_order(u)) for u in range(3))


# The graph and the schedule.


@pytest.mark.parametrize("learned", ["gamma,lambda", "none"])
def test_the_update_is_traced_once(learned):
    agent = make_agent(meta_parameters=learned)
    agent.learner.build()
    assert agent.learner.function.experimental_get_tracing_count() == 1
    run(agent, [random_batch(agent, seed) for seed in range(4)])
    assert agent.learner.function.experimental_get_tracing_count() == 1


def test_the_learning_rate_falls_linearly_in_frames():
    learner = make_agent(total_frames=1000, learning_rate=0.5).learner
    rates = [learner.learning_rate(frames) for frames in (0, 250, 1000, 1200)]
    np.testing.assert_allclose(rates, [0.5, 0.375, 0.0, 0.0])
    constant = make_agent(
        total_frames=1000, learning_rate=0.5, learning_rate_schedule="constant"
    ).learner
    assert constant.learning_rate(0) == constant.learning_rate(2000) == 0.5


@pytest.mark.usefixtures("eager")
def test_an_update_takes_the_learning_rate_of_its_frames():
    def distance(frames):
        agent = make_agent(total_frames=1000)
        before = weights_of(agent)
        agent.learner.update(random_batch(agent, 0), random_batch(agent, 1), 0, frames)
        return sum(np.abs(a - b).sum() for a, b in zip(before, weights_of(agent), strict=True))

    np.testing.assert_allclose(distance(500) / distance(0), 0.5, rtol=1e-3)
    assert distance(1000) == 0.0


@pytest.mark.usefixtures("eager")
def test_frames_count_the_action_repeat():
    description = Description(FEATURES.observation_shape, FEATURES.observation_dtype, 3, 4)
    agent = make_agent(description=description)
    _, snapshot = run(agent, [random_batch(agent, seed) for seed in range(3)])
    assert agent.learner.state.updates == 2 and snapshot.version == 2
    # A row that a time limit cost is no step.
    assert agent.learner.state.frames == 2 * (4 * 5 - 1) * 4


# State.


def test_initial_optimiser_slots():
    agent = make_agent(gamma=0.9, lambda_=0.8)
    state = agent.learner.state
    for variable, slot in zip(agent.network.trainable_variables, slots_of(agent), strict=True):
        np.testing.assert_array_equal(slot, np.ones(variable.shape))
    np.testing.assert_allclose(state.x, [math.log(9.0), math.log(4.0)], rtol=1e-6)
    *moments, count = adam_of(agent)
    for slot in moments:
        np.testing.assert_array_equal(slot, [0.0, 0.0])
    assert count == state.updates == state.frames == 0


@pytest.mark.usefixtures("eager")
def test_a_snapshot_is_of_the_state():
    agent = make_agent(gamma=0.9, lambda_=0.8, meta_learning_rate=0.1)
    start = agent.learner.snapshot()
    assert start.version == 0
    assert_bit_equal(start.parameters, weights_of(agent))
    np.testing.assert_allclose(start.eta.values, [0.9, 0.8], rtol=1e-6)
    _, after = run(agent, [random_batch(agent, seed) for seed in range(2)])
    again = agent.learner.snapshot()
    assert after.version == again.version == 1
    assert_bit_equal(after.parameters, weights_of(agent))
    assert_bit_equal(after.parameters, again.parameters)
    np.testing.assert_array_equal(after.eta.values, again.eta.values)
    np.testing.assert_allclose(after.eta.values, tf.sigmoid(agent.learner.state.x), rtol=1e-6)
    assert np.all(np.abs(after.eta.values - start.eta.values) > 1e-3)
    assert differs(start.parameters, after.parameters)  # the old one was not touched


@pytest.mark.usefixtures("eager")
def test_checkpoints_hold_everything(tmp_path):
    def save_and_restore(source, target):
        path = tf.train.Checkpoint(learner=source.learner.state).save(str(tmp_path / "one"))
        tf.train.Checkpoint(learner=target.learner.state).restore(path).assert_consumed()

    settings = {"meta_learning_rate": 0.1, "unroll_length": 3}
    agent = make_agent(**settings)
    batches = [random_batch(agent, seed) for seed in range(5)]
    run(agent, batches[:3])
    other = make_agent(seed=2, **settings)
    save_and_restore(agent, other)
    assert_bit_equal(weights_of(agent), weights_of(other))
    assert_bit_equal(slots_of(agent), slots_of(other))
    assert differs(slots_of(other), [np.ones_like(slot) for slot in slots_of(other)])
    assert_bit_equal(adam_of(agent), adam_of(other))
    for name in ("x", "updates", "frames"):
        np.testing.assert_array_equal(
            getattr(agent.learner.state, name), getattr(other.learner.state, name), err_msg=name
        )

    # Both go on alike (the one restored has the same seed for the columns of its meta batch).
    third = make_agent(**settings)
    save_and_restore(agent, third)
    (ours, _), (theirs, _) = (run(learner, batches[2:], start=2) for learner in (agent, third))
    assert ours == theirs
    assert_bit_equal(weights_of(agent), weights_of(third))
    np.testing.assert_array_equal(agent.learner.state.x, third.learner.state.x)


# Adam on x.


@pytest.mark.usefixtures("eager")
def test_x_moves_by_adam():
    agent = make_agent(meta_learning_rate=0.05, gamma=0.9, lambda_=0.8)
    x, first, second = agent.learner.state.x.numpy().astype(np.float64), 0.0, 0.0
    batches = [random_batch(agent, seed) for seed in range(5)]
    for updates in range(4):
        before = agent.learner.state.x.numpy()
        (row,), snapshot = run(agent, batches[updates : updates + 2], start=updates)
        gradient = np.array([row.meta_gradient_gamma, row.meta_gradient_lambda])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9 ** (updates + 1)), second / (1 - 0.999 ** (updates + 1))
        step = 0.05 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        x = x - step
        np.testing.assert_allclose(agent.learner.state.x, x, rtol=1e-4)
        np.testing.assert_allclose([row.x_step_gamma, row.x_step_lambda], -step, rtol=1e-3)
        # Statistics are of the η that made the update, the snapshot is of the one after it.
        np.testing.assert_allclose([row.gamma, row.lambda_], tf.sigmoid(before), rtol=1e-6)
        np.testing.assert_allclose(
            snapshot.eta.values, tf.sigmoid(agent.learner.state.x), rtol=1e-6
        )


@pytest.mark.usefixtures("eager")
def test_x_moves_by_its_learning_rate_from_the_first_update_by_rmsprop():
    """The corrected mean square of one gradient is its square, so |step| = β whatever its size."""
    for scale in (1.0, 0.1):
        agent = make_agent(
            meta_optimizer="rmsprop", meta_learning_rate=0.02, meta_policy_cost=scale
        )
        row, _ = agent.learner.update(random_batch(agent, 0), random_batch(agent, 1), 0, 0)
        assert 1e-5 < row.meta_gradient_norm < scale
        steps = [row.x_step_gamma, row.x_step_lambda]
        np.testing.assert_allclose(np.abs(steps), 0.02, rtol=5e-3)
        assert np.sign(row.x_step_gamma) == -np.sign(row.meta_gradient_gamma)


@pytest.mark.parametrize(("learned", "other"), [("gamma", "lambda"), ("lambda", "gamma")])
@pytest.mark.usefixtures("eager")
def test_fixed_meta_parameters_do_not_change(learned, other):
    agent = make_agent(meta_parameters=learned, gamma=0.9, lambda_=0.8, meta_learning_rate=0.1)
    assert agent.learner.state.x.shape == (1,)
    (_, row), snapshot = run(agent, [random_batch(agent, seed) for seed in range(3)])
    assert np.isfinite(getattr(row, f"meta_gradient_{learned}"))
    assert math.isnan(getattr(row, f"meta_gradient_{other}"))
    assert math.isnan(getattr(row, f"x_step_{other}"))
    index = ["gamma", "lambda"].index(learned)
    start = np.array([0.9, 0.8])
    assert abs(snapshot.eta.values[index] - start[index]) > 1e-3
    np.testing.assert_allclose(snapshot.eta.values[1 - index], start[1 - index], rtol=1e-6)


@pytest.mark.usefixtures("eager")
def test_a_plain_learner_has_no_eta_to_move():
    agent = make_agent(meta_parameters="none", gamma=0.97, lambda_=0.6)
    rows, snapshot = run(agent, [random_batch(agent, seed) for seed in range(3)])
    state = agent.learner.state
    first, _, count = adam_of(agent)
    assert state.x.shape == first.shape == (0,)
    assert count == 0 and state.updates == 2
    np.testing.assert_allclose(snapshot.eta.values, [0.97, 0.6], rtol=1e-6)
    for row in rows:
        for name in FIXED:
            assert math.isnan(getattr(row, name)) == (name in META), name


# Statistics.


@pytest.mark.usefixtures("eager")
def test_statistics_of_an_update():
    agent = make_agent(
        entropy_cost=0.02, baseline_cost=0.3, max_gradient_norm=1.0, learning_rate=0.1
    )
    batches = [random_batch(agent, seed) for seed in (0, 1)]
    parameters = [tf.constant(value) for value in weights_of(agent)]
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        of_batch = agent.learner.factory.trajectories(batches[0])
        objective = agent.learner.factory.inner_objective(of_batch, parameters)
        loss, (parts, _) = objective(parameters, [agent.learner.state.x.read_value()])
    norm = tf.linalg.global_norm(tape.gradient(loss, parameters)).numpy()
    (row,), snapshot = run(agent, batches)
    steps = 4 * 5 - 1  # a row is no step
    assert row.steps == steps == parts.steps
    np.testing.assert_allclose(row.inner_loss, loss / steps, rtol=1e-5)
    np.testing.assert_allclose(row.policy_loss, parts.policy_loss / steps, rtol=1e-5)
    np.testing.assert_allclose(row.value_loss, parts.value_loss / steps, rtol=1e-5)
    np.testing.assert_allclose(row.entropy, parts.entropy / steps, rtol=1e-5)
    np.testing.assert_allclose(
        row.inner_loss, row.policy_loss + 0.3 * row.value_loss - 0.02 * row.entropy, rtol=1e-4
    )
    assert 0.0 < row.entropy <= np.log(3) + 1e-6
    assert norm > 1.0
    np.testing.assert_allclose(row.gradient_norm, norm, rtol=1e-5)
    np.testing.assert_allclose(row.clip_coefficient, 1.0 / norm, rtol=1e-5)
    assert 0.1 < row.rho_clipped_share < 0.9
    np.testing.assert_allclose(
        row.meta_gradient_norm,
        math.hypot(row.meta_gradient_gamma, row.meta_gradient_lambda),
        rtol=1e-5,
    )

    # J' is of θ', per step of the meta batch.
    order = tf.constant(agent.learner.column_order(0)[:3])
    meta_batch = agent.learner.factory.trajectories(batches[1]).columns(order)
    x = [agent.learner.state.x.read_value()]
    meta_objective = agent.learner.factory.meta_objective(meta_batch, parameters, x)
    num_meta_rows = tf.reduce_sum(meta_batch.transitions.step_mask)
    meta_loss, _ = meta_objective(snapshot.parameters)
    np.testing.assert_allclose(row.meta_loss, meta_loss / num_meta_rows, rtol=1e-4)
    stale, _ = meta_objective(parameters)
    assert abs(stale - meta_loss) > 1e-3 * abs(meta_loss)


@pytest.mark.usefixtures("eager")
def test_the_config_reaches_the_losses():
    """Every coefficient of the inner update changes it."""
    base = {"reward_clip": 0.0, "max_gradient_norm": 40.0}

    def after(**settings):
        agent = make_agent(meta_parameters="none", gamma=0.9, lambda_=0.8, **(base | settings))
        perturb(agent, 0)
        run(agent, [random_batch(agent, seed) for seed in (0, 1)])
        return weights_of(agent)

    start = after()
    changes = {
        "baseline_cost": 0.1, "entropy_cost": 0.2, "rho_clip": 0.5, "c_clip": 0.5,
        "pg_rho_clip": 0.5, "reward_clip": 0.1, "max_gradient_norm": 0.1, "rmsprop_decay": 0.5,
        "rmsprop_epsilon": 0.5, "learning_rate": 1e-3,
    }  # fmt: skip
    for name, value in changes.items():
        assert differs(start, after(**{name: value})), name
    fields = {field.name for field in dataclasses.fields(make_agent().config)}
    assert set(changes) <= fields


def test_updates_on_one_batch_hold_out_the_same_trajectories():
    learner = make_agent(sample_reuse=3, meta_data="held_out", batch_size=8).learner
    orders = [learner.column_order(updates).tolist() for updates in range(9)]
    for first in (0, 3, 6):
        assert orders[first] == orders[first + 1] == orders[first + 2]
    assert len({tuple(order) for order in orders}) == 3
