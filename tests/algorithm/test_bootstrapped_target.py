"""Bootstrapped meta objectives, in float64.

Ground truth: with L = 1, an SGD target of step size α̃ and ½‖θ̃ − θ'‖² for J', the meta-gradient
is α̃ times that of a validation J' with the weights of J at η'. Gradient: KL and value error to a
target of L updates, through one or several inner updates, against finite differences of the oracle.
Must be zero: the target is a constant.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import central_difference, make_agent, random_batch
from support.update_oracle import make_case

from meta_impala.algorithm import meta_gradient
from meta_impala.algorithm.meta_gradient import nested_tapes, reverse_over_forward
from meta_impala.config.hyper_parameters import TABLE

SMALL = {"batch_size": 3, "meta_batch_size": 3, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9, "learning_rate": 2.0**-7,
         "learning_rate_schedule": "constant"}  # fmt: skip
NAMES = "gamma,lambda,entropy_cost,learning_rate_factor"
FIXED = {"meta_parameters": NAMES, "meta_parameter_references": "entropy_cost:0.05"}
ALL = ",".join(TABLE)


@pytest.mark.parametrize("mode", [nested_tapes, reverse_over_forward])
def test_the_identity_of_one_sgd_step(mode):
    settings = SMALL | {
        "inner_optimizer": "sgd",
        "max_gradient_norm": 0.0,
        "meta_parameters": NAMES,
        "eta_embedding_size": 3,
        # Its value in η', which of J' only the target reads; learned from another one.
        "entropy_cost": 0.05,
        "meta_parameter_starts": "entropy_cost:0.01",
        "policy_cost": 1.0,
        "baseline_cost": 0.4,
    }
    costs = {"meta_policy_cost": 1.0, "meta_baseline_cost": 0.4, "meta_entropy_cost": 0.05}
    case = make_case(20.0, **settings, **costs)
    expected = case.meta_step(mode).meta_gradient[0].numpy()

    parameters, x, objective, rule, _ = case.arguments()
    step = meta_gradient.inner_step(parameters, x, objective, rule)
    learner = case.agent.learner
    step_size = 0.3
    meta_batch = learner.factory.trajectories(case.meta_batch)
    (target,) = [
        learner.window_factory.target(
            step.parameters, {}, x, [meta_batch], tf.constant(step_size, tf.float64)
        )
    ]

    def distance(at):
        pairs = zip(target, at, strict=True)
        return 0.5 * tf.add_n([tf.reduce_sum(tf.square(one - other)) for one, other in pairs]), None

    found = mode(parameters, x, objective, rule, distance).meta_gradient[0].numpy()
    scale = np.abs(expected).max()
    assert scale > 1e-6
    np.testing.assert_allclose(found, step_size * expected, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("mode", ["nested_tapes", "reverse_over_forward"])
@pytest.mark.parametrize(
    ("inner_steps", "target_steps", "settings"),
    [
        (1, 1, FIXED),
        (1, 2, FIXED),
        (2, 2, FIXED),
        (1, 1, {"meta_parameters": NAMES, "reference_tracking": NAMES}),
        (2, 2, {"meta_parameters": ALL, "reference_tracking": ALL}),
    ],
)
@pytest.mark.usefixtures("eager")
def test_the_step_of_x_is_the_finite_difference(inner_steps, target_steps, settings, mode):
    """Through `Learner.update` itself."""
    case = make_case(
        20.0, **SMALL, **settings, meta_objective="bootstrapped",
        bootstrap_steps=target_steps, inner_steps=inner_steps, meta_gradient_mode=mode,
        meta_optimizer="sgd", meta_learning_rate=0.5,
    )  # fmt: skip
    learner, state = case.agent.learner, case.agent.learner.state
    state.x.assign(case.x)
    count = inner_steps + target_steps
    batches = [case.batch, *(random_batch(case.agent, 20 + k) for k in range(count - 1))]
    case.meta_batch = batches[-1]
    window, ahead = batches[:inner_steps], batches[inner_steps:]
    last, slots = case.after_window(window, case.x)
    meta_objective = case.distance_to(case.target(last, slots, ahead))
    expected = central_difference(
        lambda x: meta_objective(case.after_window(window, x)[0]), case.x, 1e-4
    )
    for k in range(inner_steps):
        others = batches[k + 1 : k + 1 + target_steps]
        row, _ = learner.update(batches[k], others, k, 0)
    scale = np.abs(expected).max()
    assert scale > 1e-8
    np.testing.assert_allclose(
        state.x.numpy() - case.x, -0.5 * expected, rtol=1e-6, atol=1e-7 * scale
    )
    steps = np.sum(case.is_step(case.meta_batch))
    np.testing.assert_allclose(row.meta_loss, meta_objective(last) / steps, rtol=1e-5)


@pytest.mark.parametrize("tracked", ["none", ALL])
def test_the_target_is_a_constant(tracked):
    agent = make_agent(
        tf.float64, **SMALL, meta_parameters=ALL, meta_objective="bootstrapped", bootstrap_steps=2,
        reference_tracking=tracked,
    )  # fmt: skip
    factory, learner = agent.learner.factory, agent.learner
    batches = [factory.trajectories(random_batch(agent, seed)) for seed in range(2)]
    parameters = [v.read_value() for v in agent.network.trainable_variables]
    slots = {"mean_squares": [v.read_value() for v in learner.state.slots["mean_squares"]]}
    x = [learner.state.x.read_value()]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([*parameters, *x, *slots["mean_squares"]])
        target = learner.window_factory.target(
            parameters, slots, x, batches, tf.constant(0.1, tf.float64)
        )
    for source in (parameters, x, slots["mean_squares"]):
        assert all(gradient is None for gradient in tape.gradient(target, source))
    assert any(np.any(one != other) for one, other in zip(target, parameters, strict=True))


def test_at_the_reference_a_norm_of_0_is_no_clip_and_a_step_of_0_no_update():
    def target(name, number):
        case = make_case(
            80.0, **SMALL, meta_parameters="gamma,max_gradient_norm,learning_rate_factor",
            meta_objective="bootstrapped", bootstrap_steps=2,
            meta_parameter_references=f"{name}:{number!r}",
        )  # fmt: skip
        parameters, x, _, _, _ = case.arguments()
        slots = {"mean_squares": [tf.identity(v) for v in case.slots().first]}
        batch = case.agent.learner.factory.trajectories(case.batch)
        found = case.agent.learner.window_factory.target(
            parameters, slots, x, [batch], tf.constant(0.01, tf.float64)
        )
        return [np.concatenate([np.ravel(t) for t in tensors]) for tensors in (parameters, found)]

    _, unclipped = target("max_gradient_norm", 1e9)
    before, found = target("max_gradient_norm", 0.0)
    np.testing.assert_array_equal(found, unclipped)
    assert np.abs(found - before).max() > 1e-6
    before, found = target("learning_rate_factor", 0.0)
    np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("name", TABLE)
def test_a_tracked_row_is_its_number_in_the_update_at_the_reference(name):
    """Whatever acts in J or U acts there; at another number the target is another."""

    def target(tracked, number):
        chosen = {"reference_tracking": name if tracked else "none"}
        if number is not None and name in ("gamma", "lambda"):
            chosen[f"reference_{name}"] = number
        elif number is not None:
            chosen["meta_parameter_references"] = f"{name}:{number!r}"
        chosen |= {"meta_parameters": "gamma,lambda,rho_clip", "meta_objective": "bootstrapped"}
        case = make_case(80.0, **SMALL, **chosen)
        case = dataclasses.replace(case, meta_batch=case.batch)  # its norm is known
        parameters, x, _, _, _ = case.arguments()
        slots = {"mean_squares": [tf.identity(v) for v in case.slots().first]}
        batch = case.agent.learner.factory.trajectories(case.batch)
        found = case.agent.learner.window_factory.target(
            parameters, slots, x, [batch], tf.constant(0.01, tf.float64)
        )
        eta = case.agent.learner.meta_parameters.values(x[0])
        return np.concatenate([tensor.numpy().ravel() for tensor in found]), float(eta[name])

    found, now = target(True, None)
    np.testing.assert_allclose(target(False, now)[0], found, rtol=1e-12, atol=1e-15)
    assert np.abs(target(False, 0.7 * now)[0] - found).max() > 1e-6
