"""Every switch of the method, through the learner's own update, in float64.

Gradient: both derivations against finite differences that vary η in exactly the places which the
switch opens, gradient norms on both sides of the clip. Must be zero: what a switch cuts, and every
η inside J'. A property test combines them at random.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from support.helpers import central_difference, make_agent
from support.pieces import check_piece
from support.update_oracle import OPEN, NearKink, Places, directions_of, make_case

from meta_impala.algorithm import losses
from meta_impala.algorithm.meta_gradient import (
    accumulative_trace,
    nested_tapes,
    reverse_over_forward,
)
from meta_impala.config.hyper_parameters import TABLE
from meta_impala.errors import UserError

FED = {"eta_embedding_size": 4}
# What of the table J' reads at η', and what it is told.
CLIPS_AND_LEAK = "vtrace_alpha,rho_clip,c_clip"
COSTS = "policy_cost,baseline_cost,entropy_cost"
TRACKED_RETURNS = {
    "meta_parameters": f"gamma,lambda,{CLIPS_AND_LEAK}",
    "reference_tracking": f"lambda,{CLIPS_AND_LEAK}", "rho_clip": 1.4, "c_clip": 0.8,
    "meta_baseline_cost": 0.5,
}  # fmt: skip
TRACKED_INPUTS = {
    **FED, "meta_parameters": f"gamma,{COSTS},learning_rate_factor",
    "reference_tracking": f"{COSTS},learning_rate_factor",
    "embedded_meta_parameters": f"{COSTS},learning_rate_factor",
}  # fmt: skip
CELLS = {
    "embedding": {**FED, "meta_gradient_paths": "embedding"},
    "importance_weights": {**FED, "meta_gradient_paths": "importance_weights"},
    "importance_weights, lstm": {
        **FED, "meta_gradient_paths": "importance_weights", "core": "lstm", "core_size": 5,
        "unroll_length": 3,
    },
    "embedding of values": {
        **FED, "meta_gradient_paths": "embedding", "eta_embedding_input": "values",
        "meta_network_eta": "current",
    },
    "plain gradient descent": {"inner_optimizer": "sgd", "learning_rate": 1e-3},
    "adam": {"inner_optimizer": "adam", "adam_epsilon": 1e-2},
    "constant second moment": {"differentiate_second_moment": False},
    "constant second moment of adam": {
        "inner_optimizer": "adam", "adam_epsilon": 1e-2, "differentiate_second_moment": False,
    },
    "constant clip": {"differentiate_clip": False},
    "constant clip and second moment": {
        "differentiate_clip": False, "differentiate_second_moment": False,
    },
    "value term": {"meta_baseline_cost": 0.5},
    "entropy term": {"meta_entropy_cost": 0.1},
    "KL term": {"meta_kl_cost": 2.0},
    "all terms but the policy gradient": {
        "meta_policy_cost": 0.0, "meta_baseline_cost": 0.5, "meta_entropy_cost": 0.1,
        "meta_kl_cost": 2.0,
    },
    "second value head": {"meta_value_head": "reference", "meta_baseline_cost": 0.3},
    "second value head, embedding": {
        **FED, "meta_value_head": "reference", "meta_gradient_paths": "embedding",
    },
    "normalised advantage": {"meta_advantage_normalization": "ema"},
    "tracking": {**FED, "reference_tracking": "gamma,lambda"},
    "tracking gamma": {**FED, "reference_tracking": "gamma", "meta_network_eta": "current"},
    "tracking clips and leak": TRACKED_RETURNS,
    "tracking clips and leak, second value head": {
        **TRACKED_RETURNS, "meta_value_head": "reference", "meta_kl_cost": 1.0,
    },
    "tracking what is fed": TRACKED_INPUTS,
    "next target": {"policy_return": "next_target", "reference_lambda": 0.7},
    "ranges": {"gamma_min": 0.5, "gamma_max": 0.99, "lambda_max": 0.8, "lambda_": 0.5,
               "gamma": 0.9},
    "per state": {"meta_parameter_scope": "state"},
    "per state, gamma": {"meta_parameter_scope": "state", "meta_parameters": "gamma"},
    "per state, importance weights": {
        **FED, "meta_parameter_scope": "state", "meta_gradient_paths": "importance_weights",
        "meta_network_eta": "current", "meta_kl_cost": 1.0,
    },
    "per state, tracking": {
        **FED, "meta_parameter_scope": "state", "reference_tracking": "gamma",
        "meta_value_head": "reference",
    },
    "per state, tracking clips, leak and what is fed": {
        **FED, "meta_parameters": f"gamma,entropy_cost,{CLIPS_AND_LEAK}",
        "meta_parameter_scope": f"gamma,entropy_cost,{CLIPS_AND_LEAK}", "rho_clip": 1.4,
        "reference_tracking": f"entropy_cost,{CLIPS_AND_LEAK}",
        "embedded_meta_parameters": "entropy_cost,rho_clip", "meta_value_head": "reference",
    },
}  # fmt: skip

RULES = [name for name in CELLS if name.startswith(("plain", "adam", "constant"))]


def assert_is_the_derivative(case, count=2, at_least=1e-6):
    """Both derivations against the oracle; returns the nested one's step.

    `at_least` is how large the derivative must be, so that a zero cannot pass for one.
    """
    directions = directions_of(case, count)
    nested, directional = case.meta_step(nested_tapes), case.meta_step(reverse_over_forward)
    expected = case.finite_difference(directions=directions)
    scale = np.abs(expected).max()
    assert scale >= at_least
    actual = directions @ nested.meta_gradient[0].numpy().ravel()
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7 * scale + 1e-11)
    np.testing.assert_allclose(
        directional.meta_gradient[0], nested.meta_gradient[0], rtol=1e-10, atol=1e-12 * scale
    )
    np.testing.assert_allclose(directional.meta_loss, nested.meta_loss, rtol=1e-12)
    new_parameters = case.new_parameters(case.x)
    np.testing.assert_allclose(nested.meta_loss, case.meta_objective()(new_parameters), rtol=1e-9)
    for ours, theirs in zip(nested.inner.parameters, new_parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    return nested


def cells_and_norms():
    """All cells where the clip binds; below it those of U, and the others as slow (what acts on J
    and J' alone meets the clip only through g)."""
    for name in CELLS:
        yield pytest.param(name, 80.0)
        is_of_the_rule = name in RULES or name == "importance_weights"
        yield pytest.param(name, 20.0, marks=() if is_of_the_rule else pytest.mark.slow)


@pytest.mark.parametrize(("name", "norm"), cells_and_norms())
def test_the_meta_gradient_is_the_finite_difference(name, norm):
    case = make_case(norm, **CELLS[name])
    step = assert_is_the_derivative(case)
    coefficient = step.inner.update_auxiliary[2]
    np.testing.assert_allclose(coefficient, min(1.0, 40.0 / norm), rtol=1e-4)


# What follows the current η is its value, as a number.


def of_tracked(name, at, **settings):
    """J' and its meta-gradient with a row tracked, or given this number in η' (a text)."""
    chosen = {"meta_parameters": f"gamma,{name}" if name != "gamma" else name, "lambda_": 0.7,
              "gamma": 0.9, "rho_clip": 1.4, "c_clip": 0.8} | settings  # fmt: skip
    if at is None:
        chosen["reference_tracking"] = name
    elif name in ("gamma", "lambda"):
        chosen[f"reference_{name}"] = float(at)
    else:
        chosen["meta_parameter_references"] = f"{name}:{at}"
    case = make_case(20.0, **chosen)
    step = case.meta_step(nested_tapes)
    return case, np.array([step.meta_loss, *step.meta_gradient[0]])


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.in_returns])
def test_a_tracked_row_of_the_returns_is_its_number_in_the_meta_objective(name):
    case, found = of_tracked(name, None)
    assert case.agent.config.tracked == (name,)
    values = case.current_coefficients(case.x) | dict(
        zip(("gamma", "lambda"), case.current_eta(case.x), strict=True)
    )
    _, expected = of_tracked(name, repr(float(values[name])))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    _, elsewhere = of_tracked(name, "0.3")
    assert np.abs(elsewhere - found).max() > 1e-6 * np.abs(found).max()


