"""A trajectory that time limits cut is its pieces, in everything an update computes (equivalence,
float64).

With pieces of L transitions each, a cut trajectory has p · L transitions and p − 1 rows of weight 0
between them; the other batch has the same pieces as columns of their own.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import Agent, make_agent, perturb, random_batch
from support.together import Together, parts_of
from support.update_oracle import Case

from meta_impala.actors.trajectory import Unroll
from meta_impala.algorithm.meta_gradient import reverse_over_forward
from meta_impala.learner.state import Statistics

LENGTH, COLUMNS, META_COLUMNS = 3, 4, 2

ALL_TERMS = {
    "meta_baseline_cost": 0.3, "meta_entropy_cost": 0.2, "meta_kl_cost": 0.7,
    "entropy_cost": 0.1, "meta_value_head": "reference",
}  # fmt: skip
STATES = {
    "meta_parameters": "gamma,lambda,entropy_cost,rho_clip,c_clip",
    "meta_parameter_scope": "gamma,lambda,entropy_cost,rho_clip,c_clip",
}
SETTINGS = {
    "plain": {"meta_parameters": "none"},
    "returns": {},
    "embedding": {"meta_gradient_paths": "embedding", **ALL_TERMS},
    "importance weights": {"meta_gradient_paths": "importance_weights", **ALL_TERMS},
    "at the heads": {"eta_embedding_place": "heads", "meta_gradient_paths": "embedding"},
    "two passes": {"meta_gradient_mode": "reverse_over_forward", **ALL_TERMS},
    "state": {"meta_parameter_scope": "state", "meta_gradient_paths": "importance_weights"},
    "lstm": {"core": "lstm", "core_size": 4, "last_action_and_reward": True},
    "lstm, state": {"core": "lstm", "core_size": 4, **STATES},
    "micro-batches": {"micro_batches": 2, "core": "lstm", "core_size": 4},
    "moments": {"meta_advantage_normalization": "ema"},
    "trace": {"trace_decay": 0.9},
    "trace with curvature": {"trace_decay": 0.9, "trace_curvature": True},
    "held out": {"meta_data": "held_out"},
    "same": {"meta_data": "same"},
    "random": {
        "eta_schedule": "random",
        "meta_parameters": "gamma,baseline_cost,vtrace_alpha",
        "eta_random_ranges": "baseline_cost:0.1,0.9;vtrace_alpha:0.1,0.9",
    },
    "next target": {"policy_return": "next_target", "inner_optimizer": "adam"},
}


def agents(pieces: int, settings) -> tuple[Agent, Agent]:
    """The agent of cut trajectories, and that of their pieces; equal weights and slots."""
    common = {"max_gradient_norm": 5.0, **settings}
    cut = make_agent(
        tf.float64, unroll_length=pieces * (LENGTH + 1) - 1, batch_size=COLUMNS,
        meta_batch_size=META_COLUMNS, **common,
    )  # fmt: skip
    apart = make_agent(
        tf.float64, unroll_length=LENGTH, batch_size=pieces * COLUMNS,
        meta_batch_size=pieces * META_COLUMNS, **common,
    )  # fmt: skip
    for agent in (cut, apart):
        perturb(agent, 1)
        agent.learner.state.x.assign(
            np.random.default_rng(2).normal(1.0, 0.3, agent.learner.state.x.shape)
        )

    def in_pieces(updates: int) -> np.ndarray:
        order = cut.learner.column_order(updates)
        chosen, others = order[:META_COLUMNS], order[META_COLUMNS:]
        starts = [piece * COLUMNS for piece in range(pieces)]
        all_of = [part + start for part in (chosen, others) for start in starts]
        return np.concatenate(all_of).astype(np.int32)

    apart.learner.column_order = in_pieces
    return cut, apart


def batches(apart: Agent, pieces: int, seed: int) -> tuple[Unroll, Unroll]:
    """The same random trajectories cut by time limits, and as pieces."""
    width = apart.config.batch_size // pieces
    batch = random_batch(apart, seed)
    truncations, terminations = batch.truncations.numpy(), batch.terminations.numpy()
    truncations[0, width:], terminations[0, width:] = True, False
    eta = np.tile(batch.eta.numpy()[:width], (pieces, 1))
    batch = batch._replace(
        truncations=tf.constant(truncations),
        terminations=tf.constant(terminations),
        eta=tf.constant(eta),
    )

    def joined(array):
        return tf.concat(tf.split(array, pieces, axis=1), axis=0)

    # What stands for the action between two pieces has no meaning; any number will do.
    log_probs = tf.pad(batch.behaviour_log_probs, [[0, 1], [0, 0]], constant_values=-1.7)
    cut = batch.map(joined, lambda array: array[:width])
    return cut._replace(behaviour_log_probs=joined(log_probs)[:-1]), batch


def assert_equal(found, expected, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=what)


QUICK = ("plain", "importance weights", "lstm, state")


@pytest.mark.parametrize("pieces", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS],
)
@pytest.mark.usefixtures("eager")
def test_an_update_of_truncated_trajectories_is_that_of_their_pieces(name, pieces):
    both = agents(pieces, SETTINGS[name])
    pairs = [batches(both[1], pieces, seed) for seed in (3, 4, 5)]
    before = [variable.numpy() for variable in both[0].learner.state.variables]
    for updates in range(2):
        meta_batches = pairs[updates if both[0].config.meta_data == "same" else updates + 1]
        rows = [
            agent.learner.update(pairs[updates][i], meta_batches[i], updates, 0)[0]
            for i, agent in enumerate(both)
        ]
        for field, cut, apart in zip(Statistics._fields, *rows, strict=True):
            found, expected = tf.nest.flatten(cut), tf.nest.flatten(apart)
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-9, err_msg=field)
        transitions = pieces * LENGTH * COLUMNS
        assert 0 < transitions - rows[0].steps <= 1  # random_batch cuts one more
    states = [agent.learner.state for agent in both]
    for cut, apart, start in zip(states[0].variables, states[1].variables, before, strict=True):
        assert_equal(cut, apart, cut.name)
        if "head" in cut.name or cut.name == "x:0":
            assert cut.shape == [0] or np.abs(cut.numpy() - start).max() > 1e-6


@pytest.mark.parametrize(
    "name", ["two passes", pytest.param("lstm, state", marks=pytest.mark.slow)]
)
def test_several_learners_of_truncated_trajectories_are_one_of_pieces(name):
    settings = {**SETTINGS[name], "meta_gradient_mode": "reverse_over_forward"}
    cut, apart = agents(2, settings)
    taus, meta_batches = (batches(apart, 2, seed) for seed in (3, 4))
    x = cut.learner.state.x.numpy()
    expected = reverse_over_forward(*Case(apart, taus[1], meta_batches[1], x).arguments())
    learners = parts_of(Case(cut, taus[0], meta_batches[0], x), 2)
    together = Together(2)
    steps = together.run(
        lambda i: reverse_over_forward(*learners[i].arguments(), reduce=together.reduce)
    )
    for step in steps:
        assert_equal(step.meta_gradient[0], expected.meta_gradient[0], "dJ'/dx")
        assert_equal(step.meta_loss, expected.meta_loss, "J'")
        assert_equal(step.inner.inner_loss, expected.inner.inner_loss, "J")
        for ours, theirs in zip(step.inner.parameters, expected.inner.parameters, strict=True):
            assert_equal(ours, theirs, "θ'")


def test_the_final_observation_is_what_the_last_step_bootstraps_from():
    """dJ/d(final observation) is not 0, and nothing of the step after it counts."""
    cut, apart = agents(2, {"meta_parameters": "none"})
    batch, _ = batches(apart, 2, 3)
    random = np.random.default_rng(0)

    def loss(changed: Unroll) -> float:
        parameters = [v.read_value() for v in cut.network.trainable_variables]
        objective = cut.learner.factory.inner_objective(
            cut.learner.factory.trajectories(changed), parameters
        )
        return float(objective(parameters, [tf.zeros([0], tf.float64)])[0])

    expected = loss(batch)
    row = LENGTH + 1  # the first of the second piece; the step to it leaves the final observation
    for name in ("rewards", "behaviour_log_probs", "last_actions"):
        array = getattr(batch, name).numpy()
        if name == "last_actions":
            array[row] = (array[row] + 1) % 3
        else:
            array[row - (name == "behaviour_log_probs")] += random.normal(size=COLUMNS)
        assert loss(batch._replace(**{name: tf.constant(array)})) == expected, name
    observations = batch.observations.numpy()
    observations[row - 1] += 1.0
    assert abs(loss(batch._replace(observations=tf.constant(observations))) - expected) > 1e-3
