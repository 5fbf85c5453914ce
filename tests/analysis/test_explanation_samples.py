"""Samples of the meta-gradient on real batches (equivalence: they are the learner's own)."""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import make_agent, random_batch

from meta_impala.actors.trajectory import Unroll
from meta_impala.algorithm.attribution import SPLIT_PLACES, TIMED_PLACES
from meta_impala.algorithm.objectives import IMPORTANCE_WEIGHTS_PLACE, PLACES
from meta_impala.analysis.explanation import attribution_report as meta_gradient_report
from meta_impala.analysis.explanation import attribution_text
from meta_impala.analysis.explanation import samples as sampling
from meta_impala.config import Config, resolve
from meta_impala.environments import registry
from meta_impala.learner.make_learner import make_learner

RATE = 0.01
CELLS = {
    "returns": {},
    "per state, every path, lstm": {
        "meta_parameter_scope": "state", "meta_gradient_paths": "importance_weights",
        "core": "lstm", "core_size": 5,
    },
    "held out": {"meta_data": "held_out", "meta_batch_size": 2},
}  # fmt: skip


def _learner(**settings):
    defaults = {
        "environment": "Catch", "network": "mlp", "mlp_sizes": "8", "batch_size": 4,
        "envs_per_actor": 4, "num_actors": 1, "meta_batch_size": 4, "unroll_length": 5,
        "learning_rate": RATE, "learning_rate_schedule": "constant",
    }  # fmt: skip
    config = resolve(Config(**(defaults | settings)))
    description = registry.describe(config.environment, config.protocol)
    return make_learner(config, description), config, description


def _state(learner):
    values = tf.nest.map_structure(lambda variable: variable.numpy(), list(learner.state.variables))
    return values


