"""The parts of one update as functions of θ, x and g: J, U, J', and how they are differentiated.

Every switch of the method is a small object (`agent.builders.Method`): the table of
meta-parameters, the two optimisers, the settings of J and J'. Here they are put together with the
state and a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.builders import Method
from meta_impala.algorithm import losses, meta_gradient
from meta_impala.algorithm.meta_gradient import MetaStep, MicroBatches, Reduce, Tensors
from meta_impala.algorithm.meta_parameters import Eta
from meta_impala.algorithm.micro_batches import in_parts
from meta_impala.algorithm.objectives import InnerObjective, MetaObjective, places_of
from meta_impala.algorithm.optimizers import Slots
from meta_impala.algorithm.update_rule import OptimizerRule
from meta_impala.config import UpdateSettings
from meta_impala.learner.batch import Trajectories, trajectories_of
from meta_impala.learner.group import LearnerGroup
from meta_impala.learner.state import LearnerState
from meta_impala.networks.on_states import NetworkOnStates


def read(variables: Any) -> Any:
    """The values of variables, in the same lists and dicts."""
    return tf.nest.map_structure(lambda variable: variable.read_value(), variables)


class InnerParts(NamedTuple):
    """θ, x, J and U: what `meta_gradient.inner_step` takes, in its order."""

    parameters: list[tf.Tensor]
    x: list[tf.Tensor]
    inner_objective: InnerObjective
    update_rule: OptimizerRule


class UpdateParts(NamedTuple):
    """θ, x, J, U and J': what a derivation of `meta_gradient` takes, in its order."""

    parameters: list[tf.Tensor]
    x: list[tf.Tensor]
    inner_objective: InnerObjective
    update_rule: OptimizerRule
    meta_objective: MetaObjective

    @property
    def inner(self) -> InnerParts:
        """The same without J'."""
        return InnerParts(self.parameters, self.x, self.inner_objective, self.update_rule)


class UpdateFactory:
    """Makes the parts of an update from the settings and the state as it is.

    Attributes:
      meta_parameters: the table.
      schedule: where η comes from.
      reduce: adds up over the learners.
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
        # A single learner's part is the sum.
        self.reduce: Reduce = group.reduce if group.size > 1 else meta_gradient.alone
        self._dtype = state.network.dtype

    def trajectories(self, batch: Unroll) -> Trajectories:
        """A batch of unrolls as the objectives take it."""
        return trajectories_of(batch, self._settings.reward_clip, self._dtype)

    def _on_states(self, batch: Trajectories) -> NetworkOnStates:
        return NetworkOnStates(self._state.network, batch.inputs, batch.core_state)

    def inner_objective(
        self,
        batch: Trajectories,
        parameters: Tensors,
        *,
        follow_targets: bool = False,
        given: Eta | None = None,
    ) -> InnerObjective:
        """J on a batch.

        Args:
          batch: τ.
          parameters: θ that the targets are computed from.
          follow_targets: see `InnerObjective`.
          given: what of η is no function of x, as `scheduled` finds it.
        """
        return InnerObjective(
            network=self._on_states(batch),
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

    def scheduled(self, batch: Trajectories, frames_eta: tf.Tensor | None) -> Eta | None:
        """η of the schedule: of each trajectory `[T+1, B]`, or of these frames; None if learned."""
        schedule = self.schedule
        if schedule.is_drawn:
            shape = batch.inputs.last_rewards.shape
            values = [tf.broadcast_to(part, shape) for part in tf.unstack(batch.eta, axis=-1)]
        elif schedule.follows_frames:
            assert frames_eta is not None, "η is a function of frames"
            values = tf.unstack(tf.cast(frames_eta, self._dtype))
        else:
            return None
        return dict(zip(schedule.names, values, strict=True))

    def update_rule(
        self, slots: Slots, learning_rate: tf.Tensor, given: Eta | None = None
    ) -> OptimizerRule:
        """U at these slots; its coefficients are constants, or learned, or given."""
        return OptimizerRule(
            self._method.inner_optimizer,
            self.meta_parameters,
            slots,
            learning_rate,
            self._settings.differentiate_clip,
            given,
        )

    def meta_objective(
        self, meta_batch: Trajectories, parameters: Tensors, x: Tensors
    ) -> MetaObjective:
        moments = read(self._state.moments)
        return MetaObjective(
            network=self._on_states(meta_batch),
            transitions=meta_batch.transitions,
            old_parameters=parameters,
            logits=x[0],
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
                reduce=self.reduce,
                micro_batches=micro_batches,
            )
        return meta_gradient.nested_tapes

    def micro_batches(
        self, inner: InnerObjective, meta: MetaObjective | None = None
    ) -> MicroBatches:
        """J and J' in `--micro_batches` parts."""
        return in_parts(self._settings.micro_batches, inner, meta)

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
        # With held_out τ itself loses the columns of τ'; otherwise all of τ is learned from.
        if self._settings.meta_data == "held_out":
            return batch.columns(order[count:]), batch.columns(order[:count])
        if count == self._settings.batch_size:
            return batch, other  # J' is a sum over all columns, whatever their order
        return batch, other.columns(order[:count])

    def inner_parts(
        self, batch: Trajectories, learning_rate: tf.Tensor, frames_eta: tf.Tensor | None = None
    ) -> InnerParts:
        """θ, x, J and U, at the state as it is."""
        parameters, x, slots = read(
            [list(self._state.network.trainable_variables), self._state.logits, self._state.slots]
        )
        given = self.scheduled(batch, frames_eta)
        rule = self.update_rule(slots, tf.cast(learning_rate, self._dtype), given)
        objective = self.inner_objective(batch, parameters, given=given)
        return InnerParts(parameters, x, objective, rule)

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
        inner = self.inner_parts(batch, learning_rate, frames_eta)
        return UpdateParts(*inner, self.meta_objective(meta_batch, inner.parameters, inner.x))
