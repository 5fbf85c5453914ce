"""The optimisers. Equivalence (TensorFlow 1's RMSProp, Sonnet's Adam, TensorFlow's clip),
gradient (finite differences; finite derivatives at zero)."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from meta_impala.algorithm.optimizers import (
    Adam,
    RMSProp,
    Sgd,
    clip_by_global_norm,
    global_norm,
    safe_sqrt,
)

SHAPES = [(3, 2), (4,), ()]


def random_tensors(seed, dtype=tf.float64, scale=1.0):
    random = np.random.default_rng(seed)
    return [tf.constant(scale * random.normal(size=shape), dtype) for shape in SHAPES]


# Equivalence.


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-5), (tf.float64, 1e-12)])
@pytest.mark.parametrize(("decay", "epsilon"), [(0.99, 0.01), (0.9, 0.1)])
def test_rmsprop_is_that_of_tensorflow_1(dtype, tolerance, decay, epsilon):
    random = np.random.default_rng(0)
    steps = 1000
    scales = 10.0 ** random.uniform(-3, 1, (steps, 1))
    gradients = (scales * random.normal(size=(steps, 7))).astype(dtype.as_numpy_dtype)
    learning_rates = np.linspace(6e-4, 0.0, steps).astype(dtype.as_numpy_dtype)
    start = random.normal(size=7).astype(dtype.as_numpy_dtype)

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.Variable(start)
        gradient = tf.compat.v1.placeholder(dtype, [7])
        learning_rate = tf.compat.v1.placeholder(dtype, [])
        # As float64, or it would round them to float32.
        optimizer = tf.compat.v1.train.RMSPropOptimizer(
            learning_rate, np.float64(decay), 0.0, np.float64(epsilon)
        )
        step = optimizer.apply_gradients([(gradient, variable)])
        session.run(tf.compat.v1.global_variables_initializer())
        theirs = []
        for row, rate in zip(gradients, learning_rates, strict=True):
            session.run(step, {gradient: row, learning_rate: rate})
            theirs.append(session.run(variable))
        their_mean_square = session.run(optimizer.get_slot(variable, "rms"))

    optimizer = RMSProp(decay, epsilon)

    @tf.function
    def update(parameter, slots, gradient, learning_rate):
        (change,), slots = optimizer.step([gradient], slots, learning_rate)
        return parameter - change, slots

    parameter = tf.constant(start)
    slots = optimizer.initial_slots([parameter])
    np.testing.assert_array_equal(slots["mean_squares"], [np.ones(7)])
    ours = []
    for row, rate in zip(gradients, learning_rates, strict=True):
        parameter, slots = update(parameter, slots, row, rate)
        ours.append(parameter.numpy())
    (mean_square,) = slots["mean_squares"]
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(mean_square, their_mean_square, rtol=tolerance)
    assert np.abs(ours[-1] - start).min() > 1e-4


def test_the_first_step_of_rmsprop_is_small():
    """From zeros, or with ε outside of the root, it would be another number."""
    optimizer = RMSProp(decay=0.99, epsilon=0.01)
    slots = optimizer.initial_slots([tf.zeros([1])])
    (update,), slots = optimizer.step([tf.constant([2.0])], slots, tf.constant(0.1))
    np.testing.assert_allclose(slots["mean_squares"], [[0.99 + 0.01 * 4.0]], rtol=1e-6)
    np.testing.assert_allclose(update, [0.1 * 2.0 / np.sqrt(1.03 + 0.01)], rtol=1e-6)


def test_adam_is_that_of_sonnet():
    random = np.random.default_rng(1)
    variable = tf.Variable(random.normal(size=3), dtype=tf.float64)
    parameter, slots = variable.read_value(), Adam().initial_slots([variable])
    theirs = snt.optimizers.Adam(learning_rate=0.01, epsilon=1e-8)
    step = tf.function(lambda gradient, slots: Adam().step([gradient], slots, 0.01))
    for _ in range(300):
        gradient = tf.constant(random.normal(size=3) * 10.0 ** random.uniform(-6, 2))
        theirs.apply([gradient], [variable])
        (update,), slots = step(gradient, slots)
        parameter = parameter - update
        # Sonnet rounds its hyper-parameters to float32.
        np.testing.assert_allclose(parameter, variable, rtol=1e-5)
    assert slots["count"] == [300]


def test_plain_gradient_descent():
    gradients = random_tensors(10)
    updates, slots = Sgd().step(gradients, Sgd().initial_slots(gradients), 0.25)
    assert slots == {}
    for update, gradient in zip(updates, gradients, strict=True):
        np.testing.assert_array_equal(update, 0.25 * gradient)


@pytest.mark.parametrize(
    "make", [lambda d: RMSProp(0.9, 0.01, d), lambda d: Adam(0.9, 0.99, 0.01, d)]
)
def test_a_constant_second_moment_changes_the_derivative_alone(make):
    gradients = random_tensors(11)
    results, derivatives = [], []
    for through in (True, False):
        optimizer = make(through)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(gradients)
            updates, slots = optimizer.step(gradients, optimizer.initial_slots(gradients), 0.1)
            total = tf.add_n([tf.reduce_sum(update) for update in updates])
        results.append(updates)
        derivatives.append(tape.gradient(total, gradients))
        if not through:  # then the update is linear in g (Adam's starts at a first moment of 0)
            for update, gradient, d in zip(updates, gradients, derivatives[-1], strict=True):
                np.testing.assert_allclose(d * gradient, update, rtol=1e-12)
    for with_, without in zip(*results, strict=True):
        np.testing.assert_array_equal(with_, without)
    for with_, without in zip(*derivatives, strict=True):
        assert np.all(np.abs(with_ - without) > 1e-6 * np.abs(without))


def test_a_constant_clip_changes_the_derivative_alone():
    gradients = random_tensors(12, scale=10.0)
    derivatives = []
    for through in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(gradients)
            clipped = clip_by_global_norm(gradients, 4.0, differentiate_coefficient=through)
            total = tf.add_n([tf.reduce_sum(gradient) for gradient in clipped.gradients])
        derivatives.append(tape.gradient(total, gradients))
        assert clipped.coefficient < 1.0
    for with_, without in zip(*derivatives, strict=True):
        np.testing.assert_allclose(without, np.full(without.shape, clipped.coefficient))
        assert np.all(np.abs(with_ - without) > 1e-6)


def test_adam_has_finite_derivatives_at_zero():
    zeros = [tf.zeros([3], tf.float64)]
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        (update,), _ = Adam().step(zeros, Adam().initial_slots(zeros), 0.1)
    assert np.all(np.isfinite(tape.gradient(update, zeros)[0]))


def test_adam_by_hand():
    gradients, first, second, parameter = [0.5, -2.0, 1e-9], 0.0, 0.0, 1.0
    ours = tf.constant([1.0], tf.float64)
    slots = Adam().initial_slots([ours])
    for count, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9**count), second / (1 - 0.999**count)
        parameter -= 0.1 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        (update,), slots = Adam().step([tf.constant([gradient], tf.float64)], slots, 0.1)
        ours = ours - update
        np.testing.assert_allclose(ours, [parameter], rtol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_clip_is_that_of_tensorflow(scale):
    gradients = random_tensors(2, scale=scale)
    clipped = clip_by_global_norm(gradients, 4.0)
    theirs, norm = tf.clip_by_global_norm(gradients, 4.0)
    np.testing.assert_allclose(clipped.norm, norm, rtol=1e-12)
    np.testing.assert_allclose(clipped.coefficient, min(1.0, 4.0 / norm.numpy()), rtol=1e-12)
    for ours, other in zip(clipped.gradients, theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-12)


def test_a_gradient_below_the_limit_is_left_alone_to_the_bit():
    gradients = random_tensors(3, tf.float32)
    clipped = clip_by_global_norm(gradients, 40.0)
    assert clipped.coefficient == 1.0
    for ours, gradient in zip(clipped.gradients, gradients, strict=True):
        np.testing.assert_array_equal(ours, gradient)


@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_no_limit_means_no_clip(limit):
    gradients = random_tensors(4, scale=1e6)
    clipped = clip_by_global_norm(gradients, limit)
    assert clipped.coefficient == 1.0 and clipped.norm > 1e5
    for ours, gradient in zip(clipped.gradients, gradients, strict=True):
        np.testing.assert_array_equal(ours, gradient)


# Gradient.


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_the_step_is_differentiable_in_the_gradients(scale):
    """Clip and mean square are part of it: stopping either gives another derivative."""
    gradients = random_tensors(5, scale=scale)
    mean_squares = [0.1 + tf.square(tensor) for tensor in random_tensors(6)]
    weights, direction = random_tensors(7), random_tensors(8)

    def step(tensors):
        clipped = clip_by_global_norm(tensors, 3.0)
        updates, slots = RMSProp(decay=0.6, epsilon=0.01).step(
            clipped.gradients, {"mean_squares": mean_squares}, tf.constant(0.5, tf.float64)
        )
        return tf.add_n(
            [
                tf.reduce_sum(weight * (update + mean_square))
                for weight, update, mean_square in zip(
                    weights, updates, slots["mean_squares"], strict=True
                )
            ]
        )

    with tf.GradientTape() as tape:
        tape.watch(gradients)
        value = step(gradients)
    derivative = sum(
        np.sum(d.numpy() * g.numpy())
        for d, g in zip(direction, tape.gradient(value, gradients), strict=True)
    )

    def at(distance):
        moved = [g + distance * d for g, d in zip(gradients, direction, strict=True)]
        return step(moved).numpy()

    h = 1e-3 * scale
    difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    np.testing.assert_allclose(derivative, difference, rtol=1e-7)


def test_the_norm_at_zero_has_derivatives_of_every_order():
    zeros = [tf.zeros(shape, tf.float64) for shape in SHAPES]
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(zeros)
        with tf.GradientTape() as inner:
            inner.watch(zeros)
            norm = global_norm(zeros)
        first = inner.gradient(norm, zeros)
        total = tf.add_n([tf.reduce_sum(tensor) for tensor in first])
    second = outer.gradient(total, zeros)
    assert norm == 0.0
    for tensor in [*first, *second]:
        np.testing.assert_array_equal(tensor, np.zeros(tensor.shape))


def test_the_root_away_from_zero_is_the_root():
    squares = tf.constant([0.0, 1e-30, 0.25, 9.0], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(squares)
        roots = safe_sqrt(squares)
    np.testing.assert_allclose(roots, [0.0, 1e-15, 0.5, 3.0])
    np.testing.assert_allclose(tape.gradient(roots, squares), [0.0, 5e14, 1.0, 1.0 / 6.0])


def test_the_clip_at_zero_has_finite_derivatives():
    zeros = [tf.zeros(shape, tf.float64) for shape in SHAPES]
    weights = random_tensors(9)
    with tf.GradientTape() as outer:
        outer.watch(zeros)
        with tf.GradientTape() as inner:
            inner.watch(zeros)
            clipped = clip_by_global_norm(zeros, 40.0)
            total = tf.add_n(
                [tf.reduce_sum(w * g) for w, g in zip(weights, clipped.gradients, strict=True)]
            )
        first = inner.gradient(total, zeros)
        again = tf.add_n([tf.reduce_sum(tf.square(tensor)) for tensor in first])
    for tensor, weight in zip(first, weights, strict=True):
        np.testing.assert_array_equal(tensor, weight)  # the clip is the identity there
    for tensor in outer.gradient(again, zeros, unconnected_gradients="zero"):
        assert np.all(np.isfinite(tensor))


def test_the_norm_of_gradients_that_are_not_finite_is_not_finite():
    gradients = [tf.constant([1.0, float("nan")])]
    clipped = clip_by_global_norm(gradients, 40.0)
    assert np.isnan(clipped.norm.numpy())
    assert np.isinf(clip_by_global_norm([tf.constant([float("inf"), -1.0])], 0.0).norm.numpy())
