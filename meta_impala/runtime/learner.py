"""The learner: Algorithm 1 of Xu et al. 2018 as one `tf.function`.

    g = ∇_θ J(τ, θ, η);   θ' = θ − U(g);   x ← x − Adam(dJ'(τ', θ', η')/dx);   θ ← θ'

The differentiated update *is* the real update. With nothing to learn the same function is plain
IMPALA: the outer derivative is left out and nothing else changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.agent import Snapshot, clip_rewards
from meta_impala.algorithm import losses, optimizers
from meta_impala.algorithm.meta_gradient import MODES, InnerStep, InnerUpdate, MetaStep, inner_step
from meta_impala.algorithm.meta_parameters import Eta, MetaParameters, embedding_input
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.networks.actor_critic import ActorCritic, NetworkInputs
from meta_impala.runtime.trajectory import Unroll


def meta_parameters_of(config: Config) -> MetaParameters:
    """η and η' of a resolved config."""
    assert config.lambda_ is not None, "the config is not resolved"
    return MetaParameters(
        learned=config.learned,
        gamma=config.gamma,
        lambda_=config.lambda_,
        reference_gamma=config.reference_gamma,
        reference_lambda=config.reference_lambda,
    )


class LearnerState(tf.Module):
    """Everything an update changes, as variables: what a checkpoint holds.

    Attributes:
      network: θ.
      mean_squares: RMSProp's slots, from ones.
      x: `[len(learned)]` logits of η.
      first_moment, second_moment, adam_count: Adam's slots for x.
      updates: int64, learner updates made.
      frames: int64, environment frames learned from.
    """

    def __init__(self, network: ActorCritic, initial_logits: np.ndarray) -> None:
        super().__init__(name="learner_state")
        self.network = network
        dtype = network.dtype
        # Every slot exists before a checkpoint is read.
        self.mean_squares = [
            tf.Variable(ones, trainable=False, name="mean_square")
            for ones in optimizers.initial_mean_squares(network.trainable_variables)
        ]
        self.x = tf.Variable(initial_logits, dtype=dtype, trainable=False, name="x")
        adam = optimizers.initial_adam_state(self.x)
        self.first_moment = tf.Variable(adam.first_moment, trainable=False)
        self.second_moment = tf.Variable(adam.second_moment, trainable=False)
        self.adam_count = tf.Variable(adam.count, trainable=False)
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.frames = tf.Variable(0, dtype=tf.int64, trainable=False)


class Statistics(NamedTuple):
    """Scalars of one update; losses and entropy are means per agent step (J and J' are sums).

    The entries from `meta_loss` on are NaN where nothing (or that parameter) is not learned.
    """

    inner_loss: float
    policy_loss: float
    value_loss: float
    entropy: float
    gradient_norm: float
    clip_coefficient: float
    rho_clipped_share: float
    gamma: float
    lambda_: float
    meta_loss: float
    meta_gradient_norm: float
    meta_gradient_gamma: float
    meta_gradient_lambda: float
    x_step_gamma: float
    x_step_lambda: float


def batch_signature(config: Config, description: Description, core_state_size: int) -> Unroll:
    """The fixed signature of a batch: `tf.TensorSpec`s in the places of the arrays."""
    rows, columns = config.unroll_length + 1, config.batch_size
    observation_dtype = tf.as_dtype(description.observation_dtype)
    return Unroll(
        observations=tf.TensorSpec(
            [rows, columns, *description.observation_shape], observation_dtype
        ),
        last_actions=tf.TensorSpec([rows, columns], tf.int32),
        rewards=tf.TensorSpec([rows, columns], tf.float32),
        terminations=tf.TensorSpec([rows, columns], tf.bool),
        truncations=tf.TensorSpec([rows, columns], tf.bool),
        behaviour_log_probs=tf.TensorSpec([rows - 1, columns], tf.float32),
        core_state=tf.TensorSpec([columns, core_state_size], tf.float32),
    )


def network_inputs(batch: Unroll, reward_clip: float, dtype: tf.DType) -> NetworkInputs:
    """What the network sees of the T+1 states of a batch."""
    return NetworkInputs(
        observations=batch.observations,
        last_actions=batch.last_actions,
        last_rewards=tf.cast(clip_rewards(batch.rewards, reward_clip), dtype),
        resets=batch.terminations | batch.truncations,
    )


def transitions_of(batch: Unroll, reward_clip: float, dtype: tf.DType) -> losses.Transitions:
    """The T transitions between the T+1 states of a batch.

    Rows of a batch are arrivals; row t of a transition leaves state t and arrives in t+1. So the
    action, reward and end of transition t stand in row t+1 of the batch.
    """
    return losses.Transitions(
        actions=batch.last_actions[1:],
        rewards=tf.cast(clip_rewards(batch.rewards[1:], reward_clip), dtype),
        continues=1.0 - tf.cast(batch.terminations[1:], dtype),
        step_mask=1.0 - tf.cast(batch.truncations[1:], dtype),
        behaviour_log_probs=tf.cast(batch.behaviour_log_probs, dtype),
    )


