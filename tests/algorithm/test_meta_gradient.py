"""dJ'/dx through the learner's own inner update, in float64.

Gradient: equation (13) from independent Jacobians; the whole meta-gradient, through V-trace, clip
and RMSProp, against finite differences of a plain NumPy update; what must be zero. Equivalence:
nested tapes against reverse over forward. In the oracle η moves the targets of J alone: what the
network is fed of η, and the advantages of J', are held at their values at x.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    IMAGES,
    Agent,
    central_difference,
    log_softmax,
    make_agent,
    random_batch,
    shake,
    vtrace_ground_truth,
    weights,
)

from meta_impala.algorithm.losses import action_log_probs, entropies
from meta_impala.algorithm.meta_gradient import (
    InnerUpdate,
    inner_step,
    nested_tapes,
    reverse_over_forward,
)
from meta_impala.algorithm.meta_parameters import Eta, embedding_input
from meta_impala.runtime.learner import network_inputs
from meta_impala.runtime.trajectory import Unroll

X = np.array([1.5, 0.8])  # γ = 0.82, λ = 0.69


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def fed(gamma, lambda_, kind):
    """What the network is fed of these numbers."""
    return embedding_input(
        Eta(tf.constant(gamma, tf.float64), tf.constant(lambda_, tf.float64)), kind
    )


@dataclasses.dataclass
class Case:
    """One inner update, judged on another batch: τ, τ', x, and who makes the update."""

    agent: Agent
    batch: Unroll
    judges: Unroll
    x: np.ndarray

    def arguments(self):
        """What the learner hands to either derivation, its variables and x as tensors."""
        learner = self.agent.learner
        learner.state.x.assign(self.x)
        arguments = learner._inner_arguments(
            self.batch, tf.constant(self.agent.config.learning_rate, tf.float64)
        )
        return *arguments, learner._meta_objective(self.judges, learner.state.x.read_value())

    # The oracle: a second writing of the update, in NumPy but for the network and ∂log π, ∂v.

    def eta(self, x):
        values = {"gamma": self.agent.config.gamma, "lambda": self.agent.config.lambda_}
        values |= {n: sigmoid(x[i]) for i, n in enumerate(self.agent.config.learned)}
        return values["gamma"], values["lambda"]

    def forward(self, batch, eta_input):
        return self.agent.network(
            network_inputs(batch, self.agent.config.reward_clip, tf.float64),
            tf.cast(batch.core_state, tf.float64),
            eta_input,
        )

    def targets(self, batch, output, gamma, lambda_):
        """vs and advantages; γ and λ may be complex."""
        config = self.agent.config
        actions = batch.last_actions.numpy()[1:, :, None]
        log_pi = np.take_along_axis(log_softmax(output.policy_logits.numpy()[:-1]), actions, -1)
        rewards = batch.rewards.numpy()[1:].astype(np.float64)
        if config.reward_clip:
            rewards = np.clip(rewards, -config.reward_clip, config.reward_clip)
        log_rhos = log_pi[..., 0] - batch.behaviour_log_probs.numpy()
        assert np.abs(log_rhos).min() > 1e-2  # no kink near by
        assert 0.1 < np.mean(log_rhos < 0) < 0.9
        return vtrace_ground_truth(
            log_rhos=log_rhos,
            rewards=rewards,
            discounts=gamma * ~batch.terminations.numpy()[1:],
            lambdas=np.full(rewards.shape, lambda_),
            values=output.values.numpy(),
            step_mask=~batch.truncations.numpy()[1:],
            rho_clip=config.rho_clip,
            c_clip=config.c_clip,
            pg_rho_clip=config.pg_rho_clip,
        )

    def inner_gradient(self, x, eta_input=None):
        """∇_θ J with its targets as plain numbers (equation 12)."""
        config = self.agent.config
        gamma, lambda_ = self.eta(x)
        if eta_input is None:
            eta_input = fed(*self.eta(self.x), config.eta_embedding_input)
        with tf.GradientTape() as tape:
            output = self.forward(self.batch, eta_input)
            vs, advantages = self.targets(self.batch, output, gamma, lambda_)
            logits = output.policy_logits[:-1]
            log_probs = action_log_probs(logits, self.batch.last_actions[1:])
            loss = (
                -tf.reduce_sum(advantages * log_probs)
                + config.baseline_cost * 0.5 * tf.reduce_sum((vs - output.values[:-1]) ** 2)
                - config.entropy_cost * tf.reduce_sum(entropies(logits))
            )
        variables = self.agent.network.trainable_variables
        return [g.numpy() for g in tape.gradient(loss, variables, unconnected_gradients="zero")]

    def updated(self, gradients):
        """θ', by clip and RMSProp."""
        config, state = self.agent.config, self.agent.learner.state
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
        coefficient = min(1.0, config.max_gradient_norm / norm) if norm else 1.0
        new = []
        for variable, slot, gradient in zip(
            self.agent.network.trainable_variables, state.mean_squares, gradients, strict=True
        ):
            gradient = coefficient * gradient
            decay = config.rmsprop_decay
            mean_square = decay * slot.numpy() + (1.0 - decay) * gradient**2
            step = config.learning_rate * gradient / np.sqrt(mean_square + config.rmsprop_epsilon)
            new.append(variable.numpy() - step)
        return new

    def judged(self):
        """A function θ' -> J' whose advantages are those at θ'(x), for good."""
        config = self.agent.config
        reference = config.reference_gamma, config.reference_lambda
        judging = reference if config.meta_network_eta == "reference" else self.eta(self.x)
        eta_input = fed(*judging, config.eta_embedding_input)
        actions = self.judges.last_actions.numpy()[1:, :, None]
        with weights(self.agent.network, self.updated(self.inner_gradient(self.x))):
            _, advantages = self.targets(
                self.judges, self.forward(self.judges, eta_input), *reference
            )

        def judge(parameters):
            with weights(self.agent.network, parameters):
                logits = self.forward(self.judges, eta_input).policy_logits.numpy()
            log_pi = np.take_along_axis(log_softmax(logits[:-1]), actions, -1)[..., 0]
            return -np.sum(advantages * log_pi)

        return judge

    def finite_difference(self, step=1e-3, directions=None):
        """dJ'/dx, or its products with the rows of `directions`."""
        judge = self.judged()
        basis = np.eye(len(self.x)) if directions is None else directions
        return central_difference(
            lambda distances: judge(self.updated(self.inner_gradient(self.x + distances @ basis))),
            np.zeros(len(basis)),
            step,
        )


