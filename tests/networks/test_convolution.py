"""The convolution with its own derivatives. Equivalence: with the plain operations, in float64, up
to third derivatives and in both modes. Ground truth: float64 differences. The graph that TensorFlow
executes: what the module promises of it."""

import functools
import gc
import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from meta_impala.networks.convolution import convolve
from meta_impala.networks.torsos import make_torso_of_package

CASES = list(itertools.product((1, 2), ("SAME", "VALID"), (False, True)))


def plain(images, kernel, bias, stride, padding, *, rectified):
    output = tf.nn.bias_add(tf.nn.conv2d(images, kernel, stride, padding), bias)
    return tf.nn.relu(output) if rectified else output


def inputs(seed=0, dtype=tf.float64):
    random = np.random.default_rng(seed)
    shapes = ([2, 6, 5, 3], [3, 3, 3, 4], [4])
    return [tf.constant(random.normal(size=shape), dtype) for shape in shapes]


def smooth(operation, case):
    """A number that depends on the operation to every order, of images, kernel and bias."""
    stride, padding, rectified = case

    def number(*at):
        output = operation(*at, stride, padding, rectified=rectified)
        return tf.reduce_sum(tf.sin(output) * tf.cos(0.1 * output * output))

    return number


def split(values, number):
    return values[:number], values[number:]


def gradients(number, at):
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = number(*at)
    return tape.gradient(value, at)


def products(number, at, direction):
    """⟨direction, ∇ number⟩ as a function of the point."""
    return sum(tf.reduce_sum(u * g) for u, g in zip(direction, gradients(number, at), strict=True))


def tangents(number, at, direction):
    with tf.autodiff.ForwardAccumulator(at, direction) as accumulator:
        result = number(*at)
    return accumulator.jvp(result)


def derivatives(operation, case, constants=0):
    """Name -> arrays, of every derivative that the learner can take; the first are constants."""
    (fixed, at), u, w = split(inputs(0), constants), inputs(1)[constants:], inputs(2)[constants:]
    number = functools.partial(smooth(operation, case), *fixed)

    def directional(*at):
        return products(number, list(at), u)

    def twice(*at):
        return products(directional, list(at), w)

    def gradient(*at):
        return gradients(number, list(at))

    def forward(*at):
        return tangents(number, list(at), u)

    return {
        "value": [number(*at)],
        "gradient": gradients(number, at),
        "reverse over reverse": gradients(directional, at),
        "third": gradients(twice, at),
        "forward": [tangents(number, at, u)],
        "reverse over forward": gradients(forward, at),
        "forward over reverse": tangents(gradient, at, u),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("in_graph", [False, True])
def test_every_derivative_is_that_of_the_plain_operations(case, in_graph):
    def both():
        return derivatives(convolve, case), derivatives(plain, case)

    ours, expected = tf.function(both, autograph=False)() if in_graph else both()
    for name, arrays in expected.items():
        for array, value in zip(ours[name], arrays, strict=True):
            assert np.abs(value).max() > 0.01, name
            np.testing.assert_allclose(array, value, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("in_graph", [False, True])
def test_a_convolution_of_data_has_every_derivative_but_those_by_the_data(case, in_graph):
    of_data = functools.partial(convolve, of_data=True)

    def both():
        return derivatives(of_data, case, 1), derivatives(plain, case, 1)

    ours, expected = tf.function(both, autograph=False)() if in_graph else both()
    for name, arrays in expected.items():
        for array, value in zip(ours[name], arrays, strict=True):
            np.testing.assert_allclose(array, value, rtol=1e-10, atol=1e-10, err_msg=name)
    assert gradients(smooth(of_data, case), inputs())[0] is None


def test_derivatives_in_a_loop_are_those_of_the_plain_operations():
    """As with micro-batches, whose tapes are in the body of a loop."""

    def summed(operation):
        number, u = smooth(operation, (1, "SAME", True)), inputs(1)
        images, kernel, bias = inputs()

        def body(index, *sums):
            at, directions = [images[index][tf.newaxis], kernel, bias], [u[0][:1], *u[1:]]
            found = gradients(lambda *at: products(number, list(at), directions), at)
            return index + 1, *[total + one for total, one in zip(sums, found, strict=True)]

        start = (0, *[tf.zeros_like(x) for x in (images[:1], kernel, bias)])
        return tf.while_loop(lambda index, *_: index < 2, body, start)

    both = tf.function(lambda: (summed(convolve), summed(plain)), autograph=False)()
    for ours, expected in zip(*both, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


def test_variables_are_differentiated_as_they_were_when_they_were_read():
    images, kernel, bias = inputs()
    variables = [tf.Variable(kernel), tf.Variable(bias)]
    number = smooth(convolve, (1, "SAME", True))
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = number(images, *variables)
    variables[0].assign(2 * kernel)
    found = tape.gradient(value, [images, *variables])
    for one, expected in zip(found, gradients(number, [images, kernel, bias]), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_a_batch_of_any_size_fits():
    torso = make_torso_of_package("deep", tf.float32, ())
    torso(tf.zeros([1, 4, 12, 12], tf.uint8))

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 12, 12], tf.uint8)], autograph=False)
    def gradient(observations):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(torso(observations) ** 2)
        return tape.gradient(loss, torso.trainable_variables)

    two = gradient(tf.ones([2, 4, 12, 12], tf.uint8))
    for one, both in zip(gradient(tf.ones([1, 4, 12, 12], tf.uint8)), two, strict=True):
        np.testing.assert_allclose(2 * one, both, rtol=1e-4, atol=1e-6)


