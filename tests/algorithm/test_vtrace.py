"""V-trace with λ. Ground truth (O(T²) NumPy, as the paper has it; the λ-return of equation 7),
golden (worked by hand), equivalence (TRFL at λ = 1; truncated against ended trajectories),
gradient (finite differences: nothing is stopped here)."""

import numpy as np
import pytest
import tensorflow as tf
import trfl
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import vtrace_ground_truth

from meta_impala.algorithm.vtrace import importance_weights, vtrace

CLIPS = [
    {},
    {"rho_clip": 2.0, "c_clip": 0.7, "pg_rho_clip": 1.5},
    {"rho_clip": 0.8, "c_clip": 1.6, "pg_rho_clip": 0.6},
]


def random_inputs(unroll_length, batch_size, seed, spread=0.8):
    """Float64 inputs with γ and λ per step, ends of episodes, and ρ on both sides of one."""
    random = np.random.default_rng(seed)
    shape = (unroll_length, batch_size)
    return {
        "log_rhos": spread * random.normal(size=shape),
        "rewards": random.normal(size=shape),
        "discounts": random.uniform(0.5, 1.0, shape) * (random.uniform(size=shape) > 0.2),
        "lambdas": random.uniform(0.3, 1.0, shape),
        "values": random.normal(size=(unroll_length + 1, batch_size)),
    }


def on_tensors(inputs, **options):
    return vtrace(**{name: tf.constant(value) for name, value in inputs.items()}, **options)


