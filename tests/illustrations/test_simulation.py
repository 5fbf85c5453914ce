"""The examples as runs. Learning (the paper's claims, with seeds), ground truth (a run in NumPy),
equivalence (indexing, batching, points), determinism, fault."""

import dataclasses

import numpy as np
import pytest

from meta_impala.errors import UserError
from meta_impala.illustrations.chain_results import CLEAR_ALIASED, CLEAR_GAP, verdict
from meta_impala.illustrations.chains import make
from meta_impala.illustrations.settings import Settings, resolve
from meta_impala.illustrations.simulation import Simulation, columns_of, simulate

SHORT = {"episodes": 30, "seeds": 3}


def run(example, **switches):
    settings = resolve(Settings(example=example, **switches))
    return settings, simulate(settings)


def verdict_of(settings, history):
    return verdict(settings.example, make(settings).kinds, history.eta[-1])


@pytest.fixture(scope="module")
def discount():
    return run("discount")


@pytest.fixture(scope="module")
def bootstrap():
    return run("bootstrap")


@pytest.fixture(scope="module")
def short():
    return run("discount", **SHORT, num_states=5)


@pytest.mark.parametrize("example", ["discount", "bootstrap"])
def test_the_largest_rewards_and_values_give_numbers(example):
    _, history = run(example, **SHORT, signal=-1e6, noise=1e6, initial_value=1e6)
    assert np.all(np.isfinite(history.eta)) and np.all(np.isfinite(history.values))


# Learning: what the paper shows.


def test_gamma_is_low_on_noise_and_high_on_signal(discount):
    settings, history = discount
    means = history.eta[-1].mean(axis=-1)
    assert settings.seeds >= 10
    assert means[2::2].min() - means[1::2].max() >= 0.3
    found = verdict_of(*discount)
    assert found.reproduced
    assert found.gap == pytest.approx(means[2::2].min() - means[1::2].max())


def test_gamma_of_the_first_state_does_not_change(discount):
    _, history = discount
    assert np.all(history.eta[:, 0] == 0.5)
    assert np.all(history.eta[-1, 1:] != 0.5)


def test_the_split_holds_in_a_chain_that_ends_in_a_signal_state():
    settings, history = run("discount", num_states=9)
    assert verdict_of(settings, history).gap >= 0.3
    assert history.eta[-1, -1].mean() > 0.8  # γ_9, whose successor is terminal


def test_lambda_is_high_on_aliased_states(bootstrap):
    settings, history = bootstrap
    means = history.eta[-1].mean(axis=-1)
    assert settings.seeds >= 10
    assert settings.last_reward == "zero"
    assert means[1::2].min() >= 0.9
    assert means[1::2].min() - means[::2].max() >= 0.2
    assert verdict_of(*bootstrap).reproduced


def test_a_random_last_reward_keeps_the_order_of_lambdas(bootstrap):
    settings, history = run("bootstrap", last_reward="random")
    assert verdict_of(settings, history).gap >= 0.2
    assert np.all(history.eta[-1, -1] != 0.5)  # λ_9 now has something to weigh
    assert np.all(bootstrap[1].eta[-1, -1] == 0.5)


def test_the_result_reverses_if_all_aliased_states_look_alike():
    settings, history = run("bootstrap", aliasing="all")
    assert verdict_of(settings, history).gap < -0.3
    assert np.ptp(history.eta[-1, 1::2], axis=0).max() == 0  # one λ for all of them


def test_a_small_inner_step_gives_no_clean_split():
    assert verdict_of(*run("discount", inner_step_size=0.02)).gap < 0.1


def test_without_noise_gamma_stays_high_everywhere():
    _, history = run("discount", noise=0.0)
    assert history.eta[-1, 1:-1].mean(axis=-1).min() > 0.75


