"""Which games count, what the agent is shown, and how a checkpoint is found.

Ground truth on scripted environments; equivalence with the actor; fault (a checkpoint vanishes).
"""

import collections
import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.agent import Policy, Snapshot, make_network
from meta_impala.algorithm.eta_schedule import EtaSchedule
from meta_impala.config import Config, resolve, resolve_network
from meta_impala.environments import registry
from meta_impala.environments.base import BatchedEnvironment, Transition
from meta_impala.errors import UserError
from meta_impala.runtime import checkpoint as checkpoint_lib
from meta_impala.runtime import evaluation
from meta_impala.runtime.actor import Actor
from meta_impala.runtime.checkpoint import Checkpoints
from meta_impala.runtime.learner import Learner

ACTION_REPEAT = 4


class Scripted(BatchedEnvironment):
    """Environment i plays games of `lengths[i]` steps; every step earns 1 and the action taken.

    A life is lost on arriving at the steps `life_losses` of a game. The games of the environments
    in `truncated` end by a time limit.
    """

    def __init__(self, lengths, life_losses=(), truncated=()):
        self._lengths = np.array(lengths)
        self._life_losses = list(life_losses)
        self._is_truncated = np.isin(np.arange(len(lengths)), list(truncated))
        super().__init__(len(lengths), 3, (2,), np.dtype(np.float32), ACTION_REPEAT)

    def _restart(self, seed):
        self._at = np.zeros_like(self._lengths)
        return self._observe()

    def _observe(self):
        phase = self._at[:, None] + np.arange(self.num_envs)[:, None]
        return np.concatenate([np.sin(phase), np.cos(phase)], axis=1).astype(np.float32)

    def _advance(self, actions):
        self._at = self._at + 1
        ends = self._at == self._lengths
        truncations = ends & self._is_truncated
        terminations = (ends & ~truncations) | (np.isin(self._at, self._life_losses) & ~ends)
        final_observations = self._observe()
        self._at[ends] = 0
        return Transition(
            self._observe(), 1.0 + actions, terminations, truncations, final_observations, ends
        )


ANYONE = Snapshot(0, (), tf.constant([0.99, 1.0]))


class Recorder:
    """A policy that takes action 0 and notes what it was given."""

    def __init__(self):
        self.resets, self.seeds, self.rewards, self.last_actions = [], [], [], []

    def __call__(
        self, parameters, eta, observations, last_actions, rewards, resets, core_state, seed
    ):
        self.resets.append(resets.tolist())
        self.seeds.append(seed)
        self.rewards.append(rewards.tolist())
        self.last_actions.append(last_actions.tolist())
        return np.zeros(len(resets), np.int32), np.zeros(len(resets), np.float32), core_state


@pytest.mark.parametrize(
    ("episodes", "num_envs", "expected"),
    [(10, 4, [3, 3, 2, 2]), (3, 3, [1, 1, 1]), (1, 1, [1]), (2, 3, [1, 1, 0])],
)
def test_quotas_differ_by_at_most_one(episodes, num_envs, expected):
    assert evaluation.quotas(episodes, num_envs).tolist() == expected


def test_short_games_are_not_over_represented():
    games = evaluation.play_games(Recorder(), ANYONE, Scripted([1, 10, 100]), episodes=9, seed=0)
    # The first nine games to end would have been those of environment 0, all of return 1.
    assert collections.Counter(game.environment for game in games) == {0: 3, 1: 3, 2: 3}
    assert np.mean([game.episode_return for game in games]) == (1 + 10 + 100) / 3
    assert sorted(game.frames for game in games) == [
        ACTION_REPEAT * length for length in [1, 1, 1, 10, 10, 10, 100, 100, 100]
    ]


def test_a_quota_that_does_not_divide():
    games = evaluation.play_games(Recorder(), ANYONE, Scripted([7, 2, 3]), episodes=5, seed=0)
    assert collections.Counter(game.environment for game in games) == {0: 2, 1: 2, 2: 1}


def test_games_come_in_the_order_of_their_ends_and_are_told_one_by_one():
    told = []
    games = evaluation.play_games(
        Recorder(), ANYONE, Scripted([5, 2]), episodes=4, seed=0, on_game=told.append
    )
    assert [game.environment for game in games] == [1, 1, 0, 0]
    assert told == games


