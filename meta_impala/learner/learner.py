"""The learner: Algorithm 1 of Xu et al. 2018 as one `tf.function`.

    g = ∇_θ J(τ, θ, η);   θ' = θ − U(g);   x ← x − Adam(dJ'(τ', θ', η')/dx);   θ ← θ'

The differentiated update *is* the real update. With nothing to learn the same function is plain
IMPALA: the outer derivative is left out and nothing else changes.

`update_parts.py` makes J, U and J' from the settings; `update_statistics.py` packs the statistics
of an update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.builders import Method
from meta_impala.agent.policy import EtaSnapshot, Snapshot
from meta_impala.algorithm import meta_gradient, optimizers
from meta_impala.algorithm.meta_gradient import InnerStep, MetaStep, MicroBatches
from meta_impala.algorithm.window_gradient import WindowGradient, WindowState
from meta_impala.config import UpdateSettings
from meta_impala.config.metric_columns import of_all_heads
from meta_impala.environments import Description
from meta_impala.errors import warn
from meta_impala.learner.batch import Trajectories, batch_signature
from meta_impala.learner.group import ALONE, LearnerGroup
from meta_impala.learner.state import FIXED, LearnerState, Statistics
from meta_impala.learner.update_parts import UpdateFactory, UpdateParts, read
from meta_impala.learner.update_statistics import (
    MetaUpdate,
    meta_columns,
    meta_statistics_of,
    statistics_of,
    to_statistics,
    with_meta,
)
from meta_impala.learner.window_parts import WindowFactory
from meta_impala.learner.window_state import Window
from meta_impala.learner.window_step import WindowStep
from meta_impala.networks.actor_critic import ActorCritic


class Learner:
    """Updates a `LearnerState` from batches."""

    def __init__(
        self,
        settings: UpdateSettings,
        method: Method,
        network: ActorCritic,
        description: Description,
        group: LearnerGroup = ALONE,
    ) -> None:
        """Args:
        settings: resolved; of several learners this one's share.
        method: what the update is made of.
        network: built; its variables become θ.
        description: of the environment.
        group: the learners that make every update together.
        """
        self.action_repeat = description.action_repeat
        self.meta_parameters = method.meta_parameters
        self.state = LearnerState(settings, method, network)
        self.factory = UpdateFactory(settings, method, self.state, group)
        self._settings = settings
        self._group = group
        self._dtype = network.dtype
        self._schedule = schedule = method.schedule
        # What is reported of η, by name.
        self._reported = of_all_heads(
            self.meta_parameters.learned or schedule.names, network.settings.auxiliary_heads
        )
        self._meta_optimizer = method.meta_optimizer
        batch = batch_signature(
            settings, description, network.settings.core_state_size, schedule.num_of_unroll
        )
        # Learning rate, and η where it is a function of frames.
        of_frames = tf.TensorSpec([len(schedule.names)], tf.float32)
        signature = [batch, tf.TensorSpec([], tf.float32), of_frames]
        self.window_factory = WindowFactory(settings, self.factory)
        ahead = (batch,) * settings.bootstrap_steps
        of_meta = [ahead, tf.TensorSpec([settings.batch_size], tf.int32)]
        self.window_step: WindowStep | None = None
        learned = self.meta_parameters.learned
        # Terms of J' that are in no setting; without J' there is none.
        self.own_meta_weights = dict(method.own_meta_weights) if learned else {}
        if learned and settings.inner_steps > 1:
            self.state.window = Window(
                settings.inner_steps,
                network,
                self.state.slots,
                batch,
                len(meta_columns(self._reported)),
            )
            self.window_step = WindowStep(
                settings, self.window_factory, self.state, self._end_window, group, of_meta
            )
        elif learned:
            signature += of_meta
        self.function = group.function(self._update, signature)

    def build(self) -> None:
        """Traces the graph. Call it before the first actor acts: see `ActorCritic._with`."""
        if tf.config.functions_run_eagerly():  # actors would read weights that are substituted
            warn("warning: tf.config.run_functions_eagerly was on; it is turned off for training")
            tf.config.run_functions_eagerly(False)
        self.function.get_concrete_function()
        if self.window_step is not None:
            self.window_step.build()

    # The update itself, plain and with the meta-gradient.

    def _update(
        self,
        unrolls: Unroll,
        learning_rate: tf.Tensor,
        frames_eta: tf.Tensor,
        ahead: tuple[Unroll, ...] | None = None,
        order: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, list[tf.Tensor]]:
        factory = self.factory
        batch = emulated_batch = factory.trajectories(unrolls)
        meta = None
        if ahead is None:
            inner = factory.inner_parts(batch, learning_rate, frames_eta)
            step = meta_gradient.inner_step(
                *inner,
                reduce=factory.reduce,
                micro_batches=factory.micro_batches(inner.inner_objective),
            )
            num_meta_rows = tf.ones([], self._dtype)
        else:
            assert order is not None
            *before, other = map(factory.trajectories, ahead)
            # Now without what is held out for J'.
            batch, meta_batch = factory.split(batch, other, order)
            parts = factory.parts_of(batch, meta_batch, learning_rate, frames_eta)
            micro_batches = factory.micro_batches(parts.inner_objective, parts.meta_objective)
            if self._settings.meta_objective == "bootstrapped":
                step, found = self._bootstrapped(
                    parts, micro_batches, batch, learning_rate, [*before, meta_batch]
                )
                meta = self._step_of_x(found)
            else:
                # One of the three derivations of `algorithm/meta_gradient.py`.
                derived = factory.derivation(micro_batches)(*parts)
                step, meta = derived.inner, self._step_of_x(derived)
            num_meta_rows = tf.reduce_sum(meta_batch.transitions.step_mask)
        emulated = self._counted(tf.reduce_sum(emulated_batch.transitions.step_mask))
        vector = self._finish_update(step, meta, emulated, num_meta_rows)
        # With several inner steps the window keeps g.
        gradients = [] if self.state.window is None else step.gradients
        parameters = read(list(self.state.network.trainable_variables))
        return vector, parameters, self._acting_eta(), gradients

    def _counted(self, steps: tf.Tensor) -> tf.Tensor:
        """A batch's steps; 0 in all updates on it but the last (`sample_reuse`)."""
        reuse = self._settings.sample_reuse
        if reuse == 1:
            return steps
        is_last = tf.equal((self.state.updates.read_value() + 1) % reuse, 0)
        return tf.where(is_last, steps, tf.zeros_like(steps))

    def _bootstrapped(
        self,
        parts: UpdateParts,
        micro_batches: MicroBatches,
        batch: Trajectories,
        learning_rate: tf.Tensor,
        ahead: Sequence[Trajectories],
    ) -> tuple[InnerStep, WindowGradient]:
        """One update, and its meta-gradient by a target that is ahead of it."""
        slots = read(self.state.slots)
        step = meta_gradient.inner_step(
            *parts.inner, reduce=self.factory.reduce, micro_batches=micro_batches
        )
        state = WindowState(parts.parameters, slots, step.gradients)
        found = self.window_factory.gradient(
            [state],
            [batch],
            [tf.cast(learning_rate, self._dtype)],
            (step.parameters, step.update_auxiliary.slots),
            parts.x,
            ahead,
        )
        return step, found

    def _end_window(
        self, found: WindowGradient, num_meta_rows: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The step of x at the end of a window: statistics, whether it is applied, new η."""
        meta = self._step_of_x(found)
        vector = meta_statistics_of(meta, self._reported, num_meta_rows, self._group)
        applied = _are_finite([meta.loss, meta.norm, *(value for _, value in _pairs(meta.new))])
        with tf.control_dependencies([vector]):
            applied = _assign_if(applied, meta.new)
        with tf.control_dependencies([applied]):
            return vector, tf.identity(applied), self._acting_eta()

    def _finish_update(
        self,
        step: InnerStep,
        meta: MetaUpdate | None,
        emulated: tf.Tensor,
        num_meta_rows: tf.Tensor,
    ) -> tf.Tensor:
        """Packs the statistics of an update, then applies and counts it; returns the statistics."""
        new = [
            (list(self.state.network.trainable_variables), step.parameters),
            (self.state.slots, step.update_auxiliary.slots),
            *(meta.new if meta else []),
        ]
        scalars = [step.inner_loss, step.update_auxiliary.norm]
        if meta is not None:
            scalars += [meta.loss, meta.norm]
        applied = _are_finite([*scalars, *(value for _, value in _pairs(new))])
        vector = statistics_of(
            step, meta, self._reported, emulated, num_meta_rows, applied, self._group
        )
        self._assign_if_finite(new, applied, vector)
        return vector

    def _step_of_x(self, derived: MetaStep | WindowGradient) -> MetaUpdate:
        """x − Adam(dJ'/dx), and everything else that the meta-gradient changes."""
        state, settings = self.state, self._settings
        clipped = optimizers.clip_by_global_norm(
            derived.meta_gradient, settings.meta_max_gradient_norm
        )
        steps, new_slots = self._meta_optimizer.step(
            clipped.gradients, read(state.meta_slots), settings.meta_learning_rate
        )
        new: list[tuple[Any, Any]] = [
            (state.logits, [x - step for x, step in zip(read(state.logits), steps, strict=True)]),
            (state.meta_slots, new_slots),
        ]
        if state.trace:
            assert isinstance(derived, MetaStep)
            new.append((state.trace, derived.trace))
        if state.moments:
            new.append((state.moments, list(derived.meta_auxiliary)))
        return MetaUpdate(new, derived.meta_loss, derived.meta_gradient, clipped.norm, steps)

    def _assign_if_finite(
        self, new: list[tuple[Any, Any]], is_finite: tf.Tensor, vector: tf.Tensor
    ) -> None:
        """Assigns what is new if all of it is finite; counts the update and its frames."""
        # After the last message from the other learners: an update that loses them changes nothing.
        with tf.control_dependencies([vector]):
            # One that is not finite changes nothing either; its frames count as learned from.
            _assign_if(is_finite, new)
            self.state.updates.assign_add(1)
            steps = tf.cast(tf.round(vector[FIXED.index("steps")]), tf.int64)
            self.state.frames.assign_add(steps * self.action_repeat)

    def _acting_eta(self) -> tf.Tensor:
        """What the actors get of η: the values that are fed, or x where η depends on the state."""
        x = self.state.x.read_value()
        if self.meta_parameters.is_per_state:
            return tf.cast(x, tf.float32)
        fed = self.meta_parameters.fed(self.meta_parameters.values(x), x.dtype)
        return tf.stack([tf.cast(value, tf.float32) for value in fed])

    # What the trainer calls.

    def learning_rate(self, frames: int) -> float:
        """The inner step size after so many frames: linear to 0 at `total_frames`, or constant."""
        if self._settings.learning_rate_schedule == "constant":
            return self._settings.learning_rate
        remaining = 1.0 - frames / self._settings.total_frames
        return self._settings.learning_rate * max(0.0, remaining)

    def column_order(self, updates: int) -> np.ndarray:
        """A permutation of the columns for update number `updates`, `[B]` int32.

        J' is evaluated on the first B' trajectories in this order. All updates on one batch
        (`sample_reuse`) have the same, so that what is held out is never learned from.
        """
        of_learner = [self._group.index] if self._group.index else []
        batches = updates // self._settings.sample_reuse
        generator = np.random.default_rng([self._settings.seed, batches, *of_learner])
        return generator.permutation(self._settings.batch_size).astype(np.int32)

    def update(
        self, batch: Unroll, other: Unroll | Sequence[Unroll], updates: int, frames: int
    ) -> tuple[Statistics, Snapshot]:
        """One learner update.

        Args:
          batch: τ, tensors `[T+1, B, ...]`.
          other: the batch of τ', likewise; looked at only when something is learned. For a
            bootstrapped target of L updates, the L − 1 batches before it too.
          updates: updates made so far.
          frames: frames learned from so far.

        Returns:
          Statistics of the update (of all learners) and the snapshot after it.

        Raises:
          LearnerLost: if another learner cannot be reached. Either nothing was changed then, or
            with several inner steps the update was made and counted, and only the meta step after
            it was not.
        """
        # NumPy's numbers: TensorFlow keeps every Python number that it was ever given (753 bytes).
        arguments = [
            batch,
            tf.constant(np.float32(self.learning_rate(frames))),
            tf.constant(self._schedule.at(frames)),
        ]
        if self.state.window is not None:
            return self._update_in_window(arguments, _as_tuple(other), updates)
        if self.meta_parameters.learned:
            arguments += [_as_tuple(other), tf.constant(self.column_order(updates))]
        with self._group.reaching():
            vector, parameters, eta, _ = self.function(*arguments)
            statistics = to_statistics(vector.numpy().tolist(), self._reported)
        return statistics, self._to_snapshot(updates + 1, parameters, self._eta_to_act_by(eta))

    def _update_in_window(
        self, arguments: list[Any], ahead: tuple[Unroll, ...], updates: int
    ) -> tuple[Statistics, Snapshot]:
        """One inner update; the last of a window is followed by the meta step."""
        window, learned = self.state.window, self._reported
        assert window is not None and self.window_step is not None
        window.begin_update(list(self.state.network.trainable_variables), self.state.slots)
        with self._group.reaching():
            vector, parameters, eta, gradients = self.function(*arguments)
            statistics = to_statistics(vector.numpy().tolist(), learned)
            if not statistics.applied:
                window.clear()
            elif window.end_update(arguments[0], gradients, arguments[1].numpy()):
                order = tf.constant(self.column_order(updates))
                try:
                    numbers, meta_applied, eta = self.window_step(ahead, order)
                finally:
                    window.clear()  # without the other learners there is no meta step
                statistics = statistics._replace(meta_applied=float(meta_applied.numpy()))
                if not statistics.meta_applied:
                    # What is not finite is told, and not kept: the state can be saved.
                    statistics = with_meta(statistics, learned, numbers.numpy().tolist())
                    return statistics, self._to_snapshot(updates + 1, parameters, eta)
                window.report(numbers.numpy())
        if window.is_known.numpy():
            statistics = with_meta(statistics, learned, window.reported.numpy().tolist())
        return statistics, self._to_snapshot(updates + 1, parameters, eta)

    def snapshot(self) -> Snapshot:
        """A snapshot of the state as it is (before the first update, after a restore)."""
        values = read(list(self.state.network.trainable_variables))
        eta = self._eta_to_act_by(self._acting_eta())
        return self._to_snapshot(int(self.state.updates.numpy()), values, eta)

    def _eta_to_act_by(self, eta: tf.Tensor) -> tf.Tensor:
        """The given η, or that of the frames learned from so far: what the next update uses."""
        if not self._schedule.follows_frames:
            return eta
        return tf.constant(self._schedule.fed_at(int(self.state.frames.numpy())))

    def _to_snapshot(
        self, version: int, parameters: Sequence[tf.Tensor], eta: tf.Tensor
    ) -> Snapshot:
        with tf.device("CPU:0"):  # from a GPU, one copy per update
            return Snapshot(
                version,
                tuple(tf.identity(tensor) for tensor in parameters),
                EtaSnapshot(tf.identity(eta), self.meta_parameters.is_per_state),
            )


def _as_tuple(batches: Unroll | Sequence[Unroll]) -> tuple[Unroll, ...]:
    return (batches,) if isinstance(batches, Unroll) else tuple(batches)


def _are_finite(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Whether all numbers of all tensors are finite; a sum says so in one pass."""
    sums = [tf.cast(tf.reduce_sum(tensor), tf.float64) for tensor in tensors]
    return tf.reduce_all(tf.math.is_finite(tf.stack(sums)))


def _assign_if(condition: tf.Tensor, new: list[tuple[Any, Any]]) -> tf.Tensor:
    """Assigns the new values to their variables if the condition holds; returns the condition."""

    def assign() -> tf.Tensor:
        for variable, value in _pairs(new):
            variable.assign(value)
        return tf.constant(True)

    return tf.cond(condition, assign, lambda: tf.constant(False))


def _pairs(new: list[tuple[Any, Any]]) -> Iterator[tuple[tf.Variable, tf.Tensor]]:
    """(variable, value) of pairs of equal structures."""
    for variables, values in new:
        yield from zip(tf.nest.flatten(variables), tf.nest.flatten(values), strict=True)