def test_the_table_says_what_the_returns_read():
    """A row is of the returns if and only if they look it up."""

    class Recorded(dict):
        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

    read = set()
    case = make_case()
    transitions = case.agent.learner.factory.trajectories(case.meta_batch).transitions
    values = tf.zeros([6, 3], tf.float64)
    eta = Recorded({name: 0.9 for name in TABLE})
    losses.targets(
        losses.TargetInputs(values, values[:-1]), transitions, eta, losses.ReturnSettings()
    )
    assert read == {name for name, row in TABLE.items() if row.in_returns}


# What a switch opens matters, and what it leaves shut is shut.


def test_each_path_adds_to_the_meta_gradient():
    gradients = []
    for paths in OPEN:
        case = make_case(20.0, **FED, meta_gradient_paths=paths)
        gradients.append(case.meta_step(nested_tapes).meta_gradient[0].numpy())
    for one, other in itertools.combinations(gradients, 2):
        assert np.all(np.abs(one - other) > 1e-3 * np.abs(one))


@pytest.mark.parametrize("place", Places._fields)
@pytest.mark.parametrize("paths", OPEN)
def test_eta_acts_in_the_open_places_and_in_no_other(paths, place):
    """The derivative of ∇_θ J along one place alone, from the objective and from the oracle."""
    case = make_case(None, **FED, meta_gradient_paths=paths)
    parameters, x, objective, _, _ = case.arguments()
    live = [tf.identity(parameter) for parameter in parameters]
    is_open = dict(zip(Places._fields, OPEN[paths], strict=True))[place]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([*x, *live])
        places = objective.places(x)
        features = objective.network.body(live)
        output = objective._outputs(live, features, places.network)
        inputs = objective._target_inputs(output, features, places)
    watched = {
        "embedding": output.policy_logits,
        "values": inputs.values,
        "importance_weights": inputs.log_probs,
    }
    if place in watched:
        gradient = tape.gradient(watched[place], x[0])
        assert (gradient is not None) == is_open
    # V, ρ and c are constant in θ on every path.
    assert all(g is None for g in tape.gradient([inputs.values, inputs.log_probs], live))

    # And the oracle's own derivative along this place is not zero: the test can fail.
    def along(vector):
        places = case.everywhere(case.x)._replace(**{place: vector})
        return np.concatenate([g.ravel() for g in case.inner_gradient(case.x, places)])

    moved = along(case.x + [1e-3, 0.0]) - along(case.x)
    assert np.abs(moved).max() > 1e-7


