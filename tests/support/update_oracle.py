"""An update and its meta objective written a second time, in NumPy but for network and ∂log π, ∂v.

Every place where η acts has an argument of its own, so that a finite difference can vary η along
exactly the paths that a switch opens and hold it elsewhere.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.algorithm.losses import action_log_probs, entropies
from meta_impala.learner.batch import trajectories_of
from support.helpers import (
    Agent,
    central_difference,
    log_softmax,
    make_agent,
    random_batch,
    shake,
    vtrace_ground_truth,
    weights,
)

X = np.array([1.5, 0.8])  # γ = 0.82, λ = 0.69


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def embedded(gamma, lambda_, kind):
    """What the network is fed of these numbers, `[..., 2]`."""
    values = np.stack([gamma, lambda_], axis=-1)
    if kind == "values":
        return values
    inside = np.clip(values, sigmoid(-7.0), sigmoid(7.0))
    return np.log(inside / (1.0 - inside)) / 7.0


class NearKink(Exception):
    """A ratio π/μ lies so near a clip that a finite difference could cross it."""


class Places(NamedTuple):
    """x in each of the places where it acts on ∇_θ J."""

    targets: np.ndarray
    embedding: np.ndarray
    values: np.ndarray
    importance_weights: np.ndarray


OPEN = {
    "returns": (True, False, False, False),
    "embedding": (True, True, True, False),
    "importance_weights": (True, True, True, True),
}


class Slots(NamedTuple):
    """The inner optimiser's memory, as arrays."""

    first: list[np.ndarray]  # mean squares of RMSProp, first moments of Adam
    second: list[np.ndarray]
    count: int


