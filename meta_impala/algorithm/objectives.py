"""J and J' as functions of θ and x: they run the network and say along which paths η acts.

`losses.py` has the formulas; `meta_gradient.py` differentiates what is here. A tensor is *live* in
x if a derivative with respect to x flows through it.

`tf.stop_gradient` cannot make a tensor constant in θ and still differentiable in η: it stops both.
Such a tensor is computed by a second pass of the network's head layers at *other tensors with the
same values*: `meta_gradient` differentiates J with respect to copies of θ, and the objective holds
the originals (`target_parameters`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from meta_impala.algorithm import losses
from meta_impala.algorithm.meta_parameters import (
    GAMMA,
    LAMBDA,
    Eta,
    MetaParameters,
    constant,
    embedding_input,
    is_one,
)
from meta_impala.algorithm.network_interface import (
    HeadOutputs,
    Outputs,
    Tensors,
    TrajectoryNetwork,
)
from meta_impala.config.metric_columns import of_head

RETURNS, EMBEDDING, IMPORTANCE_WEIGHTS = PATHS = ("returns", "embedding", "importance_weights")


class Logits(NamedTuple):
    """The logits of η in one place: x itself, or another tensor with the same values.

    Attributes:
      value: `[n]` or `[F+1, n]`; `[T+1, n]` or `[T+1, F+1, n]` where `timed`.
      live: whether a derivative with respect to them is taken.
      timed: whether every state of the unroll has logits of its own (`attribution.py`).
    """

    value: tf.Tensor
    live: bool
    timed: bool = False


class EtaPlaces(NamedTuple):
    """η acts on ∇_θ J in five places; this holds the logits used in each.

    A *path* (`--meta_gradient_paths`) opens one or more of these *places*: see `places_of`.

    Attributes:
      value_targets: γ, λ and V-trace's clips and leak in vs; also the weights of the terms of J.
      policy_advantages: the same γ, λ, clips and leak in the policy's advantages.
      network: e_η in the network that is differentiated.
      target_values: e_η in the V of the targets.
      importance_weights: e_η in the π of ρ and c.
    """

    value_targets: Logits
    policy_advantages: Logits
    network: Logits
    target_values: Logits
    importance_weights: Logits


# The same places in words, as in the tables and JSON of `meta-impala explain`.
VALUE_TARGETS, POLICY_ADVANTAGES, NETWORK, TARGET_VALUES, IMPORTANCE_WEIGHTS_PLACE = PLACES = (
    "value targets",
    "policy advantages",
    "network",
    "values in the targets",
    "importance weights",
)


def places_of(paths: str, x: Tensors) -> EtaPlaces:
    """x where the paths are open, and a constant elsewhere.

    Args:
      paths: "returns": γ and λ in the targets, equation (13); "embedding": also η -> e_η ->
        log π, v and H, and -> V in the targets; "importance_weights": also -> ρ and c.
      x: the logits of η are its first tensor.
    """
    live, stopped = Logits(x[0], True), Logits(tf.stop_gradient(x[0]), False)
    embedded = stopped if paths == RETURNS else live
    return EtaPlaces(
        value_targets=live,
        policy_advantages=live,
        network=embedded,
        target_values=embedded,
        importance_weights=live if paths == IMPORTANCE_WEIGHTS else stopped,
    )


def _columns_of_part(transitions: losses.Transitions, index: tf.Tensor, number: int) -> tf.Tensor:
    columns = transitions.actions.shape[1] // number
    return index * columns + tf.range(columns)


@dataclasses.dataclass(frozen=True)
class InnerObjective:
    """J(τ, θ, η(x)) as a function of (θ, x).

    Attributes:
      network: on the T+1 states of τ.
      transitions: τ.
      target_parameters: θ, as tensors with respect to which ∇_θ J does not differentiate: the
        targets are constant in θ because they are computed from these. (Only the trace with
        curvature and a window of several updates differentiate with respect to them.)
      meta_parameters: x -> η and η'.
      settings: of the returns.
      places: x -> the logits in every place.
      embedding: what of η is embedded, see `embedding_input`.
      second_value_head: whether the network has one, to be trained at η'.
      given: what of η is not a function of x (`eta_schedule`), scalars or `[T+1, B]`.
      follow_targets: always compute the targets in a second pass at `target_parameters`, so that
        a caller who watches these gets the derivative through the targets.
    """

    network: TrajectoryNetwork
    transitions: losses.Transitions
    target_parameters: Tensors
    meta_parameters: MetaParameters
    settings: losses.ReturnSettings
    places: Callable[[Tensors], EtaPlaces]
    embedding: str = "logits"
    second_value_head: bool = False
    given: Eta | None = None
    follow_targets: bool = False

    def part(self, index: tf.Tensor, number: int) -> InnerObjective:
        """One of a number of parts with equally many trajectories; J is their sum."""
        columns = _columns_of_part(self.transitions, index, number)

        def of_columns(value: tf.Tensor | float) -> tf.Tensor | float:
            return value if is_one(value) else tf.gather(value, columns, axis=1)

        given = self.given
        return dataclasses.replace(
            self,
            network=self.network.columns(columns),
            transitions=self.transitions.columns(columns),
            given=None if given is None else {n: of_columns(v) for n, v in given.items()},
        )

    def _eta(self, logits: Logits, features: tf.Tensor) -> Eta:
        # The features are constant: η may follow them, it does not train them.
        features = tf.stop_gradient(features)
        at = self.meta_parameters.at_times if logits.timed else self.meta_parameters.at_states
        eta = at(logits.value, features)
        return eta if self.given is None else {**eta, **self.given}

    def _outputs(self, parameters: Tensors, features: tf.Tensor, logits: Logits) -> Outputs:
        fed = self.meta_parameters.fed(self._eta(logits, features), features.dtype)
        return self.network.heads(parameters, features, embedding_input(fed, self.embedding))

    def _of_targets(self, output: Outputs) -> losses.TargetInputs:
        log_probs = losses.action_log_probs(output.policy_logits[:-1], self.transitions.actions)
        return losses.TargetInputs(output.values, log_probs, output.reference_values)

    def _target_inputs(
        self, output: Outputs, features: tf.Tensor, places: EtaPlaces
    ) -> losses.TargetInputs:
        """V and ρ of the targets: constant in θ, live in η where their places are."""
        if self.follow_targets:
            features = self.network.body(self.target_parameters)
        else:
            features = tf.stop_gradient(features)  # φ does not depend on η

        def at(logits: Logits) -> losses.TargetInputs:
            if logits.live or self.follow_targets:
                again = self._outputs(self.target_parameters, features, logits)
                return self._of_targets(again)
            constants = self._of_targets(output)  # constant in θ and η: no second pass needed
            return losses.TargetInputs(
                *(None if part is None else tf.stop_gradient(part) for part in constants)
            )

        of_values = at(places.target_values)
        if places.importance_weights is places.target_values:
            return of_values  # the same object: one pass serves both places
        if not (self.follow_targets or places.importance_weights.live or places.target_values.live):
            return of_values
        return of_values._replace(log_probs=at(places.importance_weights).log_probs)

    def _auxiliary_loss(self, output: Outputs, x: Tensors) -> tf.Tensor:
        """The objectives of the heads that do not act, each at its own η: x[1], x[2], …"""
        constants: Sequence[HeadOutputs] = output.auxiliary
        if self.follow_targets:
            features = self.network.body(self.target_parameters)
            logits = Logits(tf.stop_gradient(x[0]), False)  # no η is fed
            constants = self._outputs(self.target_parameters, features, logits).auxiliary
        total = tf.zeros([], output.values.dtype)
        for head, of_targets, own in zip(output.auxiliary, constants, x[1:], strict=True):
            log_probs = losses.action_log_probs(
                of_targets.policy_logits[:-1], self.transitions.actions
            )
            inputs = losses.TargetInputs(of_targets.values, log_probs)
            if not self.follow_targets:
                inputs = losses.TargetInputs(*map(tf.stop_gradient, inputs[:2]))
            loss, _ = losses.inner_objective(
                head.policy_logits,
                head.values,
                self.transitions,
                {**self.meta_parameters.values(own), **(self.given or {})},
                self.settings,
                target_inputs=inputs,
            )
            total += loss
        return total

    def __call__(
        self, parameters: Tensors, x: Tensors
    ) -> tuple[tf.Tensor, tuple[losses.InnerLossParts, dict[str, tf.Tensor]]]:
        """J, with its parts (of the head that acts), and γ, λ and what is learned or given as
        means; what the other heads have learned by their own names (`metric_columns.of_head`).
        """
        places = self.places(x)
        features = self.network.body(parameters)
        output = self._outputs(parameters, features, places.network)
        eta = self._eta(places.value_targets, features)
        critic = None
        if self.second_value_head:
            assert output.reference_values is not None, "the network has no second value head"
            reference = self.meta_parameters.reference(constant(eta))
            critic = losses.ReferenceCritic(output.reference_values, reference)
        policy_eta = None  # the same object: one pass of V-trace serves both places
        if places.policy_advantages is not places.value_targets:
            policy_eta = self._eta(places.policy_advantages, features)
        loss, parts = losses.inner_objective(
            output.policy_logits,
            output.values,
            self.transitions,
            eta,
            self.settings,
            target_inputs=self._target_inputs(output, features, places),
            reference_critic=critic,
            policy_eta=policy_eta,
        )
        if output.auxiliary:
            loss += self._auxiliary_loss(output, x)
        names = dict.fromkeys((GAMMA, LAMBDA, *self.meta_parameters.learned, *(self.given or ())))
        dtype = features.dtype
        means = {n: tf.reduce_mean(tf.convert_to_tensor(eta[n], dtype)) for n in names}
        for head, own in enumerate(x[1 : 1 + len(output.auxiliary)], 2):
            values = self.meta_parameters.values(own)
            means |= {of_head(n, head): values[n] for n in self.meta_parameters.learned}
        return loss, (parts, means)


@dataclasses.dataclass(frozen=True)
class MetaObjective:
    """J'(τ', θ', η') as a function of θ'. Every η in it is a constant.

    Attributes:
      network: on the T+1 states of τ'.
      transitions: τ'.
      old_parameters: θ before the update, for the KL term; constants.
      logits: of η (the first tensor of x), for what follows the current η; made constant here.
      meta_parameters: η'.
      settings: of the returns.
      weights: term -> its weight in J'.
      network_eta: which η the network is fed: "reference" (η') or "current".
      embedding: what of it is embedded.
      second_value_head: whether J' uses the values of the second value head.
      moments: moving moments for the advantages, or None.
      moments_decay: of these.
    """

    network: TrajectoryNetwork
    transitions: losses.Transitions
    old_parameters: Tensors
    logits: tf.Tensor
    meta_parameters: MetaParameters
    settings: losses.ReturnSettings
    weights: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: losses.POLICY_GRADIENT_ONLY
    )
    network_eta: str = "reference"
    embedding: str = "logits"
    second_value_head: bool = False
    moments: losses.MovingMoments | None = None
    moments_decay: float = 0.99

    def part(self, index: tf.Tensor, number: int) -> MetaObjective:
        """As `InnerObjective.part`; J' is the sum of the parts without moving moments."""
        columns = _columns_of_part(self.transitions, index, number)
        return dataclasses.replace(
            self,
            network=self.network.columns(columns),
            transitions=self.transitions.columns(columns),
        )

    def _run(self, parameters: Tensors) -> tuple[Outputs, Eta]:
        """Outputs at these parameters, and η'."""
        features = self.network.body(parameters)
        # An η per state follows the features, as a constant.
        of_states = self.meta_parameters.at_states(
            tf.stop_gradient(self.logits), tf.stop_gradient(features)
        )
        current = constant(of_states)
        reference = self.meta_parameters.reference(current)
        fed = reference if self.network_eta == "reference" else current
        values = self.meta_parameters.fed(fed, features.dtype)
        outputs = self.network.heads(parameters, features, embedding_input(values, self.embedding))
        return outputs, reference

    def __call__(self, parameters: Tensors) -> tuple[tf.Tensor, losses.MovingMoments | None]:
        """J', and the moving moments with this batch in them."""
        output, reference = self._run(parameters)
        values = output.values
        if self.second_value_head:
            assert output.reference_values is not None, "the network has no second value head"
            values = output.reference_values
        old_policy_logits = None
        if self.weights.get(losses.KL):
            constants = [tf.stop_gradient(parameter) for parameter in self.old_parameters]
            old_policy_logits = self._run(constants)[0].policy_logits
        return losses.meta_objective(
            output.policy_logits,
            values,
            self.transitions,
            reference,
            self.settings,
            self.weights,
            old_policy_logits=old_policy_logits,
            moments=self.moments,
            moments_decay=self.moments_decay,
        )


@dataclasses.dataclass(frozen=True)
class MatchingObjective(MetaObjective):
    """A bootstrapped J' as a function of θ': its distance from a target θ̃ that is ahead of θ'.

    `bootstrapped_target.py` computes θ̃.

        J' = Σ_{t,b} k_π KL(π_θ̃, π_θ') + k_v ½ (V_θ̃ − V_θ')²

    Attributes:
      target: θ̃, constants.
      policy_cost, value_cost: k_π and k_v.
    """

    target: Tensors = ()
    policy_cost: float = 1.0
    value_cost: float = 0.5

    def __call__(self, parameters: Tensors) -> tuple[tf.Tensor, losses.MovingMoments | None]:
        """J'; there are no moving moments."""
        output, _ = self._run(parameters)
        ahead, _ = self._run([tf.stop_gradient(parameter) for parameter in self.target])
        divergences = losses.kl_divergences(
            tf.stop_gradient(ahead.policy_logits[:-1]), output.policy_logits[:-1]
        )
        errors = tf.stop_gradient(ahead.values[:-1]) - output.values[:-1]
        per_step = self.policy_cost * divergences + self.value_cost * 0.5 * tf.square(errors)
        return tf.reduce_sum(self.transitions.step_mask * per_step), None