def norm_of(gradients):
    return np.sqrt(sum(np.sum(np.square(g)) for g in gradients))


def make_case(norm=None, seed=0, scale=0.1, x=X, **settings):
    """A case whose ‖∇_θ J‖ is `norm`: ∇_θ J is affine in the rewards, so their scale is a root."""
    defaults = {
        "rmsprop_epsilon": 1e-2,
        "rmsprop_decay": 0.9,
        "learning_rate": 1e-2,
        "eta_embedding_size": 0,
        "reward_clip": 0.0,
    }
    agent = make_agent(tf.float64, **(defaults | settings))
    shake(agent, seed, scale)
    batch = random_batch(agent, seed + 1)
    judges = random_batch(agent, seed + 2, batch_size=agent.config.meta_batch_size)
    case = Case(agent, batch, judges, x[: len(agent.config.learned)])
    if norm is not None:
        rewards = batch.rewards

        def at(reward_scale):
            case.batch = batch._replace(rewards=reward_scale * rewards)
            return np.concatenate([g.ravel() for g in case.inner_gradient(case.x)])

        constant = at(0.0)
        slope = at(1.0) - constant
        roots = np.roots([slope @ slope, 2.0 * slope @ constant, constant @ constant - norm**2])
        at(max(roots.real))
        assert abs(norm_of(case.inner_gradient(case.x)) - norm) < 1e-3
    return case