@dataclasses.dataclass
class Case:
    """One inner update, judged on another batch: τ, τ', x, and who makes the update."""

    agent: Agent
    batch: Unroll
    judges: Unroll
    x: np.ndarray

    # What the product does.

    def arguments(self):
        """What the learner hands to a derivation: θ, x, J, U, J'."""
        learner = self.agent.learner
        factory = learner.factory
        learner.state.x.assign(self.x)
        parameters = [v.read_value() for v in self.agent.network.trainable_variables]
        slots = tf.nest.map_structure(lambda v: v.read_value(), learner.state.slots)
        x = learner.state.x.read_value()
        rate = tf.constant(self.agent.config.learning_rate, tf.float64)
        return (
            parameters,
            [x],
            factory.inner_objective(factory.trajectories(self.batch), parameters),
            factory.update_rule(slots, rate),
            factory.meta_objective(factory.trajectories(self.judges), parameters, [x]),
        )

    def meta_step(self, mode=None):
        """The `MetaStep` of a derivation, by default the configured one."""
        if mode is not None:
            return mode(*self.arguments())
        return self.agent.learner.factory.derivation()(*self.arguments())

    # The oracle.

    @property
    def theta(self):
        return [v.numpy() for v in self.agent.network.trainable_variables]

    def slots(self):
        named = {k: [v.numpy() for v in vs] for k, vs in self.agent.learner.state.slots.items()}
        return Slots(
            named.get("mean_squares", named.get("first_moments", [])),
            named.get("second_moments", []),
            int(named.get("count", [0])[0]),
        )

    def eta(self, x, features=None):
        """γ and λ: numbers, or `[T+1, B]` from the features."""
        config = self.agent.config
        if x.ndim > 1:
            length = np.sqrt(1.0 + np.sum(features**2, axis=-1, keepdims=True))
            x = (features / length) @ x[:-1] + x[-1]
        values = {"gamma": config.gamma, "lambda": config.lambda_}
        ranges = {
            "gamma": (config.gamma_min, config.gamma_max),
            "lambda": (config.lambda_min, config.lambda_max),
        }
        for index, name in enumerate(config.learned):
            low, high = ranges[name]
            values[name] = low + (high - low) * sigmoid(x[..., index])
        return np.broadcast_arrays(values["gamma"], values["lambda"])

    def forward(self, batch, eta_input):
        seen = trajectories_of(batch, self.agent.config.reward_clip, tf.float64)
        return self.agent.network(seen.inputs, seen.core_state, tf.constant(eta_input))

    def features(self, batch):
        return self.agent.network.body(batch.observations).numpy()

    def run(self, batch, x):
        """Outputs of the network (θ in its variables), fed η(x)."""
        eta = self.eta(x, self.features(batch) if x.ndim > 1 else None)
        return self.forward(batch, embedded(*eta, self.agent.config.eta_embedding_input))

    def is_step(self, batch):
        """1 for a step, 0 for the way from a final observation to the next episode, `[T, B]`."""
        return (~batch.truncations.numpy()[1:]).astype(np.float64)

    def log_pi(self, batch, logits):
        actions = batch.last_actions.numpy()[1:, :, None]
        return np.take_along_axis(log_softmax(logits[:-1]), actions, -1)[..., 0]

    def targets(self, batch, log_pi, values, eta):
        """vs, advantages (times their ρ), and the ρ themselves; γ and λ may be complex."""
        config = self.agent.config
        rewards = batch.rewards.numpy()[1:].astype(np.float64)
        if config.reward_clip:
            rewards = np.clip(rewards, -config.reward_clip, config.reward_clip)
        log_rhos = log_pi - batch.behaviour_log_probs.numpy()
        for clip in (config.rho_clip, config.c_clip, config.pg_rho_clip):
            if np.abs(log_rhos - np.log(clip)).min() < 1e-3:
                raise NearKink
        gamma, lambda_ = (np.asarray(part)[1:] if np.ndim(part) else part for part in eta)
        mask = ~batch.truncations.numpy()[1:]
        vs, advantages = vtrace_ground_truth(
            log_rhos=log_rhos,
            rewards=rewards,
            discounts=gamma * ~batch.terminations.numpy()[1:],
            lambdas=np.ones(rewards.shape) * lambda_,
            values=values,
            step_mask=mask,
            rho_clip=config.rho_clip,
            c_clip=config.c_clip,
            pg_rho_clip=config.pg_rho_clip,
            next_target=config.policy_return == "next_target",
        )
        return vs, advantages, np.minimum(config.pg_rho_clip, np.exp(log_rhos)) * mask

    def reference(self, batch):
        """η' on the states of a batch."""
        config = self.agent.config
        eta = [config.reference_gamma, config.reference_lambda]
        if config.tracked:
            current = self.eta(self.x, self.features(batch) if self.x.ndim > 1 else None)
            for index, name in enumerate(("gamma", "lambda")):
                if name in config.tracked:
                    eta[index] = current[index]
        return np.broadcast_arrays(*eta)

    def everywhere(self, x):
        return Places(x, x, x, x)

    def inner_gradient(self, x, places=None):
        """∇_θ J with its targets as plain numbers (equation 12).

        Args:
          x: in the places that the configured paths open; elsewhere `self.x`.
          places: x in every place, instead.
        """
        config = self.agent.config
        if places is None:
            opened = OPEN[config.meta_gradient_paths]
            places = Places(*(x if is_open else self.x for is_open in opened))
        with tf.GradientTape() as tape:
            output = self.run(self.batch, places.embedding)
            others = {places.embedding.tobytes(): output}
            with tape.stop_recording():
                for x_there in (places.values, places.importance_weights):
                    if x_there.tobytes() not in others:
                        others[x_there.tobytes()] = self.run(self.batch, x_there)
            values_output = others[places.values.tobytes()]
            rho_logits = others[places.importance_weights.tobytes()].policy_logits
            log_pi = self.log_pi(self.batch, rho_logits.numpy())
            of_states = self.features(self.batch) if x.ndim > 1 else None
            vs, advantages, _ = self.targets(
                self.batch,
                log_pi,
                values_output.values.numpy(),
                self.eta(places.targets, of_states),
            )
            logits = output.policy_logits[:-1]
            log_probs = action_log_probs(logits, self.batch.last_actions[1:])
            is_step = self.is_step(self.batch)
            loss = (
                -tf.reduce_sum(advantages * log_probs)
                + config.baseline_cost
                * 0.5
                * tf.reduce_sum(is_step * (vs - output.values[:-1]) ** 2)
                - config.entropy_cost * tf.reduce_sum(is_step * entropies(logits))
            )
            if config.second_value_head:
                second_vs, _, _ = self.targets(
                    self.batch,
                    log_pi,
                    values_output.reference_values.numpy(),
                    self.reference(self.batch),
                )
                errors = second_vs - output.reference_values[:-1]
                loss += config.baseline_cost * 0.5 * tf.reduce_sum(is_step * errors**2)
        variables = self.agent.network.trainable_variables
        return [g.numpy() for g in tape.gradient(loss, variables, unconnected_gradients="zero")]

    def updated(self, gradients, frozen=None, slots=None):
        """θ', by clip and optimiser.

        Args:
          gradients: ∇_θ J.
          frozen: gradients for what the meta-gradient does not go through; None for `gradients`.
          slots: None for the learner's.
        """
        config = self.agent.config
        slots = self.slots() if slots is None else slots

        def coefficient_of(some):
            norm = norm_of(some)
            limit = config.max_gradient_norm
            return min(1.0, limit / norm) if norm and limit else 1.0

        frozen = gradients if frozen is None else frozen
        coefficient = coefficient_of(gradients if config.differentiate_clip else frozen)
        clipped = [coefficient * g for g in gradients]
        # What the second moment is made of.
        source = clipped
        if not config.differentiate_second_moment:
            source = [coefficient_of(frozen) * g for g in frozen]
        rate = config.learning_rate
        if config.inner_optimizer == "sgd":
            steps = [rate * g for g in clipped]
        elif config.inner_optimizer == "rmsprop":
            decay = config.rmsprop_decay
            steps = [
                rate * g / np.sqrt(decay * m + (1.0 - decay) * s**2 + config.rmsprop_epsilon)
                for g, m, s in zip(clipped, slots.first, source, strict=True)
            ]
        else:
            one, two, count = config.adam_beta1, config.adam_beta2, slots.count + 1
            steps = [
                rate
                * ((one * m + (1.0 - one) * g) / (1.0 - one**count))
                / (
                    np.sqrt((two * v + (1.0 - two) * s**2) / (1.0 - two**count))
                    + config.adam_epsilon
                )
                for g, m, v, s in zip(clipped, slots.first, slots.second, source, strict=True)
            ]
        return [theta - step for theta, step in zip(self.theta, steps, strict=True)]

    def new_parameters(self, x):
        """θ' with η at x along the open paths."""
        frozen = self.inner_gradient(self.x)
        return self.updated(self.inner_gradient(x), frozen)

    def judged(self, at=None):
        """A function θ' -> J' whose targets are those at θ'(x) (or at another θ'), for good."""
        config = self.agent.config
        if at is None:
            at = self.new_parameters(self.x)

        def fed_at(parameters):
            """What the network is fed at these parameters: an η per state follows its features."""
            with weights(self.agent.network, parameters):
                if config.meta_network_eta == "reference":
                    return self.reference(self.judges)
                features = self.features(self.judges) if self.x.ndim > 1 else None
                return self.eta(self.x, features)

        def run(parameters, fed):
            eta_input = embedded(*fed, config.eta_embedding_input)
            with weights(self.agent.network, parameters):
                output = self.forward(self.judges, eta_input)
            values = output.reference_values if config.second_value_head else output.values
            return output.policy_logits.numpy(), values.numpy()

        fed = fed_at(at)  # a constant from here on
        with weights(self.agent.network, at):
            reference = self.reference(self.judges)
        logits, values = run(at, fed)
        vs, advantages, rhos = self.targets(
            self.judges, self.log_pi(self.judges, logits), values, reference
        )
        if config.meta_advantage_normalization == "ema":
            advantages = self.normalised(advantages, rhos)
        old_log_pi = None
        if config.meta_kl_cost:
            old_log_pi = log_softmax(run(self.theta, fed_at(self.theta))[0][:-1])

        is_step = self.is_step(self.judges)

        def judge(parameters):
            logits, values = run(parameters, fed)
            loss = config.meta_policy_cost * -np.sum(advantages * self.log_pi(self.judges, logits))
            loss += config.meta_baseline_cost * 0.5 * np.sum(is_step * (vs - values[:-1]) ** 2)
            log_pi = log_softmax(logits[:-1])
            of_actions = is_step[..., None] * np.exp(log_pi)
            loss += config.meta_entropy_cost * np.sum(of_actions * log_pi)
            if old_log_pi is not None:
                loss += config.meta_kl_cost * np.sum(of_actions * (log_pi - old_log_pi))
            return loss

        return judge

    def normalised(self, advantages, rhos):
        """ρ (A − mean) / deviation, of moving moments, over the steps that are not masked."""
        decay = self.agent.config.meta_advantage_decay
        before = [float(v.numpy()) for v in self.agent.learner.state.moments]
        kept = rhos > 0
        bare = advantages[kept] / rhos[kept]
        now = (bare.mean(), (bare**2).mean(), 1.0)
        mean, square, weight = (
            decay * old + (1.0 - decay) * new for old, new in zip(before, now, strict=True)
        )
        mean, square = mean / weight, square / weight
        result = np.zeros_like(advantages)
        result[kept] = rhos[kept] * (bare - mean) / np.sqrt(square - mean**2 + 1e-8)
        return result

    def finite_difference(self, step=1e-3, directions=None):
        """dJ'/dx, or its products with the rows of `directions` (each of x's shape, flat)."""
        judge = self.judged()
        basis = np.eye(self.x.size) if directions is None else directions
        return central_difference(
            lambda distances: judge(
                self.new_parameters(self.x + (distances @ basis).reshape(self.x.shape))
            ),
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
    x = np.asarray(x)[: len(agent.config.learned)]
    state = agent.learner.state
    if state.x.shape.rank > 1:
        slopes = np.random.default_rng(seed + 3).normal(size=(state.x.shape[0] - 1, len(x)))
        x = np.array([*slopes, x])
    if state.moments:
        for variable, value in zip(state.moments, (0.1, 0.5, 0.3), strict=True):
            variable.assign(value)
    case = Case(agent, batch, judges, x)
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
