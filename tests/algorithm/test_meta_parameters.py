"""η = σ(x) and what the network is fed of it. Ground truth (closed forms), gradient (σ' on
learned values, none on fixed ones nor through what is fed)."""

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.algorithm.meta_parameters import (
    EMBEDDED_LOGIT_BOUND,
    NAMES,
    Eta,
    MetaParameters,
    embedding_input,
    logit,
)

CHOICES = [(), ("gamma",), ("lambda",), ("gamma", "lambda")]


def make(learned, gamma=0.97, lambda_=0.8):
    return MetaParameters(learned, gamma, lambda_, reference_gamma=0.995, reference_lambda=1.0)


def scalars(gamma, lambda_, dtype=tf.float64):
    return Eta(tf.constant(gamma, dtype), tf.constant(lambda_, dtype))


@pytest.mark.parametrize("value", [1e-6, 0.3, 0.5, 0.99, 0.9999])
def test_logit_inverts_the_sigmoid(value):
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-logit(value))), value, rtol=1e-12)


@pytest.mark.parametrize("learned", CHOICES)
def test_initial_logits_give_the_starts(learned):
    meta_parameters = make(learned)
    x = meta_parameters.initial_logits()
    assert x.shape == (len(learned),) and x.dtype == np.float32
    eta = meta_parameters.values(tf.constant(x))
    np.testing.assert_allclose([eta.gamma, eta.lambda_], [0.97, 0.8], rtol=1e-6)


@pytest.mark.parametrize("learned", CHOICES)
def test_learned_values_are_sigmoids_of_their_own_logit(learned):
    x = tf.constant([2.0, -1.0][: len(learned)], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        eta = make(learned).values(x)
    fixed = {"gamma": 0.97, "lambda": 0.8}
    for name, value in zip(NAMES, eta, strict=True):
        gradient = tape.gradient(value, x)
        if name in learned:
            index = learned.index(name)
            expected = 1.0 / (1.0 + np.exp(-x[index].numpy()))
            np.testing.assert_allclose(value, expected)
            np.testing.assert_allclose(
                gradient, np.eye(len(learned))[index] * expected * (1.0 - expected)
            )
        else:
            np.testing.assert_allclose(value, fixed[name], rtol=1e-15)
            assert gradient is None


def test_fixed_values_may_be_exactly_zero_or_one():
    eta = make((), gamma=1.0, lambda_=0.0).values(tf.zeros([0]))
    assert eta.gamma == 1.0 and eta.lambda_ == 0.0


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_reference_is_constant(dtype):
    reference = make(("gamma",)).reference(dtype)
    assert reference.gamma.dtype == reference.lambda_.dtype == dtype
    np.testing.assert_allclose(reference, [0.995, 1.0], rtol=1e-7)


@pytest.mark.parametrize("kind", ["logits", "values"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_embedding_input_is_finite_and_bounded(kind, dtype):
    for gamma in (0.0, 1e-12, 0.5, 0.99, 1.0 - 1e-7, 1.0):
        fed = embedding_input(scalars(gamma, 1.0 - gamma, dtype), kind)
        assert fed.shape == [2] and fed.dtype == dtype
        assert np.all(np.isfinite(fed)) and np.all(np.abs(fed) <= 1.0 + 1e-4)


def test_embedded_logits():
    np.testing.assert_allclose(
        embedding_input(scalars(0.99, 0.3)), [logit(0.99) / 7.0, logit(0.3) / 7.0]
    )
    np.testing.assert_allclose(embedding_input(scalars(1.0, 0.0)), [1.0, -1.0], rtol=1e-9)
    assert EMBEDDED_LOGIT_BOUND == 7.0


def test_embedded_values():
    np.testing.assert_array_equal(embedding_input(scalars(1.0, 0.3), "values"), [1.0, 0.3])


def test_nearby_discounts_are_told_apart():
    near, far = (embedding_input(scalars(g, 1.0, tf.float32))[0] for g in (0.99, 0.995))
    assert far - near > 0.05


@pytest.mark.parametrize("kind", ["logits", "values"])
def test_no_gradient_flows_through_what_is_fed(kind):
    x = tf.constant([2.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        fed = embedding_input(make(("gamma", "lambda")).values(x), kind)
    assert tape.gradient(fed, x) is None


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        embedding_input(scalars(0.5, 0.5), "sigmoids")
