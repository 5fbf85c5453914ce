"""Gymnasium environments behind the batched interface (equivalence with a single one, faults)."""

import gymnasium
import numpy as np
import pytest
from support import zoo

from meta_impala.environments.base import UnsupportedEnvironmentError
from meta_impala.environments.gymnasium_vector import (
    GymnasiumEnvironment,
    make_render,
    make_single,
)


class Countdown(gymnasium.Env):
    """Ends after three steps, says so twice, and pays the action; actions are 5, 6, 7."""

    def __init__(self, dtype=np.float64, actions=None, observations=None, render_mode=None):
        self.render_mode = render_mode
        self.action_space = actions or gymnasium.spaces.Discrete(3, start=5)
        self.observation_space = observations or gymnasium.spaces.Box(0, 200, (2,), dtype)
        self.dtype = dtype

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.full(2, 100, self.dtype), {}

    def step(self, action):
        assert action in self.action_space
        self.count += 1
        over = self.count == 3
        return np.full(2, 100 + self.count, self.dtype), float(action), over, over, {}


REFUSED = {
    "Continuous": {"actions": gymnasium.spaces.Box(-1, 1, (1,))},
    "Several": {"actions": gymnasium.spaces.MultiDiscrete([2, 2])},
    "Text": {"observations": gymnasium.spaces.Text(2)},
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Registers the environments of this file, and takes them away again."""
    ids = {"Float64-v0": {}, "UInt8-v0": {"dtype": np.uint8}, "Int32-v0": {"dtype": np.int32}}
    ids |= {f"{name}-v0": kwargs for name, kwargs in REFUSED.items()}
    for env_id, kwargs in ids.items():
        gymnasium.register(f"countdown/{env_id}", entry_point=Countdown, kwargs=kwargs)
    yield
    for env_id in ids:
        del gymnasium.registry[f"countdown/{env_id}"]


def test_cartpole_equals_gymnasiums_own_with_seed_plus_i():
    batch = GymnasiumEnvironment("CartPole-v1", 2)
    assert (batch.num_actions, batch.observation_shape, batch.action_repeat) == (2, (4,), 1)
    assert batch.observation_dtype == np.float32
    singles = [gymnasium.make("CartPole-v1") for _ in range(2)]
    observations = batch.reset(seed=10)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(observations[i], single.reset(seed=10 + i)[0])
    rng = np.random.default_rng(0)
    returns, ended, alone = [0.0, 0.0], 0, 0
    for _ in range(150):
        actions = rng.integers(0, 2, 2)
        step = batch.step(actions)
        assert step.observations.dtype == np.float32
        alone += step.episode_ends.sum() == 1
        for i, single in enumerate(singles):
            observation, reward, terminated, _, _ = single.step(actions[i])
            returns[i] += reward
            assert step.rewards[i] == reward
            assert step.terminations[i] == step.episode_ends[i] == terminated
            if terminated:
                np.testing.assert_array_equal(step.final_observations[i], observation)
                assert step.episode_returns[i] == step.episode_frames[i] == returns[i]
                observation, _ = single.reset()
                returns[i] = 0.0
                ended += 1
            elif step.final_observations is not None:
                assert not step.final_observations[i].any()
            np.testing.assert_array_equal(step.observations[i], observation)
    assert ended > 4
    assert alone, "the two always ended together: the rows were never told apart"


def test_cartpole_is_truncated_at_500_steps():
    batch = GymnasiumEnvironment("CartPole-v1", 1)
    observations = batch.reset(seed=0)
    for t in range(500):
        position, velocity, angle, spin = observations[0]
        # A hand-tuned linear controller, which balances for longer than the time limit.
        push = 0.1 * position + 0.2 * velocity + 3.0 * angle + spin > 0
        step = batch.step(np.array([int(push)]))
        observations = step.observations
        assert step.truncations[0] == step.episode_ends[0] == (t == 499)
        assert not step.terminations[0]
    assert step.episode_returns[0] == 500
    assert step.episode_frames[0] == 500
    assert step.final_observations is not None


@pytest.mark.parametrize(
    ("env_id", "dtype"), [("Float64", np.float32), ("UInt8", np.uint8), ("Int32", np.float32)]
)
def test_observations_are_float32_except_uint8(env_id, dtype):
    batch = GymnasiumEnvironment(f"countdown/{env_id}-v0", 2)
    assert batch.observation_dtype == dtype
    assert batch.reset(seed=0).dtype == dtype
    for _ in range(3):
        step = batch.step(np.array([0, 1]))
        assert step.observations.dtype == dtype
    assert step.final_observations.dtype == dtype
    assert step.final_observations.tolist() == [[103, 103]] * 2
    assert step.observations.tolist() == [[100, 100]] * 2


def test_actions_count_from_zero_and_are_shifted_to_the_environments_start():
    batch = GymnasiumEnvironment("countdown/Float64-v0", 3)
    assert batch.num_actions == 3
    batch.reset(seed=0)
    assert batch.step(np.array([0, 1, 2])).rewards.tolist() == [5.0, 6.0, 7.0]
    with pytest.raises(ValueError, match="0 to 2"):
        batch.step(np.array([5, 6, 7]))


def test_an_end_that_is_both_terminal_and_truncated_is_terminal():
    batch = GymnasiumEnvironment("countdown/Float64-v0", 1)
    batch.reset(seed=0)
    for _ in range(3):
        step = batch.step(np.array([0]))
    assert step.episode_ends[0]
    assert step.terminations[0]
    assert not step.truncations[0]


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("Pendulum-v1", "continuous"),
        ("countdown/Continuous-v0", "continuous"),
        ("countdown/Several-v0", "MultiDiscrete"),
        ("countdown/Text-v0", "observations are Text"),
    ],
)
def test_other_kinds_are_refused_with_the_reason_in_one_line(env_id, reason):
    with pytest.raises(UnsupportedEnvironmentError, match=reason) as refusal:
        GymnasiumEnvironment(env_id, 1)
    assert isinstance(refusal.value, ValueError)
    assert env_id in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_environment_that_cannot_be_made_is_refused_with_gymnasiums_reason():
    gymnasium.register("countdown/Gone-v0", entry_point="no_such_module:Nothing")
    try:
        with pytest.raises(UnsupportedEnvironmentError, match="no_such_module"):
            GymnasiumEnvironment("countdown/Gone-v0", 1)
    finally:
        del gymnasium.registry["countdown/Gone-v0"]


@pytest.mark.parametrize("name", ["InPlace", "InPlaceFloat64", "InPlaceUint8"])
def test_an_environment_that_reuses_one_array_is_copied(name):
    """Neither the final observation, nor what was handed out before, nor the other rows."""
    zoo.register()
    batch = GymnasiumEnvironment(f"zoo/{name}-v0", 2)
    unit = 1 if name == "InPlaceUint8" else 0.1
    seen = [batch.reset(seed=0)]
    for t in range(1, 11):
        step = batch.step(np.zeros(2, int))
        seen.append(step.observations)
        assert step.truncations.all() == step.episode_ends.all() == (t % 5 == 0)
        if t % 5 == 0:
            np.testing.assert_allclose(step.final_observations, 5 * unit)
    for t, observations in enumerate(seen):
        np.testing.assert_allclose(observations, t % 5 * unit, rtol=1e-6)


def test_a_batch_needs_an_environment_and_stays_closed():
    with pytest.raises(ValueError, match="num_envs is 0"):
        GymnasiumEnvironment("CartPole-v1", 0)
    batch = GymnasiumEnvironment("CartPole-v1", 1)
    batch.reset(seed=0)
    batch.close()
    batch.close()
    with pytest.raises(RuntimeError, match="closed"):
        batch.reset(seed=0)


def test_a_rendered_environment_shows_what_the_batch_shows():
    single = make_render("meta_impala/Catch-v0", seed=3)
    batch = GymnasiumEnvironment("meta_impala/Catch-v0", 1)
    # make_render has drawn the seed's first episode: its first reset() is the second episode.
    batch.reset(seed=3)
    for _ in range(9):
        step = batch.step(np.array([1]))
    observation, _ = single.reset()
    np.testing.assert_array_equal(step.observations[0], observation)
    step = batch.step(np.array([0]))
    np.testing.assert_array_equal(step.observations[0], single.step(0)[0])
    assert single.render().shape == (160, 80, 3)


def test_an_environment_that_cannot_be_rendered_is_refused():
    with pytest.raises(UnsupportedEnvironmentError, match="rgb_array"):
        make_render("countdown/Float64-v0", seed=0)


def test_a_single_environment_has_the_common_form_too():
    env = make_single("countdown/Float64-v0")
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert env.step(2)[1] == 7.0
    assert env.action_space == gymnasium.spaces.Discrete(3)
