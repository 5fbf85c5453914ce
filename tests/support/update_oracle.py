"""An update and its meta objective written again in NumPy (a network with a core: its module).

Every place where η acts has an argument of its own, so that a finite difference can vary η along
exactly the paths that a switch opens and hold it elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.learner.batch import trajectories_of
from support.helpers import (
    Agent,
    central_difference,
    log_softmax,
    make_agent,
    perturb,
    random_batch,
    vtrace_ground_truth,
    weights,
)
from support.numpy_network import Perceptron, is_perceptron, seen_by_module

# γ = 0.82, λ = 0.69, and whatever is learned besides.
X = np.array([1.5, 0.8, 0.4, -0.3, 0.6, 0.9, -0.5, 0.2, 0.7, 1.1, -0.2])
# Ranges by default: up to this, from 0; None for twice the constant.
HIGHEST = {"vtrace_alpha": 1.0, "rmsprop_decay": 1.0}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def embedded(gamma, lambda_, kind, others=()):
    """What the network is fed of these numbers, and of shares of ranges, `[..., E]`."""
    values = np.stack(np.broadcast_arrays(gamma, lambda_, *others), axis=-1)
    if kind == "values":
        return values
    inside = np.clip(values, sigmoid(-7.0), sigmoid(7.0))
    return np.log(inside / (1.0 - inside)) / 7.0


def of_states_left(value):
    """Of the T+1 states those in which a step is made; a number stays."""
    return value[:-1] if np.ndim(value) else value


def with_last_row(of_states_left):
    """Zeros for the last state, in which no step is made."""
    return np.concatenate([of_states_left, np.zeros_like(of_states_left[:1])])


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
    """One inner update, and its J' on another batch: τ, τ', x, and who makes the update."""

    agent: Agent
    batch: Unroll
    meta_batch: Unroll
    x: np.ndarray
    # Whether the inner objective and U are at η' and not at η(x).
    is_reference: bool = False
    # Which head is seen: 0 is the one that acts.
    head: int = 0
    # θ that the oracle is at; None for that of the variables.
    moved: list[np.ndarray] | None = None

    # What the product does.

    def arguments(self):
        """What the learner hands to a derivation: θ, x, J, U, J'."""
        learner = self.agent.learner
        factory = learner.factory
        learner.state.x.assign(self.x)
        parameters = [v.read_value() for v in self.variables]
        slots = tf.nest.map_structure(lambda v: v.read_value(), learner.state.slots)
        x = learner.state.x.read_value()
        rate = tf.constant(self.agent.config.learning_rate, tf.float64)
        batch = factory.trajectories(self.batch)
        given = factory.scheduled(batch, None)
        return (
            parameters,
            [x],
            factory.inner_objective(batch, parameters, given=given),
            factory.update_rule(slots, rate, given),
            factory.meta_objective(factory.trajectories(self.meta_batch), parameters, [x]),
        )

    def meta_step(self, mode=None):
        """The `MetaStep` of a derivation, by default the configured one."""
        if mode is not None:
            return mode(*self.arguments())
        return self.agent.learner.factory.derivation()(*self.arguments())

    # The oracle.

    @functools.cached_property
    def variables(self):
        """θ's variables; to find them in the modules takes as long as to run the network."""
        return self.agent.network.trainable_variables

    @functools.cached_property
    def perceptron(self):
        """The network in NumPy; None if there is only its module."""
        network = self.agent.network
        return Perceptron(network) if is_perceptron(network) else None

    @property
    def theta(self):
        return [v.numpy() for v in self.variables] if self.moved is None else self.moved

    @contextlib.contextmanager
    def at(self, theta):
        """The oracle at this θ; afterwards it is where it was."""
        kept, self.moved = self.moved, theta
        with contextlib.nullcontext() if self.perceptron else weights(self.variables, theta):
            yield
        self.moved = kept

    def slots(self):
        named = {k: [v.numpy() for v in vs] for k, vs in self.agent.learner.state.slots.items()}
        return Slots(
            named.get("mean_squares", named.get("first_moments", [])),
            named.get("second_moments", []),
            int(named.get("count", [0])[0]),
        )

    def logits_of(self, x, features=None):
        """Name -> its logit: a number, or `[T+1, B]` of what is a function of the state."""
        config = self.agent.config
        bias = x if x.ndim == 1 else x[-1]
        logits = dict(zip(config.learned, bias, strict=False))  # further heads come after
        if x.ndim > 1 and features is not None:
            length = np.sqrt(1.0 + np.sum(features**2, axis=-1, keepdims=True))
            of_states = (features / length) @ x[:-1] + x[-1]
            for index, name in enumerate(config.learned):
                if name in config.of_states:
                    logits[name] = of_states[..., index]
        return logits

    def eta(self, x, features=None):
        """γ and λ: numbers, or `[T+1, B]` from the features."""
        return self.reference(features) if self.is_reference else self.current_eta(x, features)

    def current_eta(self, x, features=None):
        """The same, of η(x) whatever the objective is at."""
        config = self.agent.config
        values = {"gamma": config.gamma, "lambda": config.lambda_}
        ranges = {
            "gamma": (config.gamma_min, config.gamma_max),
            "lambda": (config.lambda_min, config.lambda_max),
        }
        for name, logit in self.logits_of(x, features).items():
            if name in ranges:
                low, high = ranges[name]
                values[name] = low + (high - low) * sigmoid(logit)
        return np.broadcast_arrays(values["gamma"], values["lambda"])

    def constants(self):
        """What is not γ or λ, as the settings have it."""
        config = self.agent.config
        names = ("policy_cost", "baseline_cost", "entropy_cost", "vtrace_alpha", "rho_clip",
                 "c_clip", "rmsprop_decay", "max_gradient_norm")  # fmt: skip
        return {name: getattr(config, name) for name in names} | {"learning_rate_factor": 1.0}

    def range_of(self, name):
        """(low, high) of a learned coefficient."""
        for part in filter(None, self.agent.config.meta_parameter_ranges.split(";")):
            if part.startswith(f"{name}:"):
                return tuple(map(float, part.partition(":")[2].split(",")))
        return 0.0, HIGHEST.get(name) or 2.0 * self.constants()[name]

    def coefficients(self, x, features=None):
        """What is not γ or λ at these logits: numbers, or `[T+1, B]` from the features."""
        if self.is_reference:
            return self.reference_coefficients(features)
        return self.current_coefficients(x, features)

    def current_coefficients(self, x, features=None):
        """The same, of η(x) whatever the objective is at."""
        values = self.constants()
        for name, logit in self.logits_of(x, features).items():
            if name in values:
                low, high = self.range_of(name)
                values[name] = low + (high - low) * sigmoid(logit)
        return values

    def reference_coefficients(self, features=None):
        """The same in η'; what is tracked is that of the case's x, for good."""
        config, values = self.agent.config, self.constants()
        for part in filter(None, config.meta_parameter_references.split(";")):
            values[part.partition(":")[0]] = float(part.partition(":")[2])
        now = self.current_coefficients(self.x, features)
        return values | {name: now[name] for name in config.tracked if name in now}

    def fed(self, eta, coefficients):
        """What the network is fed of η."""
        config, shares = self.agent.config, []
        for name in config.embedded[2:]:
            low, high = self.range_of(name)
            shares.append((coefficients[name] - low) / (high - low))
        return embedded(*eta, config.eta_embedding_input, shares)

    def forward(self, batch, eta_input):
        seen = trajectories_of(batch, self.agent.config.reward_clip, tf.float64)
        return self.agent.network(seen.inputs, seen.core_state, tf.constant(eta_input))

    def features(self, batch):
        if self.perceptron:
            return self.perceptron.features(self.theta, batch)
        return self.agent.network.body(batch.observations).numpy()

    def look(self, batch, eta_input):
        """What the head says of a batch, as arrays."""
        reward_clip = self.agent.config.reward_clip
        if self.perceptron:
            return self.perceptron.seen(self.theta, batch, reward_clip, eta_input, self.head)
        return seen_by_module(self.agent.network, batch, reward_clip, eta_input, self.head)

    def run(self, batch, x):
        """The same, fed η(x)."""
        features = self.features(batch) if x.ndim > 1 else None
        fed = self.fed(self.eta(x, features), self.coefficients(x, features))
        return self.look(batch, fed)

    def is_step(self, batch):
        """1 for a step, 0 for the way from a final observation to the next episode, `[T, B]`."""
        return (~batch.truncations.numpy()[1:]).astype(np.float64)

    def log_pi(self, batch, logits):
        actions = batch.last_actions.numpy()[1:, :, None]
        return np.take_along_axis(log_softmax(logits[:-1]), actions, -1)[..., 0]

    def targets(self, batch, log_pi, values, eta, coefficients=None):
        """vs, advantages (times their ρ), and the ρ themselves; γ and λ may be complex."""
        config = self.agent.config
        coefficients = coefficients or self.constants()
        rho_clip, c_clip, alpha = (
            of_states_left(coefficients[name]) for name in ("rho_clip", "c_clip", "vtrace_alpha")
        )
        rewards = batch.rewards.numpy()[1:].astype(np.float64)
        if config.reward_clip:
            rewards = np.clip(rewards, -config.reward_clip, config.reward_clip)
        log_rhos = log_pi - batch.behaviour_log_probs.numpy()
        for clip in (rho_clip, c_clip, config.pg_rho_clip):
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
            rho_clip=rho_clip,
            c_clip=c_clip,
            alpha=alpha,
            pg_rho_clip=config.pg_rho_clip,
            next_target=config.policy_return == "next_target",
        )
        return vs, advantages, np.minimum(config.pg_rho_clip, np.exp(log_rhos)) * mask

    def reference(self, features=None):
        """γ and λ of η', likewise."""
        config = self.agent.config
        eta = [config.reference_gamma, config.reference_lambda]
        now = self.current_eta(self.x, features)
        for index, name in enumerate(("gamma", "lambda")):
            if name in config.tracked:
                eta[index] = now[index]
        return np.broadcast_arrays(*eta)

    def reference_at(self, batch):
        """γ and λ, and the coefficients of η' on the states of a batch."""
        features = self.features(batch) if self.x.ndim > 1 else None
        return self.reference(features), self.reference_coefficients(features)

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
        output = self.run(self.batch, places.embedding)
        others = {places.embedding.tobytes(): output}
        for x_there in (places.values, places.importance_weights):
            if x_there.tobytes() not in others:
                others[x_there.tobytes()] = self.run(self.batch, x_there)
        values_output = others[places.values.tobytes()]
        log_pi = self.log_pi(self.batch, others[places.importance_weights.tobytes()].policy_logits)
        of_states = self.features(self.batch) if x.ndim > 1 else None
        weights_of = self.coefficients(places.targets, of_states)
        vs, advantages, _ = self.targets(
            self.batch,
            log_pi,
            values_output.values,
            self.eta(places.targets, of_states),
            weights_of,
        )
        is_step = self.is_step(self.batch)
        policy_cost, baseline_cost, entropy_cost = (
            of_states_left(weights_of[f"{name}_cost"]) for name in ("policy", "baseline", "entropy")
        )
        by_reference_values = None
        if output.reference_values is not None and not self.head:
            second_vs, _, _ = self.targets(
                self.batch, log_pi, values_output.reference_values, *self.reference_at(self.batch)
            )
            by_reference_values = with_last_row(
                baseline_cost * is_step * (output.reference_values[:-1] - second_vs)
            )
        return output.gradient(
            with_last_row(
                self.by_logits(output.policy_logits, policy_cost * advantages, entropy_cost)
            ),
            with_last_row(baseline_cost * is_step * (output.values[:-1] - vs)),
            by_reference_values,
        )

    def by_logits(self, policy_logits, of_actions, entropy_cost):
        """Derivative of Σ −w log π(A_t) − c H by the logits of the states left, `[T, B, A]`.

        ∂ log π(a) = 1_a − π,  ∂H = −π (log π + H)
        """
        log_pi = log_softmax(policy_logits[:-1])
        pi = np.exp(log_pi)
        entropies = -np.sum(pi * log_pi, axis=-1, keepdims=True)
        taken = np.eye(pi.shape[-1])[self.batch.last_actions.numpy()[1:]]
        of_entropies = np.expand_dims(entropy_cost * self.is_step(self.batch), -1)
        return of_entropies * pi * (log_pi + entropies) - of_actions[..., None] * (taken - pi)

    def updated(self, gradients, frozen=None, slots=None, x=None):
        """θ', by clip and optimiser.

        Args:
          gradients: ∇_θ J.
          frozen: gradients for what the meta-gradient does not go through; None for `gradients`.
          slots: None for the learner's.
          x: of the coefficients of U; None for `self.x`.
        """
        config = self.agent.config
        slots = self.slots() if slots is None else slots
        learned = self.coefficients(self.x if x is None else x)

        def coefficient_of(some, learned=learned):
            norm = norm_of(some)
            limit = learned["max_gradient_norm"]
            return min(1.0, limit / norm) if norm and limit else 1.0

        frozen = gradients if frozen is None else frozen
        coefficient = coefficient_of(gradients if config.differentiate_clip else frozen)
        clipped = [coefficient * g for g in gradients]
        # What the second moment is made of.
        source = clipped
        if not config.differentiate_second_moment:
            of_constants = coefficient_of(frozen, self.coefficients(self.x))
            source = [of_constants * g for g in frozen]
        rate = config.learning_rate * learned["learning_rate_factor"]
        if config.inner_optimizer == "sgd":
            steps = [rate * g for g in clipped]
        elif config.inner_optimizer == "rmsprop":
            decay = learned["rmsprop_decay"]
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

    def new_slots(self, gradients, slots, x):
        """The optimiser's memory after an update with these gradients."""
        config, learned = self.agent.config, self.coefficients(x)
        norm, limit = norm_of(gradients), learned["max_gradient_norm"]
        clipped = [min(1.0, limit / norm) * g if norm and limit else g for g in gradients]
        if config.inner_optimizer == "sgd":
            return slots
        if config.inner_optimizer == "rmsprop":
            decay = learned["rmsprop_decay"]
            squares = zip(slots.first, clipped, strict=True)
            return slots._replace(first=[decay * m + (1.0 - decay) * g**2 for m, g in squares])
        one, two = config.adam_beta1, config.adam_beta2
        return Slots(
            [one * m + (1.0 - one) * g for m, g in zip(slots.first, clipped, strict=True)],
            [two * v + (1.0 - two) * g**2 for v, g in zip(slots.second, clipped, strict=True)],
            slots.count + 1,
        )

    def after_window(self, batches, x):
        """θ_K and its slots: one update on each batch, η at x throughout; θ_0 is the learner's."""
        theta, slots, kept = self.theta, self.slots(), self.batch
        for batch in batches:
            self.batch = batch
            with self.at(theta):
                gradients = self.inner_gradient(x)
                theta = self.updated(gradients, slots=slots, x=x)
            slots = self.new_slots(gradients, slots, x)
        self.batch = kept
        return theta, slots

    def target(self, theta, slots, batches):
        """θ̃: one update at η(x) on each batch but the last, there one at η'."""
        for batch in batches:
            self.is_reference = batch is batches[-1]
            with self.at(theta):
                kept, self.batch = self.batch, batch
                gradients = self.inner_gradient(self.x)
                theta = self.updated(gradients, slots=slots)
                slots = self.new_slots(gradients, slots, self.x)
                self.batch = kept
        self.is_reference = False
        return theta

    def distance_to(self, target):
        """A function θ' -> bootstrapped J' on the meta batch, the network fed η'."""
        config = self.agent.config
        fed = self.fed(*self.reference_at(self.meta_batch))

        def run(parameters):
            with self.at(parameters):
                output = self.look(self.meta_batch, fed)
            return log_softmax(output.policy_logits[:-1]), output.values[:-1]

        log_pi, values = run(target)
        is_step = self.is_step(self.meta_batch)

        def meta_objective(parameters):
            ours, our_values = run(parameters)
            divergence = np.sum(np.exp(log_pi) * (log_pi - ours), axis=-1)
            errors = 0.5 * (values - our_values) ** 2
            return np.sum(
                is_step
                * (config.matching_policy_cost * divergence + config.matching_value_cost * errors)
            )

        return meta_objective

    def new_parameters(self, x):
        """θ' with η at x along the open paths."""
        config, frozen = self.agent.config, None
        if not (config.differentiate_clip and config.differentiate_second_moment):
            frozen = self.inner_gradient(self.x)
        return self.updated(self.inner_gradient(x), frozen, x=x)

    def meta_objective(self, at=None):
        """A function θ' -> J' whose targets are those at θ'(x) (or at another θ'), for good."""
        config = self.agent.config
        if at is None:
            at = self.new_parameters(self.x)

        def fed_at(parameters):
            """What the network is fed at these parameters: an η per state follows its features."""
            with self.at(parameters):
                if config.meta_network_eta == "reference":
                    return self.fed(*self.reference_at(self.meta_batch))
                features = self.features(self.meta_batch) if self.x.ndim > 1 else None
                return self.fed(self.eta(self.x, features), self.coefficients(self.x, features))

        def run(parameters, fed):
            with self.at(parameters):
                output = self.look(self.meta_batch, fed)
            has_second = output.reference_values is not None
            return output.policy_logits, output.reference_values if has_second else output.values

        fed = fed_at(at)  # a constant from here on
        with self.at(at):
            reference = self.reference_at(self.meta_batch)
        logits, values = run(at, fed)
        vs, advantages, rhos = self.targets(
            self.meta_batch,
            self.log_pi(self.meta_batch, logits),
            values,
            *reference,
        )
        if config.meta_advantage_normalization == "ema":
            advantages = self.normalised(advantages, rhos)
        old_log_pi = None
        if config.meta_kl_cost:
            old_log_pi = log_softmax(run(self.theta, fed_at(self.theta))[0][:-1])

        is_step = self.is_step(self.meta_batch)

        def meta_objective(parameters):
            logits, values = run(parameters, fed)
            loss = config.meta_policy_cost * -np.sum(
                advantages * self.log_pi(self.meta_batch, logits)
            )
            loss += config.meta_baseline_cost * 0.5 * np.sum(is_step * (vs - values[:-1]) ** 2)
            log_pi = log_softmax(logits[:-1])
            of_actions = is_step[..., None] * np.exp(log_pi)
            loss += config.meta_entropy_cost * np.sum(of_actions * log_pi)
            if old_log_pi is not None:
                loss += config.meta_kl_cost * np.sum(of_actions * (log_pi - old_log_pi))
            return loss

        return meta_objective

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
        meta_objective = self.meta_objective()
        basis = np.eye(self.x.size) if directions is None else directions
        return central_difference(
            lambda distances: meta_objective(
                self.new_parameters(self.x + (distances @ basis).reshape(self.x.shape))
            ),
            np.zeros(len(basis)),
            step,
        )


def directions_of(case, count, seed=0):
    """`count` rows of the size of x: all axes if they fit, else random ones of length 1."""
    if case.x.size <= count:
        return np.eye(case.x.size)
    rows = np.random.default_rng(seed).normal(size=(count, case.x.size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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
    perturb(agent, seed, scale)
    batch = random_batch(agent, seed + 1)
    meta_batch = random_batch(agent, seed + 2, batch_size=agent.config.meta_batch_size)
    x = np.asarray(x)[: len(agent.config.learned)]
    state = agent.learner.state
    if state.x.shape.rank > 1:
        slopes = np.random.default_rng(seed + 3).normal(size=(state.x.shape[0] - 1, len(x)))
        x = np.array([*slopes, x])
    if state.moments:
        for variable, value in zip(state.moments, (0.1, 0.5, 0.3), strict=True):
            variable.assign(value)
    case = Case(agent, batch, meta_batch, x)
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
