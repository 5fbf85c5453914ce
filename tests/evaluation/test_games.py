"""Which games count, what the agent is shown, and how a checkpoint is found.

Ground truth on scripted environments; equivalence with the actor; fault (a checkpoint vanishes).
"""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.actors.actor import Actor
from meta_impala.agent.policy import EtaSnapshot, Policy, PolicyInputs, Snapshot
from meta_impala.algorithm.eta_schedule import EtaSchedule
from meta_impala.config import AgentSettings, Config, resolve, resolve_network
from meta_impala.environments import registry
from meta_impala.environments.base import BatchedEnvironment, Transition
from meta_impala.errors import UserError
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.games import GamePolicy, play_games
from meta_impala.evaluation.starts import Start
from meta_impala.learner.make_learner import make_learner
from meta_impala.storage import checkpoint as checkpoint_lib
from meta_impala.storage.checkpoint import Checkpoints
from meta_impala.storage.trained_agent import load_agent, with_eta

ACTION_REPEAT = 4


class Scripted(BatchedEnvironment):
    """One environment; a game seeded with s is `lengths[s % len(lengths)]` steps long, and every
    step earns 1 and the action taken.

    A life is lost on arriving at the steps `life_losses` of a game. The games whose length is in
    `truncated` end by a time limit.
    """

    def __init__(self, lengths, life_losses=(), truncated=()):
        self._lengths, self._life_losses = list(lengths), list(life_losses)
        self._truncated = list(truncated)
        super().__init__(1, 3, (2,), np.dtype(np.float32), ACTION_REPEAT)

    def _restart(self, seed):
        self._seed, self._at = seed, 0
        self._length = self._lengths[seed % len(self._lengths)]
        return self._observe()

    def _observe(self):
        phase = self._at + self._seed % len(self._lengths)
        return np.array([[np.sin(phase), np.cos(phase)]], np.float32)

    def _advance(self, actions):
        self._at += 1
        end = self._at == self._length
        truncated = end and self._length in self._truncated
        terminated = (end and not truncated) or (self._at in self._life_losses and not end)
        final_observations = self._observe()
        if end:
            self._at = 0
        return Transition(
            self._observe(),
            1.0 + actions,
            np.array([terminated]),
            np.array([truncated]),
            final_observations,
            np.array([end]),
        )


ANYONE = Snapshot(0, (), EtaSnapshot(tf.constant([0.99, 1.0])))


class Recorder:
    """A policy that takes action 0 and notes what it was given."""

    def __init__(self):
        self.resets, self.seeds, self.rewards, self.last_actions = [], [], [], []

    def __call__(self, parameters, eta, inputs):
        self.resets.append(inputs.resets.tolist())
        self.seeds.append(inputs.seed.tolist())
        self.rewards.append(inputs.rewards.tolist())
        self.last_actions.append(inputs.last_actions.tolist())
        count = len(inputs.resets)
        return np.zeros(count, np.int32), np.zeros(count, np.float32), inputs.core_state


def _games(numbers):
    return [(number, Start(number)) for number in numbers]


def _play(policy, lengths, num_envs, games, seed=0, on_game=None, **kwargs):
    environments = [Scripted(lengths, **kwargs) for _ in range(num_envs)]
    return play_games(policy, ANYONE, environments, games, seed, on_game=on_game)


def test_every_game_is_played_once_however_short_the_others_are():
    games = _play(Recorder(), [1, 10, 100], 2, _games(range(9)))
    assert sorted(game.number for game in games) == list(range(9))
    # The first nine games to end of two environments left alone would nearly all be short.
    assert np.mean([game.episode_return for game in games]) == (1 + 10 + 100) / 3
    assert {game.number: game.frames for game in games} == {
        number: ACTION_REPEAT * [1, 10, 100][number % 3] for number in range(9)
    }


def test_games_are_reported_one_by_one_in_the_order_of_their_ends():
    told = []
    games = _play(Recorder(), [5, 2], 2, _games([0, 1, 3, 5]), on_game=told.append)
    assert [game.number for game in games] == [1, 3, 0, 5]
    assert told == games


def test_a_request_to_stop_is_noticed_between_two_steps():
    told = []
    with pytest.raises(KeyboardInterrupt):
        play_games(
            Recorder(),
            ANYONE,
            [Scripted([3])],
            _games(range(9)),
            0,
            on_game=told.append,
            should_stop=lambda: len(told) == 2,
        )
    assert [game.number for game in told] == [0, 1]


