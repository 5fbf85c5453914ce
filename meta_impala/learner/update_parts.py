"""The parts of one update as functions of θ, x and g: J, U, J', and how they are differentiated.

Every switch of the method is a small object (`agent.builders.Method`): the table of
meta-parameters, the two optimisers, the settings of J and J'. Here they are put together with the
state and a batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.builders import Method
from meta_impala.algorithm import losses, meta_gradient, optimizers
from meta_impala.algorithm.meta_gradient import InnerUpdate, MetaStep, MicroBatches, Tensors
from meta_impala.algorithm.meta_parameters import GAMMA, LAMBDA, Eta
from meta_impala.algorithm.objectives import InnerObjective, MetaObjective, places_of
from meta_impala.config import UpdateSettings
from meta_impala.learner.batch import NetworkOnTrajectories, Trajectories, trajectories_of
from meta_impala.learner.group import LearnerGroup
from meta_impala.learner.state import LearnerState


def read(variables: Any) -> Any:
    """The values of variables, in the same lists and dicts."""
    return tf.nest.map_structure(lambda variable: variable.read_value(), variables)


class UpdateParts(NamedTuple):
    """What a derivation of `meta_gradient` takes, in its order."""

    parameters: list[tf.Tensor]
    x: list[tf.Tensor]
    inner_objective: InnerObjective
    update_rule: meta_gradient.UpdateRule
    meta_objective: MetaObjective


def part_of(whole: Trajectories, index: tf.Tensor, count: int) -> Trajectories:
    """The part with this index of `count` of as many columns."""
    columns = whole.num_columns // count
    return whole.columns(index * columns + tf.range(columns))


class UpdateFactory:
    """Makes the parts of an update from the settings and the state as it is.

    Attributes:
      meta_parameters: the table.
      schedule: where η comes from.
    """

    def __init__(
        self, settings: UpdateSettings, method: Method, state: LearnerState, group: LearnerGroup
    ) -> None:
        """Args:
        settings: resolved; of several learners this one's share.
        method: what the update is made of.
        state: what is updated.
        group: the learners that make every update together.
        """
        self.meta_parameters = method.meta_parameters
        self.schedule = method.schedule
        self._settings = settings
        self._method = method
        self._state = state
        self._group = group
        self._dtype = state.network.dtype

    def trajectories(self, batch: Unroll) -> Trajectories:
        """A batch of unrolls as the objectives take it."""
        return trajectories_of(batch, self._settings.reward_clip, self._dtype)

    def inner_objective(
        self,
        batch: Trajectories,
        parameters: Tensors,
        frames_eta: tf.Tensor | None = None,
        *,
        follow_targets: bool = False,
        given: Eta | None = None,
    ) -> InnerObjective:
        """J on a batch.

        Args:
          batch: τ.
          parameters: θ that the targets are computed from.
          frames_eta: γ and λ where they are a function of frames.
          follow_targets: see `InnerObjective`.
          given: what of η is no function of x; found from the schedule if it is None.
        """
        if given is None and self.schedule.is_drawn:
            like = batch.inputs.last_rewards
            columns = tf.unstack(batch.eta, axis=-1)
            given = {
                name: tf.broadcast_to(part, like.shape)
                for name, part in zip((GAMMA, LAMBDA), columns, strict=True)
            }
        elif given is None and self.schedule.follows_frames:
            assert frames_eta is not None, "γ and λ are functions of frames"
            values = tf.unstack(tf.cast(frames_eta, self._dtype))
            given = dict(zip((GAMMA, LAMBDA), values, strict=True))
        return InnerObjective(
            network=NetworkOnTrajectories(self._state.network, batch),
            transitions=batch.transitions,
            target_parameters=parameters,
            meta_parameters=self.meta_parameters,
            settings=self._method.returns,
            places=functools.partial(places_of, self._settings.meta_gradient_paths),
            embedding=self._settings.eta_embedding_input,
            second_value_head=self._state.network.settings.second_value_head,
            given=given,
            follow_targets=follow_targets or self._settings.trace_curvature,
        )

    def update_rule(
        self, slots: optimizers.Slots, learning_rate: tf.Tensor, given: Eta | None = None
    ) -> meta_gradient.UpdateRule:
        """U: clip, optimiser, learning rate; each a constant, or learned, or given."""

        def rule(gradients: Tensors, x: Tensors) -> InnerUpdate:
            eta = {**self.meta_parameters.of_rule(x[0]), **(given or {})}
            clipped = optimizers.clip_by_global_norm(
                gradients,
                eta["max_gradient_norm"],
                differentiate_coefficient=self._settings.differentiate_clip,
            )
            optimizer, rate = self._method.inner_optimizer, learning_rate
            if "rmsprop_decay" in self.meta_parameters.learned:
                assert isinstance(optimizer, optimizers.RMSProp)
                optimizer = dataclasses.replace(optimizer, decay=eta["rmsprop_decay"])
            if "learning_rate_factor" in self.meta_parameters.learned:
                rate = rate * eta["learning_rate_factor"]
            updates, new_slots = optimizer.step(clipped.gradients, slots, rate)
            return InnerUpdate(updates, (new_slots, clipped.norm, clipped.coefficient))

        return rule

    def meta_objective(
        self, meta_batch: Trajectories, parameters: Tensors, x: Tensors
    ) -> MetaObjective:
        moments = read(self._state.moments)
        return MetaObjective(
            network=NetworkOnTrajectories(self._state.network, meta_batch),
            transitions=meta_batch.transitions,
            old_parameters=parameters,
            x=x[0],
            meta_parameters=self.meta_parameters,
            settings=self._method.returns,
            weights=self._method.meta_weights,
            network_eta=self._settings.meta_network_eta,
            embedding=self._settings.eta_embedding_input,
            second_value_head=self._state.network.settings.second_value_head,
            moments=losses.MovingMoments(*moments) if moments else None,
            moments_decay=self._settings.meta_advantage_decay,
        )

    def derivation(self, micro_batches: MicroBatches | None = None) -> Callable[..., MetaStep]:
        """(θ, x, J, U, J') -> `MetaStep`."""
        if self._settings.meta_gradient_mode == "accumulative_trace":
            return functools.partial(
                meta_gradient.accumulative_trace,
                trace=read(self._state.trace),
                decay=self._settings.trace_decay,
                curvature=self._settings.trace_curvature,
            )
        if self._settings.meta_gradient_mode == "reverse_over_forward":
            return functools.partial(
                meta_gradient.reverse_over_forward,
                reduce=self._group.reduce,
                micro_batches=micro_batches,
            )
        return meta_gradient.nested_tapes

    def micro_batches(
        self,
        parameters: Tensors,
        x: Tensors,
        batch: Trajectories,
        meta_batch: Trajectories | None,
        frames_eta: tf.Tensor,
    ) -> MicroBatches | None:
        """J and J' in `--micro_batches` parts of as many columns each; None for the whole."""
        count = self._settings.micro_batches
        if count == 1:
            return None

        def inner(index: tf.Tensor) -> meta_gradient.InnerObjective:
            objective = self.inner_objective(part_of(batch, index, count), parameters, frames_eta)

            def with_sums(live: Tensors, x: Tensors) -> tuple[tf.Tensor, Any]:
                loss, (parts, eta) = objective(live, x)
                # Means of the parts, so that the parts' shares of them add up.
                return loss, (parts, {name: mean / count for name, mean in eta.items()})

            return with_sums

        def meta(index: tf.Tensor) -> MetaObjective:
            assert meta_batch is not None
            return self.meta_objective(part_of(meta_batch, index, count), parameters, x)

        return MicroBatches(count, inner, meta)

    def split(
        self, batch: Trajectories, other: Trajectories, order: tf.Tensor
    ) -> tuple[Trajectories, Trajectories]:
        """τ, and the B' trajectories of τ' on which J' is evaluated.

        Args:
          batch: of this update.
          other: another one (the next, or with `meta_data=swap` every second time the last).
          order: a permutation of the B columns.
        """
        count = self._settings.meta_batch_size
        if self._settings.meta_data == "held_out":
            return batch.columns(order[count:]), batch.columns(order[:count])
        if count == self._settings.batch_size:
            return batch, other  # J' is a sum over all columns, whatever their order
        return batch, other.columns(order[:count])

    def inner_parts(
        self, batch: Trajectories, learning_rate: tf.Tensor, frames_eta: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], InnerObjective, meta_gradient.UpdateRule]:
        """θ, x, J and U, at the state as it is."""
        parameters, x, slots = read(
            [list(self._state.network.trainable_variables), self._state.logits, self._state.slots]
        )
        rule = self.update_rule(slots, tf.cast(learning_rate, self._dtype))
        return parameters, x, self.inner_objective(batch, parameters, frames_eta), rule

    def parts(self, batch: Unroll, meta_batch: Unroll, learning_rate: tf.Tensor) -> UpdateParts:
        """An update on τ with its meta objective on τ', at the state as it is, in its parts.

        Args:
          batch: τ, tensors `[T+1, B, ...]`.
          meta_batch: τ', tensors `[T+1, B', ...]`.
          learning_rate: of U, a scalar.
        """
        return self.parts_of(self.trajectories(batch), self.trajectories(meta_batch), learning_rate)

    def parts_of(
        self,
        batch: Trajectories,
        meta_batch: Trajectories,
        learning_rate: tf.Tensor,
        frames_eta: tf.Tensor | None = None,
    ) -> UpdateParts:
        parameters, x, objective, rule = self.inner_parts(batch, learning_rate, frames_eta)
        meta_objective = self.meta_objective(meta_batch, parameters, x)
        return UpdateParts(parameters, x, objective, rule, meta_objective)
