"""A window of inner updates and its meta objective, validation or bootstrapped, as functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from meta_impala.algorithm.bootstrapped_target import bootstrapped_target
from meta_impala.algorithm.meta_gradient import Tensors
from meta_impala.algorithm.meta_parameters import Eta, constant
from meta_impala.algorithm.objectives import MatchingObjective, MetaObjective
from meta_impala.algorithm.optimizers import Slots
from meta_impala.algorithm.window_gradient import (
    WindowGradient,
    WindowState,
    WindowUpdate,
    mixed_window,
    nested_window,
)
from meta_impala.config import UpdateSettings
from meta_impala.learner.batch import Trajectories
from meta_impala.learner.update_parts import UpdateFactory


@dataclasses.dataclass(frozen=True)
class WindowFactory:
    """Computes meta-gradients through K inner updates.

    Attributes:
      settings: resolved; of several learners this one's share.
      parts: makes J, U and J'.
    """

    settings: UpdateSettings
    parts: UpdateFactory

    def gradient(
        self,
        states: Sequence[WindowState],
        batches: Sequence[Trajectories],
        learning_rates: Sequence[tf.Tensor],
        last: tuple[Tensors, Slots],
        x: Tensors,
        ahead: Sequence[Trajectories],
    ) -> WindowGradient:
        """The meta-gradient.

        Args:
          states: θ_k, s_k and g_k.
          batches: τ_k.
          learning_rates: of the schedule, scalars.
          last: θ_K and s_K.
          x: the logits.
          ahead: L batches, the last of which is τ'; those before are for a bootstrapped target.
        """
        updates = [
            self.update(batch, rate, follow_targets=k > 0)
            for k, (batch, rate) in enumerate(zip(batches, learning_rates, strict=True))
        ]
        objective = self.meta_objective(states[0].parameters, last, x, ahead, learning_rates[-1])
        if self.settings.meta_gradient_mode == "nested_tapes":
            return nested_window(states[0].parameters, states[0].slots, x, updates, objective)
        return mixed_window(
            states,
            last[0],
            x,
            updates,
            objective,
            number=self.settings.micro_batches,
            reduce=self.parts.reduce,
        )

    def meta_objective(
        self,
        old: Tensors,
        last: tuple[Tensors, Slots],
        x: Tensors,
        ahead: Sequence[Trajectories],
        learning_rate: tf.Tensor,
    ) -> MetaObjective:
        """J' on the last of the batches ahead.

        Args:
          old: θ_0.
          last: θ_K and s_K.
          x: the logits.
          ahead: L batches.
          learning_rate: of the last update.
        """
        objective = self.parts.meta_objective(ahead[-1], old, x)
        if self.settings.meta_objective != "bootstrapped":
            return objective
        return self._matching(objective, self.target(*last, x, ahead, learning_rate))

    def target(
        self,
        parameters: Tensors,
        slots: Slots,
        x: Tensors,
        ahead: Sequence[Trajectories],
        learning_rate: tf.Tensor,
    ) -> list[tf.Tensor]:
        """θ̃: L − 1 updates at η, and one at η' on τ'; at the step size as it is."""
        *before, last = ahead
        table = self.parts.meta_parameters
        reference = table.reference(constant(table.values(x[0])))
        updates = [self.update(batch, learning_rate) for batch in before]
        updates.append(self.update(last, learning_rate, given=reference))
        return bootstrapped_target(parameters, slots, x, updates, reduce=self.parts.reduce)

    def update(
        self,
        batch: Trajectories,
        learning_rate: tf.Tensor,
        *,
        follow_targets: bool = False,
        given: Eta | None = None,
    ) -> WindowUpdate:
        """An inner update, at whatever θ_k and slots the window has there.

        Args:
          batch: τ_k.
          learning_rate: of the schedule.
          follow_targets: whether its targets are differentiated by θ_k.
          given: η in place of η(x).
        """
        return WindowUpdate(
            self.parts.inner_objective(batch, (), follow_targets=follow_targets, given=given),
            self.parts.update_rule({}, learning_rate, given),
            self.settings.micro_batches,
        )

    def _matching(self, objective: MetaObjective, target: Tensors) -> MatchingObjective:
        fields = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}
        return MatchingObjective(
            **fields,
            target=target,
            policy_cost=self.settings.matching_policy_cost,
            value_cost=self.settings.matching_value_cost,
        )