def test_a_lost_life_resets_the_core_and_ends_no_game():
    policy = Recorder()
    games = evaluation.play_games(
        policy, ANYONE, Scripted([6], life_losses=[2, 4]), episodes=2, seed=0
    )
    assert [(game.episode_return, game.frames) for game in games] == [(6.0, 24)] * 2
    # Before the first step nothing has ended; then at steps 2, 4 and 6, twice over. The last
    # arrival is not acted upon.
    once = [False, True, False, True, False, True]
    assert [resets[0] for resets in policy.resets] == ([False] + once + once)[:12]


def test_a_time_limit_ends_a_game_and_resets_the_core():
    policy = Recorder()
    environment = Scripted([3, 4], truncated=[0])
    games = evaluation.play_games(policy, ANYONE, environment, episodes=2, seed=0)
    assert [game.episode_return for game in games] == [3.0, 4.0]
    assert policy.resets == [[False, False]] * 3 + [[True, False]]


def test_each_call_has_its_own_seed_and_sees_the_raw_reward_and_last_action():
    policy = Recorder()
    evaluation.play_games(policy, ANYONE, Scripted([3]), episodes=1, seed=8)
    assert policy.seeds == [(8, 0), (8, 1), (8, 2)]
    assert policy.rewards == [[0.0], [1.0], [1.0]]
    assert policy.last_actions == [[0], [0], [0]]


# The agent of a tiny recurrent network, sharpened so that its state decides its actions.


@pytest.fixture(scope="module")
def description():
    environment = Scripted([1])
    return registry.Description(
        environment.observation_shape,
        environment.observation_dtype,
        environment.num_actions,
        ACTION_REPEAT,
    )


@pytest.fixture(scope="module")
def config(description):
    config = Config(
        environment="Catch",
        core="lstm",
        core_size=8,
        last_action_and_reward=True,
        mlp_sizes="8",
        batch_size=8,
        envs_per_actor=8,
        reward_clip=0.0,
    )
    return resolve_network(resolve(config), description.observation_shape)


@pytest.fixture(scope="module")
def learner(config, description):
    return Learner(config, description, make_network(config, description))


@pytest.fixture(scope="module")
def snapshot(learner):
    generator = np.random.default_rng(0)
    parameters = tuple(
        tf.constant(generator.normal(0.0, 1.0, tensor.shape), tensor.dtype)
        for tensor in learner.snapshot().parameters
    )
    return learner.snapshot()._replace(parameters=parameters)


@pytest.fixture(scope="module")
def policy(learner, config, description):
    return Policy(learner.state.network, config, description, num_envs=3)


def _core_state_size(learner):
    return learner.state.network.settings.core_state_size


def test_games_are_those_that_an_actor_plays(learner, snapshot, policy):
    def environment():
        return Scripted([6, 6, 6], life_losses=[2, 4], truncated=[1])

    size = _core_state_size(learner)
    actor = Actor(0, environment(), policy, unroll_length=30, eta_schedule=EtaSchedule())
    actor.reset(5, size)
    episodes = actor.unroll(snapshot).episodes
    games = evaluation.play_games(
        policy, snapshot, environment(), episodes=15, seed=5, core_state_size=size
    )
    assert [(game.episode_return, game.frames) for game in games] == list(episodes)
    assert len({game.episode_return for game in games}) > 1


def test_the_same_seed_plays_the_same_games(learner, snapshot, policy):
    def games(seed):
        return evaluation.play_games(
            policy,
            snapshot,
            Scripted([20, 30, 40]),
            episodes=6,
            seed=seed,
            core_state_size=_core_state_size(learner),
        )

    assert games(1) == games(1)
    assert games(1) != games(2)


