"""A batch as the learner sees it: from rows of arrivals to network inputs and transitions."""

from __future__ import annotations

import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.policy import clip_rewards
from meta_impala.algorithm import losses
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.networks.actor_critic import NetworkInputs


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
        eta=tf.TensorSpec([columns, 2], tf.float32),
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
    return batch.map(
        lambda array: tf.gather(array, columns, axis=1), lambda array: tf.gather(array, columns)
    )
