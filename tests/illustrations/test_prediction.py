"""Prediction with γ and λ per state. Golden (by hand), ground truth (the λ-return as a mixture of
n-step returns), equivalence (TRFL; Jacobians against nested tapes), gradient (float64 central
differences and the complex step; must-be-zero), and the trace (4)."""

import numpy as np
import pytest
import tensorflow as tf
import trfl

from meta_impala.algorithm import optimizers
from meta_impala.algorithm.meta_gradient import InnerUpdate
from meta_impala.illustrations.prediction import (
    Chain,
    Eta,
    inner_update,
    meta_loss,
    prediction_step,
    state_returns,
    traced_prediction_step,
)

T, B = 6, 3
ALPHA = np.array([0.5, 0.1, 0.9])  # one per column
STRAIGHT = tuple(range(T))
ALIASED = (0, 1, 2, 1, 3, 1)  # three time steps look alike


def sgd(gradients, _=None):
    return InnerUpdate([ALPHA * gradients[0]], ())


def rmsprop(gradients, _=None):
    mean_square = tf.constant(0.3, tf.float64)
    rule = optimizers.RMSProp(decay=0.9, epsilon=0.01)
    return InnerUpdate(*rule.step(gradients, {"mean_squares": [mean_square]}, tf.constant(ALPHA)))


RULES = {"sgd": sgd, "rmsprop": rmsprop}


def learn_gamma(x):
    return Eta(tf.sigmoid(x), tf.constant(0.7, x.dtype) * tf.ones_like(x))


def learn_lambda(x):
    return Eta(tf.constant(0.9, x.dtype) * tf.ones_like(x), tf.sigmoid(x))


ETAS = {"gamma": learn_gamma, "lambda": learn_lambda}


def numbers(seed, rows=T):
    random = np.random.default_rng(seed)
    return {
        "parameters": random.normal(size=(rows, B)),
        "x": random.normal(size=(rows, B)),
        "rewards": random.normal(size=(T, B)),
        "meta_rewards": random.normal(size=(T, B)),
    }


def tensors(**arrays):
    return {name: tf.constant(array) for name, array in arrays.items()}


def reference(gamma=0.95, lambda_=0.8):
    return Eta(tf.constant(gamma, tf.float64), tf.constant(lambda_, tf.float64))


def slow_return(rewards, gammas, lambdas, values, t, arrived):
    """g_t as a mixture: with what weight the return stops after n steps, times what it is then.

    One column; arrays `[T]`. Nothing recursive: the weight of stopping at S_{t+n} is the product
    of the λ passed, times 1 − λ there, and at the end of the episode what is left.
    """
    length = len(rewards)
    total, weight, n_step, discount = 0.0, 1.0, 0.0, 1.0
    for state in range(t, length):
        n_step = n_step + discount * rewards[state]
        if state + 1 == length:
            return total + weight * n_step
        owner = state + 1 if arrived else state
        discount = discount * gammas[owner]
        stop = 1.0 - lambdas[owner]
        total = total + weight * stop * (n_step + discount * values[state + 1])
        weight = weight * lambdas[owner]
    raise AssertionError


def returns_of(rewards, gammas, lambdas, values, arrived=True):
    return np.array(
        [
            [
                slow_return(rewards[:, b], gammas[:, b], lambdas[:, b], values[:, b], t, arrived)
                for b in range(rewards.shape[1])
            ]
            for t in range(rewards.shape[0])
        ]
    )


# Golden.


def test_three_states_worked_by_hand():
    rewards = tf.constant([[1.0], [2.0], [4.0]], tf.float64)
    values = tf.constant([[9.0], [10.0], [20.0]], tf.float64)
    eta = Eta(
        tf.constant([[0.3], [0.5], [0.1]], tf.float64),
        tf.constant([[0.6], [0.2], [0.4]], tf.float64),
    )
    # Arrived: g_3 = 4; g_2 = 2 + .1 (.6·20 + .4·4) = 3.36; g_1 = 1 + .5 (.8·10 + .2·3.36) = 5.336
    found = state_returns(rewards, eta, values, arrived=True)
    np.testing.assert_allclose(found[:, 0], [5.336, 3.36, 4.0])
    # Left: g_3 = 4; g_2 = 2 + .5 (.8·20 + .2·4) = 10.4; g_1 = 1 + .3 (.4·10 + .6·10.4) = 4.072
    found = state_returns(rewards, eta, values, arrived=False)
    np.testing.assert_allclose(found[:, 0], [4.072, 10.4, 4.0])