def test_a_graph_is_freed_with_its_function():
    at, u = inputs(), inputs(1)
    number = smooth(convolve, (1, "SAME", True))
    function = tf.function(
        lambda *at: gradients(lambda *at: products(number, list(at), u), list(at)), autograph=False
    )
    function(*at)
    graph = weakref.ref(function.get_concrete_function(*at).graph)
    assert graph() is not None
    del function
    gc.collect()
    assert graph() is None


@pytest.mark.parametrize("case", CASES)
def test_the_second_derivative_is_that_of_differences(case):
    number, at, u, step = smooth(convolve, case), inputs(0), inputs(1), 1e-5
    ahead, behind = (
        gradients(number, [x + sign * step * d for x, d in zip(at, u, strict=True)])
        for sign in (1, -1)
    )
    exact = gradients(lambda *at: products(number, list(at), u), at)
    for a, b, value in zip(ahead, behind, exact, strict=True):
        np.testing.assert_allclose(value, (a - b) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float32])
def test_the_output_and_the_gradients_keep_the_dtype(dtype):
    at = inputs(dtype=dtype)
    number = smooth(convolve, (1, "SAME", True))
    assert number(*at).dtype == dtype
    assert {gradient.dtype for gradient in gradients(number, at)} == {dtype}


def executed(function, *arguments):
    """Kinds of the operations of the graph after TensorFlow's optimisers, with repetitions."""
    context.enable_graph_collection()
    try:
        function(*arguments)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_graph_collection()
    return [node.op for graph in graphs for node in graph.post_optimization_graph.node]


@pytest.fixture
def merges():
    """Whether this build of TensorFlow merges convolution, bias and ReLU at all."""
    at = inputs(dtype=tf.float32)
    layer = tf.function(lambda *at: plain(*at, 1, "SAME", rectified=True), autograph=False)
    if "_FusedConv2D" not in executed(layer, *at):
        pytest.skip("this build of TensorFlow does not merge these operations")


@pytest.mark.parametrize("name", ["shallow", "nature", "deep"])
def test_every_convolution_of_a_torso_is_merged_with_its_bias(merges, name):
    torso = make_torso_of_package(name, tf.float32, ())
    observations = tf.zeros([2, 4, 84, 84], tf.uint8)
    torso(observations)

    @tf.function(autograph=False)
    def forward_and_gradient(observations):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(torso(observations) ** 2)
        return tape.gradient(loss, torso.trainable_variables)

    kinds = executed(forward_and_gradient, observations)
    convolutions = sum(len(variable.shape) == 4 for variable in torso.trainable_variables)
    assert kinds.count("_FusedConv2D") == convolutions
    assert not {"Conv2D", "BiasAdd"} & set(kinds)


@pytest.mark.parametrize("name", ["shallow", "nature", "deep"])
@pytest.mark.parametrize("dtype", [tf.uint8, tf.bool, tf.float32])
def test_no_tangent_is_computed_of_bytes(name, dtype):
    """Each convolution is computed once, and once for each tangent: of its kernel, of its input."""
    torso = make_torso_of_package(name, tf.float32, ())
    observations = tf.cast(tf.zeros([1, 4, 84, 84], tf.uint8), dtype)
    torso(observations)
    weights = list(torso.trainable_variables)

    @tf.function(autograph=False)
    def output_and_tangent(observations):
        with tf.autodiff.ForwardAccumulator(weights, [tf.ones_like(w) for w in weights]) as moved:
            features = torso(observations)
        return features, moved.jvp(features)

    kinds = executed(output_and_tangent, observations)
    convolutions = sum(len(variable.shape) == 4 for variable in weights)
    of_data = dtype != tf.float32
    assert kinds.count("_FusedConv2D") + kinds.count("Conv2D") == 3 * convolutions - of_data


def test_the_second_derivative_makes_no_tensor_of_repeated_biases():
    at, u = inputs(0, tf.float32), inputs(1, tf.float32)

    def second(operation):
        number = smooth(operation, (1, "SAME", True))
        function = tf.function(
            lambda *at: gradients(lambda *at: products(number, list(at), u), list(at)),
            autograph=False,
        )
        return executed(function, *at)

    # The sums of `number` have some in any case, unless constants are folded.
    assert second(convolve).count("Tile") < second(plain).count("Tile")
