"""The best discount of Noise (variance by Monte Carlo; the answers' ranking), and its rules."""

import numpy as np
import pytest

from meta_impala.environments import evaluated_in, make, resolve
from meta_impala.environments.built_in import NOISE_EVALUATION_ID, NOISE_ID
from meta_impala.environments.noise import CONTEXTS, Noise


def episode(env, answer):
    """One episode; returns observations and rewards. `answer` takes the symbol."""
    observation, _ = env.reset()
    observations, rewards, ended = [observation], [], False
    while not ended:
        symbol = int(observation[0].argmax())
        observation, reward, ended, truncated, _ = env.step(answer(symbol))
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
    return observations, rewards


def returns(gamma, step, answer, episodes=4000):
    env = Noise()
    env.reset(seed=1)
    discounts = gamma ** np.arange(20 - step)
    return np.array([discounts @ episode(env, answer)[1][step:] for _ in range(episodes)])


@pytest.mark.parametrize("step", [0, 12])
def test_the_variance_of_a_return_grows_with_the_discount_and_is_zero_at_zero(step):
    found = []
    for gamma in (0.0, 0.5, 0.9, 0.99):
        sampled = returns(gamma, step, lambda symbol: symbol).var()
        # The variance of a sample variance of normal numbers is 2 σ⁴ / n.
        assert sampled == pytest.approx(Noise().return_variance(gamma, step), rel=5 * 0.0224)
        found.append(Noise().return_variance(gamma, step))
    assert found[0] == 0.0
    assert sorted(set(found)) == found


def test_the_right_answer_is_better_by_the_same_margin_at_every_discount():
    for gamma in (0.0, 0.9):
        margins = [
            returns(gamma, 0, answer, episodes=300)
            for answer in (lambda symbol: symbol, lambda symbol: (symbol + 1) % CONTEXTS)
        ]
        # Both play the same seeds, and so the same noise.
        later = sum(0.2 * gamma**t for t in range(0, 20, 2))
        np.testing.assert_allclose(margins[0] - margins[1], later)


def test_actions_do_not_affect_later_observations():
    actions = np.random.default_rng(0).integers(0, CONTEXTS, (2, 20))
    boards = []
    for row in actions:
        env = Noise()
        env.reset(seed=3)
        boards.append([env.step(action)[0] for action in row])
    np.testing.assert_array_equal(*boards)


def test_an_even_step_shows_its_symbol_and_an_odd_one_nothing():
    env = Noise()
    env.reset(seed=0)
    symbols = []
    for _ in range(20):
        observations, rewards = episode(env, lambda symbol: symbol)
        assert len(rewards) == 20
        assert rewards[::2] == [0.2] * 10
        for t, observation in enumerate(observations):
            assert observation in env.observation_space and observation.sum() == 1.0
            assert observation[t % 2].sum() == 1.0
            if t % 2:
                assert observation[1, CONTEXTS] == 1.0
            elif t < 20:
                symbols.append(int(observation[0].argmax()))
    counts = np.bincount(symbols, minlength=CONTEXTS)
    assert (abs(counts - 50) < 30).all() and counts.sum() == 200


def test_without_noise_the_return_is_the_share_of_right_answers():
    assert evaluated_in("Noise") == (NOISE_EVALUATION_ID, {})
    assert resolve("noise").id == NOISE_ID
    batch = make(NOISE_EVALUATION_ID, 1, "impala")
    observations = batch.reset(seed=0)
    for t in range(20):
        right = t < 10  # the even ones of these: 5 of 10
        symbol = int(observations[0, 0].argmax())
        step = batch.step(np.array([symbol if right else (symbol + 1) % CONTEXTS]))
        observations = step.observations
    assert step.episode_returns[0] / 2.0 == pytest.approx(0.5)


def test_arguments_of_a_run_do_not_bring_the_noise_into_its_scores():
    name, arguments = evaluated_in("Noise", {"sigma": 3.0, "length": 6})
    assert arguments == {"length": 6}
    batch = make(name, 1, "impala", environment_kwargs=arguments)
    batch.reset(seed=0)
    rewards = [float(batch.step(np.array([0])).rewards[0]) for _ in range(6)]
    assert set(rewards) <= {0.0, np.float32(0.2)}


@pytest.mark.parametrize("arguments", [{"length": 3}, {"length": 0}, {"sigma": -1.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        Noise(**arguments)
