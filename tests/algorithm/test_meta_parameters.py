"""η = σ(x) and what the network is fed of it. Ground truth (closed forms), gradient (σ' on
learned values, none on fixed ones, finite through what is fed)."""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import discount_rows

from meta_impala.algorithm.meta_parameters import (
    EMBEDDED_LOGIT_BOUND,
    MetaParameters,
    embedding_input,
    logit,
    of_arrivals,
    of_departures,
)

NAMES = ("gamma", "lambda")
CHOICES = [(), ("gamma",), ("lambda",), ("gamma", "lambda")]


def make(learned, gamma=0.97, lambda_=0.8):
    return MetaParameters(discount_rows(gamma, lambda_, 0.995, 1.0), learned, of_states=learned)


def scalars(gamma, lambda_, dtype=tf.float64):
    return [tf.constant(gamma, dtype), tf.constant(lambda_, dtype)]


@pytest.mark.parametrize("value", [1e-6, 0.3, 0.5, 0.99, 0.9999])
def test_logit_inverts_the_sigmoid(value):
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-logit(value))), value, rtol=1e-12)


@pytest.mark.parametrize("learned", CHOICES)
def test_initial_logits_give_the_starts(learned):
    meta_parameters = make(learned)
    x = meta_parameters.initial_logits()
    assert x.shape == (len(learned),) and x.dtype == np.float32
    eta = meta_parameters.values(tf.constant(x))
    np.testing.assert_allclose([eta[name] for name in NAMES], [0.97, 0.8], rtol=1e-6)


