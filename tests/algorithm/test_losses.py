"""J and J'. Ground truth (the sums written in NumPy), gradient (equations 12 and 14 on the
network's outputs; what must receive no gradient at all)."""

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import log_softmax, vtrace_ground_truth

from meta_impala.algorithm.losses import (
    ReturnSettings,
    Transitions,
    action_log_probs,
    entropies,
    inner_objective,
    meta_objective,
)

T, B, A = 6, 4, 3
SETTINGS = ReturnSettings(pg_rho_clip=1.1)
COEFFICIENTS = {
    "policy_cost": 1.0,
    "baseline_cost": 0.4,
    "entropy_cost": 0.03,
    "rho_clip": 1.2,
    "c_clip": 0.9,
    "vtrace_alpha": 1.0,
}
GAMMA, LAMBDA = 0.9, 0.7


def random_data(seed=0):
    """Logits `[T+1, B, A]`, values `[T+1, B]` and transitions, with ends, cuts and ρ around 1."""
    random = np.random.default_rng(seed)
    continues, step_mask = np.ones((T, B)), np.ones((T, B))
    continues[2, 0] = step_mask[3, 1] = 0.0
    transitions = Transitions(
        actions=tf.constant(random.integers(0, A, (T, B)), tf.int32),
        rewards=tf.constant(random.normal(size=(T, B))),
        continues=tf.constant(continues),
        step_mask=tf.constant(step_mask),
        behaviour_log_probs=tf.constant(np.log(random.uniform(0.1, 0.9, (T, B)))),
    )
    logits = tf.constant(random.normal(size=(T + 1, B, A)))
    return logits, tf.constant(random.normal(size=(T + 1, B))), transitions


def constants(gamma=GAMMA, lambda_=LAMBDA):
    discounts = {
        "gamma": tf.constant(gamma, tf.float64),
        "lambda": tf.constant(lambda_, tf.float64),
    }
    return COEFFICIENTS | discounts


def ground_truth(logits, values, transitions, gamma, lambda_, settings=SETTINGS):
    """Targets, and log π of all actions and of those taken; the last row is the bootstrap's."""
    all_log_probs = log_softmax(logits.numpy()[:-1])
    log_probs = np.take_along_axis(all_log_probs, transitions.actions.numpy()[..., None], -1)
    log_probs = log_probs[..., 0]
    vs, advantages = vtrace_ground_truth(
        log_rhos=log_probs - transitions.behaviour_log_probs.numpy(),
        rewards=transitions.rewards.numpy(),
        discounts=gamma * transitions.continues.numpy(),
        lambdas=np.full((T, B), lambda_),
        values=values.numpy(),
        step_mask=transitions.step_mask.numpy(),
        rho_clip=COEFFICIENTS["rho_clip"],
        c_clip=COEFFICIENTS["c_clip"],
        pg_rho_clip=settings.pg_rho_clip,
    )
    return vs, advantages, all_log_probs, log_probs


def one_hot(actions):
    return np.eye(A)[actions.numpy()]


# Ground truth.


def test_log_probs_and_entropies():
    logits, _, transitions = random_data()
    expected = log_softmax(logits.numpy()[:-1])
    taken = np.sum(one_hot(transitions.actions) * expected, axis=-1)
    np.testing.assert_allclose(action_log_probs(logits[:-1], transitions.actions), taken)
    np.testing.assert_allclose(
        entropies(logits[:-1]), -np.sum(np.exp(expected) * expected, axis=-1)
    )


def test_a_certain_policy_stays_finite():
    logits = tf.constant([[1e4, -1e4, 0.0]])
    np.testing.assert_allclose(entropies(logits), [0.0])
    np.testing.assert_allclose(action_log_probs(logits, tf.constant([1])), [-2e4])


def test_the_inner_objective_is_a_sum_over_time_and_batch():
    logits, values, transitions = random_data()
    loss, parts = inner_objective(logits, values, transitions, constants(), SETTINGS)
    vs, advantages, all_log_probs, log_probs = ground_truth(
        logits, values, transitions, GAMMA, LAMBDA
    )
    policy_loss = -np.sum(advantages * log_probs)
    is_step = transitions.step_mask.numpy()
    value_loss = 0.5 * np.sum(is_step * (vs - values.numpy()[:-1]) ** 2)
    entropy = -np.sum(is_step[..., None] * np.exp(all_log_probs) * all_log_probs)
    np.testing.assert_allclose(parts.policy_loss, policy_loss)
    np.testing.assert_allclose(parts.value_loss, value_loss)
    np.testing.assert_allclose(parts.entropy, entropy)
    np.testing.assert_allclose(loss, policy_loss + 0.4 * value_loss - 0.03 * entropy)
    rhos = np.exp(log_probs - transitions.behaviour_log_probs.numpy())
    at_clip = (rhos >= 1.2) & (transitions.step_mask.numpy() > 0)
    np.testing.assert_allclose(parts.rhos_clipped, np.sum(at_clip))
    np.testing.assert_allclose(parts.steps, T * B - 1)
    assert 0.1 < np.mean(at_clip) < 0.9


