"""What games with a checkpoint show (ground truth, fault)."""

import weakref

import numpy as np
import pytest
from support.run_helpers import make_config

from meta_impala.config import resolve_network
from meta_impala.diagnosis import batch_evidence
from meta_impala.environments import registry
from meta_impala.learner.make_learner import make_learner


def test_returns_are_those_of_a_slow_sum():
    generator = np.random.default_rng(1)
    T, B = 12, 5
    rewards, values = generator.normal(size=(T, B)), generator.normal(size=(T + 1, B))
    cuts = generator.random((T, B)) < 0.15
    discounts = 0.9 * (generator.random((T, B)) > 0.15)
    returns, weights = batch_evidence.returns_of(rewards, discounts, cuts, values)
    for b in range(B):
        for t in range(T):
            total, weight, at = 0.0, 1.0, t
            while at < T and not cuts[at, b]:
                total += weight * rewards[at, b]
                weight *= discounts[at, b]
                at += 1
            assert returns[t, b] == pytest.approx(total + weight * values[at, b])
            assert weights[t, b] == pytest.approx(weight)


def test_explained_variance():
    returns = np.random.default_rng(2).normal(size=1000)
    assert batch_evidence.explained_variance(returns, returns) == 1.0
    assert batch_evidence.explained_variance(returns, np.full(1000, 7.0)) == pytest.approx(0.0)
    assert batch_evidence.explained_variance(returns, -returns) == pytest.approx(-3.0)
    assert np.isnan(batch_evidence.explained_variance(returns[:5], returns[:5]))
    assert np.isnan(batch_evidence.explained_variance(np.ones(100), returns[:100]))


SETTINGS = {
    "plain": {"meta_parameters": "none"},
    "learned": {},
    "per state": {"meta_parameter_scope": "state"},
    "drawn": {
        "eta_schedule": "mixture",
        "eta_mixture": "0.99,1,rho_clip:0.5;0.9,1,rho_clip:1.5",
        "meta_parameters": "gamma,rho_clip",
        "embedded_meta_parameters": "rho_clip",
    },
    "a cost per state": {
        "meta_parameters": "gamma,entropy_cost",
        "meta_parameter_scope": "entropy_cost",
    },
    "lstm": {"core": "lstm", "core_size": 8, "last_action_and_reward": True},
    "time limits": {"environment": "CartPole-v1"},
}


def _learner(**settings):
    config = make_config(mlp_sizes="16", batch_size=8, **settings)
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    return make_learner(config, description), config, description


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_network_can_play(name):
    learner, config, description = _learner(**SETTINGS[name])
    before = [variable.numpy() for variable in learner.state.variables]
    found = batch_evidence.play(learner, config, description, "new", steps=38, seed=1)
    after = [variable.numpy() for variable in learner.state.variables]
    assert all(map(np.array_equal, before, after))
    assert found == found._replace(checkpoint="new") and found.steps == 40 * 8
    assert found.num_actions == description.num_actions and found.hidden_units == 16
    assert 0.9 < found.entropy / np.log(found.num_actions) <= 1.0
    assert 0.0 <= found.dead_units < 0.75
    if description.num_actions == 3:  # Catch: a game has nine steps
        assert found.games == found.terminations == len(found.rewards) == 8 * (40 // 9)
        assert found.explained_variance < 0.5
    again = batch_evidence.play(learner, config, description, "new", steps=38, seed=1)
    assert np.array_equal(again.rewards, found.rewards) and again.entropy == found.entropy


def test_long_games_do_not_fill_memory(monkeypatch):
    """The observations of an unroll are gone when the next ones are played."""
    kept, network = [], batch_evidence._network

    def watched(*arguments):
        outputs_of = network(*arguments)

        def look(unroll):
            assert sum(reference() is not None for reference in kept) <= 2
            kept.append(weakref.ref(unroll.observations))
            return outputs_of(unroll)

        return look

    monkeypatch.setattr(batch_evidence, "_network", watched)
    batch_evidence.play(*_learner(), "new", steps=100, seed=1)
    assert len(kept) == 20


def test_dead_units_are_counted():
    learner, config, description = _learner(meta_parameters="none")
    (bias,) = [v for v in learner.state.network.trainable_variables if v.shape == [16]]
    for dead in (0, 4, 16):
        bias.assign(np.where(np.arange(16) < dead, -1e3, 1e3))
        found = batch_evidence.play(learner, config, description, "new", steps=10, seed=1)
        assert found.dead_units == dead / 16