def select_columns(batch: Unroll, columns: tf.Tensor) -> Unroll:
    """The trajectories with these indices."""
    arrays = [tf.gather(array, columns, axis=1) for array in batch[:-1]]
    return Unroll._make([*arrays, tf.gather(batch.core_state, columns)])


class Learner:
    """Updates a `LearnerState` from batches."""

    def __init__(self, config: Config, description: Description, network: ActorCritic) -> None:
        """Args:
        config: resolved.
        description: of the environment.
        network: built; its variables become θ.
        """
        self.config = config
        self._dtype = network.dtype
        self._meta_parameters = meta_parameters_of(config)
        self.state = LearnerState(network, self._meta_parameters.initial_logits())
        self._loss_settings = losses.LossSettings(
            baseline_cost=config.baseline_cost,
            entropy_cost=config.entropy_cost,
            rho_clip=config.rho_clip,
            c_clip=config.c_clip,
            pg_rho_clip=config.pg_rho_clip,
        )
        batch = batch_signature(config, description, network.settings.core_state_size)
        signature = [batch, tf.TensorSpec([], tf.float32)]
        if config.learned:
            columns = tf.TensorSpec([config.meta_batch_size], tf.int32)
            signature += [batch, columns]
            self.function = tf.function(self._meta_update, input_signature=signature)
        else:
            self.function = tf.function(self._plain_update, input_signature=signature)
        self._frames_per_update = (
            config.batch_size * config.unroll_length * description.action_repeat
        )

    def trace(self) -> None:
        """Builds the graph. Call it before the first thread starts (see `at_parameters`)."""
        self.function.get_concrete_function()

    # The four parts of the update, as functions of θ and x.

    def _forward(self, parameters, batch: Unroll, eta: Eta):
        return self.state.network.at_parameters(
            parameters,
            network_inputs(batch, self.config.reward_clip, self._dtype),
            tf.cast(batch.core_state, self._dtype),
            embedding_input(eta, self.config.eta_embedding_input),
        )

    def _inner_objective(self, batch: Unroll):
        transitions = transitions_of(batch, self.config.reward_clip, self._dtype)

        def objective(parameters, x):
            eta = self._meta_parameters.values(x)
            output = self._forward(parameters, batch, eta)
            return losses.inner_objective(
                output.policy_logits, output.values, transitions, eta, self._loss_settings
            )

        return objective

    def _update_rule(self, mean_squares, learning_rate: tf.Tensor):
        def rule(gradients) -> InnerUpdate:
            clipped = optimizers.clip_by_global_norm(gradients, self.config.max_gradient_norm)
            updates, new_mean_squares = optimizers.rmsprop(
                clipped.gradients,
                mean_squares,
                learning_rate,
                decay=self.config.rmsprop_decay,
                epsilon=self.config.rmsprop_epsilon,
            )
            return InnerUpdate(updates, (new_mean_squares, clipped.norm, clipped.coefficient))

        return rule

    def _meta_objective(self, batch: Unroll, x: tf.Tensor):
        transitions = transitions_of(batch, self.config.reward_clip, self._dtype)
        reference = self._meta_parameters.reference(self._dtype)
        fed = reference
        if self.config.meta_network_eta == "current":
            fed = Eta(*map(tf.stop_gradient, self._meta_parameters.values(x)))

        def objective(parameters):
            output = self._forward(parameters, batch, fed)
            return losses.meta_objective(
                output.policy_logits, output.values, transitions, reference, self._loss_settings
            )

        return objective

    # The update itself, plain and with the meta-gradient.

    def _plain_update(self, batch: Unroll, learning_rate: tf.Tensor):
        step = inner_step(*self._inner_arguments(batch, learning_rate))
        return self._finish(step, None)

    def _meta_update(
        self, batch: Unroll, learning_rate: tf.Tensor, next_batch: Unroll, columns: tf.Tensor
    ):
        judges = select_columns(next_batch, columns)
        meta_step = MODES[self.config.meta_gradient_mode](
            *self._inner_arguments(batch, learning_rate),
            self._meta_objective(judges, self.state.x.read_value()),
        )
        return self._finish(meta_step.inner, meta_step)

    def _inner_arguments(self, batch: Unroll, learning_rate: tf.Tensor):
        state = self.state
        parameters = [variable.read_value() for variable in state.network.trainable_variables]
        mean_squares = [variable.read_value() for variable in state.mean_squares]
        rule = self._update_rule(mean_squares, tf.cast(learning_rate, self._dtype))
        return parameters, state.x.read_value(), self._inner_objective(batch), rule

    def _finish(self, step: InnerStep, meta_step: MetaStep | None):
        """Assigns θ', slots and x; returns statistics, θ' and η for the next snapshot."""
        state, config = self.state, self.config
        new_mean_squares, norm, coefficient = step.update_auxiliary
        for variable, value in zip(state.network.trainable_variables, step.parameters, strict=True):
            variable.assign(value)
        for variable, value in zip(state.mean_squares, new_mean_squares, strict=True):
            variable.assign(value)

        x = state.x.read_value()
        eta_before = self._meta_parameters.values(x)
        nan = tf.constant(float("nan"), self._dtype)
        by_name = {
            f"{what}_{name}": nan for what in ("gradient", "step") for name in ("gamma", "lambda")
        }
        meta_loss, meta_norm = nan, nan
        if meta_step is not None:
            adam_state = optimizers.AdamState(
                state.first_moment.read_value(),
                state.second_moment.read_value(),
                state.adam_count.read_value(),
            )
            x_update, adam_state = optimizers.adam(
                meta_step.meta_gradient, adam_state, config.meta_learning_rate
            )
            x = x - x_update
            state.x.assign(x)
            state.first_moment.assign(adam_state.first_moment)
            state.second_moment.assign(adam_state.second_moment)
            state.adam_count.assign(adam_state.count)
            meta_loss = meta_step.meta_loss / (config.unroll_length * config.meta_batch_size)
            meta_norm = tf.norm(meta_step.meta_gradient)
            for index, name in enumerate(config.learned):
                by_name[f"gradient_{name}"] = meta_step.meta_gradient[index]
                by_name[f"step_{name}"] = -x_update[index]
        state.updates.assign_add(1)
        state.frames.assign_add(self._frames_per_update)

        parts: losses.InnerLossParts = step.loss_auxiliary
        steps = config.unroll_length * config.batch_size
        statistics = Statistics(
            inner_loss=step.inner_loss / steps,
            policy_loss=parts.policy_loss / steps,
            value_loss=parts.value_loss / steps,
            entropy=parts.entropy / steps,
            gradient_norm=norm,
            clip_coefficient=coefficient,
            rho_clipped_share=parts.rho_clipped_share,
            gamma=eta_before.gamma,
            lambda_=eta_before.lambda_,
            meta_loss=meta_loss,
            meta_gradient_norm=meta_norm,
            meta_gradient_gamma=by_name["gradient_gamma"],
            meta_gradient_lambda=by_name["gradient_lambda"],
            x_step_gamma=by_name["step_gamma"],
            x_step_lambda=by_name["step_lambda"],
        )
        eta = self._meta_parameters.values(x)
        return (
            tf.stack([tf.cast(value, tf.float32) for value in statistics]),
            step.parameters,
            tf.cast(tf.stack([eta.gamma, eta.lambda_]), tf.float32),
        )

    # What the supervisor calls.

    def learning_rate(self, frames: int) -> float:
        """The inner step size after so many frames: linear to 0 at `total_frames`, or constant."""
        if self.config.learning_rate_schedule == "constant":
            return self.config.learning_rate
        remaining = 1.0 - frames / self.config.total_frames
        return self.config.learning_rate * max(0.0, remaining)

    def judging_columns(self, updates: int) -> np.ndarray:
        """Which B' trajectories of the next batch judge update number `updates`: `[B']` int32."""
        generator = np.random.default_rng([self.config.seed, updates])
        order = generator.permutation(self.config.batch_size)
        return order[: self.config.meta_batch_size].astype(np.int32)

    def update(
        self, batch: Unroll, next_batch: Unroll, updates: int, frames: int
    ) -> tuple[Statistics, Snapshot]:
        """One learner update.

        Args:
          batch: τ, tensors `[T+1, B, ...]`.
          next_batch: τ', likewise; looked at only when something is learned.
          updates: updates made so far.
          frames: frames learned from so far.

        Returns:
          Statistics of the update and the snapshot after it.
        """
        arguments = [batch, tf.constant(self.learning_rate(frames), tf.float32)]
        if self.config.learned:
            arguments += [next_batch, tf.constant(self.judging_columns(updates))]
        vector, parameters, eta = self.function(*arguments)
        statistics = Statistics(*vector.numpy().tolist())
        return statistics, self._to_snapshot(updates + 1, parameters, eta)

    def snapshot(self) -> Snapshot:
        """A snapshot of the state as it is (before the first update, after a restore)."""
        eta = self._meta_parameters.values(self.state.x)
        values = [variable.read_value() for variable in self.state.network.trainable_variables]
        stacked = tf.cast(tf.stack([eta.gamma, eta.lambda_]), tf.float32)
        return self._to_snapshot(int(self.state.updates.numpy()), values, stacked)

    def _to_snapshot(self, version: int, parameters, eta: tf.Tensor) -> Snapshot:
        with tf.device("CPU:0"):  # from a GPU, one copy per update
            return Snapshot(
                version, tuple(tf.identity(tensor) for tensor in parameters), tf.identity(eta)
            )
