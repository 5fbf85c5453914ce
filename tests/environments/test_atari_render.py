"""The game that can be rendered against the batched emulator that cannot (equivalence)."""

import dataclasses

import numpy as np
import pytest

from meta_impala.environments import atari, atari_render, make_render


# The second game of Breakout ends on the last frame of a step; AirRaid's screen is 250 high.
@pytest.mark.parametrize(
    ("game", "seed", "size"),
    [
        ("Breakout", 0, (210, 160, 3)),
        ("Breakout", 1, (210, 160, 3)),
        ("MsPacman", 0, (210, 160, 3)),
        ("AirRaid", 1, (250, 160, 3)),
    ],
)
def test_observations_rewards_and_the_end_equal_the_batched_ones(game, seed, size):
    # No-ops are drawn differently by the two, so there are none here; nor are there sticky actions.
    protocol = dataclasses.replace(atari.PROTOCOLS["impala"], max_noops=0)
    batch = atari.AtariEnvironment(game, 1, protocol)
    single = atari_render.make_render(game, protocol, seed=0)
    assert single.action_space.n == batch.num_actions
    observation, _ = single.reset()
    np.testing.assert_array_equal(batch.reset(seed=0)[0], observation)
    rng = np.random.default_rng(seed)
    moved = 0
    for _ in range(800):
        action = rng.integers(0, batch.num_actions)
        step = batch.step(np.array([action]))
        observation, reward, terminated, truncated, _ = single.step(action)
        assert step.rewards[0] == reward
        assert (bool(step.episode_ends[0]), False) == (terminated, truncated)
        if terminated:
            np.testing.assert_array_equal(step.final_observations[0], observation)
            break
        np.testing.assert_array_equal(step.observations[0], observation)
        moved += (observation[3] != observation[2]).any()
    assert terminated
    assert moved > 50
    assert single.render().shape == size


def test_the_time_limit_truncates_the_rendered_game_too():
    env = make_render("Pong", "machado", seed=0, max_episode_frames=40)
    assert env.action_space.n == 18
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


def test_the_seed_fixes_the_noops_of_the_rendered_games():
    def starts(seed):
        env = make_render("Pong", "impala", seed)
        return [env.reset()[1]["episode_frame_number"] for _ in range(8)]

    assert starts(3) == starts(3)
    assert starts(3) != starts(4)
    assert all(1 <= noops <= 30 for noops in starts(3))


@pytest.mark.parametrize("height", [210, 250])
def test_a_screen_is_shrunk_by_area(height):
    screen = np.random.default_rng(0).integers(0, 256, (height, 160), np.uint8)
    # Every pixel 84 times in both directions, so that the new pixels are whole blocks.
    blocks = screen.repeat(84, axis=0).repeat(84, axis=1).reshape(84, height, 84, 160)
    exact = blocks.mean(axis=(1, 3))
    assert np.abs(atari_render.shrink(screen) - exact).max() <= 0.5 + 1e-4
