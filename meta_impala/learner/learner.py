"""The learner: Algorithm 1 of Xu et al. 2018 as one `tf.function`.

    g = ∇_θ J(τ, θ, η);   θ' = θ − U(g);   x ← x − Adam(dJ'(τ', θ', η')/dx);   θ ← θ'

The differentiated update *is* the real update. With nothing to learn the same function is plain
IMPALA: the outer derivative is left out and nothing else changes.

Every switch of the method is a small object made here once, from the config: the table of
meta-parameters, the two optimisers, the derivation, the settings of J and J'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent import builders
from meta_impala.agent.policy import EtaSnapshot, Snapshot
from meta_impala.algorithm import losses, meta_gradient, optimizers
from meta_impala.algorithm.functions_of_frames import StepFunction
from meta_impala.algorithm.meta_gradient import (
    InnerStep,
    InnerUpdate,
    MetaStep,
    MicroBatches,
    Tensors,
)
from meta_impala.algorithm.meta_parameters import GAMMA, LAMBDA
from meta_impala.algorithm.objectives import InnerObjective, MetaObjective, places_of
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.learner.batch import (
    NetworkOnTrajectories,
    Trajectories,
    batch_signature,
    trajectories_of,
)
from meta_impala.learner.group import ALONE, LearnerGroup
from meta_impala.learner.state import LearnerState, Statistics
from meta_impala.networks.actor_critic import ActorCritic


def _read(variables: Any) -> Any:
    """The values of variables, in the same lists and dicts."""
    return tf.nest.map_structure(lambda variable: variable.read_value(), variables)


class UpdateParts(NamedTuple):
    """What a derivation of `meta_gradient` takes, in its order."""

    parameters: list[tf.Tensor]
    x: list[tf.Tensor]
    inner_objective: InnerObjective
    update_rule: meta_gradient.UpdateRule
    meta_objective: MetaObjective


class MetaUpdate(NamedTuple):
    """What a meta-gradient makes of x.

    Attributes:
      new: (variables, values) pairs: x, its slots, the trace, the moments.
      loss: J', of all learners.
      gradient: dJ'/dx.
      norm: of it, before its clip.
      step: what is subtracted from x.
    """

    new: list[tuple[Any, Any]]
    loss: tf.Tensor
    gradient: tf.Tensor
    norm: tf.Tensor
    step: tf.Tensor


class Learner:
    """Updates a `LearnerState` from batches."""

    def __init__(
        self,
        config: Config,
        description: Description,
        network: ActorCritic,
        group: LearnerGroup = ALONE,
        replayed: StepFunction | None = None,
    ) -> None:
        """Args:
        config: resolved; of several learners this one's share.
        description: of the environment.
        network: built; its variables become θ.
        group: the learners that make every update together.
        replayed: with `eta_schedule=replay`, the γ and λ of the file.
        """
        assert (replayed is not None) == (config.eta_schedule == "replay"), "the file's γ and λ"
        self.config = config
        self.meta_parameters = builders.meta_parameters_of(config)
        self.action_repeat = description.action_repeat
        self._group = group
        self._dtype = network.dtype
        self._schedule = builders.eta_schedule_of(config, replayed)
        self._optimizer = builders.inner_optimizer_of(config)
        self._meta_optimizer = builders.meta_optimizer_of(config)
        self.state = LearnerState(config, network)
        self._returns = builders.return_settings_of(config)
        self._meta_weights = builders.meta_weights_of(config)
        batch = batch_signature(config, description, network.settings.core_state_size)
        # Learning rate, and γ and λ where they are a function of frames.
        signature = [batch, tf.TensorSpec([], tf.float32), tf.TensorSpec([2], tf.float32)]
        if config.learned:
            signature += [batch, tf.TensorSpec([config.batch_size], tf.int32)]
        self.function = group.function(self._update, signature)

    def build(self) -> None:
        """Traces the graph. Call it before the first thread starts (see `ActorCritic.body_at`)."""
        self.function.get_concrete_function()

    # The parts of the update, as functions of θ, x and g.

    def trajectories(self, batch: Unroll) -> Trajectories:
        """A batch of unrolls as the objectives take it."""
        return trajectories_of(batch, self.config.reward_clip, self._dtype)

    def _inner_objective(
        self, batch: Trajectories, parameters: Tensors, frames_eta: tf.Tensor | None = None
    ) -> InnerObjective:
        given = None
        if self._schedule.is_drawn:
            like = batch.inputs.last_rewards
            columns = tf.unstack(batch.eta, axis=-1)
            given = {
                name: tf.broadcast_to(part, like.shape)
                for name, part in zip((GAMMA, LAMBDA), columns, strict=True)
            }
        elif self._schedule.follows_frames:
            assert frames_eta is not None, "γ and λ are functions of frames"
            values = tf.unstack(tf.cast(frames_eta, self._dtype))
            given = dict(zip((GAMMA, LAMBDA), values, strict=True))
        return InnerObjective(
            network=NetworkOnTrajectories(self.state.network, batch),
            transitions=batch.transitions,
            target_parameters=parameters,
            meta_parameters=self.meta_parameters,
            settings=self._returns,
            places=functools.partial(places_of, self.config.meta_gradient_paths),
            embedding=self.config.eta_embedding_input,
            second_value_head=self.config.second_value_head,
            given=given,
            follow_targets=self.config.trace_curvature,
        )

    def _update_rule(
        self, slots: optimizers.Slots, learning_rate: tf.Tensor
    ) -> meta_gradient.UpdateRule:
        """U: clip, optimiser, learning rate."""

        def rule(gradients: Tensors, x: Tensors) -> InnerUpdate:
            clipped = optimizers.clip_by_global_norm(
                gradients,
                self.config.max_gradient_norm,
                differentiate_coefficient=self.config.differentiate_clip,
            )
            updates, new_slots = self._optimizer.step(clipped.gradients, slots, learning_rate)
            return InnerUpdate(updates, (new_slots, clipped.norm, clipped.coefficient))

        return rule

    def _meta_objective(
        self, meta_batch: Trajectories, parameters: Tensors, x: Tensors
    ) -> MetaObjective:
        moments = _read(self.state.moments)
        return MetaObjective(
            network=NetworkOnTrajectories(self.state.network, meta_batch),
            transitions=meta_batch.transitions,
            old_parameters=parameters,
            x=x[0],
            meta_parameters=self.meta_parameters,
            settings=self._returns,
            weights=self._meta_weights,
            network_eta=self.config.meta_network_eta,
            embedding=self.config.eta_embedding_input,
            second_value_head=self.config.second_value_head,
            moments=losses.MovingMoments(*moments) if moments else None,
            moments_decay=self.config.meta_advantage_decay,
        )

    def _derivation(self, micro_batches: MicroBatches | None = None) -> Callable[..., MetaStep]:
        """(θ, x, J, U, J') -> `MetaStep`."""
        if self.config.meta_gradient_mode == "accumulative_trace":
            return functools.partial(
                meta_gradient.accumulative_trace,
                trace=_read(self.state.trace),
                decay=self.config.trace_decay,
                curvature=self.config.trace_curvature,
            )
        if self.config.meta_gradient_mode == "reverse_over_forward":
            return functools.partial(
                meta_gradient.reverse_over_forward,
                reduce=self._group.reduce,
                micro_batches=micro_batches,
            )
        return meta_gradient.nested_tapes

    def _micro_batches(
        self,
        parameters: Tensors,
        x: Tensors,
        batch: Trajectories,
        meta_batch: Trajectories | None,
        frames_eta: tf.Tensor,
    ) -> MicroBatches | None:
        """J and J' in `--micro_batches` parts of as many columns each; None for the whole."""
        count = self.config.micro_batches
        if count == 1:
            return None

        def part(whole: Trajectories, index: tf.Tensor) -> Trajectories:
            columns = whole.num_columns // count
            return whole.columns(index * columns + tf.range(columns))

        def inner(index: tf.Tensor) -> meta_gradient.InnerObjective:
            objective = self._inner_objective(part(batch, index), parameters, frames_eta)

            def with_sums(live: Tensors, x: Tensors) -> tuple[tf.Tensor, Any]:
                loss, (parts, eta) = objective(live, x)
                # Means of the parts, so that the parts' shares of them add up.
                return loss, (parts, {name: mean / count for name, mean in eta.items()})

            return with_sums

        def meta(index: tf.Tensor) -> MetaObjective:
            assert meta_batch is not None
            return self._meta_objective(part(meta_batch, index), parameters, x)

        return MicroBatches(count, inner, meta)

    def _split(
        self, batch: Trajectories, other: Trajectories, order: tf.Tensor
    ) -> tuple[Trajectories, Trajectories]:
        """τ, and the B' trajectories of τ' on which J' is evaluated.

        Args:
          batch: of this update.
          other: another one (the next, or with `meta_data=swap` every second time the last).
          order: a permutation of the B columns.
        """
        count = self.config.meta_batch_size
        if self.config.meta_data == "held_out":
            return batch.columns(order[count:]), batch.columns(order[:count])
        if count == self.config.batch_size:
            return batch, other  # J' is a sum over all columns, whatever their order
        return batch, other.columns(order[:count])

    def _inner_parts(
        self, batch: Trajectories, learning_rate: tf.Tensor, frames_eta: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], InnerObjective, meta_gradient.UpdateRule]:
        """θ, x, J and U, at the state as it is."""
        parameters, x, slots = _read(
            [list(self.state.network.trainable_variables), [self.state.x], self.state.slots]
        )
        rule = self._update_rule(slots, tf.cast(learning_rate, self._dtype))
        return parameters, x, self._inner_objective(batch, parameters, frames_eta), rule

    def parts(self, batch: Unroll, meta_batch: Unroll, learning_rate: tf.Tensor) -> UpdateParts:
        """An update on τ with its meta objective on τ', at the state as it is, in its parts.

        Args:
          batch: τ, tensors `[T+1, B, ...]`.
          meta_batch: τ', tensors `[T+1, B', ...]`.
          learning_rate: of U, a scalar.
        """
        return self._parts(self.trajectories(batch), self.trajectories(meta_batch), learning_rate)

    def _parts(
        self,
        batch: Trajectories,
        meta_batch: Trajectories,
        learning_rate: tf.Tensor,
        frames_eta: tf.Tensor | None = None,
    ) -> UpdateParts:
        parameters, x, objective, rule = self._inner_parts(batch, learning_rate, frames_eta)
        meta_objective = self._meta_objective(meta_batch, parameters, x)
        return UpdateParts(parameters, x, objective, rule, meta_objective)

    # The update itself, plain and with the meta-gradient.

    def _update(
        self,
        unrolls: Unroll,
        learning_rate: tf.Tensor,
        frames_eta: tf.Tensor,
        other: Unroll | None = None,
        order: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        batch = whole = self.trajectories(unrolls)
        meta = None
        if other is None:
            parameters, x, objective, rule = self._inner_parts(batch, learning_rate, frames_eta)
            step = meta_gradient.inner_step(
                parameters,
                x,
                objective,
                rule,
                reduce=self._group.reduce,
                micro_batches=self._micro_batches(parameters, x, batch, None, frames_eta),
            )
            meta_steps = tf.ones([], self._dtype)
        else:
            assert order is not None
            batch, meta_batch = self._split(batch, self.trajectories(other), order)
            parts = self._parts(batch, meta_batch, learning_rate, frames_eta)
            micro_batches = self._micro_batches(
                parts.parameters, parts.x, batch, meta_batch, frames_eta
            )
            meta_step = self._derivation(micro_batches)(*parts)
            step, meta = meta_step.inner, self._meta_update(meta_step)
            meta_steps = tf.reduce_sum(meta_batch.transitions.step_mask)
        new = [
            (list(self.state.network.trainable_variables), step.parameters),
            (self.state.slots, step.update_auxiliary[0]),
            *(meta.new if meta else []),
        ]
        _, norm, _ = step.update_auxiliary
        scalars = [step.inner_loss, norm, *([meta.loss, meta.norm] if meta else [])]
        applied = _are_finite([*scalars, *(value for _, value in _pairs(new))])
        emulated = tf.reduce_sum(whole.transitions.step_mask)
        vector = self._statistics(step, meta, emulated, meta_steps, applied)
        self._apply(new, applied, vector)
        return vector, _read(list(self.state.network.trainable_variables)), self._acting_eta()

    def _meta_update(self, meta_step: MetaStep) -> MetaUpdate:
        """x − Adam(dJ'/dx), and everything else that the meta-gradient changes."""
        state, config = self.state, self.config
        clipped = optimizers.clip_by_global_norm(
            meta_step.meta_gradient, config.meta_max_gradient_norm
        )
        (x_step,), new_slots = self._meta_optimizer.step(
            clipped.gradients, _read(state.meta_slots), config.meta_learning_rate
        )
        new: list[tuple[Any, Any]] = [
            (state.x, state.x.read_value() - x_step),
            (state.meta_slots, new_slots),
        ]
        if state.trace:
            new.append((state.trace, meta_step.trace))
        if state.moments:
            new.append((state.moments, list(meta_step.meta_auxiliary)))
        return MetaUpdate(
            new, meta_step.meta_loss, meta_step.meta_gradient[0], clipped.norm, x_step
        )

    def _statistics(
        self,
        step: InnerStep,
        meta: MetaUpdate | None,
        emulated: tf.Tensor,
        meta_steps: tf.Tensor,
        applied: tf.Tensor,
    ) -> tf.Tensor:
        """`Statistics` of all learners, as a vector."""
        parts, eta = step.loss_auxiliary
        _, norm, coefficient = step.update_auxiliary
        nan = tf.constant(float("nan"), self._dtype)
        by_name = dict.fromkeys(
            (f"{what}_{name}" for what in ("gradient", "step") for name in (GAMMA, LAMBDA)), nan
        )
        if meta is not None:
            for index, name in enumerate(self.config.learned):
                # Of the bias, the last row, where η belongs to the state.
                by_name[f"gradient_{name}"] = tf.reshape(meta.gradient[..., index], [-1])[-1]
                by_name[f"step_{name}"] = -tf.reshape(meta.step[..., index], [-1])[-1]
        sums = Statistics(
            inner_loss=step.inner_loss / self._group.size,
            policy_loss=parts.policy_loss,
            value_loss=parts.value_loss,
            entropy=parts.entropy,
            gradient_norm=norm,
            clip_coefficient=coefficient,
            rho_clipped_share=parts.rhos_clipped,
            steps=emulated,
            gamma=eta[GAMMA],
            lambda_=eta[LAMBDA],
            applied=applied,
            meta_loss=nan if meta is None else meta.loss / self._group.size,
            meta_gradient_norm=nan if meta is None else meta.norm,
            meta_gradient_gamma=by_name["gradient_gamma"],
            meta_gradient_lambda=by_name["gradient_lambda"],
            x_step_gamma=by_name["step_gamma"],
            x_step_lambda=by_name["step_lambda"],
        )
        vector = [tf.cast(value, tf.float32) for value in (*sums, parts.steps, meta_steps)]
        *means, steps, meta_steps = tf.unstack(self._group.mean(tf.stack(vector)))
        of_all = Statistics(*means)
        # Means over the steps of weight 1, of all learners.
        per_step = ("inner_loss", "policy_loss", "value_loss", "entropy", "rho_clipped_share")
        of_all = of_all._replace(
            **{name: getattr(of_all, name) / tf.maximum(steps, 1.0) for name in per_step},
            meta_loss=of_all.meta_loss / tf.maximum(meta_steps, 1.0),
            steps=of_all.steps * self._group.size,
        )
        return tf.stack(of_all)

    def _apply(self, new: list[tuple[Any, Any]], applied: tf.Tensor, vector: tf.Tensor) -> None:
        """Assigns what is new, unless it is not finite; counts the update and its frames."""

        def assign() -> tf.Tensor:
            for variable, value in _pairs(new):
                variable.assign(value)
            return tf.constant(True)

        # After the last message from the other learners: an update that loses them changes nothing.
        with tf.control_dependencies([vector]):
            # One that is not finite changes nothing either; its frames count as learned from.
            tf.cond(applied, assign, lambda: tf.constant(False))
            self.state.updates.assign_add(1)
            steps = tf.cast(tf.round(vector[Statistics._fields.index("steps")]), tf.int64)
            self.state.frames.assign_add(steps * self.action_repeat)

    def _acting_eta(self) -> tf.Tensor:
        """What the actors get of η: the values that are fed, or x where η depends on the state."""
        x = self.state.x.read_value()
        if builders.eta_is_per_state(self.config):
            return tf.cast(x, tf.float32)
        values = self.meta_parameters.values(x)
        names = self.meta_parameters.embedded
        return tf.stack([tf.cast(tf.convert_to_tensor(values[n]), tf.float32) for n in names])

    # What the trainer calls.

    def learning_rate(self, frames: int) -> float:
        """The inner step size after so many frames: linear to 0 at `total_frames`, or constant."""
        if self.config.learning_rate_schedule == "constant":
            return self.config.learning_rate
        remaining = 1.0 - frames / self.config.total_frames
        return self.config.learning_rate * max(0.0, remaining)

    def column_order(self, updates: int) -> np.ndarray:
        """A permutation of the columns for update number `updates`, `[B]` int32.

        J' is evaluated on the first B' trajectories in this order.
        """
        of_learner = [self._group.index] if self._group.index else []
        generator = np.random.default_rng([self.config.seed, updates, *of_learner])
        return generator.permutation(self.config.batch_size).astype(np.int32)

    def update(
        self, batch: Unroll, other: Unroll, updates: int, frames: int
    ) -> tuple[Statistics, Snapshot]:
        """One learner update.

        Args:
          batch: τ, tensors `[T+1, B, ...]`.
          other: the batch of τ', likewise; looked at only when something is learned.
          updates: updates made so far.
          frames: frames learned from so far.

        Returns:
          Statistics of the update (of all learners) and the snapshot after it.

        Raises:
          LearnerLost: if another learner cannot be reached; nothing was changed then.
        """
        # NumPy's numbers: TensorFlow keeps every Python number that it was ever given (753 bytes).
        arguments = [
            batch,
            tf.constant(np.float32(self.learning_rate(frames))),
            tf.constant(self._schedule.at(frames)),
        ]
        if self.config.learned:
            arguments += [other, tf.constant(self.column_order(updates))]
        with self._group.reaching():
            vector, parameters, eta = self.function(*arguments)
            statistics = Statistics(*vector.numpy().tolist())
        return statistics, self._to_snapshot(updates + 1, parameters, self._eta_to_act_by(eta))

    def snapshot(self) -> Snapshot:
        """A snapshot of the state as it is (before the first update, after a restore)."""
        values = _read(list(self.state.network.trainable_variables))
        eta = self._eta_to_act_by(self._acting_eta())
        return self._to_snapshot(int(self.state.updates.numpy()), values, eta)

    def _eta_to_act_by(self, eta: tf.Tensor) -> tf.Tensor:
        """The given η, or that of the frames learned from so far: what the next update uses."""
        if not self._schedule.follows_frames:
            return eta
        return tf.constant(self._schedule.at(int(self.state.frames.numpy())))

    def _to_snapshot(self, version: int, parameters: Sequence[tf.Tensor], eta: tf.Tensor):
        with tf.device("CPU:0"):  # from a GPU, one copy per update
            return Snapshot(
                version,
                tuple(tf.identity(tensor) for tensor in parameters),
                EtaSnapshot(tf.identity(eta), builders.eta_is_per_state(self.config)),
            )


def _are_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Whether all numbers of all tensors are finite; a sum says so in one pass."""
    sums = [tf.cast(tf.reduce_sum(tensor), tf.float64) for tensor in tensors]
    return tf.reduce_all(tf.math.is_finite(tf.stack(sums)))


def _pairs(new: list[tuple[Any, Any]]) -> Iterator[tuple[tf.Variable, tf.Tensor]]:
    """(variable, value) of pairs of equal structures."""
    for variables, values in new:
        yield from zip(tf.nest.flatten(variables), tf.nest.flatten(values), strict=True)
