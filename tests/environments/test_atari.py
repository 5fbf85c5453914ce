"""The Atari protocols, on the real emulator (ground truth, equivalence, determinism).

Breakout serves for most: pressing FIRE for ever launches each ball and loses it about 24 agent
steps later, so a game of five lives is over within some 125 steps.
"""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest

from meta_impala.environments.atari import ACTION_REPEAT, PROTOCOLS, AtariEnvironment

NOOP, FIRE = 0, 1
WITHOUT_NOOPS = dataclasses.replace(PROTOCOLS["impala"], max_noops=0)


def make(game="Breakout", num_envs=1, protocol="impala", **arguments):
    return AtariEnvironment(game, num_envs, protocol, **arguments)


def constant(environment, action, num_steps, seed=0):
    """Resets, repeats one action, and returns the steps."""
    environment.reset(seed)
    actions = np.full(environment.num_envs, action)
    return [environment.step(actions) for _ in range(num_steps)]


def rollout(environment, num_steps, seed, columns=slice(None)):
    """Resets and plays random actions; returns the observations of the reset, and the steps.

    The actions are the same for every call; `columns` picks those of some of three environments.
    """
    actions = np.random.default_rng(0).integers(0, environment.num_actions, (num_steps, 3))
    return environment.reset(seed), [environment.step(row[columns]) for row in actions]


def stacked(steps, field):
    return np.stack([getattr(step, field) for step in steps])


