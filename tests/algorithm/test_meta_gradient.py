"""dJ'/dx through the learner's own inner update, in float64.

Gradient: equation (13) from independent Jacobians; the whole meta-gradient, through V-trace, clip
and RMSProp, against finite differences of a plain NumPy update; what must be zero. Equivalence:
nested tapes against reverse over forward. The other switches: `test_switches.py`, `test_trace.py`.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import IMAGES, central_difference
from support.update_oracle import Case, Places, embedded, make_case, norm_of

from meta_impala.algorithm.losses import action_log_probs
from meta_impala.algorithm.meta_gradient import (
    InnerUpdate,
    inner_step,
    nested_tapes,
    reverse_over_forward,
)

VARIANTS = {
    "mlp": {},
    "lstm": {"core": "lstm", "core_size": 5, "unroll_length": 3},
    "gamma": {"meta_parameters": "gamma", "lambda_": 0.9},
    "lambda": {"meta_parameters": "lambda", "gamma": 0.9},
    "clips": {"rho_clip": 1.5, "c_clip": 0.8, "pg_rho_clip": 1.2},
    "sampled": {"meta_network_eta": "current", "eta_embedding_input": "values"},
}
IMAGE_VARIANTS = ["shallow", "deep"]


def make_variant(name, norm):
    if name in IMAGE_VARIANTS:
        # Small steps: a finite difference must not cross many of the ReLUs' kinks.
        return make_case(
            norm, description=IMAGES, network=name, batch_size=2, meta_batch_size=2,
            unroll_length=3, scale=0.01, learning_rate={"shallow": 1e-3, "deep": 1e-4}[name],
            rmsprop_epsilon=0.1,
        )  # fmt: skip
    return make_case(norm, **VARIANTS[name])


# Equation (13).


@pytest.mark.parametrize("name", ["mlp", "lstm", "gamma", "lambda", "clips"])
def test_the_inner_gradient_depends_on_eta_as_in_equation_13(name):
    """d(∇_θ J)/dη = −(Σ dA/dη ∂log π/∂θ + b dvs/dη ∂v/∂θ), each factor computed by itself."""
    case = make_variant(name, None)
    parameters, x, objective, _, _ = case.arguments()

    def derivative(index):
        """Of ∇_θ J by one entry of x, forward mode over reverse mode."""
        direction = tf.one_hot(index, len(case.x), dtype=tf.float64)
        with tf.autodiff.ForwardAccumulator(x[0], direction) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                loss, _ = objective(parameters, x)
            gradients = tape.gradient(loss, parameters)
        return np.concatenate([accumulator.jvp(g).numpy().ravel() for g in gradients])

    variables = case.agent.network.trainable_variables
    eta_input = tf.zeros([2], tf.float64)  # not looked at
    with tf.GradientTape(persistent=True) as tape:
        output = case.forward(case.batch, eta_input)
        log_probs = action_log_probs(output.policy_logits[:-1], case.batch.last_actions[1:])
        values = output.values[:-1]
    shape = (*log_probs.shape, -1)

    def jacobian(tensor):
        blocks = tape.jacobian(
            tensor, variables, unconnected_gradients="zero", experimental_use_pfor=False
        )
        return np.concatenate([block.numpy().reshape(shape) for block in blocks], axis=-1)

    d_log_pi, d_v = jacobian(log_probs), jacobian(values)
    learned = case.agent.config.learned
    for index, name_ in enumerate(learned):
        eta = dict(zip(("gamma", "lambda"), map(complex, case.eta(case.x)), strict=True))
        slope = eta[name_] * (1.0 - eta[name_])  # dη/dx
        eta[name_] += 1e-30j * slope.real
        vs, advantages, _ = case.targets(
            case.batch,
            case.log_pi(case.batch, output.policy_logits.numpy()),
            output.values.numpy(),
            (eta["gamma"], eta["lambda"]),
        )
        expected = -(
            np.einsum("tb,tbp->p", advantages.imag / 1e-30, d_log_pi)
            + case.agent.config.baseline_cost * np.einsum("tb,tbp->p", vs.imag / 1e-30, d_v)
        )
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(derivative(index), expected, rtol=1e-9, atol=1e-12)


# The whole meta-gradient.


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("mlp", 20.0),
        *((name, 80.0) for name in (*VARIANTS, *IMAGE_VARIANTS)),  # where the clip binds
        *(
            pytest.param(name, 20.0, marks=pytest.mark.slow)
            for name in (*VARIANTS, *IMAGE_VARIANTS)
            if name != "mlp"
        ),
    ],
)
def test_the_meta_gradient_is_the_finite_difference(name, norm):
    case = make_variant(name, norm)
    assert case.agent.config.max_gradient_norm == 40.0  # half the norms are below
    arguments = case.arguments()
    nested = nested_tapes(*arguments)
    directional = reverse_over_forward(*arguments)
    _, actual_norm, coefficient = nested.inner.update_auxiliary
    np.testing.assert_allclose(actual_norm, norm, rtol=1e-4)
    np.testing.assert_allclose(coefficient, min(1.0, 40.0 / norm), rtol=1e-4)

    if name in IMAGE_VARIANTS:  # one direction only, to save time
        directions, step = np.array([[0.8, 0.6]]), 1e-4
    else:
        directions, step = np.eye(len(case.x)), 1e-3
    expected = case.finite_difference(step, directions)
    assert np.all(np.abs(expected) > 1e-5 * case.agent.config.learning_rate)
    np.testing.assert_allclose(directions @ nested.meta_gradient[0].numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(directional.meta_gradient[0], nested.meta_gradient[0], rtol=1e-10)

    # And the update that is differentiated is the update.
    gradients = case.inner_gradient(case.x)
    np.testing.assert_allclose(
        nested.meta_loss, case.meta_objective()(case.updated(gradients)), rtol=1e-9
    )
    for ours, plain, theirs in zip(
        nested.inner.parameters,
        directional.inner.parameters,
        case.updated(gradients),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    ("kind", "network_eta"),
    [
        ("logits", "reference"),
        ("values", "current"),
        pytest.param("logits", "current", marks=pytest.mark.slow),
        pytest.param("values", "reference", marks=pytest.mark.slow),
    ],
)
def test_the_embedding_of_eta_is_constant_in_eta(kind, network_eta):
    case = make_case(
        80.0, eta_embedding_size=4, eta_embedding_input=kind, meta_network_eta=network_eta
    )
    arguments = case.arguments()
    expected = case.finite_difference()
    for derivation in (nested_tapes, reverse_over_forward):
        np.testing.assert_allclose(derivation(*arguments).meta_gradient[0], expected, rtol=1e-6)

    # Were the gradient not stopped there, the number would be another one.
    meta_objective = case.meta_objective()

    def through_embedding(x):
        places = Places(x, x, case.x, case.x)
        return meta_objective(case.updated(case.inner_gradient(x, places)))

    other = central_difference(through_embedding, case.x, 1e-3)
    assert np.abs(other - expected).max() > 1e-2 * np.abs(expected).max()


def test_the_weights_of_the_embedding_learn():
    case = make_case(eta_embedding_size=4)
    step = inner_step(*case.arguments()[:-1])
    moved = {
        variable.name: np.abs(new - variable.numpy()).max()
        for variable, new in zip(
            case.agent.network.trainable_variables, step.parameters, strict=True
        )
    }
    embedding = [distance for name, distance in moved.items() if "eta_embedding" in name]
    assert len(embedding) == 2 and min(embedding) > 1e-4


def test_without_a_clip_it_is_the_finite_difference():
    case = make_case(80.0, max_gradient_norm=0.0)
    with_limit = dataclasses.replace(case.agent.config, max_gradient_norm=1e9)  # never reached
    case_without = Case(
        dataclasses.replace(case.agent, config=with_limit), case.batch, case.meta_batch, case.x
    )
    expected = case_without.finite_difference()
    for derivation in (nested_tapes, reverse_over_forward):
        np.testing.assert_allclose(
            derivation(*case.arguments()).meta_gradient[0], expected, rtol=1e-6
        )


# At a gradient of zero.


def zero_case(reward, value):
    """No entropy cost, the same value everywhere, and 1-step targets equal to it at γ = ½: every
    advantage and every value error is exactly zero."""
    case = make_case(
        meta_parameters="gamma", lambda_=0.0, entropy_cost=0.0, x=np.zeros(1), rmsprop_epsilon=0.1
    )
    head = case.agent.network._value_head
    head.w.assign(tf.zeros_like(head.w))
    head.b.assign([value])
    no_ends = tf.zeros_like(case.batch.terminations)
    case.batch = case.batch._replace(
        rewards=tf.fill(case.batch.rewards.shape, np.float32(reward)),
        terminations=no_ends,
        truncations=no_ends,
    )
    assert norm_of(case.inner_gradient(case.x)) == 0.0
    return case


@pytest.mark.parametrize("derivation", [nested_tapes, reverse_over_forward])
def test_a_batch_of_zero_errors_has_a_zero_meta_gradient(derivation):
    step = derivation(*zero_case(reward=0.0, value=0.0).arguments())
    assert step.inner.update_auxiliary[1] == 0.0
    np.testing.assert_array_equal(step.meta_gradient[0], [0.0])
    assert np.isfinite(step.meta_loss)


@pytest.mark.parametrize("derivation", [nested_tapes, reverse_over_forward])
def test_a_gradient_that_vanishes_at_this_eta_only(derivation):
    case = zero_case(reward=0.5, value=1.0)
    step = derivation(*case.arguments())
    assert step.inner.update_auxiliary[1] == 0.0
    expected = case.finite_difference()
    assert abs(expected[0]) > 1e-4
    np.testing.assert_allclose(step.meta_gradient[0], expected, rtol=1e-6)


# Must be zero.


def test_the_meta_objective_has_no_gradient_for_the_value_head():
    """∇_θ' J' is the advantage-weighted ∇log π: no gradient for the value head."""
    case = make_case(eta_embedding_size=4)
    parameters, x, _, _, meta_objective = case.arguments()
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        meta_loss, _ = meta_objective(parameters)
    gradients = tape.gradient(meta_loss, parameters, unconnected_gradients="zero")

    config, variables = case.agent.config, case.agent.network.trainable_variables
    reference = config.reference_gamma, config.reference_lambda
    with tf.GradientTape() as tape:
        output = case.forward(case.meta_batch, embedded(*reference, "logits"))
        _, advantages, _ = case.targets(
            case.meta_batch,
            case.log_pi(case.meta_batch, output.policy_logits.numpy()),
            output.values.numpy(),
            reference,
        )
        log_probs = action_log_probs(output.policy_logits[:-1], case.meta_batch.last_actions[1:])
        loss = -tf.reduce_sum(advantages * log_probs)
    expected = tape.gradient(loss, variables, unconnected_gradients="zero")
    for variable, ours, theirs in zip(variables, gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)
        is_value_head = "value_head" in variable.name
        assert np.any(ours.numpy() != 0) != is_value_head, variable.name


def test_the_meta_objective_ignores_the_data_of_the_inner_update():
    """J' sees θ' and τ' alone: at an update rule that does not move, the meta-gradient is zero."""
    case = make_case()
    parameters, x, objective, _, meta_objective = case.arguments()

    def stand_still(gradients, _):
        return InnerUpdate([tf.zeros_like(g) for g in gradients], ())

    for derivation in (nested_tapes, reverse_over_forward):
        step = derivation(parameters, x, objective, stand_still, meta_objective)
        np.testing.assert_array_equal(step.meta_gradient[0], [0.0, 0.0])
        np.testing.assert_allclose(step.meta_loss, meta_objective(parameters)[0])


# Equivalence on a problem with a known answer.


def test_a_quadratic_with_a_known_meta_gradient():
    """J = ½‖θ − x‖², U = α g, J' = ½‖θ'‖²: θ' = (1 − α) θ + α x, dJ'/dx = α θ'."""
    theta, x, alpha = np.array([1.0, -2.0]), np.array([0.3, 0.7]), 0.1
    for derivation in (nested_tapes, reverse_over_forward):
        step = derivation(
            [tf.constant(theta)],
            [tf.constant(x)],
            lambda parameters, x: (0.5 * tf.reduce_sum((parameters[0] - x[0]) ** 2), None),
            lambda gradients, _: InnerUpdate([alpha * g for g in gradients], None),
            lambda parameters: (0.5 * tf.reduce_sum(parameters[0] ** 2), "kept"),
        )
        expected = (1.0 - alpha) * theta + alpha * x
        np.testing.assert_allclose(step.inner.parameters[0], expected)
        np.testing.assert_allclose(step.meta_gradient[0], alpha * expected)
        np.testing.assert_allclose(step.meta_loss, 0.5 * np.sum(expected**2))
        assert step.meta_auxiliary == "kept"
