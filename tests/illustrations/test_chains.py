"""The two processes. Ground truth (every reward against the definition) and determinism."""

import numpy as np
import pytest

from meta_impala.illustrations.chains import (
    ALIASED,
    BOTTLENECK,
    NOISE,
    SIGNAL,
    bootstrap_process,
    branch_rewards,
    discount_process,
    make,
)
from meta_impala.illustrations.settings import Settings, resolve

EPISODES = 20_000


def draw(process, seed=0, episodes=EPISODES):
    return process.draw(np.random.default_rng(seed), episodes)


def test_odd_states_pay_the_signal_and_even_ones_noise():
    process = discount_process(5, signal=0.1, noise=2.0)
    rewards = draw(process)
    assert process.kinds == (SIGNAL, NOISE, SIGNAL, NOISE, SIGNAL)
    assert np.all(rewards[:, ::2] == 0.1)
    np.testing.assert_allclose(rewards[:, 1::2].mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose(rewards[:, 1::2].std(axis=0), 2.0, rtol=0.03)
    assert abs(np.corrcoef(rewards[:, 1], rewards[:, 3])[0, 1]) < 0.03


def test_the_reward_of_a_bottleneck_is_subtracted_later():
    process = bootstrap_process(7, branches=4, noise=2.0)
    rewards = draw(process)
    assert process.kinds == (BOTTLENECK, ALIASED) * 3 + (BOTTLENECK,)
    np.testing.assert_array_equal(rewards[:, 0:6:2], -rewards[:, 1:6:2])
    assert np.all(rewards[:, 6] == 0)
    for step in (0, 2, 4):
        paid, counts = np.unique(rewards[:, step], return_counts=True)
        np.testing.assert_allclose(paid, branch_rewards(4, 2.0))
        np.testing.assert_allclose(counts / EPISODES, 0.25, atol=0.02)
    assert abs(np.corrcoef(rewards[:, 0], rewards[:, 2])[0, 1]) < 0.03


def test_a_random_last_reward_is_not_subtracted():
    rewards = draw(bootstrap_process(5, 2, 1.0, last_reward_random=True))
    np.testing.assert_array_equal(rewards[:, 0:4:2], -rewards[:, 1:4:2])
    assert set(np.unique(rewards[:, 4])) == {-1.0, 1.0}
    assert abs(rewards[:, 4].mean()) < 0.03


@pytest.mark.parametrize("branches", [2, 3, 8])
def test_branch_rewards_have_mean_zero_and_the_noise_s_deviation(branches):
    rewards = branch_rewards(branches, 3.0)
    assert len(set(rewards)) == branches
    assert rewards.mean() == pytest.approx(0.0, abs=1e-12)
    assert rewards.std() == pytest.approx(3.0)


def test_aliased_states_share_an_observation():
    assert bootstrap_process(7, 4, 1.0).observations == tuple(range(7))
    assert bootstrap_process(7, 4, 1.0, alias_all=True).observations == (0, 1, 2, 1, 3, 1, 4)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_true_values_are_the_mean_returns(gamma):
    process = discount_process(6, signal=0.5, noise=1.0)
    discounts = gamma ** np.arange(6)
    rewards = draw(process)
    for state, value in enumerate(process.true_values(gamma)):
        returns = rewards[:, state:] @ discounts[: 6 - state]
        assert value == pytest.approx(returns.mean(), abs=0.05)
    assert process.true_values(1.0)[0] == pytest.approx(1.5)
    assert np.all(bootstrap_process(5, 2, 1.0).true_values(gamma) == 0)


@pytest.mark.parametrize("example", ["discount", "bootstrap"])
def test_episodes_do_not_depend_on_how_many_are_drawn_at_once(example):
    process = make(resolve(Settings(example=example)))
    generator = np.random.default_rng(3)
    pieces = [process.draw(generator, count) for count in (1, 7, 3, 12)]
    np.testing.assert_array_equal(np.concatenate(pieces), draw(process, seed=3, episodes=23))


def test_the_lengths_of_the_paper():
    discount, bootstrap = (make(resolve(Settings(example=e))) for e in ("discount", "bootstrap"))
    assert (discount.num_states, bootstrap.num_states) == (10, 9)
    assert discount.kinds[-1] == NOISE
    assert bootstrap.kinds[-1] == BOTTLENECK