def test_the_meta_objective_is_the_policy_gradient_term_at_the_reference():
    logits, values, transitions = random_data()
    loss, _ = meta_objective(logits, values, transitions, constants(), SETTINGS)
    _, advantages, _, log_probs = ground_truth(logits, values, transitions, GAMMA, LAMBDA)
    np.testing.assert_allclose(loss, -np.sum(advantages * log_probs))
    other, _ = meta_objective(logits, values, transitions, constants(0.99, 1.0), SETTINGS)
    assert abs(loss - other) > 1e-2


def test_gamma_and_lambda_may_be_given_per_state():
    """The values of the first state do not matter: nothing arrives there."""
    logits, values, transitions = random_data()
    scalar, _ = inner_objective(logits, values, transitions, constants(), SETTINGS)
    for first in (0.0, 1.0):
        full = COEFFICIENTS | {
            name: tf.concat(
                [tf.fill([1, B], tf.cast(first, tf.float64)), tf.fill([T, B], constants()[name])], 0
            )
            for name in ("gamma", "lambda")
        }
        per_state, _ = inner_objective(logits, values, transitions, full, SETTINGS)
        np.testing.assert_allclose(per_state, scalar)
    last = full | {
        name: tf.concat([full[name][:-1], 0.5 * full[name][-1:]], 0) for name in ("gamma", "lambda")
    }
    other, _ = inner_objective(logits, values, transitions, last, SETTINGS)
    assert abs(other - scalar) > 1e-3


def test_coefficients_may_be_given_per_state():
    """Those of the state that is left: the last state's do not matter. The sums over T and B are
    written out here, with a weight in each of their terms."""
    logits, values, transitions = random_data()
    random = np.random.default_rng(5)
    eta = constants() | {
        name: tf.constant(value * random.uniform(0.5, 1.0, (T + 1, B)))
        for name, value in COEFFICIENTS.items()
    }
    loss, parts = inner_objective(logits, values, transitions, eta, SETTINGS)
    at = {name: np.asarray(value)[:-1] for name, value in eta.items() if name in COEFFICIENTS}
    all_log_probs = log_softmax(logits.numpy()[:-1])
    log_probs = np.take_along_axis(all_log_probs, transitions.actions.numpy()[..., None], -1)
    log_probs = log_probs[..., 0]
    mask = transitions.step_mask.numpy()
    log_rhos = log_probs - transitions.behaviour_log_probs.numpy()
    vs, advantages = vtrace_ground_truth(
        log_rhos=log_rhos, rewards=transitions.rewards.numpy(),
        discounts=GAMMA * transitions.continues.numpy(), lambdas=np.full((T, B), LAMBDA),
        values=values.numpy(), step_mask=mask, rho_clip=at["rho_clip"], c_clip=at["c_clip"],
        alpha=at["vtrace_alpha"], pg_rho_clip=SETTINGS.pg_rho_clip,
    )  # fmt: skip
    entropy = -np.sum(np.exp(all_log_probs) * all_log_probs, axis=-1)
    per_step = (
        -at["policy_cost"] * advantages * log_probs
        + at["baseline_cost"] * 0.5 * (vs - values.numpy()[:-1]) ** 2
        - at["entropy_cost"] * entropy
    )
    np.testing.assert_allclose(loss, np.sum(mask * per_step))
    np.testing.assert_allclose(parts.entropy, np.sum(mask * entropy))  # before its weight
    at_clip = np.where(mask > 0, np.exp(log_rhos), 0.0) >= at["rho_clip"]
    assert parts.rhos_clipped == np.sum(mask * at_clip) and 0 < np.sum(mask * at_clip) < mask.sum()
    for name in COEFFICIENTS:
        for row, matters in ((-1, False), (0, True)):
            changed = np.array(eta[name])
            changed[row] *= 0.5
            other, _ = inner_objective(
                logits, values, transitions, eta | {name: tf.constant(changed)}, SETTINGS
            )
            assert (abs(other - loss) > 1e-9) == matters, (name, row)
    # A row of one number for each time step is broadcast over the trajectories.
    rows = {name: value[:, :1] for name, value in eta.items() if name in COEFFICIENTS}
    full = {name: tf.repeat(value, B, axis=1) for name, value in rows.items()}
    ours, theirs = (
        inner_objective(logits, values, transitions, constants() | some, SETTINGS)[0]
        for some in (rows, full)
    )
    np.testing.assert_allclose(ours, theirs)


# Gradient: θ acts on J and J' through logits and values only.


