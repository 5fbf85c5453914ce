"""The switches of the method where they meet the actor-learner. Equivalence (an actor's network is
the learner's; a batch of several η is several batches; held-out columns); checkpoints; whole runs.
"""

import csv

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import make_agent, perturb, random_batch, select_columns

from meta_impala.actors.actor import Actor
from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.builders import drawn_eta_of
from meta_impala.agent.policy import Policy
from meta_impala.algorithm.losses import action_log_probs
from meta_impala.config import AgentSettings, Config, resolve, resolve_network
from meta_impala.config.hyper_parameters import TABLE
from meta_impala.environments import registry
from meta_impala.learner.batch import trajectories_of
from meta_impala.learner.make_learner import make_learner
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest
from meta_impala.training.trainer import Trainer

SCHEDULES = {
    "learned": {},
    "fixed": {"eta_schedule": "fixed"},
    "random": {"eta_schedule": "random"},
    "mixture": {"eta_schedule": "mixture", "eta_mixture": "0.5,0.2;0.99,1"},
    "random cost": {
        "eta_schedule": "random",
        "meta_parameters": "gamma,entropy_cost",
        "eta_random_ranges": "entropy_cost:0.001,0.019",
        "entropy_cost": 0.01,
        "embedded_meta_parameters": "entropy_cost",
    },
    "state of a cost": {
        "meta_parameters": "gamma,entropy_cost",
        "meta_parameter_scope": "entropy_cost",
        "embedded_meta_parameters": "entropy_cost",
    },
    "state": {"meta_parameter_scope": "state"},
}


def catch_config(**settings):
    defaults = {
        "environment": "Catch", "total_frames": 200, "batch_size": 4, "envs_per_actor": 2,
        "meta_batch_size": 3, "unroll_length": 5, "mlp_sizes": "8", "learning_rate": 0.01,
        "log_frames": 40, "deterministic": True,
    }  # fmt: skip
    config = resolve(Config(**(defaults | settings)))
    description = registry.describe(config.environment, config.protocol)
    return resolve_network(config, description.observation_shape), description


# Actors and learner see the same η.


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_actor_acts_by_the_learners_network(name):
    """log μ of an unroll is log π of the learner's own forward pass, at the η it then uses."""
    config, description = catch_config(**SCHEDULES[name], num_actors=1, envs_per_actor=4)
    learner = make_learner(config, description)
    random = np.random.default_rng(0)
    for variable in learner.state.network.trainable_variables:
        variable.assign_add(0.5 * random.normal(size=variable.shape).astype(np.float32))
    if name.startswith("state"):
        learner.state.x.assign_add(random.normal(size=learner.state.x.shape).astype(np.float32))
    policy = Policy(learner.state.network, config.part(AgentSettings), description, 4)
    environment = registry.make(config.environment, 4, config.protocol)
    schedule = drawn_eta_of(config)
    actor = Actor(0, environment, policy, config.unroll_length, eta_schedule=schedule)
    actor.reset(3, 0)
    unrolls = [actor.unroll(learner.snapshot()).unroll for _ in range(3)]
    actor.close()
    for unroll in unrolls:
        batch = Unroll(*map(tf.constant, unroll))
        parameters = [v.read_value() for v in learner.state.network.trainable_variables]
        seen = learner.factory.trajectories(batch)
        frames_eta = tf.constant(learner.factory.schedule.at(0))
        given = learner.factory.scheduled(seen, frames_eta)
        objective = learner.factory.inner_objective(seen, parameters, given=given)
        places = objective.places([learner.state.x.read_value()])
        features = objective.network.body(parameters)
        output = objective._outputs(parameters, features, places.network)
        log_probs = action_log_probs(output.policy_logits[:-1], batch.last_actions[1:])
        np.testing.assert_allclose(log_probs, unroll.behaviour_log_probs, rtol=1e-4, atol=1e-5)
        # Fed a constant η instead, it would be another policy.
        other = learner.state.network(
            trajectories_of(batch, 1.0, tf.float32).inputs,
            batch.core_state,
            tf.fill([len(config.embedded)], -1.0),
        )
        others = action_log_probs(other.policy_logits[:-1], batch.last_actions[1:])
        assert np.abs(others - unroll.behaviour_log_probs).max() > 1e-3

    etas = np.array([unroll.eta for unroll in unrolls])  # [unroll, environment, γ and λ]
    if name.startswith("state"):
        assert not etas.any()
    elif name in ("learned", "fixed"):
        expected = [0.99, 0.99 if name == "learned" else 1.0]
        np.testing.assert_allclose(etas, np.broadcast_to(expected, etas.shape), rtol=1e-6)
    elif name == "random":
        assert len(np.unique(etas[..., 0])) == 12 and 0.9 <= etas.min() <= etas.max() <= 0.999
    elif name == "random cost":
        assert etas.shape == (3, 4, 3) and np.all(etas[..., 1] == 1.0)
        costs = etas[..., 2]
        assert len(np.unique(costs)) == 12 and 0.001 <= costs.min() <= costs.max() <= 0.019
    else:
        assert {tuple(np.round(pair, 3)) for pair in etas.reshape(-1, 2)} == {
            (np.float32(0.5), np.float32(0.2)), (np.float32(0.99), np.float32(1.0))
        }  # fmt: skip