def assert_equal_returns(returns, vs, pg_advantages):
    np.testing.assert_allclose(returns.vs, vs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(returns.pg_advantages, pg_advantages, rtol=1e-12, atol=1e-12)


# Golden.


def test_two_steps_worked_by_hand():
    inputs = {
        "log_rhos": np.log([[2.0], [0.5]]),
        "rewards": np.array([[1.0], [2.0]]),
        "discounts": np.array([[0.5], [0.5]]),
        "lambdas": np.array([[0.5], [0.5]]),
        "values": np.array([[1.0], [2.0], [4.0]]),
    }
    returns = on_tensors(inputs)
    # δ_1 = ½(2 + ½·4 − 2) = 1, δ_0 = 1 + ½·2 − 1 = 1, c_0 = ½: vs_0 = 1 + 1 + ½·½·1.
    np.testing.assert_allclose(returns.vs, [[2.25], [3.0]])
    # q_1 = 2 + ½·4 = 4, q_0 = 1 + ½(½·3 + ½·2) = 2.25.
    np.testing.assert_allclose(returns.pg_advantages, [[1.25], [1.0]])
    np.testing.assert_allclose(returns.clipped_rhos, [[1.0], [0.5]])


# Ground truth.


@pytest.mark.parametrize("clips", CLIPS)
def test_equals_the_ground_truth(clips):
    inputs = random_inputs(9, 5, seed=0)
    ratios = np.exp(inputs["log_rhos"])
    for clip in (1.0, *clips.values()):
        assert 0.1 < np.mean(ratios < clip) < 0.9
    assert np.any(inputs["discounts"] == 0)
    assert_equal_returns(on_tensors(inputs, **clips), *vtrace_ground_truth(**inputs, **clips))


@pytest.mark.parametrize("clips", CLIPS)
def test_equals_the_ground_truth_with_truncations(clips):
    inputs = random_inputs(9, 5, seed=1)
    inputs["step_mask"] = np.random.default_rng(2).integers(0, 2, (9, 5)).astype(np.float64)
    assert_equal_returns(on_tensors(inputs, **clips), *vtrace_ground_truth(**inputs, **clips))


@given(
    unroll_length=st.integers(1, 7),
    batch_size=st.integers(1, 3),
    num_actions=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
    constant_lambda=st.sampled_from([None, 0.0, 0.9, 1.0]),
    rho_clip=st.floats(0.2, 3.0),
    c_clip=st.floats(0.2, 3.0),
    pg_rho_clip=st.floats(0.2, 3.0),
    masked=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_equals_the_ground_truth_for_random_policies(
    unroll_length,
    batch_size,
    num_actions,
    seed,
    constant_lambda,
    rho_clip,
    c_clip,
    pg_rho_clip,
    masked,
):
    inputs = random_inputs(unroll_length, batch_size, seed)
    random = np.random.default_rng(seed)
    shape = (unroll_length, batch_size)
    pi, mu = random.dirichlet(np.ones(num_actions), (2, *shape)) + 1e-3
    actions = random.integers(0, num_actions, (*shape, 1))
    ratios = np.take_along_axis(pi, actions, -1) / np.take_along_axis(mu, actions, -1)
    inputs["log_rhos"] = np.log(ratios[..., 0])
    if constant_lambda is not None:
        inputs["lambdas"] = np.full(shape, constant_lambda)
    if masked:
        inputs["step_mask"] = random.integers(0, 2, shape).astype(np.float64)
    clips = {"rho_clip": rho_clip, "c_clip": c_clip, "pg_rho_clip": pg_rho_clip}
    assert_equal_returns(on_tensors(inputs, **clips), *vtrace_ground_truth(**inputs, **clips))


def test_on_policy_it_is_the_lambda_return():
    inputs = random_inputs(8, 4, seed=3)
    inputs["log_rhos"] = np.zeros((8, 4))
    gammas, lambdas, values = inputs["discounts"], inputs["lambdas"], inputs["values"]
    # Equation (7), with γ and λ of the state arrived in.
    lambda_return = values[-1]
    returns = []
    for t in reversed(range(8)):
        mixed = (1.0 - lambdas[t]) * values[t + 1] + lambdas[t] * lambda_return
        lambda_return = inputs["rewards"][t] + gammas[t] * mixed
        returns.append(lambda_return)
    expected = np.stack(returns[::-1])
    assert_equal_returns(on_tensors(inputs), expected, expected - values[:-1])


def test_at_lambda_zero_it_is_one_step():
    inputs = random_inputs(6, 3, seed=4)
    inputs["lambdas"] = np.zeros((6, 3))
    values = inputs["values"]
    errors = inputs["rewards"] + inputs["discounts"] * values[1:] - values[:-1]
    rhos = np.minimum(1.0, np.exp(inputs["log_rhos"]))
    assert_equal_returns(on_tensors(inputs), values[:-1] + rhos * errors, rhos * errors)


# Equivalence.


@pytest.mark.parametrize(("rho_clip", "pg_rho_clip"), [(1.0, 1.0), (2.5, 0.7)])
def test_equals_trfl_at_lambda_one(rho_clip, pg_rho_clip):
    inputs = random_inputs(9, 5, seed=5)
    inputs["lambdas"] = np.ones((9, 5))
    returns = on_tensors(inputs, rho_clip=rho_clip, pg_rho_clip=pg_rho_clip)
    single = {name: value.astype(np.float32) for name, value in inputs.items()}
    theirs = trfl.vtrace_from_importance_weights(
        log_rhos=single["log_rhos"],
        discounts=single["discounts"],
        rewards=single["rewards"],
        values=single["values"][:-1],
        bootstrap_value=single["values"][-1],
        clip_rho_threshold=rho_clip,
        clip_pg_rho_threshold=pg_rho_clip,
    )
    np.testing.assert_allclose(returns.vs, theirs.vs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(returns.pg_advantages, theirs.pg_advantages, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [0, 3, 5])
def test_a_truncation_is_unbiased(cut):
    """The steps before step `cut` see a trajectory that ends in the bootstrap value V_cut."""
    inputs = random_inputs(6, 4, seed=6)
    inputs["discounts"] = np.full((6, 4), 0.9)
    mask = np.ones((6, 4))
    mask[cut] = 0.0
    joined = on_tensors(inputs | {"step_mask": mask}, rho_clip=1.3, c_clip=1.2, pg_rho_clip=1.1)

    def piece(start, stop):
        rows = {name: value[start:stop] for name, value in inputs.items()}
        rows["values"] = inputs["values"][start : stop + 1]
        return on_tensors(rows, rho_clip=1.3, c_clip=1.2, pg_rho_clip=1.1)

    if cut > 0:
        before = piece(0, cut)
        np.testing.assert_allclose(joined.vs[:cut], before.vs, rtol=1e-12)
        np.testing.assert_allclose(joined.pg_advantages[:cut], before.pg_advantages, rtol=1e-12)
    if cut < 5:
        after = piece(cut + 1, 6)
        np.testing.assert_allclose(joined.vs[cut + 1 :], after.vs, rtol=1e-12)
        np.testing.assert_allclose(joined.pg_advantages[cut + 1 :], after.pg_advantages, rtol=1e-12)
    # The cut step itself teaches nothing.
    np.testing.assert_array_equal(joined.vs[cut], inputs["values"][cut])
    np.testing.assert_array_equal(joined.pg_advantages[cut], np.zeros(4))
    np.testing.assert_array_equal(joined.clipped_rhos[cut], np.zeros(4))


def test_nothing_after_a_truncation_or_a_terminal_state_is_seen_before_it():
    inputs = random_inputs(6, 2, seed=7)
    inputs["discounts"] = np.full((6, 2), 0.9)
    inputs["discounts"][3, 0] = 0.0  # state 4 of trajectory 0 is terminal
    inputs["step_mask"] = np.ones((6, 2))
    inputs["step_mask"][3, 1] = 0.0  # state 4 of trajectory 1 is another episode's
    other = {name: value.copy() for name, value in inputs.items()}
    other["values"][4:] += 1.0
    other["rewards"][4:] += 1.0
    other["rewards"][3, 1] += 1.0  # the reward of the cut step
    first, second = on_tensors(inputs), on_tensors(other)
    np.testing.assert_array_equal(first.vs[:4], second.vs[:4])
    np.testing.assert_array_equal(first.pg_advantages[:4], second.pg_advantages[:4])
    assert np.all(np.abs(first.vs[4:] - second.vs[4:]) > 1e-3)


# Gradient.


def test_no_gradient_is_stopped():
    inputs = random_inputs(4, 2, seed=8)
    inputs["discounts"] = np.random.default_rng(9).uniform(0.5, 1.0, (4, 2))
    assert np.all(np.abs(inputs["log_rhos"]) > 1e-3)
    weights = np.random.default_rng(10).normal(size=(2, 4, 2))

    def weighted(values):
        vs, pg_advantages = vtrace_ground_truth(**values)
        return np.sum(weights[0] * vs + weights[1] * pg_advantages)

    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        returns = vtrace(**tensors)
        loss = tf.reduce_sum(weights[0] * returns.vs + weights[1] * returns.pg_advantages)
    gradients = tape.gradient(loss, tensors)
    for name, value in inputs.items():
        direction = np.random.default_rng(11).normal(size=value.shape)
        step = 1e-5
        difference = weighted(inputs | {name: value + step * direction}) - weighted(
            inputs | {name: value - step * direction}
        )
        derivative = np.sum(direction * gradients[name].numpy())
        assert abs(derivative) > 1e-2, name
        np.testing.assert_allclose(derivative, difference / (2 * step), rtol=1e-7, err_msg=name)


# The edges.


def test_extreme_ratios_stay_finite():
    inputs = random_inputs(3, 2, seed=12)
    inputs["log_rhos"] = np.array([[1e4, -1e4], [0.0, 88.0], [-200.0, 1e30]])
    single = {name: value.astype(np.float32) for name, value in inputs.items()}
    returns = on_tensors(single)
    for field in returns:
        assert np.all(np.isfinite(field))
    np.testing.assert_array_equal(returns.clipped_rhos[0, 0], 1.0)
    np.testing.assert_allclose(importance_weights(tf.constant([-0.5, 0.0, 2.0])),
                               np.exp([-0.5, 0.0, 2.0]), rtol=1e-6)  # fmt: skip


@pytest.mark.parametrize("name", ["rewards", "discounts", "lambdas", "values"])
def test_shapes_that_do_not_fit_are_refused(name):
    inputs = random_inputs(3, 2, seed=13)
    with pytest.raises(ValueError, match=name):
        on_tensors(inputs | {name: inputs[name][:-1]})


def test_an_unknown_unroll_length_is_refused():
    spec = tf.TensorSpec([None, 2])
    function = tf.function(
        lambda rows, values: vtrace(
            log_rhos=rows, rewards=rows, discounts=rows, lambdas=rows, values=values
        ),
        input_signature=[spec, spec],
    )
    with pytest.raises(ValueError, match="static"):
        function.get_concrete_function()