def test_a_low_reference_gamma_keeps_gamma_low():
    _, history = run("discount", reference_gamma=0.0, noise=0.1)
    assert history.eta[-1, 2::2].mean(axis=-1).max() < 0.3


@pytest.mark.parametrize(
    "switches",
    [
        {"theta": "reset"},
        {"inner_optimizer": "rmsprop"},
        {"meta_optimizer": "sgd", "meta_step_size": 0.1},
        {"trace_decay": 0.9, "trace": "full"},
        {"gamma": 0.9},
    ],
)
def test_the_split_holds_under_the_other_switches(switches):
    # A switch that did nothing would leave a bit-equal run; see the next test.
    assert verdict_of(*run("discount", num_states=5, **switches)).gap >= 0.3


@pytest.mark.parametrize(
    "switches",
    [
        {"theta": "reset"},
        {"inner_optimizer": "rmsprop"},
        {"inner_step_size": 0.4},
        {"initial_value": 1.0},
        {"meta_optimizer": "sgd"},
        {"meta_step_size": 0.01},
        {"trace_decay": 0.5},
        {"reference_gamma": 0.9},
        {"reference_lambda": 0.5},
        {"gamma": 0.6},
        {"lambda_": 0.5},
        {"noise": 0.5},
        {"signal": 0.2},
        {"first_seed": 1},
    ],
)
def test_every_switch_changes_the_result(switches, short):
    _, before = short
    _, after = run("discount", **SHORT, num_states=5, **switches)
    assert not np.array_equal(before.eta[-1], after.eta[-1])


def test_the_two_traces_differ():
    _, identity = run("discount", **SHORT, num_states=5, trace_decay=0.5)
    _, full = run("discount", **SHORT, num_states=5, trace_decay=0.5, trace="full")
    assert not np.array_equal(identity.eta[-1], full.eta[-1])


