"""What `watch` shows of a game: ground truth (the network's own outputs), equivalence (the games of
an evaluation)."""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import log_softmax, make_agent, perturb

from meta_impala.algorithm.meta_parameters import embedding_input
from meta_impala.config import AgentSettings
from meta_impala.environments import registry
from meta_impala.evaluation.games import GamePolicy, play_games
from meta_impala.evaluation.live_game import InspectedPolicy, play_live
from meta_impala.evaluation.starts import Start, game_seeds
from meta_impala.evaluation.watched_environment import DrawnEnvironment, make_watched
from meta_impala.networks.actor_critic import NetworkInputs

CATCH = registry.describe("Catch", "impala")
KINDS = {
    "plain": {},
    "state": {"meta_parameter_scope": "state", "meta_parameters": "gamma,lambda"},
    "one": {"meta_parameters": "gamma", "eta_embedding_size": 0},
    "lstm": {"core": "lstm", "core_size": 4, "last_action_and_reward": True},
}


def _agent(kind):
    agent = make_agent(description=CATCH, **KINDS[kind])
    perturb(agent, 1, 0.5)
    if kind == "state":
        x = agent.learner.state.x
        x.assign_add(np.random.default_rng(2).normal(size=x.shape))
    return agent


def _play(agent, environment, number=0, **settings):
    policy = InspectedPolicy(agent.network, agent.config.part(AgentSettings), CATCH, 1)
    size = agent.network.settings.core_state_size
    return list(
        play_live(
            policy,
            agent.learner.snapshot(),
            environment,
            3,
            number,
            core_state_size=size,
            **settings,
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_value_policy_gamma_and_lambda_are_those_of_the_network(kind):
    agent = _agent(kind)
    environment = DrawnEnvironment("Catch", "impala")
    steps = _play(agent, environment)
    environment.close()
    assert [step.steps for step in steps] == list(range(10))
    network, x = agent.network, agent.learner.state.x
    parameters = agent.learner.meta_parameters
    core_state, last_action = network.initial_core_state(1), 0
    for step in steps[:-1]:
        board = (step.picture[..., 0] / 255.0).astype(np.float32)
        inputs = NetworkInputs(
            tf.constant(board[np.newaxis, np.newaxis]),
            tf.constant([[last_action]]),
            tf.zeros([1, 1]),
            tf.zeros([1, 1], tf.bool),
        )
        features = network.body(inputs.observations)
        eta = parameters.at_states(tf.convert_to_tensor(x), features)
        fed = parameters.fed(eta, tf.float32)
        output = network.heads(features, inputs, core_state, embedding_input(fed))
        core_state, last_action = output.core_state, step.action
        assert step.value == pytest.approx(float(output.values[0, 0]), rel=1e-4, abs=1e-5)
        expected = np.exp(log_softmax(output.policy_logits.numpy()[0, 0]))
        np.testing.assert_allclose(step.policy, expected, rtol=1e-4)
        for shown, name in ((step.gamma, "gamma"), (step.lambda_, "lambda")):
            assert shown == pytest.approx(float(np.squeeze(eta[name])), rel=1e-5)
        assert 0 <= step.action < 3
    gammas = {step.gamma for step in steps[:-1]}
    assert (len(gammas) > 1) == (kind == "state")
    last = steps[-1]
    assert (last.value, last.policy, last.action) == (None, None, None)
    assert abs(last.episode_return) == 1


@pytest.mark.parametrize("kind", ["plain", "lstm"])
def test_the_games_are_those_of_an_evaluation(kind):
    agent = _agent(kind)
    environment = DrawnEnvironment("Catch", "impala")
    shown = [_play(agent, environment, number)[-1] for number in range(20)]
    environment.close()
    single = registry.make("Catch", 1, "impala")
    games = play_games(
        GamePolicy(agent.network, agent.config.part(AgentSettings), CATCH, 1),
        agent.learner.snapshot(),
        [single],
        [(number, Start(game_seeds(3, number)[0])) for number in range(20)],
        3,
        core_state_size=agent.network.settings.core_state_size,
    )
    single.close()
    assert [step.episode_return for step in shown] == [game.episode_return for game in games]
    assert len({step.episode_return for step in shown}) == 2


def test_a_game_that_does_not_end_is_cut():
    environment = make_watched("Catch", "impala", 0)
    steps = _play(_agent("plain"), environment, max_frames=4)
    environment.close()
    assert len(steps) == 5 and steps[-1].policy is None
