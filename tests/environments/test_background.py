"""The mean picture of an Atari game."""

import numpy as np
import pytest

from meta_impala.environments import atari, background
from meta_impala.environments.background import background_of


def test_it_is_what_frames_of_random_play_show_on_average():
    """Other seeds and actions than its own: Pong's court, without ball and paddles."""
    mean, deviation = background_of("Pong")
    environment = atari.AtariEnvironment("Pong", 1, "impala")
    random = np.random.default_rng(5)
    environment.reset(100)
    frames = np.stack(
        [environment.step(random.integers(6, size=1)).observations[0, -1] for _ in range(400)]
    )
    environment.close()
    assert mean.shape == (84, 84) and mean.dtype == np.float32
    # Of one brightness away from the paddles, where the ball is seldom.
    assert np.ptp(mean[20:70, 25:60]) < 8
    assert np.sqrt(np.mean(np.square(frames - mean))) == pytest.approx(deviation, rel=0.25)
    assert deviation < 0.1 * np.std(frames)


def test_it_is_a_function_of_the_game_alone():
    first = background_of("Breakout")
    background_of.cache_clear()
    np.random.seed(9)
    second = background_of("Breakout")
    assert second is not first and second.deviation == first.deviation
    np.testing.assert_array_equal(second.mean, first.mean)


def test_a_screen_that_never_changes_has_a_deviation_that_can_divide(monkeypatch):
    monkeypatch.setattr(background, "_STEPS", 1)
    monkeypatch.setattr(background, "_COPIES", 1)
    background_of.cache_clear()
    assert background_of("Pong").deviation == 1.0
    background_of.cache_clear()
