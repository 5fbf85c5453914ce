"""The accumulative trace, equation (4), through the learner's own update, in float64.

Ground truth: finite differences of one update (with θ moved along z everywhere in it, for the
curvature), and of three updates. Equivalence: μ = 0 is no trace.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import IMAGES, central_difference, random_batch, weights
from support.update_oracle import OPEN, NearKink, make_case, norm_of

from meta_impala.algorithm.meta_gradient import accumulative_trace, nested_tapes

FED = {"eta_embedding_size": 4}
CELLS = {
    "rmsprop": {},
    "plain gradient descent": {"inner_optimizer": "sgd", "learning_rate": 1e-3},
    "adam": {"inner_optimizer": "adam", "adam_epsilon": 1e-2},
    "embedding": {**FED, "meta_gradient_paths": "embedding"},
    "importance weights": {**FED, "meta_gradient_paths": "importance_weights"},
    "lstm": {"core": "lstm", "core_size": 4, "unroll_length": 2},
    "second value head": {**FED, "meta_value_head": "reference", "reference_tracking": "gamma"},
    "lambda": {"meta_parameters": "lambda", "gamma": 0.9},
}  # fmt: skip


def trace_of(case, seed=7, scale=0.3):
    """A random z: for every entry of x a list like θ."""
    random = np.random.default_rng(seed)
    return [
        [tf.constant(scale * random.normal(size=value.shape)) for value in case.theta]
        for _ in case.x
    ]


def difference(function, step=1e-4):
    """d function / dε at 0, for a function of one number to a list of arrays."""
    shapes = [np.shape(value) for value in function(0.0)]
    flat = lambda distance: np.concatenate([v.ravel() for v in function(distance)])  # noqa: E731
    near, far = flat(step) - flat(-step), flat(2 * step) - flat(-2 * step)
    derivative = (8.0 * near - far) / (12.0 * step)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [
        part.reshape(shape) for part, shape in zip(np.split(derivative, ends), shapes, strict=True)
    ]


def expected_trace(case, trace, decay, curvature):
    """z' of the oracle: its θ' with x moved; with curvature, θ moved with it wherever it acts."""
    theta, columns = case.theta, []
    for index, carried in enumerate(trace):
        unit = np.eye(len(case.x))[index]
        moving = [decay * z.numpy() for z in carried]

        def at(distance, unit=unit, moving=moving):
            moved = [t + distance * m for t, m in zip(theta, moving, strict=True)]
            with weights(case.variables, moved if curvature else theta):
                return case.updated(case.inner_gradient(case.x + distance * unit))

        column = difference(at)
        if not curvature:
            column = [m + c for m, c in zip(moving, column, strict=True)]
        columns.append(column)
    return columns


def assert_close(ours, theirs, rtol=1e-6):
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max() + 1e-12)


@pytest.mark.parametrize(
    ("name", "curvature", "norm"),
    [
        *(("rmsprop", curvature, norm) for curvature in (False, True) for norm in (20.0, 80.0)),
        *(
            pytest.param(name, True, 80.0, marks=[pytest.mark.slow] if name == "lstm" else [])
            for name in CELLS
            if name != "rmsprop"
        ),
        ("importance weights", True, 20.0),
        ("adam", False, 20.0),
    ],
)
def test_the_new_trace_is_the_finite_difference(name, curvature, norm):
    case = make_case(norm, trace_decay=0.9, trace_curvature=curvature, **CELLS[name])
    trace = trace_of(case)
    step = accumulative_trace(*case.arguments(), trace=trace, decay=0.9, curvature=curvature)
    expected = expected_trace(case, trace, 0.9, curvature)
    assert_close(step.trace, expected)
    # dJ'/dx = dJ'/dθ' · z', and the update is the update.
    *_, meta_objective = case.arguments()
    with tf.GradientTape() as tape:
        tape.watch(step.inner.parameters)
        meta_loss, _ = meta_objective(step.inner.parameters)
    pulls = tape.gradient(meta_loss, step.inner.parameters, unconnected_gradients="zero")
    products = [
        sum(np.sum(u.numpy() * z) for u, z in zip(pulls, column, strict=True))
        for column in expected
    ]
    np.testing.assert_allclose(step.meta_gradient[0], products, rtol=1e-6)
    for ours, theirs in zip(step.inner.parameters, case.new_parameters(case.x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    # The curvature changes it: the test can fail.
    if curvature:
        plain = accumulative_trace(*case.arguments(), trace=trace, decay=0.9)
        assert np.all(np.abs(plain.meta_gradient[0] - step.meta_gradient[0]) > 1e-6)


@pytest.mark.parametrize(
    ("paths", "curvature"),
    [
        pytest.param(paths, curvature, marks=() if is_quick else pytest.mark.slow)
        for paths in OPEN
        for curvature in (False, True)
        # Each path, and each form of the trace.
        for is_quick in [curvature == (paths != "embedding")]
    ],
)
def test_without_decay_it_is_the_exact_gradient(paths, curvature):
    settings = {"trace_decay": 0.5, "trace_curvature": curvature}
    case = make_case(80.0, **FED, meta_gradient_paths=paths, **settings)
    step = accumulative_trace(
        *case.arguments(), trace=trace_of(case), decay=0.0, curvature=curvature
    )
    nested = case.meta_step(nested_tapes)
    np.testing.assert_allclose(step.meta_gradient[0], nested.meta_gradient[0], rtol=1e-10)
    np.testing.assert_allclose(step.meta_loss, nested.meta_loss, rtol=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {**FED, "meta_gradient_paths": "importance_weights"}], ids=["returns", "all"]
)
def test_with_curvature_and_no_decay_it_is_dtheta_dx_over_all_updates(settings):
    """μ = 1, plain gradient descent, x held fixed: z after 3 updates is dθ_3/dx.

    η acts in all places (without an embedding these are the returns alone), so that it is the plain
    derivative of θ_3, by central differences.
    """
    case = make_case(
        None, inner_optimizer="sgd", learning_rate=3e-3, trace_decay=1.0, trace_curvature=True,
        **settings,
    )  # fmt: skip
    start, variables = case.theta, case.agent.network.trainable_variables

    def three_updates(x, batches):
        with weights(case.variables, start):
            for batch in batches:
                case.batch = batch
                new = case.updated(case.inner_gradient(x, case.everywhere(x)))
                for variable, value in zip(variables, new, strict=True):
                    variable.assign(value)
            return case.theta

    def differences(batches):
        # Small steps: e_η moves the last hidden layer across the kinks of its ReLUs.
        return [
            difference(lambda e: three_updates(case.x + e * unit, batches), 1e-5)  # noqa: B023
            for unit in np.eye(len(case.x))
        ]

    for seed in itertools.count(20, 3):
        batches = [random_batch(case.agent, seed + i) for i in range(3)]
        try:
            expected = differences(batches)
            break
        except NearKink:
            continue

    trace = [[tf.zeros_like(v) for v in variables] for _ in case.x]
    with weights(case.variables, start):
        for batch in batches:
            case.batch = batch
            step = accumulative_trace(*case.arguments(), trace=trace, decay=1.0, curvature=True)
            trace = step.trace
            for variable, value in zip(variables, step.inner.parameters, strict=True):
                variable.assign(value)
        after = case.theta
    for ours, theirs in zip(after, three_updates(case.x, batches), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert norm_of(expected[0]) > 1e-3
    assert_close(trace, expected, rtol=2e-6)


@pytest.mark.parametrize("network", ["shallow", pytest.param("deep", marks=pytest.mark.slow)])
def test_the_trace_through_convolutions_is_the_finite_difference(network):
    case = make_case(
        80.0, description=IMAGES, network=network, batch_size=2, meta_batch_size=2,
        unroll_length=2, scale=0.01, learning_rate=1e-4, rmsprop_epsilon=0.1,
        trace_decay=0.9, trace_curvature=True, meta_parameters="gamma",
    )  # fmt: skip
    trace = trace_of(case, scale=0.01)
    step = accumulative_trace(*case.arguments(), trace=trace, decay=0.9, curvature=True)
    unit, moving = np.ones(1), [0.9 * z.numpy() for z in trace[0]]
    # One number, with small steps: a difference must not cross many of the ReLUs' kinks.
    pull = [np.random.default_rng(3).normal(size=value.shape) for value in case.theta]
    theta = case.theta

    def along(distance):
        moved = [t + distance[0] * m for t, m in zip(theta, moving, strict=True)]
        with weights(case.variables, moved):
            new = case.updated(case.inner_gradient(case.x + distance[0] * unit))
        return sum(np.sum(p * n) for p, n in zip(pull, new, strict=True))

    expected = central_difference(along, np.zeros(1), 1e-6)[0]
    actual = sum(np.sum(p * z.numpy()) for p, z in zip(pull, step.trace[0], strict=True))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