@pytest.fixture
def eager():
    """Without graphs, whose building is most of the time of a test this small."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", CELLS)
def test_the_parts_are_those_of_the_update_that_the_learner_makes(name, monkeypatch, eager):
    learner, config, description = _learner(**CELLS[name])
    calls = []
    make = sampling._meta_evaluation

    def recorded(*arguments):
        evaluate = make(*arguments)

        def recorder(batch, meta_batch):
            calls.append((batch, meta_batch, evaluate(batch, meta_batch)))
            return calls[-1][-1]

        return recorder

    monkeypatch.setattr(sampling, "_meta_evaluation", recorded)
    before = _state(learner)
    samples = list(
        sampling.samples(learner, config, description, RATE, batches=1, warmup=1, seed=3)
    )
    for one, other in zip(before, _state(learner), strict=True):
        np.testing.assert_array_equal(one, other)

    sample, learned = samples[0], len(config.learned)
    assert sample.by_place.shape == (len(SPLIT_PLACES), learned)
    assert sample.by_time.shape == (len(TIMED_PLACES), config.unroll_length, learned)
    np.testing.assert_allclose(
        sample.by_time.sum(axis=1), sample.by_place[:2], rtol=1e-3, atol=1e-6
    )
    if config.meta_gradient_paths == "returns":
        np.testing.assert_array_equal(sample.by_place[2:], np.zeros([4, learned]))
    else:
        assert np.all(sample.by_place[PLACES.index(IMPORTANCE_WEIGHTS_PLACE)] != 0)
    training = sampling.meta_batch_of_training(config)
    assert np.any(sample.meta_gradients[training] != 0)
    np.testing.assert_array_equal(sample.by_place.sum(axis=0), sample.meta_gradients[training])
    result = meta_gradient_report.report(config, samples)
    assert "## How independent" in attribution_text.text(config, "a run", RATE, result)

    # The first batch, put to the learner itself.
    if config.meta_data == "held_out":
        assert calls[0][0].rewards.shape == calls[0][1].rewards.shape == (6, 2)
        return
    batch, meta_batch, found = next(
        call for call in calls if np.array_equal(call[2].by_place, sample.by_place)
    )
    tensors = (Unroll(*map(tf.constant, unroll)) for unroll in (batch, meta_batch))
    statistics, _ = learner.update(*tensors, updates=0, frames=0)
    for index, of_name in enumerate(config.learned):
        expected = getattr(statistics, f"meta_gradient_{of_name}")
        np.testing.assert_allclose(
            found.meta_gradient[index], expected, rtol=1e-3, atol=1e-5 * abs(expected) + 1e-9
        )
    assert found.meta_loss == pytest.approx(statistics.meta_loss, rel=1e-4)
    assert found.gradient_norm == pytest.approx(statistics.gradient_norm, rel=1e-4)
    eta = (statistics.gamma, statistics.lambda_)
    assert tuple(found.eta[:2]) == pytest.approx(eta, rel=1e-6)


def test_steps_of_weight_0_are_not_counted(eager):
    """J' per agent step is the learner's, also where a time limit ends episodes."""
    agent = make_agent(meta_batch_size=4, learning_rate=RATE, learning_rate_schedule="constant")
    batch, meta_batch = (random_batch(agent, seed) for seed in range(2))
    assert np.any(meta_batch.truncations.numpy()[1:])
    found = sampling._meta_evaluation(agent.learner, RATE)(batch, meta_batch)
    statistics, _ = agent.learner.update(batch, meta_batch, updates=0, frames=0)
    assert found.meta_loss == pytest.approx(statistics.meta_loss, rel=1e-4)


def test_which_columns_are_the_meta_batch(monkeypatch):
    """Each meta batch is what its name says: which unroll, of which group, which games."""
    learner, config, description = _learner(meta_batch_size=3, unroll_length=9)
    seen = []

    def recorded(*_):
        def recorder(batch, meta_batch):
            seen.append((batch, meta_batch))
            zeros = np.zeros(2)
            direction = np.array([1.0, len(seen)])
            return sampling._MetaEvaluation(
                zeros[None], zeros[None, None], 0.0, direction, 1.0, 1.0, zeros,
                np.zeros([0, 2]), np.zeros([0, 2]),
            )  # fmt: skip

        return recorder

    monkeypatch.setattr(sampling, "_meta_evaluation", recorded)
    list(sampling.samples(learner, config, description, RATE, batches=25, warmup=2, seed=3))
    assert len(seen) == 4 * 25
    for number in range(25):
        (batch, itself), (_, following), (_, later), (_, others) = seen[4 * number : 4 * number + 4]
        games = learner.column_order(number)[:3]
        np.testing.assert_array_equal(itself.observations, batch.observations[:, games])
        # The next unroll begins where τ ends, other games do not.
        np.testing.assert_array_equal(following.observations[0], itself.observations[-1])
        np.testing.assert_array_equal(following.rewards[0], itself.rewards[-1])
        if number + sampling.LATER_BY < 25:
            then = seen[4 * (number + sampling.LATER_BY)][0]
            np.testing.assert_array_equal(later.observations, then.observations[:, games])
        assert np.any(others.observations != following.observations)


@pytest.mark.parametrize(
    ("settings", "share", "meta_batch"),
    [
        ({"num_actors": 1}, 1.0, sampling.NEXT),
        ({"num_actors": 2}, 0.0, sampling.OTHERS),
        ({"num_actors": 2, "batch_size": 8}, 1.0, sampling.NEXT),
        ({"num_actors": 3, "batch_size": 8}, 0.5, sampling.NEXT),
        ({"num_actors": 8}, 0.0, sampling.OTHERS),
        (
            {"num_actors": 1, "learner_addresses": "a:1,b:1", "meta_batch_size": 2},
            0.0,
            sampling.OTHERS,
        ),
        ({"num_actors": 1, "meta_data": "swap"}, 1.0, sampling.NEXT),
        ({"num_actors": 1, "meta_data": "held_out"}, 0.0, sampling.HELD_OUT),
    ],
)
def test_which_meta_batch_is_that_of_training(settings, share, meta_batch):
    defaults = {"batch_size": 4, "envs_per_actor": 4, "meta_batch_size": 3}
    config = resolve(Config(**(defaults | settings)))
    assert sampling.share_of_same_games(config) == share
    assert sampling.meta_batch_of_training(config) == meta_batch


def test_cosine():
    one = np.array([3.0, 4.0], np.float32)
    assert sampling.cosine(one, np.array([4.0, 3.0])) == pytest.approx(0.96)
    assert sampling.cosine(one, -2 * one) == pytest.approx(-1.0)
    assert sampling.cosine(one[:1], -one[1:]) == -1.0
    assert np.isnan(sampling.cosine(one, 0 * one))