def assert_same_rollout(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    for step, twin in zip(one[1], other[1], strict=True):
        for field, value in step._asdict().items():
            np.testing.assert_array_equal(value, getattr(twin, field), err_msg=field)


@pytest.fixture(scope="module")
def two_breakout_games():
    """Two copies, FIRE for ever, two games each and a bit more. Shared: for reading only.

    The second copy starts late, so that the two do not end their games together.
    """
    environment = make(num_envs=2)
    environment.reset(seed=0)
    return [environment.step(np.array([FIRE, NOOP if t < 10 else FIRE])) for t in range(280)]


def test_shapes_and_dtypes():
    environment = make("Pong", num_envs=2)
    first = environment.reset(seed=0)
    step = environment.step(np.array([NOOP, FIRE]))
    assert environment.num_envs == 2
    assert environment.num_actions == 6
    assert environment.observation_shape == (4, 84, 84)
    assert environment.observation_dtype == np.uint8
    assert environment.action_repeat == 4
    for observations in (first, step.observations):
        assert observations.shape == (2, 4, 84, 84)
        assert observations.dtype == np.uint8
    assert step.final_observations is None
    dtypes = {
        "rewards": np.float32,
        "terminations": np.bool_,
        "truncations": np.bool_,
        "episode_ends": np.bool_,
        "episode_returns": np.float64,
        "episode_frames": np.int64,
    }
    for field, dtype in dtypes.items():
        assert getattr(step, field).shape == (2,), field
        assert getattr(step, field).dtype == dtype, field


def test_the_stack_starts_padded_with_zeros_and_the_newest_frame_is_last():
    environment = make("Pong")
    first = environment.reset(seed=0)
    assert not first[0, :3].any()
    assert first[0, 3].any()
    kept = first.copy()
    second = environment.step(np.array([NOOP])).observations
    np.testing.assert_array_equal(second[0, :3], first[0, 1:])
    # The caller may keep what it was given: the emulator must not write into it again.
    environment.step(np.array([NOOP]))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("action", [-1, 4, 18])
def test_an_action_out_of_range_is_refused_and_the_game_continues(action):
    environment = make()
    environment.reset(seed=0)
    with pytest.raises(ValueError, match="0 to 3"):
        environment.step(np.array([action]))
    assert environment.step(np.array([3])).observations.any()


def test_a_lost_life_is_terminal_for_the_learner_while_the_game_continues(two_breakout_games):
    terminations = stacked(two_breakout_games, "terminations")
    ends = stacked(two_breakout_games, "episode_ends")
    for i in range(2):
        first_end, second_end = np.flatnonzero(ends[:, i])
        # Five lives: four losses and a game over. The second game proves that the new game's five
        # lives, which the emulator reports on the step of the game over, neither signal nor hide.
        for game in (slice(0, first_end + 1), slice(first_end + 1, second_end + 1)):
            assert terminations[game, i].sum() == 5
            assert terminations[game, i][-1]
        lost = np.flatnonzero(terminations[:, i] & ~ends[:, i])
        for t in lost:
            # The stack is that of the running game, and its counts go on.
            assert two_breakout_games[t].observations[i, 0].any()
            assert two_breakout_games[t].episode_frames[i] == 0
        assert not stacked(two_breakout_games, "truncations").any()


def test_after_a_game_over_the_observation_is_the_next_games_first(two_breakout_games):
    mixed = 0
    for before, step in itertools.pairwise(two_breakout_games):
        if not step.episode_ends.any():
            assert step.final_observations is None
            continue
        for i in range(2):
            if step.episode_ends[i]:
                assert not step.observations[i, :3].any()
                assert step.observations[i, 3].any()
                np.testing.assert_array_equal(
                    step.final_observations[i, :3], before.observations[i, 1:]
                )
                assert step.final_observations[i, 3].any()
            else:
                assert not step.final_observations[i].any()
                assert step.observations[i, :3].any()
                mixed += 1
    assert mixed, "both copies always ended together: the rows were never told apart"


def test_the_length_of_a_game_is_its_agent_steps_times_the_action_repeat(two_breakout_games):
    ends = stacked(two_breakout_games, "episode_ends")
    frames = stacked(two_breakout_games, "episode_frames")
    for i in range(2):
        first_end, second_end = np.flatnonzero(ends[:, i])
        assert frames[first_end, i] == (first_end + 1) * ACTION_REPEAT
        assert frames[second_end, i] == (second_end - first_end) * ACTION_REPEAT


class FakeEmulators:
    """Plays back (game over, truncated, lives) as ale-py reports them."""

    def __init__(self, lives, script):
        self.lives, self.script = lives, iter(script)

    def reset(self, seed):
        return np.zeros((1, 4, 84, 84), np.uint8), {"lives": np.array([self.lives])}

    def step(self, actions):
        game_over, truncated, lives = next(self.script)
        info = {"lives": np.array([lives])}
        if game_over or truncated:
            info["final_obs"] = np.ones((1, 4, 84, 84), np.uint8)
        observations = np.zeros((1, 4, 84, 84), np.uint8)
        return observations, np.zeros(1), np.array([game_over]), np.array([truncated]), info


@pytest.mark.parametrize(
    ("lives", "script", "terminations"),
    [
        # A bonus life is no loss; losing it again is one.
        (3, [(False, False, 4), (False, False, 4), (False, False, 3)], [0, 0, 1]),
        # The time limit cuts a game with bonus lives: the next game's fewer lives are no loss.
        (3, [(False, False, 5), (False, True, 3), (False, False, 3)], [0, 0, 0]),
        # A game over reports the next game's lives: the loss after it must still be seen.
        (1, [(True, False, 5), (False, False, 5), (False, False, 4)], [1, 0, 1]),
        # Games without lives report 0 throughout.
        (0, [(False, False, 0), (True, False, 0), (False, False, 0)], [0, 1, 0]),
    ],
)
def test_the_lives_of_the_next_game_are_never_mistaken_for_a_loss(lives, script, terminations):
    environment = make("Pong")
    environment.emulators = FakeEmulators(lives, script)
    environment.reset(seed=0)
    steps = [environment.step(np.array([NOOP])) for _ in script]
    assert stacked(steps, "terminations")[:, 0].tolist() == [bool(flag) for flag in terminations]


def test_the_time_limit_truncates_at_exactly_that_many_frames_without_the_noops():
    # Four copies with different no-ops; all end together, so no-ops are not counted.
    environment = make("Pong", num_envs=4, max_episode_frames=120)
    steps = constant(environment, NOOP, 60)
    truncations = stacked(steps, "truncations")
    assert np.flatnonzero(truncations.any(axis=1)).tolist() == [29, 59]
    assert truncations[[29, 59]].all()
    np.testing.assert_array_equal(stacked(steps, "episode_ends"), truncations)
    assert not stacked(steps, "terminations").any()
    assert (stacked(steps, "episode_frames")[[29, 59]] == 120).all()
    assert steps[29].final_observations[:, :3].any(axis=(1, 2, 3)).all()
    assert not steps[29].observations[:, :3].any()


def test_a_game_over_on_the_frame_of_the_time_limit_is_a_termination(two_breakout_games):
    game_over = int(np.flatnonzero(stacked(two_breakout_games, "episode_ends")[:, 0])[0])
    cap = (game_over + 1) * ACTION_REPEAT
    last = constant(make(max_episode_frames=cap), FIRE, game_over + 1)[-1]
    assert last.episode_ends[0]
    assert last.terminations[0]
    assert not last.truncations[0]
    assert last.episode_frames[0] == cap


def test_a_life_lost_on_the_frame_of_the_time_limit_is_a_truncation(two_breakout_games):
    lost = int(np.flatnonzero(stacked(two_breakout_games, "terminations")[:, 0])[0])
    cap = (lost + 1) * ACTION_REPEAT
    *before, last = constant(make(max_episode_frames=cap), FIRE, lost + 1)
    assert not stacked(before, "terminations").any()
    assert last.episode_ends[0]
    assert last.truncations[0]
    assert not last.terminations[0]
    assert last.episode_frames[0] == cap


def test_rewards_are_raw_and_add_up_to_the_return_of_the_game():
    environment = make("MsPacman", num_envs=3, max_episode_frames=400)
    _, steps = rollout(environment, 200, seed=0)
    rewards = stacked(steps, "rewards")
    assert rewards.max() >= 10
    ends = np.flatnonzero(stacked(steps, "episode_ends")[:, 0])
    assert ends.tolist() == [99, 199]
    for game, end in ((slice(0, 100), 99), (slice(100, 200), 199)):
        np.testing.assert_array_equal(steps[end].episode_returns, rewards[game].sum(axis=0))
        assert (steps[end].episode_returns > 0).all()


def drawn_noops(protocol):
    """The no-ops at the start of 320 games: each is cut after one agent step."""
    environment = make("Pong", num_envs=8, protocol=protocol, max_episode_frames=ACTION_REPEAT)
    environment.reset(seed=0)
    actions = np.zeros(8, np.int64)
    return {
        int(frame)
        for _ in range(40)
        for frame in environment.emulators.step(actions)[-1]["episode_frame_number"]
    }


def test_impala_starts_with_0_to_30_noops():
    assert drawn_noops("impala") == set(range(31))


def test_a_game_without_noops_is_drawn_again_and_the_others_are_left_alone():
    with contextlib.closing(make("Pong", 3)) as plain:
        drawn = plain.emulators.reset(seed=8)[1]["episode_frame_number"]
    assert drawn[1] == 0 and (drawn[[0, 2]] > 0).all(), "else nothing is tested"
    with contextlib.closing(make("Pong", 3, min_noops=1)) as environment:
        observations = environment.reset(8)
        frames = environment.emulators.step(np.zeros(3, np.int64))[4]["episode_frame_number"]
        noops = frames - ACTION_REPEAT
        assert 1 <= noops[1] <= 30
        np.testing.assert_array_equal(noops[[0, 2]], drawn[[0, 2]])
        np.testing.assert_array_equal(environment.reset(8), observations)


@pytest.mark.parametrize(
    ("protocol", "min_noops"), [("machado", 1), ("impala", 31), ("impala", -1)]
)
def test_noops_outside_the_protocol_are_refused(protocol, min_noops):
    with pytest.raises(ValueError, match="min_noops"):
        AtariEnvironment("Pong", 1, protocol, min_noops=min_noops)


def test_machado_starts_without_noops():
    assert drawn_noops("machado") == {0}


def test_fire_is_not_pressed_at_the_start():
    # A launched ball would be lost within 30 steps.
    assert not stacked(constant(make(), NOOP, 60), "terminations").any()


def test_machado_has_all_actions_and_no_signal_for_a_lost_life():
    environment = make(protocol="machado")
    assert environment.num_actions == 18
    steps = constant(environment, FIRE, 200)
    terminations = stacked(steps, "terminations")
    assert terminations.any()
    np.testing.assert_array_equal(terminations, stacked(steps, "episode_ends"))
    first_end = int(np.flatnonzero(terminations[:, 0])[0])
    # One ball lasts about 24 steps, so all five lives went by unsignalled.
    assert first_end > 90


def test_only_machado_has_sticky_actions():
    assert PROTOCOLS["machado"].repeat_action_probability == 0.25
    assert PROTOCOLS["impala"].repeat_action_probability == 0.0
    # Without no-ops, sticky actions are the only randomness that is left.
    for protocol, is_random in ((WITHOUT_NOOPS, False), ("machado", True)):
        environment = make("Pong", num_envs=2, protocol=protocol)
        actions = np.random.default_rng(0).integers(0, environment.num_actions, 60)
        environment.reset(seed=0)
        observations = [environment.step(np.array([a, a])).observations for a in actions]
        differ = any((frame[0] != frame[1]).any() for frame in observations)
        assert differ == is_random


@pytest.mark.parametrize("protocol", ["impala", "machado"])
def test_a_seed_fixes_the_rollout_whatever_the_number_of_threads(protocol):
    # The time limit makes several games, so that the unseeded restarts are covered too.
    one = make(num_envs=3, protocol=protocol, num_threads=1, max_episode_frames=160)
    two = make(num_envs=3, protocol=protocol, num_threads=2, max_episode_frames=160)
    first = rollout(one, 100, seed=7)
    assert stacked(first[1], "episode_ends").any()
    assert_same_rollout(first, rollout(two, 100, seed=7))
    assert_same_rollout(first, rollout(one, 100, seed=7))
    other = rollout(two, 100, seed=100)
    assert any(
        (a.observations != b.observations).any() for a, b in zip(first[1], other[1], strict=True)
    )


def test_environment_i_is_seeded_with_seed_plus_i():
    batch, batch_steps = rollout(make(num_envs=3, max_episode_frames=80), 50, seed=5)
    alone, alone_steps = rollout(
        make(num_envs=1, max_episode_frames=80), 50, seed=7, columns=slice(2, 3)
    )
    np.testing.assert_array_equal(batch[2:], alone)
    for field in ("observations", "rewards", "terminations", "episode_returns"):
        np.testing.assert_array_equal(
            stacked(batch_steps, field)[:, 2:], stacked(alone_steps, field), err_msg=field
        )
    # Or the comparison would hold for any seeds.
    observations = stacked(batch_steps, "observations")
    assert (observations[:, 1] != observations[:, 2]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_episode_frames": 402}, "multiple of the action repeat, 4"),
        ({"max_episode_frames": 0}, "positive"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"protocol": "dqn"}, "impala, machado"),
        ({"game": "Pnog"}, "Pnog"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_a_closed_environment_stays_closed():
    environment = make()
    environment.reset(seed=0)
    environment.close()
    environment.close()
    with pytest.raises(RuntimeError, match="closed"):
        environment.step(np.array([NOOP]))
    with pytest.raises(RuntimeError, match="closed"):
        environment.reset(seed=0)


def test_an_emulator_that_waits_at_its_time_limit_shows_the_next_game_and_the_others_continue():
    """Frames are counted without the wait, and the rows of the others are as if nobody waited."""
    limit = 40  # ten agent steps
    environment = make("Pong", num_envs=2, max_episode_frames=limit)
    environment.reset(seed=0)
    actions = np.full(2, NOOP)
    steps = [environment.step(actions) for _ in range(limit // ACTION_REPEAT)]
    assert steps[-1].truncations.all() and (steps[-1].episode_frames == limit).all()
    waiting = np.array([True, False])
    waited = environment.step(actions, waiting=waiting)
    # The one that waits is still at the first observation of the next game.
    np.testing.assert_array_equal(waited.observations[0], steps[-1].observations[0])
    assert waited.rewards[0] == 0 and not waited.episode_ends.any()
    straight = make("Pong", num_envs=2, max_episode_frames=limit)
    straight.reset(seed=0)
    for _ in range(limit // ACTION_REPEAT):
        straight.step(actions)
    moved = straight.step(actions)
    np.testing.assert_array_equal(waited.observations[1], moved.observations[1])
    # Its next game has its full length, and ends one step after the other's.
    rest = [environment.step(actions) for _ in range(limit // ACTION_REPEAT)]
    ends = stacked(rest, "truncations")
    assert np.flatnonzero(ends[:, 0]).tolist() == [9] and np.flatnonzero(ends[:, 1])[0] == 8
    assert rest[9].episode_frames[0] == limit and rest[8].episode_frames[1] == limit
    np.testing.assert_array_equal(rest[0].observations[0], moved.observations[0])