def test_there_may_be_more_environments_than_games():
    assert [game.number for game in _play(Recorder(), [3], 4, _games([7]))] == [7]


def test_a_lost_life_resets_the_core_and_ends_no_game():
    policy = Recorder()
    (game,) = _play(policy, [6], 1, _games([0]), life_losses=[2, 4])
    assert (game.episode_return, game.frames) == (6.0, 24)
    # Before the first step nothing has ended; the last arrival is not acted upon.
    assert policy.resets == [[False], [False], [True], [False], [True], [False]]


def test_a_time_limit_ends_a_game_and_the_next_one_begins_afresh():
    policy = Recorder()
    games = _play(policy, [3, 2], 1, _games([0, 1]), truncated=[3])
    assert [game.episode_return for game in games] == [3.0, 2.0]
    assert policy.resets == [[False]] * 5
    assert policy.rewards == [[0.0], [1.0], [1.0], [0.0], [1.0]]
    assert policy.last_actions == [[0]] * 5


def test_the_random_numbers_of_a_game_depend_on_seed_number_and_step_alone():
    policy = Recorder()
    _play(policy, [3, 2], 1, _games([4, 9]), seed=8)
    of_4, of_9 = game_starts.game_seeds(8, 4)[1], game_starts.game_seeds(8, 9)[1]
    assert policy.seeds == [[[of_4, 0]], [[of_4, 1]], [[of_4, 2]], [[of_9, 0]], [[of_9, 1]]]
    seeds = {game_starts.game_seeds(seed, game) for seed in range(20) for game in range(20)}
    assert len({env for env, _ in seeds} | {actions for _, actions in seeds}) == 800


def test_a_start_is_replayed_and_counts_in_no_score():
    policy = Recorder()
    start = Start(0, actions=(2, 2, 1))
    (game,) = _play(policy, [10], 1, [(0, start)])
    assert (game.episode_return, game.frames) == (7.0, 28)
    assert len(policy.seeds) == 7 and policy.rewards[0] == [0.0], "the agent begins afresh"
    environment = Scripted([10])
    begun = game_starts.begin(environment, start)
    assert (begun.episode_return, begun.frames) == (3 + 5.0, 12)
    np.testing.assert_allclose(begun.observation, [np.sin(3), np.cos(3)], rtol=1e-6)


def test_a_start_that_does_not_lead_to_its_recorded_observation_is_refused():
    reached = game_starts.begin(Scripted([10]), Start(0, (1, 1))).observation
    digest = game_starts.digest(reached)
    _play(Recorder(), [10], 1, [(0, Start(0, (1, 1), digest))])
    with pytest.raises(UserError, match="does not lead to the recorded observation"):
        _play(Recorder(), [10], 1, [(0, Start(0, (1,), digest))])
    with pytest.raises(UserError, match="ends before it is reached"):
        _play(Recorder(), [2], 1, [(0, Start(0, (1, 1)))])


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
    return make_learner(config, description)


@pytest.fixture(scope="module")
def snapshot(learner):
    generator = np.random.default_rng(0)
    parameters = tuple(
        tf.constant(generator.normal(0.0, 1.0, tensor.shape), tensor.dtype)
        for tensor in learner.snapshot().parameters
    )
    return learner.snapshot()._replace(parameters=parameters)


def _core_state_size(learner):
    return learner.state.network.settings.core_state_size


def _play_with(learner, snapshot, config, description, num_envs, numbers, seed=5, **kwargs):
    policy = GamePolicy(learner.state.network, config.part(AgentSettings), description, num_envs)
    lengths = kwargs.pop("lengths", [20, 30, 40])
    return sorted(
        play_games(
            policy,
            snapshot,
            [Scripted(lengths, **kwargs) for _ in range(num_envs)],
            _games(numbers),
            seed,
            core_state_size=_core_state_size(learner),
        )
    )


def test_a_game_is_what_an_actor_plays(learner, snapshot, config, description):
    scripted = {"lengths": [12], "life_losses": [2, 4], "truncated": [12]}
    (game,) = _play_with(learner, snapshot, config, description, 1, [3], **scripted)
    policy = Policy(learner.state.network, config.part(AgentSettings), description, num_envs=1)
    actor = Actor(0, Scripted(**scripted), policy, unroll_length=12, eta_schedule=EtaSchedule())
    actor.reset(game_starts.game_seeds(5, 3)[1], _core_state_size(learner))
    (episode,) = actor.unroll(snapshot).episodes
    assert (game.episode_return, game.frames) == (episode.episode_return, episode.frames)
    assert game.episode_return not in (12.0, 24.0, 36.0), "not always the same action"