@pytest.mark.parametrize("learned", CHOICES)
def test_learned_values_are_sigmoids_of_their_own_logit(learned):
    x = tf.constant([2.0, -1.0][: len(learned)], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        eta = make(learned).values(x)
    fixed = {"gamma": 0.97, "lambda": 0.8}
    for name, value in eta.items():
        if name in learned:
            gradient = tape.gradient(value, x)
            index = learned.index(name)
            expected = 1.0 / (1.0 + np.exp(-x[index].numpy()))
            np.testing.assert_allclose(value, expected)
            np.testing.assert_allclose(
                gradient, np.eye(len(learned))[index] * expected * (1.0 - expected)
            )
        else:
            assert value == fixed[name] and isinstance(value, float)


def test_fixed_values_may_be_exactly_zero_or_one():
    eta = make((), gamma=1.0, lambda_=0.0).values(tf.zeros([0]))
    assert eta == {"gamma": 1.0, "lambda": 0.0}


def test_the_reference_is_constant():
    assert make(("gamma",)).reference() == {"gamma": 0.995, "lambda": 1.0}


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_constants_are_fed_exactly(dtype):
    table = make(())
    fed = table.fed(table.reference(), dtype)
    assert all(value.dtype == dtype for value in fed)
    np.testing.assert_array_equal(fed, np.array([0.995, 1.0], dtype.as_numpy_dtype))


@pytest.mark.parametrize("kind", ["logits", "values"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_embedding_input_is_finite_and_bounded(kind, dtype):
    for gamma in (0.0, 1e-12, 0.5, 0.99, 1.0 - 1e-7, 1.0):
        fed = embedding_input(scalars(gamma, 1.0 - gamma, dtype), kind)
        assert fed.shape == [2] and fed.dtype == dtype
        assert np.all(np.isfinite(fed)) and np.all(np.abs(fed) <= 1.0 + 1e-4)


def test_the_embedding_input_of_logits_by_hand():
    np.testing.assert_allclose(
        embedding_input(scalars(0.99, 0.3)), [logit(0.99) / 7.0, logit(0.3) / 7.0]
    )
    np.testing.assert_allclose(embedding_input(scalars(1.0, 0.0)), [1.0, -1.0], rtol=1e-9)
    assert EMBEDDED_LOGIT_BOUND == 7.0


def test_the_embedding_input_of_values_by_hand():
    np.testing.assert_array_equal(embedding_input(scalars(1.0, 0.3), "values"), [1.0, 0.3])


def test_nearby_discounts_have_distinct_embedding_inputs():
    near, far = (embedding_input(scalars(g, 1.0, tf.float32))[0] for g in (0.99, 0.995))
    assert far - near > 0.05


@pytest.mark.parametrize("kind", ["logits", "values"])
def test_the_gradient_of_what_is_fed_is_finite_everywhere(kind):
    for gamma in (0.0, 1e-12, 0.3, 0.99, 1.0 - 1e-12, 1.0):
        gamma = tf.constant(gamma, tf.float64)
        with tf.GradientTape() as outer:
            outer.watch(gamma)
            with tf.GradientTape() as inner:
                inner.watch(gamma)
                fed = embedding_input([gamma, 1.0 - gamma], kind)
            first = inner.gradient(fed, gamma)
        assert np.isfinite(first)
        second = outer.gradient(first, gamma)
        assert second is None or np.isfinite(second)
        inside = 1.0 / (1.0 + np.exp(7.0)) < gamma < 1.0 / (1.0 + np.exp(-7.0))
        if kind == "logits" and not inside:
            assert first == 0.0  # beyond the cut nothing is fed of a change


# Ranges.


def test_a_range_bounds_what_is_learned():
    rows = discount_rows(0.95, 0.3, 0.99, 1.0, gamma_range=(0.9, 1.0), lambda_range=(0.0, 0.5))
    meta_parameters = MetaParameters(rows, NAMES)
    eta = meta_parameters.values(tf.constant(meta_parameters.initial_logits()))
    np.testing.assert_allclose([eta[name] for name in NAMES], [0.95, 0.3], rtol=1e-6)
    for x, expected in (([-50.0, -50.0], [0.9, 0.0]), ([50.0, 50.0], [1.0, 0.5])):
        eta = meta_parameters.values(tf.constant(x))
        np.testing.assert_allclose([eta[name] for name in NAMES], expected, atol=1e-7)
    x = tf.constant([0.3, -0.2], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        gamma = meta_parameters.values(x)["gamma"]
    sigma = 1.0 / (1.0 + np.exp(-0.3))
    np.testing.assert_allclose(gamma, 0.9 + 0.1 * sigma)
    np.testing.assert_allclose(tape.gradient(gamma, x), [0.1 * sigma * (1.0 - sigma), 0.0])


# One η per state.


@pytest.mark.parametrize("learned", CHOICES[1:])
def test_eta_of_states_by_hand(learned):
    meta_parameters = make(learned)
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 3, 5))
    x = random.normal(size=(6, len(learned)))
    eta = meta_parameters.at_states(tf.constant(x), tf.constant(features))
    fixed = {"gamma": 0.97, "lambda": 0.8}
    for name, value in eta.items():
        if name not in learned:
            assert value == fixed[name]
            continue
        assert value.shape == (4, 3)
        for t in range(4):
            for b in range(3):
                phi = features[t, b]
                z = phi @ x[:-1, learned.index(name)] / np.sqrt(1.0 + phi @ phi)
                expected = 1.0 / (1.0 + np.exp(-z - x[-1, learned.index(name)]))
                np.testing.assert_allclose(value[t, b], expected, rtol=1e-12)


def test_all_states_start_the_same():
    meta_parameters = make(("gamma", "lambda"))
    x = meta_parameters.initial_logits(5)
    assert x.shape == (6, 2) and x.dtype == np.float32
    features = tf.constant(np.random.default_rng(0).normal(size=(7, 2, 5)), tf.float32)
    eta = meta_parameters.at_states(tf.constant(x), features)
    np.testing.assert_allclose(eta["gamma"], np.full((7, 2), 0.97), rtol=1e-6)
    np.testing.assert_allclose(eta["lambda"], np.full((7, 2), 0.8), rtol=1e-6)


def test_features_do_not_matter_to_one_eta_for_all():
    x = tf.constant([2.0, 1.0])
    meta_parameters = make(("gamma", "lambda"))
    assert meta_parameters.at_states(x, None) == meta_parameters.values(x)


def test_eta_of_arrivals_and_departures_drops_the_first_or_the_last_row():
    of_states = tf.reshape(tf.range(6.0), [3, 2])
    np.testing.assert_array_equal(of_arrivals(of_states), [[2.0, 3.0], [4.0, 5.0]])
    np.testing.assert_array_equal(of_departures(of_states), [[0.0, 1.0], [2.0, 3.0]])
    for alike in (0.5, tf.constant(0.5)):
        assert of_arrivals(alike) is alike and of_departures(alike) is alike


def test_what_is_no_function_of_the_state_has_the_bias_alone():
    meta_parameters = MetaParameters(make(NAMES).rows, NAMES, of_states=("lambda",))
    random = np.random.default_rng(0)
    x, features = (
        tf.constant(random.normal(size=(6, 2))),
        tf.constant(random.normal(size=(4, 3, 5))),
    )
    eta = meta_parameters.at_states(x, features)
    assert eta["gamma"] == 1.0 / (1.0 + np.exp(-x[-1, 0])) and np.ptp(eta["lambda"]) > 0.1
    np.testing.assert_array_equal(eta["lambda"], make(NAMES).at_states(x, features)["lambda"])
    assert meta_parameters.is_per_state and not MetaParameters(make(NAMES).rows, NAMES).is_per_state


# Tracking.


def test_a_tracking_reference_is_the_current_value():
    tracking = MetaParameters(discount_rows(0.9, 1.0, 0.995, 1.0), ("gamma",), ("gamma",))
    current = {"gamma": tf.fill([3, 2], 0.7), "lambda": 0.6}
    reference = tracking.reference(current)
    assert reference["gamma"] is current["gamma"] and reference["lambda"] == 1.0
    fed = tracking.fed(reference, tf.float32)
    assert embedding_input(fed).shape == (3, 2, 2)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        embedding_input(scalars(0.5, 0.5), "sigmoids")