@pytest.mark.parametrize("others", ["", "entropy_cost", "policy_cost,baseline_cost,rho_clip,c_clip,"
                                    "vtrace_alpha"])  # fmt: skip
def test_a_batch_of_several_etas_is_several_batches(others):
    """J of columns with different η is the sum of the J of each at its own fixed η."""
    names = [name for name in TABLE if name in others.split(",")]
    settings = {
        "eta_embedding_size": 4, "max_gradient_norm": 0.0,
        "meta_parameters": ",".join(["gamma", "lambda", *names]),
        "embedded_meta_parameters": ",".join(names) or "none",
        "meta_parameter_ranges": ";".join(f"{name}:0,0.9" for name in names),
    }  # fmt: skip
    within = ";".join(f"{name}:0.1,0.8" for name in names)
    constants = dict.fromkeys(names, 0.5)
    mixed = make_agent(
        tf.float64, eta_schedule="random", eta_random_ranges=within, **settings, **constants
    )
    perturb(mixed, 0)
    batch = random_batch(mixed, 1)
    weights = [v.read_value() for v in mixed.network.trainable_variables]

    def gradient(agent, some):
        live = [tf.identity(tensor) for tensor in weights]
        with tf.GradientTape() as tape:
            tape.watch(live)
            factory = agent.learner.factory
            of_some = factory.trajectories(some)
            given = factory.scheduled(of_some, tf.constant(factory.schedule.at(0)))
            objective = factory.inner_objective(of_some, weights, given=given)
            loss, _ = objective(live, [agent.learner.state.x.read_value()])
        return tape.gradient(loss, live)

    total = [np.zeros(tensor.shape) for tensor in weights]
    for column in range(4):
        gamma, lambda_, *values = (float(value) for value in batch.eta.numpy()[column])
        constants = dict(zip(names, values, strict=True))
        alone = make_agent(tf.float64, eta_schedule="fixed", gamma=gamma, lambda_=lambda_,
                           batch_size=1, meta_batch_size=1, **settings, **constants)  # fmt: skip
        one = select_columns(batch, tf.constant([column]))
        for sum_, part in zip(total, gradient(alone, one), strict=True):
            sum_ += part.numpy()
    for ours, theirs in zip(gradient(mixed, batch), total, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["fixed", "random", "mixture"])
@pytest.mark.usefixtures("eager")
def test_a_control_learns_no_eta(name):
    agent = make_agent(**SCHEDULES[name], gamma=0.9, lambda_=0.8)
    batches = [random_batch(agent, seed) for seed in (0, 1)]
    row, snapshot = agent.learner.update(*batches, 0, 0)
    assert np.isnan(row.meta_gradient_norm) and agent.learner.state.x.shape == (0,)
    np.testing.assert_allclose(snapshot.eta.values, [0.9, 0.8], rtol=1e-6)
    assert agent.config.eta_embedding_size == 16  # it is fed η as the learning one is
    expected = [0.9, 0.8] if name == "fixed" else batches[0].eta.numpy().mean(axis=0)
    np.testing.assert_allclose([row.gamma, row.lambda_], expected, rtol=1e-5)


# Which trajectories J' is evaluated on.