J_PRIME = {
    "reference": {},
    "current": {"meta_network_eta": "current"},
    "tracking": {"reference_tracking": "gamma,lambda"},
    "tracking clips and leak": TRACKED_RETURNS,
    "tracking what is fed": TRACKED_INPUTS,
    "KL": {"meta_kl_cost": 1.0, "meta_network_eta": "current"},
    "every term": {
        "meta_baseline_cost": 0.5, "meta_entropy_cost": 0.1, "meta_kl_cost": 1.0,
        "reference_tracking": "gamma", "meta_network_eta": "current",
        "meta_value_head": "reference", "meta_advantage_normalization": "ema",
    },
    "per state": {
        "meta_parameter_scope": "state", "reference_tracking": "gamma,lambda",
        "meta_network_eta": "current", "meta_kl_cost": 1.0,
    },
    "per state, tracking clips": {
        "meta_parameters": "gamma,rho_clip,c_clip", "meta_parameter_scope": "gamma,rho_clip",
        "reference_tracking": "gamma,rho_clip,c_clip", "meta_kl_cost": 1.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", J_PRIME)
def test_every_eta_in_the_meta_objective_is_a_constant(name):
    case = make_case(**FED | J_PRIME[name], meta_gradient_paths="importance_weights")
    parameters, x, _, _, _ = case.arguments()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([*x, *parameters])
        learner = case.agent.learner
        objective = learner.factory.meta_objective(
            learner.factory.trajectories(case.meta_batch), parameters, x
        )
        others = [tf.stop_gradient(parameter) + 0.01 for parameter in parameters]
        meta_loss, _ = objective(others)
    assert tape.gradient(meta_loss, x[0]) is None
    # θ before the update is a constant too, in the KL term.
    assert all(gradient is None for gradient in tape.gradient(meta_loss, parameters))


def test_the_targets_of_the_meta_objective_are_constant():
    """With the value term alone, J' pulls on V' as towards a fixed number, and not on π at all
    (no shared layer: the torso's gradient is that of the value alone)."""
    case = make_case(meta_policy_cost=0.0, meta_baseline_cost=1.0)
    parameters, _, _, _, meta_objective = case.arguments()
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        meta_loss, _ = meta_objective(parameters)
    gradients = tape.gradient(meta_loss, parameters, unconnected_gradients="zero")
    names = [variable.name for variable in case.agent.network.trainable_variables]
    for name, gradient in zip(names, gradients, strict=True):
        if "policy_head" in name:
            np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))
    theta = case.theta
    meta_objective = case.meta_objective(at=theta)
    direction = [np.random.default_rng(5).normal(size=value.shape) for value in theta]

    def along(distance):
        return meta_objective([t + distance[0] * d for t, d in zip(theta, direction, strict=True)])

    expected = central_difference(along, np.zeros(1), 1e-4)[0]
    actual = sum(np.sum(g.numpy() * d) for g, d in zip(gradients, direction, strict=True))
    np.testing.assert_allclose(actual, expected, rtol=1e-7)


