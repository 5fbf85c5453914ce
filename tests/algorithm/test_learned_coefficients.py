"""Every row of the table as a learned coefficient of J or U, through the learner's own update.

Gradient: both derivations and the trace against finite differences of the oracle, in float64. Must
be zero: what a coefficient does not reach. Equivalence: a learned coefficient that stands at its
constant makes the update of the constant.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from support.pieces import check_piece
from support.update_oracle import NearKink, directions_of, make_case

from meta_impala.algorithm import attribution
from meta_impala.algorithm.meta_gradient import (
    accumulative_trace,
    inner_step,
    nested_tapes,
    reverse_over_forward,
)
from meta_impala.config.hyper_parameters import TABLE

SMALL = {"batch_size": 3, "meta_batch_size": 2, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9}  # fmt: skip
ALL = ",".join(TABLE)
COEFFICIENTS = [name for name in TABLE if name not in ("gamma", "lambda")]
OF_THE_RULE = ("learning_rate_factor", "rmsprop_decay", "max_gradient_norm")


def assert_is_the_derivative(case, step=1e-4, rtol=1e-6, count=3):
    """Both derivations, and the trace that forgets, against the oracle in `count` directions."""
    directions = directions_of(case, count)
    expected = case.finite_difference(step, directions)
    nested = case.meta_step(nested_tapes)
    directional = case.meta_step(reverse_over_forward)
    parameters = case.agent.network.trainable_variables
    nothing = [[tf.zeros_like(v) for v in parameters] for _ in case.agent.config.learned]
    traced = accumulative_trace(*case.arguments(), trace=nothing, decay=0.0)
    scale = np.abs(expected).max()
    actual = nested.meta_gradient[0].numpy()
    np.testing.assert_allclose(directions @ actual, expected, rtol=rtol, atol=1e-7 * scale + 1e-11)
    for other in (directional, traced):
        np.testing.assert_allclose(other.meta_gradient[0], actual, rtol=1e-10, atol=1e-11 * scale)
    for ours, theirs in zip(nested.inner.parameters, case.new_parameters(case.x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    return actual


@pytest.mark.parametrize("norm", [20.0, 80.0])
def test_all_learned_coefficients_together(norm):
    """At a norm of 80 the clip (44 here) binds, so that each of them acts."""
    case = make_case(norm, **SMALL, meta_parameters=ALL)
    count = len(TABLE) if norm > 44.0 else 3  # every one by itself where all of them act
    actual = dict(zip(TABLE, assert_is_the_derivative(case, count=count), strict=True))
    assert (actual["max_gradient_norm"] != 0) == (norm > 44.0)
    for name in set(TABLE) - {"max_gradient_norm"}:
        assert abs(actual[name]) > 1e-9, name


def test_a_coefficient_through_every_path_and_fed_to_the_network():
    case = make_case(
        20.0,
        **SMALL,
        meta_parameters="gamma,entropy_cost,vtrace_alpha",
        embedded_meta_parameters="entropy_cost",
        eta_embedding_size=3,
        meta_gradient_paths="importance_weights",
        meta_parameter_ranges="entropy_cost:0.001,0.3",
        meta_parameter_starts="entropy_cost:0.1",
        meta_parameter_references="entropy_cost:0.05",
    )
    assert case.agent.network.settings.num_embedded == 3
    assert_is_the_derivative(case, 1e-5, 1e-5)


@pytest.mark.parametrize("through", [True, False])
def test_a_constant_clip_or_second_moment_is_constant_in_g_alone(through):
    case = make_case(
        80.0,
        **SMALL,
        meta_parameters="rmsprop_decay,max_gradient_norm",
        differentiate_clip=through,
        differentiate_second_moment=through,
    )
    assert np.all(assert_is_the_derivative(case) != 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_coefficients_of_other_optimisers(optimizer):
    case = make_case(
        80.0,
        **SMALL,
        meta_parameters="gamma,learning_rate_factor,max_gradient_norm",
        inner_optimizer=optimizer,
        adam_epsilon=1e-2,
        learning_rate=1e-3,
    )
    assert_is_the_derivative(case)


def test_a_coefficient_per_state_is_that_of_the_bias():
    case = make_case(
        20.0, **SMALL, meta_parameters="gamma,entropy_cost,learning_rate_factor",
        meta_parameter_scope="state",
    )  # fmt: skip
    actual = assert_is_the_derivative_per_state(case)
    np.testing.assert_array_equal(actual[:-1, 1:], 0.0)
    assert np.all(actual[-1] != 0)


OF_STEPS = [name for name, row in TABLE.items() if row.per_state]
OF_RETURNS = {name for name, row in TABLE.items() if row.in_returns}


@pytest.mark.parametrize("norm", [20.0, 80.0])
def test_whatever_acts_at_steps_is_a_function_of_the_state(norm):
    """All at once, and fed to the network as functions of the state, by every path."""
    case = make_case(
        norm, **SMALL | {"mlp_sizes": "5,4"}, meta_parameters=",".join(OF_STEPS),
        meta_parameter_scope=",".join(OF_STEPS), eta_embedding_size=3,
        embedded_meta_parameters="baseline_cost,c_clip", meta_value_head="reference",
        meta_gradient_paths="importance_weights", meta_network_eta="current",
        vtrace_alpha=0.9, rho_clip=1.4, meta_kl_cost=1.0,
    )  # fmt: skip
    actual = assert_is_the_derivative_per_state(case, count=4, step=1e-5, rtol=1e-5)
    assert np.all(np.abs(actual).max(axis=0) > 1e-9)
    # It is no constant: of each, some weight of a feature matters as much as the bias.
    assert np.all(np.abs(actual[:-1]).max(axis=0) > 0.01 * np.abs(actual[-1]))


def test_one_of_them_alone_is_a_function_of_the_state():
    case = make_case(
        20.0, **SMALL, meta_parameters="gamma,entropy_cost,rho_clip,max_gradient_norm",
        meta_parameter_scope="rho_clip",
    )  # fmt: skip
    actual = assert_is_the_derivative_per_state(case, count=2)
    is_zero = ~np.any(actual[:-1], axis=0)
    np.testing.assert_array_equal(is_zero, [True, True, False, True])


def test_no_gradient_flows_through_the_state_into_theta():
    """∇_θ J at η(s) is ∇_θ J at the same numbers as constants: the features are not trained."""
    case = make_case(
        None, **SMALL | {"mlp_sizes": "5,4"}, meta_parameters=",".join(OF_STEPS),
        meta_parameter_scope=",".join(OF_STEPS), eta_embedding_size=3, vtrace_alpha=0.9,
        embedded_meta_parameters="entropy_cost", meta_value_head="reference",
    )  # fmt: skip
    parameters, x, objective, _, _ = case.arguments()
    features = objective.network.body(parameters)
    eta = objective.meta_parameters.at_states(x[0], features)
    assert all(eta[name].shape == features.shape[:2] for name in OF_STEPS)
    constants = {name: tf.constant(value.numpy()) for name, value in eta.items()
                 if name in OF_STEPS}  # fmt: skip

    def gradients(some):
        live = [tf.identity(parameter) for parameter in parameters]
        with tf.GradientTape() as tape:
            tape.watch(live)
            loss, _ = some(live, x)
        return tape.gradient(loss, live, unconnected_gradients="zero")

    ours = gradients(objective)
    for one, other in zip(
        ours, gradients(dataclasses.replace(objective, given=constants)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert any(np.any(gradient != 0) for gradient in ours)
    # And what flows through them where it may is not nothing: the test can fail.
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        again = objective.meta_parameters.at_states(x[0], objective.network.body(parameters))
        total = tf.add_n([tf.reduce_sum(again[name]) for name in OF_STEPS])
    through = [gradient for gradient in tape.gradient(total, parameters) if gradient is not None]
    assert through and np.abs(through[0]).max() > 1e-3


# Of U and of J: a value, and the settings that have it as their constant.
CONSTANTS = {
    "gamma": 0.75, "lambda": 0.5, "policy_cost": 0.75, "baseline_cost": 0.25,
    "entropy_cost": 2.0**-7, "vtrace_alpha": 0.75, "rho_clip": 0.75, "c_clip": 0.5,
    "rmsprop_decay": 0.5, "max_gradient_norm": 4.0, "learning_rate_factor": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_scheduled_coefficient_makes_the_update_of_the_constant(name):
    """To the rounding of float64: what a function of frames gives is the number of the setting."""
    value = CONSTANTS[name]
    common = {**SMALL, "gamma": 0.875, "lambda_": 0.75}  # of few bits: frames give float32
    ends = {"meta_parameters": name, "eta_schedule": "linear"}
    if name in ("gamma", "lambda"):
        ends[f"eta_linear_{name}"] = f"{value},{value}"
    else:
        ends["eta_linear_ends"] = f"{name}:{value},{value}"
    constant = {"lambda_" if name == "lambda" else name: value}
    if name == "learning_rate_factor":
        constant = {"learning_rate": 1e-2 * value}
    found = {}
    for kind, chosen in (("scheduled", ends), ("constant", {"meta_parameters": "none"} | constant),
                         ("default", {"meta_parameters": "none"})):  # fmt: skip
        case = make_case(None, **{**common, **chosen}, x=[])
        factory = case.agent.learner.factory
        rate = tf.constant(case.agent.config.learning_rate, tf.float64)
        parts = factory.inner_parts(
            factory.trajectories(case.batch), rate, tf.constant(factory.schedule.at(0))
        )
        found[kind] = inner_step(*parts).parameters
    for one, other in zip(found["scheduled"], found["constant"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-16)
    assert any(
        np.abs(one - other).max() > 1e-7
        for one, other in zip(found["scheduled"], found["default"], strict=True)
    )


def assert_is_the_derivative_per_state(case, count=None, step=1e-4, rtol=1e-6):
    directions = np.eye(case.x.size) if count is None else directions_of(case, count)
    expected = case.finite_difference(step, directions)
    steps = [case.meta_step(mode).meta_gradient[0].numpy() for mode in (nested_tapes,
             reverse_over_forward)]  # fmt: skip
    scale = np.abs(expected).max()
    actual = directions @ steps[0].ravel()
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=0.1 * rtol * scale + 1e-11)
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-10, atol=1e-11 * scale)
    return steps[0]


def test_attribution_has_the_update_rule_as_a_place():
    names = ("gamma", "entropy_cost", "rho_clip", "learning_rate_factor", "max_gradient_norm")
    case = make_case(80.0, **SMALL, meta_parameters=",".join(names))
    whole = case.meta_step(nested_tapes).meta_gradient[0].numpy()
    split = attribution.split_meta_gradient(*case.arguments())
    by_place = dict(zip(attribution.SPLIT_PLACES, split.by_place.numpy(), strict=True))
    np.testing.assert_allclose(sum(by_place.values()), whole, rtol=1e-9, atol=1e-14)
    is_of_rule = [name in OF_THE_RULE for name in case.agent.config.learned]
    of_rule = by_place.pop(attribution.UPDATE_RULE)
    np.testing.assert_array_equal(of_rule != 0, is_of_rule)
    np.testing.assert_array_equal(sum(by_place.values()) != 0, np.logical_not(is_of_rule))
    # Nothing belongs to row 0, in which nothing is arrived in; all else to every other row, but
    # what is of U.
    by_time = split.by_time.numpy()
    np.testing.assert_array_equal(by_time[:, 0], 0.0)
    np.testing.assert_allclose(by_time.sum(1), split.by_place[:2], rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(by_time[..., is_of_rule], 0.0)
    assert np.all(by_time[0, 1:, np.logical_not(is_of_rule)] != 0)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_learned_coefficient_at_its_constant_makes_the_same_update(name):
    """To rounding; V-trace's α has no such start inside (0, 1), so its constant is set to 0.99."""
    settings = SMALL | {"vtrace_alpha": 0.99}
    plain, learned = (
        make_case(None, **settings, meta_parameters=names, x=[1.0, 0.0])
        for names in ("gamma", f"gamma,{name}")
    )
    learned.x = learned.agent.learner.state.x.numpy().copy()
    learned.x[0] = 1.0
    for one, other in zip(
        learned.meta_step(nested_tapes).inner.parameters,
        plain.meta_step(nested_tapes).inner.parameters,
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)