@pytest.mark.usefixtures("eager")
def test_held_out_columns_are_not_learned_from():
    agent = make_agent(meta_data="held_out", meta_batch_size=1)
    start_state = [variable.numpy() for variable in agent.learner.state.variables]

    def after(change_meta_batch, change_others, change_next):
        for variable, value in zip(agent.learner.state.variables, start_state, strict=True):
            variable.assign(value)
        batch, following = random_batch(agent, 0), random_batch(agent, 1)
        order = agent.learner.column_order(0)
        rewards = batch.rewards.numpy()
        if change_meta_batch:
            rewards[:, order[:1]] *= -1.0
        if change_others:
            rewards[:, order[1:]] *= -1.0
        batch = batch._replace(rewards=tf.constant(rewards))
        if change_next:
            following = following._replace(rewards=-following.rewards)
        row, snapshot = agent.learner.update(batch, following, 0, 0)
        return [value.numpy() for value in snapshot.parameters], row

    (start, row), (same, of_meta_batch), (others, _), (_, unread) = (
        after(*changes)
        for changes in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    )  # fmt: skip
    for one, other in zip(start, same, strict=True):
        np.testing.assert_array_equal(one, other)
    assert of_meta_batch.meta_loss != row.meta_loss
    assert of_meta_batch.inner_loss == row.inner_loss
    assert any(np.any(one != other) for one, other in zip(start, others, strict=True))
    assert unread == row  # J' is not evaluated on the next batch

    # Losses are per step that was learned from: B − B' columns.
    smaller = make_agent(batch_size=3, meta_batch_size=1)
    batch = random_batch(agent, 0)
    chosen = select_columns(batch, tf.constant(agent.learner.column_order(0)[1:]))
    expected, _ = smaller.learner.update(chosen, chosen, 0, 0)
    np.testing.assert_allclose(row.inner_loss, expected.inner_loss, rtol=1e-5)


def make_trainer(path, **settings):
    config, description = catch_config(**settings)
    folder = RunFolder(path)
    folder.prepare()
    folder.save_config(config)
    return Trainer(config, description, folder, StopRequest())


@pytest.mark.parametrize("meta_data", ["swap", "next_batch", "same"])
def test_which_batch_is_the_meta_batch(tmp_path, monkeypatch, meta_data):
    trainer = make_trainer(tmp_path, meta_data=meta_data)
    original, seen = trainer.learner.update, []

    def update(batch, other, updates, frames):
        (meta_batch,) = other
        pair = (batch, meta_batch)
        seen.append(tuple(b.behaviour_log_probs.numpy().tobytes() for b in pair))
        return original(batch, other, updates, frames)

    monkeypatch.setattr(trainer.learner, "update", update)
    trainer.run()
    assert len(seen) == 10
    for index, (batch, meta_batch) in enumerate(seen[:-1]):
        following = seen[index + 1][0]
        if meta_data == "same":
            assert meta_batch == batch != following
        elif meta_data == "next_batch" or index % 2 == 0:
            assert meta_batch == following != batch
        else:
            assert meta_batch == seen[index - 1][0] != following


# What is remembered.