def test_the_meta_objective_uses_the_second_value_head_alone():
    """The advantages of J' are of the second head: the first one does not matter."""
    losses = []
    for shift in (0.0, 5.0):
        case = make_case(meta_value_head="reference")
        meta_objective = case.arguments()[-1]
        network = case.agent.network
        network._value_head.b.assign(network._value_head.b + shift)
        losses.append(
            meta_objective([v.read_value() for v in network.trainable_variables])[0].numpy()
        )
        network._reference_value_head.b.assign(network._reference_value_head.b + 5.0)
        moved = meta_objective([v.read_value() for v in network.trainable_variables])[0].numpy()
        assert abs(moved - losses[-1]) > 1e-3
    assert losses[0] == losses[1]


def test_the_second_value_head_learns_at_the_reference():
    """Its error is that of V-trace at η', whatever η is: it learns the same at every x."""
    case = make_case(meta_value_head="reference")
    variables = case.agent.network.trainable_variables
    first, second = (
        [i for i, v in enumerate(variables) if v.name.startswith(f"actor_critic/{name}")]
        for name in ("value_head", "reference_value_head")
    )
    assert len(first) == len(second) == 2

    def gradients(x):
        case.x = np.asarray(x)
        parameters, x, objective, _, _ = case.arguments()
        live = [tf.identity(parameter) for parameter in parameters]
        with tf.GradientTape() as tape:
            tape.watch(live)
            loss, _ = objective(live, x)
        return tape.gradient(loss, live)

    one, other = gradients([1.5, 0.8]), gradients([2.5, -0.8])
    for index in second:
        np.testing.assert_array_equal(one[index], other[index])
        assert np.any(one[index] != 0)
    for index in first:
        assert np.any(one[index] != other[index])


def test_moments_after_many_batches_are_those_of_the_advantages():
    """With a decay of 0 the moments are the last batch's; then the advantages have mean 0 and
    deviation 1."""
    case = make_case(meta_advantage_normalization="ema", meta_advantage_decay=0.0)
    parameters, _, _, _, meta_objective = case.arguments()
    output = case.run(case.meta_batch, case.x)  # no embedding: what is fed does not matter
    _, advantages, rhos = case.targets(
        case.meta_batch,
        case.log_pi(case.meta_batch, output.policy_logits),
        output.values,
        *case.reference_at(case.meta_batch),
    )
    bare = (advantages / np.where(rhos > 0, rhos, 1.0))[rhos > 0]
    _, moments = meta_objective(parameters)
    np.testing.assert_allclose(moments, [bare.mean(), np.mean(bare**2), 1.0], rtol=1e-10)


@pytest.mark.parametrize(
    ("paths", "kind", "value"),
    [
        ("returns", "logits", 0.0),
        ("returns", "values", 1.0),
        ("embedding", "logits", 0.0),
        ("embedding", "values", 1.0),
        ("importance_weights", "logits", 1.0),
        ("importance_weights", "values", 0.0),
    ],  # every pair of two
)
def test_a_reference_of_exactly_zero_or_one_gives_numbers(paths, kind, value):
    case = make_case(
        **FED, reference_gamma=value, reference_lambda=value, eta_embedding_input=kind,
        meta_gradient_paths=paths, meta_parameters="gamma", lambda_=value,
    )  # fmt: skip
    for x in (-40.0, 0.5, 40.0):  # γ of 0, between, and 1 to the last bit
        case.x = np.array([x])
        for mode in (nested_tapes, reverse_over_forward):
            step = case.meta_step(mode)
            for tensor in (step.meta_gradient[0], step.meta_loss, *step.inner.parameters):
                assert np.all(np.isfinite(tensor))


# Combinations.