def test_another_eta_is_fed_to_the_network(learner, snapshot, policy):
    def log_probs(fed):
        zeros = np.zeros(3, np.float32)
        return policy(
            fed.parameters,
            np.tile(fed.eta.numpy(), (3, 1)),
            np.ones([3, 2], np.float32),
            zeros.astype(np.int32),
            zeros,
            zeros.astype(bool),
            np.zeros([3, _core_state_size(learner)], np.float32),
            (0, 0),
        )[1]

    other = evaluation.with_eta(snapshot, 0.5, 0.25)
    assert other.eta.numpy().tolist() == [0.5, 0.25]
    assert other.parameters is snapshot.parameters
    assert not np.array_equal(log_probs(other), log_probs(snapshot))
    same = evaluation.with_eta(snapshot, *snapshot.eta.numpy().tolist())
    np.testing.assert_array_equal(log_probs(same), log_probs(snapshot))


# Checkpoints.


def _save(folder, config, description, frames, keep=3):
    """Saves a checkpoint whose η and θ tell its number of frames."""
    learner = Learner(config, description, make_network(config, description))
    for variable in learner.state.network.trainable_variables:
        variable.assign(tf.fill(variable.shape, tf.cast(frames, variable.dtype)))
    learner.state.x.assign([frames / 1000.0] * 2)
    learner.state.frames.assign(frames)
    learner.state.updates.assign(frames // 10)
    identity = checkpoint_lib.identity_of(config, description, learner.state)
    Checkpoints(folder, learner.state, keep, identity).save({})


def test_the_newest_checkpoint_is_read_and_nothing_touched(tmp_path, config, description):
    _save(tmp_path, config, description, 100)
    _save(tmp_path, config, description, 200)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    agent = evaluation.load_agent(tmp_path, config, description)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before
    assert (agent.checkpoint, agent.frames, agent.snapshot.version) == ("frames-200", 200, 20)
    assert all(np.all(tensor.numpy() == 200) for tensor in agent.snapshot.parameters)
    np.testing.assert_allclose(agent.snapshot.eta, 1 / (1 + np.exp(-0.2)), rtol=1e-6)


def test_a_checkpoint_that_training_replaces_is_read_anew(
    tmp_path, config, description, monkeypatch, capsys
):
    _save(tmp_path, config, description, 100)
    restore, tried = checkpoint_lib._restore, []

    def restore_too_late(path, *arguments):
        tried.append(path.name)
        if len(tried) == 1:
            _save(tmp_path, config, description, 200, keep=1)
            assert not path.exists()
        return restore(path, *arguments)

    monkeypatch.setattr(checkpoint_lib, "_restore", restore_too_late)
    agent = evaluation.load_agent(tmp_path, config, description)
    assert (agent.checkpoint, agent.frames) == ("frames-200", 200)
    assert tried == ["frames-100", "frames-200"]
    assert capsys.readouterr().err == ""  # nothing was damaged


def test_a_damaged_checkpoint_is_passed_over_and_left_as_it_is(
    tmp_path, config, description, capsys
):
    _save(tmp_path, config, description, 100)
    _save(tmp_path, config, description, 200)
    data = tmp_path / "frames-200" / "state.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:50])
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    agent = evaluation.load_agent(tmp_path, config, description)
    assert (agent.checkpoint, agent.frames) == ("frames-100", 100)
    assert all(np.all(tensor.numpy() == 100) for tensor in agent.snapshot.parameters)
    warning = capsys.readouterr().err
    assert "frames-200 is damaged" in warning and "taking frames-100" in warning
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


def test_when_all_checkpoints_are_damaged_the_refusal_says_of_each_why(
    tmp_path, config, description
):
    _save(tmp_path, config, description, 100)
    _save(tmp_path, config, description, 200)
    (tmp_path / "frames-100" / "state.index").unlink()
    (tmp_path / "frames-200" / "manifest.json").write_text("{}")
    with pytest.raises(UserError) as error:
        evaluation.load_agent(tmp_path, config, description)
    message = str(error.value)
    assert "\n" not in message
    assert "frames-100: state.index is missing" in message
    assert "frames-200: manifest.json does not match its digest" in message


def test_without_a_checkpoint_the_refusal_says_what_to_do(tmp_path, config, description):
    _save(tmp_path, config, description, 100)
    shutil.rmtree(tmp_path)
    with pytest.raises(UserError, match="no checkpoint yet"):
        evaluation.load_agent(tmp_path, config, description)
