"""The rules of Catch (ground truth), and that play can be perfect and can be poor."""

import gymnasium
import numpy as np

from meta_impala.environments.catch import CATCH_ID, COLUMNS, ROWS, Catch

LEFT, STAY, RIGHT = 0, 1, 2


def play(env, policy):
    """Plays one episode from the given environment; returns its observations and rewards."""
    observation, _ = env.reset()
    observations, rewards, terminated = [observation], [], False
    while not terminated:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
    return observations, rewards


def column_of(row):
    (column,) = np.flatnonzero(row)
    return int(column)


def best_action(board):
    # Before the last step the ball is above the bottom row, so the two are never confused.
    ball = column_of(board[:-1].sum(axis=0))
    paddle = column_of(board[-1])
    return STAY + int(np.sign(ball - paddle))


def test_an_episode_shows_the_ball_falling_one_row_a_step():
    env = Catch()
    env.reset(seed=0)
    observations, rewards = play(env, lambda board: STAY)
    assert len(rewards) == ROWS - 1 == 9
    ball = column_of(observations[0][0])
    for row, board in enumerate(observations):
        assert board.shape == (ROWS, COLUMNS) == (10, 5)
        assert board.dtype == np.float32
        assert set(np.unique(board)) == {0.0, 1.0}
        assert board[row, ball] == 1.0
        assert board[ROWS - 1, 2] == 1.0
        assert board.sum() == (1 if row == ROWS - 1 and ball == 2 else 2)


def test_the_reward_is_zero_until_the_ball_lands_then_plus_or_minus_one():
    env = Catch()
    env.reset(seed=0)
    seen = set()
    for _ in range(40):
        observations, rewards = play(env, lambda board: STAY)
        assert rewards[:-1] == [0.0] * 8
        assert rewards[-1] == (1.0 if column_of(observations[0][0]) == 2 else -1.0)
        seen.add(rewards[-1])
    assert seen == {1.0, -1.0}


def test_the_paddle_moves_by_one_and_stops_at_the_walls():
    env = Catch()
    for action, columns in ((LEFT, [1, 0, 0, 0]), (STAY, [2, 2, 2, 2]), (RIGHT, [3, 4, 4, 4])):
        env.reset(seed=0)
        boards = [env.step(action)[0] for _ in range(4)]
        assert [column_of(board[-1]) for board in boards] == columns


def test_the_best_play_earns_one_in_every_episode():
    env = Catch()
    env.reset(seed=0)
    balls = set()
    for _ in range(60):
        observations, rewards = play(env, best_action)
        assert sum(rewards) == 1.0
        balls.add(column_of(observations[0][0]))
    assert balls == set(range(COLUMNS))


def test_the_seed_fixes_the_balls():
    def balls(seed):
        env = Catch()
        first = env.reset(seed=seed)[0]
        return [column_of(first[0])] + [column_of(env.reset()[0][0]) for _ in range(20)]

    assert balls(3) == balls(3)
    assert balls(3) != balls(4)


def test_each_observation_is_a_new_array():
    env = Catch()
    first, _ = env.reset(seed=0)
    kept = first.copy()
    env.step(LEFT)
    np.testing.assert_array_equal(first, kept)


def test_gymnasium_finds_catch_and_its_checker_passes():
    env = gymnasium.make(CATCH_ID, render_mode="rgb_array")
    assert isinstance(env.unwrapped, Catch)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert env.action_space.n == 3
    from gymnasium.utils.env_checker import check_env

    check_env(env.unwrapped, skip_render_check=False)


def test_catch_renders_the_board():
    env = Catch(render_mode="rgb_array")
    board, _ = env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (160, 80, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[::16, ::16, 0] / 255, board)
    assert Catch().render() is None