def test_the_trace_and_the_moments_are_checkpointed(tmp_path):
    settings = {
        "trace_decay": 0.9, "meta_advantage_normalization": "ema", "inner_optimizer": "adam",
        "meta_optimizer": "rmsprop", "eta_embedding_size": 0, "unroll_length": 2,
    }  # fmt: skip
    agent = make_agent(**settings)
    batches = [random_batch(agent, seed) for seed in range(4)]
    for updates in range(2):
        agent.learner.update(batches[updates], batches[updates + 1], updates, 0)
    state = agent.learner.state
    assert agent.learner.function.experimental_get_tracing_count() == 1
    assert len(state.trace) == 2 and all(np.any(z != 0) for z in state.trace[0])
    np.testing.assert_allclose(state.moments[2], 1.0 - 0.99**2, rtol=1e-4)
    path = tf.train.Checkpoint(learner=state).save(str(tmp_path / "one"))
    row, _ = agent.learner.update(batches[2], batches[3], 2, 0)
    after = [variable.numpy() for variable in state.variables]
    for variable in state.variables:
        variable.assign(tf.ones_like(variable))
    tf.train.Checkpoint(learner=state).restore(path).assert_consumed()
    again, _ = agent.learner.update(batches[2], batches[3], 2, 0)
    assert again == row
    for one, two in zip(after, state.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    # Without what is remembered, the next meta-gradient would be another one.
    tf.train.Checkpoint(learner=state).restore(path).assert_consumed()
    for column in state.trace:
        for z in column:
            z.assign(tf.zeros_like(z))
    other, _ = agent.learner.update(batches[2], batches[3], 2, 0)
    assert abs(other.meta_gradient_gamma - row.meta_gradient_gamma) > 1e-6


@pytest.mark.usefixtures("eager")
def test_the_meta_gradient_is_clipped_before_the_optimiser():
    rows = []
    for limit in (0.0, 1e-4):
        agent = make_agent(
            meta_optimizer="sgd", meta_learning_rate=1.0, meta_max_gradient_norm=limit
        )
        row, _ = agent.learner.update(random_batch(agent, 0), random_batch(agent, 1), 0, 0)
        rows.append(row)
    free, clipped = rows
    assert free.meta_gradient_norm == clipped.meta_gradient_norm > 1e-4  # before the clip
    step = np.array([free.x_step_gamma, free.x_step_lambda])
    np.testing.assert_allclose(np.linalg.norm(step), free.meta_gradient_norm, rtol=1e-5)
    shorter = np.array([clipped.x_step_gamma, clipped.x_step_lambda])
    np.testing.assert_allclose(shorter, 1e-4 * step / np.linalg.norm(step), rtol=1e-4)


@pytest.mark.usefixtures("eager")
def test_an_eta_per_state_becomes_different_between_states():
    agent = make_agent(meta_parameter_scope="state", meta_learning_rate=0.05)
    batches = [random_batch(agent, seed) for seed in range(4)]
    for updates in range(3):
        row, snapshot = agent.learner.update(batches[updates], batches[updates + 1], updates, 0)
    assert snapshot.eta.per_state
    assert snapshot.eta.values.shape == (7, 2) == agent.learner.state.x.shape
    assert np.all(np.isfinite(list(row.numbers().values())))
    features = agent.network.body(batches[0].observations)
    eta = agent.learner.meta_parameters.at_states(agent.learner.state.x.read_value(), features)
    assert np.ptp(eta["gamma"]) > 1e-4 and np.ptp(eta["lambda"]) > 1e-4


# Whole runs.


def rows_of(path):
    with open(path / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


RUNS = {
    "state": {"meta_parameter_scope": "state", "meta_gradient_paths": "importance_weights"},
    "random": SCHEDULES["random cost"],
    "held out": {"meta_data": "held_out"},
    "trace": {"trace_decay": 0.9, "unroll_length": 2},
    "terms": {
        "meta_baseline_cost": 0.5, "meta_entropy_cost": 0.01, "meta_kl_cost": 1.0,
        "meta_value_head": "reference", "meta_advantage_normalization": "ema",
        "reference_tracking": "gamma", "meta_gradient_mode": "reverse_over_forward",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "trace" else [])  # 7 s of tracing
        for name in RUNS
    ],
)
def test_a_run_with_a_switch_continues_from_its_checkpoint(tmp_path, name):
    assert make_trainer(tmp_path, **RUNS[name], total_frames=80).run() == "finished"
    again = make_trainer(tmp_path, **RUNS[name], total_frames=160)
    assert again.frames == 80 and again.run() == "finished"
    rows = rows_of(tmp_path)
    assert [int(row["frames"]) for row in rows] == [40, 80, 120, 160]
    assert all(np.isfinite(float(row["inner_loss"])) for row in rows)
    assert again.learner.function.experimental_get_tracing_count() == 1
    if name != "random":
        assert float(rows[-1]["gamma"]) != float(rows[0]["gamma"])


def test_both_derivations_agree_in_training(tmp_path):
    """To the rounding of float32: that is all they differ by in a deterministic run."""
    runs = []
    for mode in ("nested_tapes", "reverse_over_forward"):
        make_trainer(tmp_path / mode, meta_gradient_mode=mode, meta_learning_rate=0.01).run()
        runs.append(rows_of(tmp_path / mode))
    moved = abs(float(runs[0][-1]["gamma"]) - 0.99)
    assert moved > 1e-5
    for one, other in zip(*runs, strict=True):
        for name in ("gamma", "lambda", "inner_loss", "entropy", "meta_gradient_norm"):
            np.testing.assert_allclose(float(one[name]), float(other[name]), rtol=2e-3)
        assert abs(float(one["gamma"]) - float(other["gamma"])) < 0.02 * moved