@st.composite
def switches(draw):
    """Settings of the method that go together, and a gradient norm."""
    choose = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    optimizer = choose("rmsprop", "sgd", "adam")
    return choose(20.0, 80.0), {
        "meta_parameters": choose("gamma,lambda", "gamma", "lambda"),
        "lambda_": 0.7,
        "gamma": 0.9,
        "eta_embedding_size": 3,
        "eta_embedding_input": choose("logits", "values"),
        "meta_network_eta": choose("reference", "current"),
        "meta_gradient_paths": choose(*OPEN),
        "meta_parameter_scope": choose("global", "global", "state"),
        "reference_gamma": choose(0.95, 1.0),
        "reference_lambda": choose(0.6, 1.0),
        "reference_tracking": choose("none", "none", "gamma", "gamma,lambda"),
        "gamma_min": choose(0.0, 0.5),
        "lambda_max": choose(0.8, 1.0),
        "inner_optimizer": optimizer,
        "learning_rate": 1e-3 if optimizer == "sgd" else 1e-2,
        "adam_epsilon": 1e-2,
        "differentiate_second_moment": choose(True, False),
        "differentiate_clip": choose(True, False),
        "meta_policy_cost": choose(1.0, 0.3),
        "meta_baseline_cost": choose(0.0, 0.5),
        "meta_entropy_cost": choose(0.0, 0.1),
        "meta_kl_cost": choose(0.0, 1.0),
        "meta_value_head": choose("shared", "reference"),
        "meta_advantage_normalization": choose("none", "ema"),
        "policy_return": choose("mixed", "next_target"),
        "core": choose("none", "none", "lstm"),
        "core_size": 4,
        "rho_clip": choose(1.0, 1.4),
        "batch_size": 3,
        "meta_batch_size": 2,
        "unroll_length": 4,
    }


def check_combination(drawn):
    norm, chosen = drawn
    try:
        case = make_case(norm, **chosen)
        nested = assert_is_the_derivative(case, count=1, at_least=0.0)
    except NearKink:
        reject()
    if chosen["meta_parameter_scope"] == "global":
        parameters = case.agent.network.trainable_variables
        nothing = [[tf.zeros_like(v) for v in parameters] for _ in case.agent.config.learned]
        traced = accumulative_trace(*case.arguments(), trace=nothing, decay=0.0)
        scale = np.abs(nested.meta_gradient[0]).max()
        np.testing.assert_allclose(
            traced.meta_gradient[0], nested.meta_gradient[0], rtol=1e-9, atol=1e-11 * scale
        )


@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
@given(switches())
def test_random_combinations_match_the_finite_difference(drawn):
    check_combination(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("piece", range(10))
def test_many_random_combinations_match_the_finite_difference(piece):
    check_piece(switches(), check_combination, piece, 20)


# What does not go together is refused.


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"meta_gradient_paths": "embedding", "eta_embedding_size": 0}, "eta_embedding_size"),
        ({"trace_decay": 0.5, "meta_gradient_mode": "nested_tapes"}, "accumulative_trace"),
        ({"trace_decay": 0.5, "meta_gradient_mode": "reverse_over_forward"}, "accumulative_trace"),
        ({"trace_curvature": True}, "trace_decay"),
        ({"trace_decay": 0.5, "meta_parameter_scope": "state"}, "scope=state"),
        ({"meta_parameter_scope": "state", "eta_schedule": "random"}, "eta_schedule"),
        ({"gamma_min": 0.995}, "open range"),
        ({"gamma_min": 0.9, "gamma_max": 0.9}, "below"),
        ({"meta_data": "held_out", "meta_batch_size": 4}, "held_out"),
        ({"eta_schedule": "mixture", "eta_mixture": "0.9"}, "pairs"),
        ({"eta_schedule": "mixture", "eta_mixture": "0.9,1.5"}, "pairs"),
        (
            {"eta_schedule": "mixture", "eta_mixture": "0.9,1;0.99,0.5", "lambda_": 1.0,
             "meta_parameters": "gamma"},
            "lambda must be 1",
        ),
        ({"eta_schedule": "random", "eta_random_gamma": "0.9,1"}, "eta_random_gamma"),
        ({"eta_schedule": "random", "eta_random_lambda": "0.9,x"}, "eta_random_lambda"),
        ({"eta_schedule": "random", "meta_parameters": "none"}, "none"),
    ],
)  # fmt: skip
def test_incompatible_settings_are_refused(chosen, message):
    with pytest.raises(UserError, match=message) as raised:
        make_agent(**chosen)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("--")