# Ground truth.


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def discount_run_in_numpy(seed, episodes, num_states, alpha, beta):
    """λ = 1, γ' = λ' = 1, SGD and Adam, one seed; returns γ(s) and v(s) after every episode."""
    generator = np.random.default_rng(seed)
    values, x = np.zeros(num_states), np.zeros(num_states)
    first, second = np.zeros(num_states), np.zeros(num_states)
    gammas, all_values = [], []
    for episode in range(1, episodes + 1):
        pair = np.full((2, num_states), 0.1)
        pair[0, 1::2], pair[1, 1::2] = generator.standard_normal((2, num_states // 2))
        gamma = sigmoid(x)
        targets, slopes = np.zeros(num_states), np.zeros((num_states, num_states))
        for t in range(num_states):
            for k in range(t, num_states):  # R_{k+1} discounted by γ of the states t+1 … k
                passed = range(t + 1, k + 1)
                targets[t] += np.prod(gamma[list(passed)]) * pair[0, k]
                for state in passed:
                    others = [other for other in passed if other != state]
                    slopes[t, state] += np.prod(gamma[others]) * pair[0, k]
        values = values + alpha * (targets - values)
        meta_targets = np.cumsum(pair[1][::-1])[::-1]
        gradient = ((values - meta_targets) * alpha) @ slopes * gamma * (1.0 - gamma)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1.0 - 0.9**episode)
        x = x - beta * corrected / (np.sqrt(second / (1.0 - 0.999**episode)) + 1e-8)
        gammas.append(sigmoid(x))
        all_values.append(values)
    return np.array(gammas), np.array(all_values)


def test_a_run_equals_the_equations_in_numpy():
    settings, history = run("discount", seeds=2, first_seed=5, episodes=25, points=25, num_states=6)
    for column, seed in enumerate((5, 6)):
        gammas, values = discount_run_in_numpy(seed, 25, 6, settings.inner_step_size, 0.02)
        # Adam's decays pass through single precision in `algorithm.optimizers`.
        np.testing.assert_allclose(history.eta[1:, :, column], gammas, rtol=1e-6)
        np.testing.assert_allclose(history.values[1:, :, column], values, rtol=1e-6, atol=1e-7)
        errors = np.square(values - [0.3, 0.2, 0.2, 0.1, 0.1, 0.0])
        np.testing.assert_allclose(history.squared_errors[1:, :, column], errors, atol=1e-6)
    np.testing.assert_allclose(history.squared_errors[0, :, 0], np.square([3, 2, 2, 1, 1, 0]) / 100)


# Equivalence and determinism.


@pytest.mark.parametrize("example", ["discount", "bootstrap"])
def test_indexing_by_the_state_left_shifts_eta_by_one_state(example):
    _, arrived = run(example, **SHORT)
    _, left = run(example, **SHORT, indexing="left")
    np.testing.assert_allclose(left.eta[:, :-1], arrived.eta[:, 1:], rtol=1e-12)
    np.testing.assert_allclose(left.values, arrived.values, rtol=1e-12, atol=1e-12)
    assert np.all(left.eta[:, -1] == 0.5)
    assert np.all(arrived.eta[-1, 1] != 0.5)


def test_the_number_of_recorded_points_does_not_change_a_run():
    _, few = run("bootstrap", **SHORT, points=2)
    _, many = run("bootstrap", **SHORT, points=30)
    np.testing.assert_array_equal(few.eta[-1], many.eta[-1])
    np.testing.assert_array_equal(few.episodes, [0, 15, 30])
    mean = many.squared_errors[16:].mean(axis=0)
    np.testing.assert_allclose(few.squared_errors[-1], mean, rtol=1e-12)


def test_a_seed_does_not_depend_on_its_neighbours():
    _, together = run("discount", **SHORT)
    _, alone = run("discount", **{**SHORT, "seeds": 1, "first_seed": 2})
    np.testing.assert_allclose(together.eta[..., 2], alone.eta[..., 0], rtol=1e-12)
    assert np.all(together.eta[-1, 1:, 0] != together.eta[-1, 1:, 1])


def test_the_same_command_gives_the_same_numbers():
    _, first = run("bootstrap", **SHORT)
    _, second = run("bootstrap", **SHORT)
    for before, after in zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True):
        np.testing.assert_array_equal(before, after)


def test_columns_differ_only_in_what_they_are_given():
    settings = resolve(Settings(example="discount", **SHORT))
    columns = columns_of(settings, 2, inner_step_sizes=np.array([0.5, 0.1]))
    both = Simulation(settings, columns).run()
    for index, alpha in enumerate((0.5, 0.1)):
        alone = simulate(dataclasses.replace(settings, inner_step_size=alpha))
        here = both.eta[..., 3 * index : 3 * index + 3]
        np.testing.assert_allclose(here, alone.eta, rtol=1e-12)


def test_fixed_eta_does_not_change_and_may_be_one():
    settings = resolve(Settings(example="discount", **SHORT))
    columns = columns_of(settings, 1, gammas=np.ones(1), lambdas=np.ones(1))
    history = Simulation(settings, columns, learn=False).run()
    assert np.all(history.eta == 1.0)
    process = make(settings)
    values = np.zeros(process.num_states)
    generator = np.random.default_rng(0)
    for learned_from, _ in process.draw(generator, 60).reshape(30, 2, -1):
        values += 0.5 * (np.cumsum(learned_from[::-1])[::-1] - values)
    np.testing.assert_allclose(history.values[-1, :, 0], values, rtol=1e-12)


# Fault.


def test_values_that_are_no_longer_finite_are_reported():
    settings = resolve(Settings(example="discount", **SHORT))
    settings = dataclasses.replace(settings, initial_value=1e200)  # a flag is refused above 1e6
    with pytest.raises(UserError, match="stopped being finite before episode"):
        simulate(settings)
    assert CLEAR_ALIASED == 0.9
    assert CLEAR_GAP == {"discount": 0.3, "bootstrap": 0.2}