def test_games_do_not_depend_on_the_other_games_of_the_batch(
    learner, snapshot, config, description
):
    def play(num_envs, numbers, seed=5):
        return _play_with(learner, snapshot, config, description, num_envs, numbers, seed)

    games = play(3, range(6))
    assert play(3, range(6)) == games
    assert sorted(play(2, [5, 0, 3]) + play(1, [1, 2, 4])) == games
    assert play(3, range(6), seed=6) != games
    assert len({game.episode_return for game in games}) > 3


def test_another_eta_is_fed_to_the_network(learner, snapshot, config, description):
    policy = Policy(learner.state.network, config.part(AgentSettings), description, num_envs=3)

    def log_probs(fed):
        zeros = np.zeros(3, np.float32)
        return policy(
            fed.parameters,
            np.tile(fed.eta.values.numpy(), (3, 1)),
            PolicyInputs(
                np.ones([3, 2], np.float32),
                zeros.astype(np.int32),
                zeros,
                zeros.astype(bool),
                np.zeros([3, _core_state_size(learner)], np.float32),
                (0, 0),
            ),
        )[1]

    other = with_eta(snapshot, 0.5, 0.25)
    assert other.eta.values.numpy().tolist() == [0.5, 0.25]
    assert other.parameters is snapshot.parameters
    assert not np.array_equal(log_probs(other), log_probs(snapshot))
    same = with_eta(snapshot, *snapshot.eta.values.numpy().tolist())
    np.testing.assert_array_equal(log_probs(same), log_probs(snapshot))


# Checkpoints.


def _save(folder, config, description, frames, keep=3):
    """Saves a checkpoint whose η and θ tell its number of frames."""
    learner = make_learner(config, description)
    for variable in learner.state.network.trainable_variables:
        variable.assign(tf.fill(variable.shape, tf.cast(frames, variable.dtype)))
    learner.state.x.assign([frames / 1000.0] * 2)
    learner.state.frames.assign(frames)
    learner.state.updates.assign(frames // 10)
    identity = checkpoint_lib.identity_of(config.part(AgentSettings), description, learner.state)
    Checkpoints(folder, learner.state, keep, identity).save({})


def test_the_newest_checkpoint_is_read_and_no_file_is_changed(tmp_path, config, description):
    _save(tmp_path, config, description, 100)
    _save(tmp_path, config, description, 200)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    agent = load_agent(tmp_path, config, description)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before
    assert (agent.checkpoint, agent.frames, agent.snapshot.version) == ("frames-200", 200, 20)
    assert all(np.all(tensor.numpy() == 200) for tensor in agent.snapshot.parameters)
    np.testing.assert_allclose(agent.snapshot.eta.values, 1 / (1 + np.exp(-0.2)), rtol=1e-6)


def test_a_checkpoint_that_training_replaces_is_read_again(
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
    agent = load_agent(tmp_path, config, description)
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
    agent = load_agent(tmp_path, config, description)
    assert (agent.checkpoint, agent.frames) == ("frames-100", 100)
    assert all(np.all(tensor.numpy() == 100) for tensor in agent.snapshot.parameters)
    warning = capsys.readouterr().err
    assert "frames-200 is damaged" in warning and "using frames-100" in warning
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


def test_when_all_checkpoints_are_damaged_the_refusal_says_of_each_why(
    tmp_path, config, description
):
    _save(tmp_path, config, description, 100)
    _save(tmp_path, config, description, 200)
    (tmp_path / "frames-100" / "state.index").unlink()
    (tmp_path / "frames-200" / "manifest.json").write_text("{}")
    with pytest.raises(UserError) as error:
        load_agent(tmp_path, config, description)
    message = str(error.value)
    assert "\n" not in message
    assert "frames-100: state.index is missing" in message
    assert "frames-200: manifest.json does not match its digest" in message


def test_without_a_checkpoint_the_refusal_says_what_to_do(tmp_path, config, description):
    _save(tmp_path, config, description, 100)
    shutil.rmtree(tmp_path)
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_agent(tmp_path, config, description)
