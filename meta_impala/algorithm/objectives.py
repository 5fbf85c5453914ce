"""J and J' as functions of the parameters: they run the network and say along which paths η acts.

`losses.py` has the formulas; `meta_gradient.py` differentiates what is here.

What is constant in θ but not in η cannot be had by `tf.stop_gradient`, which stops both. It is
computed by a second forward pass at *other tensors with the same values*: `meta_gradient`
differentiates J by copies of θ, and the objective holds the originals (`target_parameters`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import tensorflow as tf

from meta_impala.algorithm import losses
from meta_impala.algorithm.meta_parameters import Eta, MetaParameters, embedding_input

Tensors = Sequence[tf.Tensor]

RETURNS, EMBEDDING, IMPORTANCE_WEIGHTS = PATHS = ("returns", "embedding", "importance_weights")

# The places where η acts on ∇_θ J: γ and λ in the targets of the value and in the advantages of the
# policy; e_η in the network that is differentiated, in the V of the targets, and in ρ and c.
VALUE_TARGETS, POLICY_ADVANTAGES, NETWORK, TARGET_VALUES, RATIOS = PLACES = (
    "value targets",
    "policy advantages",
    "network",
    "values in the targets",
    "importance weights",
)


class Outputs(Protocol):
    """What a network gives on the T+1 states of a trajectory (`networks.NetworkOutput` does).

    `features` (`[T+1, B, F]`) are needed for an η per state only, and `reference_values`
    (`[T+1, B]`) for a second value head only.
    """

    @property
    def policy_logits(self) -> tf.Tensor: ...
    @property
    def values(self) -> tf.Tensor: ...
    @property
    def features(self) -> tf.Tensor: ...
    @property
    def reference_values(self) -> tf.Tensor | None: ...


# features -> what of η is embedded, `[2]` or `[T+1, B, 2]`.
EtaInput = Callable[[tf.Tensor], tf.Tensor]
# (θ, η input) -> outputs, on one trajectory.
Forward = Callable[[Tensors, EtaInput], Outputs]


def _eta_at(
    meta_parameters: MetaParameters, x: tf.Tensor, features: tf.Tensor, drawn: Eta | None
) -> Eta:
    if drawn is not None:
        return drawn
    # The features are constant: η may follow them, it does not train them.
    return meta_parameters.at_states(x, tf.stop_gradient(features))


@dataclasses.dataclass(frozen=True)
class InnerObjective:
    """J(τ, θ, η(x)) as a function of (θ, x).

    Attributes:
      forward: the network on the T+1 states of τ.
      transitions: τ.
      target_parameters: θ, as tensors that no derivative by θ watches; the targets are constant in
        θ because they are computed from these. (The trace with curvature is the one that does
        watch them: it wants the whole derivative of the update.)
      meta_parameters: x -> η and η'.
      settings: costs and clips.
      paths: along which paths η acts on ∇_θ J. "returns": γ and λ in the targets, equation (13).
        "embedding": also η -> e_η -> log π, v and H, and -> V in the targets.
        "importance_weights": also -> ρ and c.
      embedding: what of η is embedded, see `embedding_input`.
      second_value_head: whether the network has one, to be trained at η'.
      drawn: η of each state `[T+1, B]` if it is not a function of x (`eta_schedule`).
      follow_targets: computes the targets from `target_parameters` also where a `stop_gradient`
        would do, so that whoever watches these sees the whole derivative by θ.
      eta_at: another (x, features, place) -> η, to tell the `PLACES` where η acts from each other.
    """

    forward: Forward
    transitions: losses.Transitions
    target_parameters: Tensors
    meta_parameters: MetaParameters
    settings: losses.LossSettings
    paths: str = RETURNS
    embedding: str = "logits"
    second_value_head: bool = False
    drawn: Eta | None = None
    follow_targets: bool = False
    eta_at: Callable[[tf.Tensor, tf.Tensor, str], Eta] | None = None

    def _eta(self, x: tf.Tensor, features: tf.Tensor, place: str) -> Eta:
        if self.eta_at is not None:
            return self.eta_at(x, tf.stop_gradient(features), place)
        return _eta_at(self.meta_parameters, x, features, self.drawn)

    def _run(self, parameters: Tensors, x: tf.Tensor, place: str, *, eta_is_live: bool) -> Outputs:
        def eta_input(features: tf.Tensor) -> tf.Tensor:
            eta = self._eta(x, features, place)
            return embedding_input(eta if eta_is_live else eta.constant(), self.embedding)

        return self.forward(parameters, eta_input)

    def _log_probs(self, output: Outputs) -> tf.Tensor:
        return losses.action_log_probs(output.policy_logits[:-1], self.transitions.actions)

    def _target_inputs(self, output: Outputs, x: tf.Tensor) -> losses.TargetInputs:
        """V and ρ of the targets: constant in θ, live in η as `paths` says."""
        of_values = self._at_constant_parameters(output, x, TARGET_VALUES, self.paths != RETURNS)
        if self.paths != EMBEDDING and self.eta_at is None:
            return of_values  # one pass serves both
        of_ratios = self._at_constant_parameters(
            output, x, RATIOS, self.paths == IMPORTANCE_WEIGHTS
        )
        return of_values._replace(log_probs=of_ratios.log_probs)

    def _at_constant_parameters(
        self, output: Outputs, x: tf.Tensor, place: str, eta_is_live: bool
    ) -> losses.TargetInputs:
        if eta_is_live or self.follow_targets:
            other = self._run(self.target_parameters, x, place, eta_is_live=eta_is_live)
            return losses.TargetInputs(other.values, self._log_probs(other), other.reference_values)
        # Constant in both, at no cost.
        constants = (output.values, self._log_probs(output), output.reference_values)
        return losses.TargetInputs(
            *(None if tensor is None else tf.stop_gradient(tensor) for tensor in constants)
        )

    def __call__(
        self, parameters: Tensors, x: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[losses.InnerLossParts, Eta]]:
        """J, with its parts and η (scalars, or `[T+1, B]`)."""
        output = self._run(parameters, x, NETWORK, eta_is_live=self.paths != RETURNS)
        eta = self._eta(x, output.features, VALUE_TARGETS)
        critic = None
        if self.second_value_head:
            assert output.reference_values is not None, "the network has no second value head"
            reference = self.meta_parameters.reference(x.dtype, eta.constant())
            critic = losses.ReferenceCritic(output.reference_values, reference)
        loss, parts = losses.inner_objective(
            output.policy_logits,
            output.values,
            self.transitions,
            eta,
            self.settings,
            target_inputs=self._target_inputs(output, x),
            reference_critic=critic,
            policy_eta=(self._eta(x, output.features, POLICY_ADVANTAGES) if self.eta_at else None),
        )
        return loss, (parts, eta)


@dataclasses.dataclass(frozen=True)
class MetaObjective:
    """J'(τ', θ', η') as a function of θ'. Every η in it is a constant.

    Attributes:
      forward: the network on the T+1 states of τ'.
      transitions: τ'.
      old_parameters: θ before the update, for the KL term; constants.
      x: the logits as they are, for what follows the current η: as constants.
      meta_parameters: η'.
      settings: the clips of V-trace.
      meta_settings: weights of the terms.
      network_eta: which η the network is fed: "reference" (η') or "current".
      embedding: what of it is embedded.
      second_value_head: whether the critic that judges is the second value head.
      moments: moving moments for the advantages, or None.
      moments_decay: of these.
    """

    forward: Forward
    transitions: losses.Transitions
    old_parameters: Tensors
    x: tf.Tensor
    meta_parameters: MetaParameters
    settings: losses.LossSettings
    meta_settings: losses.MetaLossSettings = losses.POLICY_GRADIENT_ONLY
    network_eta: str = "reference"
    embedding: str = "logits"
    second_value_head: bool = False
    moments: losses.MovingMoments | None = None
    moments_decay: float = 0.99

    def _current(self, features: tf.Tensor) -> Eta:
        return _eta_at(self.meta_parameters, tf.stop_gradient(self.x), features, None).constant()

    def _reference(self, features: tf.Tensor) -> Eta:
        return self.meta_parameters.reference(self.x.dtype, self._current(features)).constant()

    def _eta_input(self, features: tf.Tensor) -> tf.Tensor:
        of = self._reference if self.network_eta == "reference" else self._current
        return embedding_input(of(features), self.embedding)

    def __call__(self, parameters: Tensors) -> tuple[tf.Tensor, losses.MovingMoments | None]:
        """J', and the moving moments with this batch in them."""
        output = self.forward(parameters, self._eta_input)
        values = output.values
        if self.second_value_head:
            assert output.reference_values is not None, "the network has no second value head"
            values = output.reference_values
        old_policy_logits = None
        if self.meta_settings.kl_cost:
            constants = [tf.stop_gradient(parameter) for parameter in self.old_parameters]
            old_policy_logits = self.forward(constants, self._eta_input).policy_logits
        return losses.meta_objective(
            output.policy_logits,
            values,
            self.transitions,
            self._reference(output.features),
            self.settings,
            self.meta_settings,
            old_policy_logits=old_policy_logits,
            moments=self.moments,
            moments_decay=self.moments_decay,
        )