@st.composite
def switches(draw):
    choose = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    optimizer = choose("rmsprop", "rmsprop", "sgd", "adam")
    names = draw(st.sets(st.sampled_from(sorted(TABLE)), min_size=1))
    if optimizer != "rmsprop":
        names = names - {"rmsprop_decay"} or {"gamma"}
    of_states = [name for name in sorted(names) if name in OF_STEPS and choose(True, False)]
    embedded = choose("none", ",".join(sorted(names - {"gamma", "lambda"}))) or "none"
    # Of the returns, and of what the network is fed.
    read = sorted(names & (OF_RETURNS | set(embedded.split(","))))
    tracked = [name for name in read if choose(True, False)]
    return choose(20.0, 80.0), SMALL | {
        "meta_parameters": ",".join(sorted(names)),
        "meta_parameter_scope": ",".join(of_states) or "global",
        "meta_gradient_paths": choose("returns", "importance_weights"),
        "eta_embedding_size": 3,
        "embedded_meta_parameters": embedded,
        "reference_tracking": ",".join(tracked) or "none",
        "inner_optimizer": optimizer,
        "learning_rate": 1e-3 if optimizer == "sgd" else 1e-2,
        "adam_epsilon": 1e-2,
        "differentiate_second_moment": choose(True, False),
        "differentiate_clip": choose(True, False),
        "meta_baseline_cost": choose(0.0, 0.5),
        "meta_kl_cost": choose(0.0, 1.0),
        "meta_value_head": choose("shared", "reference"),
        "policy_return": choose("mixed", "next_target"),
        "policy_cost": choose(1.0, 0.5),
        "vtrace_alpha": choose(1.0, 0.6),
        "rho_clip": choose(1.0, 1.4),
    }


def check(drawn):
    norm, chosen = drawn
    # The network is far from linear in what it is fed.
    rtol = 1e-6 if chosen["meta_gradient_paths"] == "returns" else 1e-5
    try:
        case = make_case(norm, **chosen)
        if case.agent.config.eta_is_per_state:
            assert_is_the_derivative_per_state(case, count=2, rtol=rtol)
        else:
            assert_is_the_derivative(case, rtol=rtol)
    except NearKink:
        reject()


@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
@given(switches())
def test_random_combinations_match_the_finite_difference(drawn):
    check(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("piece", range(10))
def test_many_random_combinations_match_the_finite_difference(piece):
    check_piece(switches(), check, piece, 20)
