"""The learner: Algorithm 1 of Xu et al. 2018 as one `tf.function`.

    g = ∇_θ J(τ, θ, η);   θ' = θ − U(g);   x ← x − Adam(dJ'(τ', θ', η')/dx);   θ ← θ'

The differentiated update *is* the real update. With nothing to learn the same function is plain
IMPALA: the outer derivative is left out and nothing else changes.

Every switch of the method is a small object made here once, from the config: the meta-parameters,
the two optimisers, the derivation, the settings of J and J'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.builders import (
    eta_schedule_of,
    inner_optimizer_of,
    meta_optimizer_of,
    meta_parameters_of,
)
from meta_impala.agent.policy import Snapshot
from meta_impala.algorithm import losses, meta_gradient, optimizers
from meta_impala.algorithm.meta_gradient import InnerStep, InnerUpdate, MetaStep, MicroBatches
from meta_impala.algorithm.meta_parameters import Eta
from meta_impala.algorithm.objectives import Forward, InnerObjective, MetaObjective
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.learner.batch import (
    batch_signature,
    network_inputs,
    select_columns,
    transitions_of,
)
from meta_impala.learner.group import ALONE, LearnerGroup
from meta_impala.learner.state import LearnerState, Statistics
from meta_impala.networks.actor_critic import ActorCritic


def _read(variables):
    """The values of variables, in the same lists and dicts."""
    return tf.nest.map_structure(lambda variable: variable.read_value(), variables)


class UpdateParts(NamedTuple):
    """What a derivation of `meta_gradient` takes, in its order."""

    parameters: list[tf.Tensor]
    x: tf.Tensor
    inner_objective: InnerObjective
    update_rule: meta_gradient.UpdateRule
    meta_objective: MetaObjective


class Learner:
    """Updates a `LearnerState` from batches."""

    def __init__(
        self,
        config: Config,
        description: Description,
        network: ActorCritic,
        group: LearnerGroup = ALONE,
    ) -> None:
        """Args:
        config: resolved; of several learners this one's share.
        description: of the environment.
        network: built; its variables become θ.
        group: the learners that make every update together.
        """
        self.config = config
        self._group = group
        self._dtype = network.dtype
        self._meta_parameters = meta_parameters_of(config)
        self._eta_is_drawn = eta_schedule_of(config).is_drawn
        self._optimizer = inner_optimizer_of(config)
        self._meta_optimizer = meta_optimizer_of(config)
        self.state = LearnerState(config, network)
        self._loss_settings = losses.LossSettings(
            baseline_cost=config.baseline_cost,
            entropy_cost=config.entropy_cost,
            rho_clip=config.rho_clip,
            c_clip=config.c_clip,
            pg_rho_clip=config.pg_rho_clip,
            policy_return=config.policy_return,
        )
        self._meta_loss_settings = losses.MetaLossSettings(
            policy_cost=config.meta_policy_cost,
            baseline_cost=config.meta_baseline_cost,
            entropy_cost=config.meta_entropy_cost,
            kl_cost=config.meta_kl_cost,
        )
        batch = batch_signature(config, description, network.settings.core_state_size)
        signature = [batch, tf.TensorSpec([], tf.float32)]
        if config.learned:
            signature += [batch, tf.TensorSpec([config.batch_size], tf.int32)]
        self.function = group.function(self._update, signature)
        self._frames_per_update = (
            group.size * config.batch_size * config.unroll_length * description.action_repeat
        )

    def trace(self) -> None:
        """Builds the graph. Call it before the first thread starts (see `at_parameters`)."""
        self.function.get_concrete_function()

    # The parts of the update, as functions of θ, x and g.

    def _forward(self, batch: Unroll) -> Forward:
        """The network on the states of a batch, as a function of θ and of what it is fed of η."""
        inputs = network_inputs(batch, self.config.reward_clip, self._dtype)
        core_state = tf.cast(batch.core_state, self._dtype)
        return lambda parameters, eta_input: self.state.network.at_parameters(
            parameters, inputs, core_state, eta_input
        )

    def _inner_objective(self, batch: Unroll, parameters) -> InnerObjective:
        drawn = None
        if self._eta_is_drawn:
            drawn = Eta(
                *(
                    tf.broadcast_to(tf.cast(part, self._dtype), batch.rewards.shape)
                    for part in tf.unstack(batch.eta, axis=-1)
                )
            )
        return InnerObjective(
            forward=self._forward(batch),
            transitions=transitions_of(batch, self.config.reward_clip, self._dtype),
            target_parameters=parameters,
            meta_parameters=self._meta_parameters,
            settings=self._loss_settings,
            paths=self.config.meta_gradient_paths,
            embedding=self.config.eta_embedding_input,
            second_value_head=self.config.second_value_head,
            drawn=drawn,
            follow_targets=self.config.trace_curvature,
        )

    def _update_rule(self, slots: optimizers.Slots, learning_rate: tf.Tensor):
        """U: clip, optimiser, learning rate."""

        def rule(gradients) -> InnerUpdate:
            clipped = optimizers.clip_by_global_norm(
                gradients,
                self.config.max_gradient_norm,
                differentiate_coefficient=self.config.differentiate_clip,
            )
            updates, new_slots = self._optimizer.step(clipped.gradients, slots, learning_rate)
            return InnerUpdate(updates, (new_slots, clipped.norm, clipped.coefficient))

        return rule

    def _meta_objective(self, batch: Unroll, parameters, x: tf.Tensor) -> MetaObjective:
        moments = _read(self.state.moments)
        return MetaObjective(
            forward=self._forward(batch),
            transitions=transitions_of(batch, self.config.reward_clip, self._dtype),
            old_parameters=parameters,
            x=x,
            meta_parameters=self._meta_parameters,
            settings=self._loss_settings,
            meta_settings=self._meta_loss_settings,
            network_eta=self.config.meta_network_eta,
            embedding=self.config.eta_embedding_input,
            second_value_head=self.config.second_value_head,
            moments=losses.MovingMoments(*moments) if moments else None,
            moments_decay=self.config.meta_advantage_decay,
        )

    def _derivation(self, micro_batches: MicroBatches | None) -> Callable[..., MetaStep]:
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
        self, parameters, x: tf.Tensor, batch: Unroll, judges: Unroll | None
    ) -> MicroBatches | None:
        """J and J' in `--micro_batches` parts of as many columns each; None for the whole."""
        count = self.config.micro_batches
        if count == 1:
            return None

        def part(whole: Unroll, index: tf.Tensor) -> Unroll:
            columns = whole.rewards.shape[1] // count
            return select_columns(whole, index * columns + tf.range(columns))

        def inner(index: tf.Tensor) -> meta_gradient.InnerObjective:
            objective = self._inner_objective(part(batch, index), parameters)

            def with_sums(live, x):
                loss, (parts, eta) = objective(live, x)
                # Means of the parts, so that the parts' shares of them add up.
                parts = parts._replace(rho_clipped_share=parts.rho_clipped_share / count)
                return loss, (parts, Eta(*(tf.reduce_mean(value) / count for value in eta)))

            return with_sums

        def meta(index: tf.Tensor) -> MetaObjective:
            assert judges is not None
            return self._meta_objective(part(judges, index), parameters, x)

        return MicroBatches(count, inner, meta)

    def _split(self, batch: Unroll, other: Unroll, order: tf.Tensor) -> tuple[Unroll, Unroll]:
        """τ and τ': what is learned from, and the B' trajectories that judge.

        Args:
          batch: of this update.
          other: another one (the next, or with `meta_data=swap` every second time the last).
          order: a permutation of the B columns.
        """
        count = self.config.meta_batch_size
        if self.config.meta_data == "held_out":
            return select_columns(batch, order[count:]), select_columns(batch, order[:count])
        if count == self.config.batch_size:
            return batch, other  # all judge: J' is a sum, whatever their order
        return batch, select_columns(other, order[:count])

    def _inner_parts(self, batch: Unroll, learning_rate: tf.Tensor):
        """θ, x, J and U, at the state as it is."""
        parameters, x, slots = _read(
            [list(self.state.network.trainable_variables), self.state.x, self.state.slots]
        )
        rule = self._update_rule(slots, tf.cast(learning_rate, self._dtype))
        return parameters, x, self._inner_objective(batch, parameters), rule

    def parts(self, batch: Unroll, judges: Unroll, learning_rate: tf.Tensor) -> UpdateParts:
        """An update on τ judged by τ', at the state as it is, in the parts it is made of.

        Args:
          batch: τ, tensors `[T+1, B, ...]`.
          judges: τ', tensors `[T+1, B', ...]`.
          learning_rate: of U, a scalar.
        """
        parameters, x, objective, rule = self._inner_parts(batch, learning_rate)
        judge = self._meta_objective(judges, parameters, x)
        return UpdateParts(parameters, x, objective, rule, judge)

    # The update itself, plain and with the meta-gradient.

    def _update(
        self,
        batch: Unroll,
        learning_rate: tf.Tensor,
        other: Unroll | None = None,
        order: tf.Tensor | None = None,
    ):
        if other is None:
            parameters, x, objective, rule = self._inner_parts(batch, learning_rate)
            step = meta_gradient.inner_step(
                parameters,
                x,
                objective,
                rule,
                reduce=self._group.reduce,
                micro_batches=self._micro_batches(parameters, x, batch, None),
            )
            return self._finish(step, None, self.config.batch_size)
        assert order is not None
        batch, judges = self._split(batch, other, order)
        parts = self.parts(batch, judges, learning_rate)
        micro_batches = self._micro_batches(parts.parameters, parts.x, batch, judges)
        meta_step = self._derivation(micro_batches)(*parts)
        return self._finish(meta_step.inner, meta_step, batch.rewards.shape[1])

    def _finish(self, step: InnerStep, meta_step: MetaStep | None, columns: int):
        """Assigns θ', slots and x; returns statistics, θ' and η for the next snapshot."""
        state, config = self.state, self.config
        new_slots, norm, coefficient = step.update_auxiliary
        new: list[tuple] = [
            (list(state.network.trainable_variables), step.parameters),
            (state.slots, new_slots),
        ]
        x = state.x.read_value()
        nan = tf.constant(float("nan"), self._dtype)
        by_name = {
            f"{what}_{name}": nan for what in ("gradient", "step") for name in ("gamma", "lambda")
        }
        meta_loss, meta_norm = nan, nan
        if meta_step is not None:
            clipped = optimizers.clip_by_global_norm(
                [meta_step.meta_gradient], config.meta_max_gradient_norm
            )
            (x_update,), new_meta_slots = self._meta_optimizer.step(
                clipped.gradients, _read(state.meta_slots), config.meta_learning_rate
            )
            x = x - x_update
            new += [(state.x, x), (state.meta_slots, new_meta_slots)]
            if state.trace:
                new.append((state.trace, meta_step.trace))
            if state.moments:
                new.append((state.moments, list(meta_step.meta_auxiliary)))
            judging_steps = config.unroll_length * config.meta_batch_size * self._group.size
            meta_loss = meta_step.meta_loss / judging_steps
            meta_norm = clipped.norm
            for index, name in enumerate(config.learned):
                # Of the bias, the last row, where η belongs to the state.
                by_name[f"gradient_{name}"] = tf.reshape(meta_step.meta_gradient[..., index], [-1])[
                    -1
                ]
                by_name[f"step_{name}"] = -tf.reshape(x_update[..., index], [-1])[-1]
        scalars = [step.inner_loss, norm] + ([] if meta_step is None else [meta_loss, meta_norm])
        applied = _are_finite([*scalars, *(value for _, value in _pairs(new))])

        parts, eta = step.loss_auxiliary
        steps = config.unroll_length * columns
        statistics = Statistics(
            inner_loss=step.inner_loss / (steps * self._group.size),
            policy_loss=parts.policy_loss / steps,
            value_loss=parts.value_loss / steps,
            entropy=parts.entropy / steps,
            gradient_norm=norm,
            clip_coefficient=coefficient,
            rho_clipped_share=parts.rho_clipped_share,
            gamma=tf.reduce_mean(eta.gamma),
            lambda_=tf.reduce_mean(eta.lambda_),
            applied=applied,
            meta_loss=meta_loss,
            meta_gradient_norm=meta_norm,
            meta_gradient_gamma=by_name["gradient_gamma"],
            meta_gradient_lambda=by_name["gradient_lambda"],
            x_step_gamma=by_name["step_gamma"],
            x_step_lambda=by_name["step_lambda"],
        )
        vector = self._group.mean(tf.stack([tf.cast(value, tf.float32) for value in statistics]))

        def apply():
            for variable, value in _pairs(new):
                variable.assign(value)
            return tf.constant(True)

        # After the last word from the other learners: an update that loses them changes nothing.
        with tf.control_dependencies([vector]):
            # One that is not finite changes nothing either; its frames count as learned from.
            tf.cond(applied, apply, lambda: tf.constant(False))
            state.updates.assign_add(1)
            state.frames.assign_add(self._frames_per_update)
        return (
            vector,
            _read(list(state.network.trainable_variables)),
            self._eta_of_snapshot(state.x.read_value()),
        )

    def _eta_of_snapshot(self, x: tf.Tensor) -> tf.Tensor:
        """What of η the actors get: γ and λ, or x itself where they depend on the state."""
        if x.shape.rank > 1:
            return tf.cast(x, tf.float32)
        return tf.cast(tf.stack([*self._meta_parameters.values(x)]), tf.float32)

    # What the trainer calls.

    def learning_rate(self, frames: int) -> float:
        """The inner step size after so many frames: linear to 0 at `total_frames`, or constant."""
        if self.config.learning_rate_schedule == "constant":
            return self.config.learning_rate
        remaining = 1.0 - frames / self.config.total_frames
        return self.config.learning_rate * max(0.0, remaining)

    def column_order(self, updates: int) -> np.ndarray:
        """A permutation of the columns for update number `updates`, `[B]` int32.

        The first B' trajectories in this order are those that judge.
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
        arguments = [batch, tf.constant(np.float32(self.learning_rate(frames)))]
        if self.config.learned:
            arguments += [other, tf.constant(self.column_order(updates))]
        with self._group.reaching():
            vector, parameters, eta = self.function(*arguments)
            statistics = Statistics(*vector.numpy().tolist())
        return statistics, self._to_snapshot(updates + 1, parameters, eta)

    def snapshot(self) -> Snapshot:
        """A snapshot of the state as it is (before the first update, after a restore)."""
        values = _read(list(self.state.network.trainable_variables))
        eta = self._eta_of_snapshot(self.state.x.read_value())
        return self._to_snapshot(int(self.state.updates.numpy()), values, eta)

    def _to_snapshot(self, version: int, parameters, eta: tf.Tensor) -> Snapshot:
        with tf.device("CPU:0"):  # from a GPU, one copy per update
            return Snapshot(
                version, tuple(tf.identity(tensor) for tensor in parameters), tf.identity(eta)
            )


def _are_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Whether all numbers of all tensors are finite; a sum says so in one pass."""
    sums = [tf.cast(tf.reduce_sum(tensor), tf.float64) for tensor in tensors]
    return tf.reduce_all(tf.math.is_finite(tf.stack(sums)))


def _pairs(new: list[tuple]) -> Iterator[tuple[tf.Variable, tf.Tensor]]:
    """(variable, value) of pairs of equal structures."""
    for variables, values in new:
        yield from zip(tf.nest.flatten(variables), tf.nest.flatten(values), strict=True)