# Ground truth and equivalence.


@pytest.mark.parametrize("arrived", [True, False])
def test_the_return_is_the_mixture_of_n_step_returns(arrived):
    random = np.random.default_rng(1)
    rewards, values = random.normal(size=(2, T, B))
    gammas, lambdas = random.uniform(0.1, 1.0, (2, T, B))
    found = state_returns(
        tf.constant(rewards),
        Eta(*map(tf.constant, (gammas, lambdas))),
        tf.constant(values),
        arrived=arrived,
    )
    expected = returns_of(rewards, gammas, lambdas, values, arrived)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    other = returns_of(rewards, gammas, lambdas, values, not arrived)
    assert np.abs(expected - other).max() > 0.1


def trfl_returns(rewards, gammas, lambdas, values, *, arrived):
    """The same by TRFL's recursion, which has the γ and λ of a transition in its row."""
    ended = tf.zeros_like(rewards[:1])
    going_on = tf.concat([tf.ones_like(rewards[1:]), ended], axis=0)

    def of_transition(of_state):
        return tf.concat([of_state[1:], ended], axis=0) if arrived else of_state

    discounts, lambdas = of_transition(gammas) * going_on, of_transition(lambdas)
    next_values = tf.concat([values[1:], ended], axis=0)
    return trfl.multistep_forward_view(rewards, discounts, next_values, lambdas)