VARIANTS = {
    "mlp": {},
    "lstm": {"core": "lstm", "core_size": 5},
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
        with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
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
        vs, advantages = case.targets(case.batch, output, eta["gamma"], eta["lambda"])
        expected = -(
            np.einsum("tb,tbp->p", advantages.imag / 1e-30, d_log_pi)
            + case.agent.config.baseline_cost * np.einsum("tb,tbp->p", vs.imag / 1e-30, d_v)
        )
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(derivative(index), expected, rtol=1e-9, atol=1e-12)


# The whole meta-gradient.


@pytest.mark.parametrize("norm", [20.0, 80.0])
@pytest.mark.parametrize("name", [*VARIANTS, *IMAGE_VARIANTS])
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
    np.testing.assert_allclose(directions @ nested.meta_gradient.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(directional.meta_gradient, nested.meta_gradient, rtol=1e-10)

    # And the update that is differentiated is the update.
    gradients = case.inner_gradient(case.x)
    np.testing.assert_allclose(nested.meta_loss, case.judged()(case.updated(gradients)), rtol=1e-9)
    for ours, plain, theirs in zip(
        nested.inner.parameters,
        directional.inner.parameters,
        case.updated(gradients),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("kind", ["logits", "values"])
@pytest.mark.parametrize("judged_at", ["reference", "current"])
def test_the_embedding_of_eta_is_constant_in_eta(kind, judged_at):
    case = make_case(
        80.0, eta_embedding_size=4, eta_embedding_input=kind, meta_network_eta=judged_at
    )
    arguments = case.arguments()
    expected = case.finite_difference()
    for derivation in (nested_tapes, reverse_over_forward):
        np.testing.assert_allclose(derivation(*arguments).meta_gradient, expected, rtol=1e-6)

    # Were the gradient not stopped there, the number would be another one.
    judge = case.judged()

    def through_embedding(x):
        return judge(case.updated(case.inner_gradient(x, fed(*case.eta(x), kind))))

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


def test_without_a_clip():
    case = make_case(80.0, max_gradient_norm=0.0)
    with_limit = dataclasses.replace(case.agent.config, max_gradient_norm=1e9)  # never reached
    case_without = Case(
        dataclasses.replace(case.agent, config=with_limit), case.batch, case.judges, case.x
    )
    expected = case_without.finite_difference()
    for derivation in (nested_tapes, reverse_over_forward):
        np.testing.assert_allclose(derivation(*case.arguments()).meta_gradient, expected, rtol=1e-6)


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
def test_a_batch_without_any_error_signal_leaves_eta_alone(derivation):
    step = derivation(*zero_case(reward=0.0, value=0.0).arguments())
    assert step.inner.update_auxiliary[1] == 0.0
    np.testing.assert_array_equal(step.meta_gradient, [0.0])
    assert np.isfinite(step.meta_loss)


@pytest.mark.parametrize("derivation", [nested_tapes, reverse_over_forward])
def test_a_gradient_that_vanishes_at_this_eta_only(derivation):
    case = zero_case(reward=0.5, value=1.0)
    step = derivation(*case.arguments())
    assert step.inner.update_auxiliary[1] == 0.0
    expected = case.finite_difference()
    assert abs(expected[0]) > 1e-4
    np.testing.assert_allclose(step.meta_gradient, expected, rtol=1e-6)


# Must be zero.


def test_nothing_but_the_targets_of_j_depends_on_x():
    for judged_at in ("reference", "current"):
        case = make_case(eta_embedding_size=4, meta_network_eta=judged_at)
        learner, x = case.agent.learner, tf.constant(case.x)
        parameters = [v.read_value() for v in case.agent.network.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            meta_loss = learner._meta_objective(case.judges, x)(parameters)
        assert tape.gradient(meta_loss, x) is None


def test_the_meta_objective_pulls_on_the_policy_alone():
    """∇_θ' J' is the advantage-weighted ∇log π: the value head gets none, the rest no more."""
    case = make_case(eta_embedding_size=4)
    parameters, x, _, _, judge = case.arguments()
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        meta_loss = judge(parameters)
    gradients = tape.gradient(meta_loss, parameters, unconnected_gradients="zero")

    config, variables = case.agent.config, case.agent.network.trainable_variables
    reference = config.reference_gamma, config.reference_lambda
    with tf.GradientTape() as tape:
        output = case.forward(case.judges, fed(*reference, "logits"))
        _, advantages = case.targets(case.judges, output, *reference)
        log_probs = action_log_probs(output.policy_logits[:-1], case.judges.last_actions[1:])
        loss = -tf.reduce_sum(advantages * log_probs)
    expected = tape.gradient(loss, variables, unconnected_gradients="zero")
    for variable, ours, theirs in zip(variables, gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)
        is_value_head = "value_head" in variable.name
        assert np.any(ours.numpy() != 0) != is_value_head, variable.name


def test_the_data_of_the_inner_update_do_not_judge():
    """J' sees θ' and τ' alone: at an update rule that does not move, the meta-gradient is zero."""
    case = make_case()
    parameters, x, objective, _, judge = case.arguments()

    def stand_still(gradients):
        return InnerUpdate([tf.zeros_like(g) for g in gradients], ())

    for derivation in (nested_tapes, reverse_over_forward):
        step = derivation(parameters, x, objective, stand_still, judge)
        np.testing.assert_array_equal(step.meta_gradient, [0.0, 0.0])
        np.testing.assert_allclose(step.meta_loss, judge(parameters))


# Equivalence on a problem with a known answer.


def test_a_quadratic_with_a_known_meta_gradient():
    """J = ½‖θ − x‖², U = α g, J' = ½‖θ'‖²: θ' = (1 − α) θ + α x, dJ'/dx = α θ'."""
    theta, x, alpha = np.array([1.0, -2.0]), np.array([0.3, 0.7]), 0.1
    for derivation in (nested_tapes, reverse_over_forward):
        step = derivation(
            [tf.constant(theta)],
            tf.constant(x),
            lambda parameters, x: (0.5 * tf.reduce_sum((parameters[0] - x) ** 2), None),
            lambda gradients: InnerUpdate([alpha * g for g in gradients], None),
            lambda parameters: 0.5 * tf.reduce_sum(parameters[0] ** 2),
        )
        expected = (1.0 - alpha) * theta + alpha * x
        np.testing.assert_allclose(step.inner.parameters[0], expected)
        np.testing.assert_allclose(step.meta_gradient, alpha * expected)
        np.testing.assert_allclose(step.meta_loss, 0.5 * np.sum(expected**2))
