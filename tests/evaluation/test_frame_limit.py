"""Where an evaluated game is cut, and which games count as cut: frames from the beginning of the
game, its start included (ground truth on a scripted environment)."""

import types

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.agent.policy import EtaSnapshot, Snapshot
from meta_impala.environments.base import BatchedEnvironment, Transition
from meta_impala.evaluation import evaluator, record, result_text
from meta_impala.evaluation.evaluator import Evaluation
from meta_impala.evaluation.record import Game
from meta_impala.evaluation.starts import Start

ACTION_REPEAT = 4
STARTS = (Start(0, (0, 0, 0)), Start(1, (0,)))


class Endless(BatchedEnvironment):
    """One environment; every step earns 1, and the time limit cuts a game after `limit` of them."""

    def __init__(self, limit):
        self._limit, self._at = limit, 0
        super().__init__(1, 3, (2,), np.dtype(np.float32), ACTION_REPEAT)

    def _restart(self, seed):
        self._at = 0
        return np.zeros([1, 2], np.float32)

    def _advance(self, actions):
        self._at += 1
        end = np.array([self._at == self._limit])
        self._at = 0 if end[0] else self._at
        observations = np.zeros([1, 2], np.float32)
        return Transition(
            observations, np.ones(1), np.array([False]), end, observations.copy(), end
        )


class Scripted(Evaluation):
    """An evaluation of Pong, as far as its definition says."""

    def definition(self):
        limit = self.max_episode_frames or 40
        return {"environment": "Pong", "starts": "human", "max_episode_frames": limit}


def _still(parameters, eta, inputs):
    count = len(inputs.resets)
    return np.zeros(count, np.int32), np.zeros(count, np.float32), inputs.core_state


@pytest.mark.parametrize(("environment_limit", "flag"), [(10, None), (1000, 40), (10, 40)])
def test_a_game_with_a_start_is_cut_at_the_limit_and_counts_as_cut(
    monkeypatch, environment_limit, flag
):
    monkeypatch.setattr(evaluator, "evaluated_environment", lambda run: Endless(environment_limit))
    monkeypatch.setattr(evaluator, "GamePolicy", lambda *_: _still)
    network = types.SimpleNamespace(settings=types.SimpleNamespace(core_state_size=0))
    agent = types.SimpleNamespace(
        network=network,
        snapshot=Snapshot(0, (), EtaSnapshot(tf.constant([0.99, 1.0]))),
        checkpoint="frames-1",
    )
    evaluation = Scripted(
        agent,
        types.SimpleNamespace(environment="Pong"),
        types.SimpleNamespace(action_repeat=ACTION_REPEAT),
        starts=STARTS,
        max_episode_frames=flag,
    )
    found = evaluation.run(3, 2, None)
    # 10 steps each, 3 or 1 of them before the agent plays.
    assert (found["returns"], found["episode_frames"]) == ([7.0, 9.0, 7.0], [28, 36, 28])
    assert (found["episodes_at_limit"], found["max_episode_frames"]) == (3, 40)
    assert "3 of 3 games had not ended after 40 frames" in result_text.hint(found)


def test_games_as_long_as_the_environment_allows_are_counted():
    """Of one with a limit of its own, whose definition has none, as in those of early versions."""
    definition = {"environment": "CartPole-v1", "starts": "noop", "max_episode_frames": None}
    found = record.result(definition, [Game(0, 500.0, 500), Game(1, 9.0, 9), Game(2, 3.0, 499)])
    assert (found["episodes_at_limit"], found["max_episode_frames"]) == (1, None)
    assert result_text.hint(found) == "1 of 3 games lasted as long as the environment allows"
    shorter = definition | {"environment_kwargs": {"max_episode_steps": 9}}
    assert record.result(shorter, [Game(0, 9.0, 9)])["episodes_at_limit"] == 1
    endless = definition | {"environment": "Catch"}
    assert record.result(endless, [Game(0, 9.0, 9)])["episodes_at_limit"] == 0