@pytest.mark.parametrize("arrived", [True, False])
def test_the_return_and_its_derivatives_are_trfl_s(arrived):
    random = np.random.default_rng(2)
    rewards, values = map(tf.constant, random.normal(size=(2, T, B)))
    gammas, lambdas = map(tf.constant, random.uniform(0.1, 1.0, (2, T, B)))
    weights = tf.constant(random.normal(size=(T, B)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([rewards, gammas, lambdas, values])
        found = state_returns(rewards, Eta(gammas, lambdas), values, arrived=arrived)
        oracle = trfl_returns(rewards, gammas, lambdas, values, arrived=arrived)
        ours, theirs = (tf.reduce_sum(weights * returns) for returns in (found, oracle))
    np.testing.assert_allclose(found, oracle, rtol=1e-12, atol=1e-12)
    for source in (rewards, gammas, lambdas, values):
        gradient = tape.gradient(ours, source)
        assert np.any(gradient != 0)
        np.testing.assert_allclose(gradient, tape.gradient(theirs, source), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 1.0])
def test_with_one_gamma_and_lambda_the_return_is_trfl_s_td_lambda_target(lambda_):
    random = np.random.default_rng(3)
    rewards, values = map(tf.constant, random.normal(size=(2, T, B)))
    eta = Eta(*(tf.fill([T, B], tf.constant(value, tf.float64)) for value in (0.9, lambda_)))
    discounts = tf.concat([eta.gamma[1:], tf.zeros([1, B], tf.float64)], axis=0)
    ended = tf.zeros([B], tf.float64)
    oracle = trfl.generalized_lambda_returns(rewards, discounts, values, ended, lambda_)
    for arrived in (True, False):
        found = state_returns(rewards, eta, values, arrived=arrived)
        np.testing.assert_allclose(found, oracle, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("observations", [STRAIGHT, ALIASED])
def test_the_inner_update_moves_values_towards_constant_targets(observations):
    chain = Chain(observations)
    arrays = numbers(3, rows=max(observations) + 1)
    seen = arrays["parameters"][list(observations)]
    eta = [np.asarray(part)[list(observations)] for part in learn_gamma(arrays["x"])]
    targets = returns_of(arrays["rewards"], *eta, seen)
    expected = arrays["parameters"].copy()
    for t, row in enumerate(observations):
        expected[row] += ALPHA * (targets[t] - seen[t])
    given = tensors(**arrays)
    step = prediction_step(
        chain=chain, eta_of=learn_gamma, reference=reference(), update_rule=sgd, **given
    )
    np.testing.assert_allclose(step.parameters, expected, rtol=1e-12, atol=1e-12)
    alone = inner_update(
        given["parameters"],
        given["x"],
        given["rewards"],
        chain,
        learn_gamma,
        sgd,
        bootstrap_parameters=tf.identity(given["parameters"]),
    )
    np.testing.assert_array_equal(alone.parameters[0], step.parameters)
    assert float(alone.inner_loss) == float(step.inner_loss)


# Gradients.


def by_row_of_x(function, x, step=1e-3):
    """d function / dx by row of x, `[K, ...]`: central differences of fourth order.

    All columns are moved at once, so the function must not mix them.
    """
    slopes = []
    for row in range(len(x)):
        unit = np.zeros_like(x)
        unit[row] = step
        near = function(x + unit) - function(x - unit)
        far = function(x + 2 * unit) - function(x - 2 * unit)
        slopes.append((8.0 * near - far) / (12.0 * step))
    return np.stack(slopes)


def parameters_after(x, parameters, all_rewards, chain, eta_of, rule):
    """θ after an update on each of the episodes, `[K, B]`."""
    parameters = tf.constant(parameters)
    for rewards in all_rewards:
        parameters = inner_update(
            parameters,
            tf.constant(x),
            tf.constant(rewards),
            chain,
            eta_of,
            rule,
            bootstrap_parameters=tf.identity(parameters),
        ).parameters[0]
    return parameters.numpy()


@pytest.mark.parametrize("learned", ["gamma", "lambda"])
@pytest.mark.parametrize("rule", ["sgd", "rmsprop"])
@pytest.mark.parametrize(
    ("observations", "arrived"), [(STRAIGHT, True), (STRAIGHT, False), (ALIASED, True)]
)
def test_the_meta_gradient_is_the_derivative_of_the_meta_loss(learned, rule, observations, arrived):
    chain = Chain(observations, arrived)
    arrays = numbers(4, rows=max(observations) + 1)
    step = prediction_step(
        chain=chain,
        eta_of=ETAS[learned],
        reference=reference(),
        update_rule=RULES[rule],
        **tensors(**arrays),
    )

    def values_after(x):
        after = parameters_after(
            x, arrays["parameters"], [arrays["rewards"]], chain, ETAS[learned], RULES[rule]
        )
        return after[list(observations)]

    at_reference = (np.full((T, B), 0.95), np.full((T, B), 0.8))
    targets = returns_of(arrays["meta_rewards"], *at_reference, values_after(arrays["x"]), arrived)

    def loss(x):  # J' of each column; its targets do not move with θ'
        return 0.5 * np.square(targets - values_after(x)).sum(axis=0)

    expected = by_row_of_x(loss, arrays["x"])
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(step.meta_gradient, expected, rtol=1e-8, atol=1e-10)
    assert float(step.meta_loss) == pytest.approx(loss(arrays["x"]).sum(), rel=1e-12)


def test_the_meta_gradient_is_the_formula_of_a_table():
    # Σ_t (v'_t − g'_t) α ∂g_t/∂γ_k σ'(x_k), with ∂g by the complex step through the slow return.
    arrays = numbers(5)
    gammas = 1.0 / (1.0 + np.exp(-arrays["x"]))
    lambdas = np.full((T, B), 0.7)
    targets = returns_of(arrays["rewards"], gammas, lambdas, arrays["parameters"])
    after = arrays["parameters"] + ALPHA * (targets - arrays["parameters"])
    meta_targets = returns_of(
        arrays["meta_rewards"], np.full((T, B), 0.95), np.full((T, B), 0.8), after
    )
    expected = np.zeros((T, B))
    for k in range(T):
        bumped = gammas.astype(complex)
        bumped[k] += 1e-30j
        slope = returns_of(arrays["rewards"], bumped, lambdas, arrays["parameters"]).imag / 1e-30
        by_gamma = ((after - meta_targets) * ALPHA * slope).sum(axis=0)
        expected[k] = by_gamma * gammas[k] * (1.0 - gammas[k])
    step = prediction_step(
        chain=Chain(STRAIGHT),
        eta_of=learn_gamma,
        reference=reference(),
        update_rule=sgd,
        **tensors(**arrays),
    )
    np.testing.assert_allclose(step.meta_gradient, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("arrived", "idle"), [(True, 0), (False, T - 1)])
def test_only_the_idle_state_has_no_gradient(arrived, idle):
    step = prediction_step(
        chain=Chain(STRAIGHT, arrived),
        eta_of=learn_gamma,
        reference=reference(),
        update_rule=sgd,
        **tensors(**numbers(6)),
    )
    gradient = step.meta_gradient.numpy()
    assert np.all(gradient[idle] == 0.0)
    assert np.all(np.delete(gradient, idle, axis=0) != 0.0)


def test_the_targets_are_constant_in_theta():
    given = tensors(**numbers(7))
    with tf.GradientTape() as tape:
        tape.watch(given["parameters"])
        loss = meta_loss(
            given["parameters"], given["rewards"], Chain(STRAIGHT), reference(lambda_=0.3)
        )
    everywhere = [np.full((T, B), value) for value in (0.95, 0.3)]
    values = given["parameters"].numpy()
    targets = returns_of(given["rewards"].numpy(), *everywhere, values)
    gradient = tape.gradient(loss, given["parameters"])
    np.testing.assert_allclose(gradient, values - targets, rtol=1e-11, atol=1e-12)


def test_columns_are_independent():
    arrays = numbers(8)
    options = {
        "chain": Chain(STRAIGHT),
        "eta_of": learn_lambda,
        "reference": reference(),
        "update_rule": lambda gradients, _: InnerUpdate([0.5 * gradients[0]], ()),
    }
    together = prediction_step(**tensors(**arrays), **options)
    alone = prediction_step(
        **tensors(**{name: array[:, 1:2] for name, array in arrays.items()}), **options
    )
    np.testing.assert_allclose(
        together.meta_gradient[:, 1:2], alone.meta_gradient, rtol=1e-13, atol=1e-15
    )


# The trace, equation (4).


def traced(arrays, trace, chain, decay, full, eta_of=learn_lambda, rule=sgd):
    return traced_prediction_step(
        trace=tf.constant(trace),
        chain=chain,
        eta_of=eta_of,
        reference=reference(),
        update_rule=rule,
        decay=decay,
        full=full,
        **tensors(**arrays),
    )


@pytest.mark.parametrize("rule", ["sgd", "rmsprop"])
@pytest.mark.parametrize("observations", [STRAIGHT, ALIASED])
def test_without_a_past_the_trace_gives_the_exact_gradient(rule, observations):
    rows = max(observations) + 1
    arrays = numbers(9, rows)
    chain = Chain(observations)
    exact = prediction_step(
        chain=chain,
        eta_of=learn_lambda,
        reference=reference(),
        update_rule=RULES[rule],
        **tensors(**arrays),
    )
    found = traced(arrays, np.zeros((rows, rows, B)), chain, 0.9, False, rule=RULES[rule])
    np.testing.assert_allclose(found.parameters, exact.parameters, rtol=1e-13)
    np.testing.assert_allclose(found.meta_gradient, exact.meta_gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("observations", [STRAIGHT, ALIASED])
def test_the_full_trace_at_one_is_the_derivative_through_all_updates(observations):
    rows = max(observations) + 1
    chain, arrays = Chain(observations), numbers(10, rows)
    all_rewards = np.random.default_rng(11).normal(size=(4, T, B))
    state = dict(arrays)
    trace = np.zeros((rows, rows, B))
    for rewards in all_rewards:
        step = traced({**state, "rewards": rewards}, trace, chain, 1.0, True)
        state["parameters"], trace = step.parameters.numpy(), step.trace.numpy()
    expected = by_row_of_x(
        lambda x: parameters_after(x, arrays["parameters"], all_rewards, chain, learn_lambda, sgd),
        arrays["x"],
    )  # [K of x, K of θ, B]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(trace, expected.swapaxes(0, 1), atol=1e-9)


def test_the_identity_trace_is_a_decayed_sum():
    chain, arrays = Chain(STRAIGHT), numbers(12)
    nothing = np.zeros((T, T, B))
    first = traced(arrays, nothing, chain, 0.3, False).trace.numpy()
    found = traced(arrays, first, chain, 0.3, False).trace.numpy()
    np.testing.assert_allclose(found, 1.3 * first, rtol=1e-12, atol=1e-14)