def test_the_inner_gradient_is_equation_12():
    logits, values, transitions = random_data()
    with tf.GradientTape() as tape:
        tape.watch([logits, values])
        loss, _ = inner_objective(logits, values, transitions, constants(), SETTINGS)
    by_logits, by_values = tape.gradient(loss, [logits, values])
    vs, advantages, log_probs, _ = ground_truth(logits, values, transitions, GAMMA, LAMBDA)
    pi = np.exp(log_probs)
    entropy = -np.sum(pi * log_probs, axis=-1, keepdims=True)
    d_log_prob = one_hot(transitions.actions) - pi
    d_entropy = -pi * (log_probs + entropy) * transitions.step_mask.numpy()[..., None]
    # Were V, ρ or c not constant, these would carry more terms.
    np.testing.assert_allclose(
        by_logits[:-1], -advantages[..., None] * d_log_prob - 0.03 * d_entropy, atol=1e-13
    )
    np.testing.assert_allclose(by_values[:-1], -0.4 * (vs - values.numpy()[:-1]), atol=1e-13)
    np.testing.assert_array_equal(by_logits[-1], np.zeros((B, A)))
    np.testing.assert_array_equal(by_values[-1], np.zeros(B))


def test_the_step_from_a_final_observation_has_weight_zero():
    logits, values, transitions = random_data()
    with tf.GradientTape() as tape:
        tape.watch([logits, values])
        loss, _ = inner_objective(logits, values, transitions, constants(), SETTINGS)
    by_logits, by_values = tape.gradient(loss, [logits, values])
    np.testing.assert_array_equal(by_logits[3, 1], np.zeros(A))
    np.testing.assert_array_equal(by_values[3, 1], 0.0)
    assert np.count_nonzero(by_values) == T * B - 1


@pytest.mark.parametrize("name", ["gamma", "lambda"])
def test_the_inner_gradient_depends_on_eta_through_both_targets(name):
    """Equation (13) on the network's outputs, dA/dη and dvs/dη by the complex step."""
    logits, values, transitions = random_data()
    eta = constants()
    variable = eta[name]
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(variable)
        with tf.GradientTape() as tape:
            tape.watch([logits, values])
            loss, _ = inner_objective(logits, values, transitions, eta, SETTINGS)
        by_logits, by_values = tape.gradient(loss, [logits, values])
    d_logits = outer.jacobian(by_logits, variable, experimental_use_pfor=False)
    d_values = outer.jacobian(by_values, variable, experimental_use_pfor=False)
    moved = {"gamma": complex(GAMMA), "lambda": complex(LAMBDA)}
    moved[name] += 1e-30j
    vs, advantages, log_probs, _ = ground_truth(
        logits, values, transitions, moved["gamma"], moved["lambda"]
    )
    d_log_prob = one_hot(transitions.actions) - np.exp(log_probs)
    expected = -(advantages.imag / 1e-30)[..., None] * d_log_prob
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(d_logits[:-1], expected, atol=1e-12)
    expected = -0.4 * vs.imag / 1e-30
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(d_values[:-1], expected, atol=1e-12)


def test_the_meta_gradient_on_the_network_is_equation_14():
    logits, values, transitions = random_data()
    with tf.GradientTape() as tape:
        tape.watch([logits, values])
        loss, _ = meta_objective(logits, values, transitions, constants(), SETTINGS)
    by_logits, by_values = tape.gradient(loss, [logits, values])
    _, advantages, log_probs, _ = ground_truth(logits, values, transitions, GAMMA, LAMBDA)
    d_log_prob = one_hot(transitions.actions) - np.exp(log_probs)
    np.testing.assert_allclose(
        by_logits[:-1], -advantages[..., None] * d_log_prob, atol=1e-13
    )  # no entropy term
    np.testing.assert_array_equal(by_logits[-1], np.zeros((B, A)))
    assert by_values is None  # no value term


def test_the_meta_objective_has_no_gradient_for_the_reference_or_the_data():
    logits, values, transitions = random_data()
    reference = constants()
    parts = [reference["gamma"], reference["lambda"]]
    data = [transitions.rewards, transitions.continues, transitions.behaviour_log_probs]
    with tf.GradientTape() as tape:
        tape.watch([*parts, *data, logits])
        loss, _ = meta_objective(logits, values, transitions, reference, SETTINGS)
    *none, by_logits = tape.gradient(loss, [*parts, *data, logits])
    assert none == [None] * 5
    assert by_logits is not None


def test_the_meta_objective_has_no_costs():
    logits, values, transitions = random_data()
    first, _ = meta_objective(logits, values, transitions, constants(), SETTINGS)
    other_costs = constants() | {"baseline_cost": 7.0, "entropy_cost": 5.0, "policy_cost": 3.0}
    second, _ = meta_objective(logits, values, transitions, other_costs, SETTINGS)
    np.testing.assert_array_equal(first, second)
