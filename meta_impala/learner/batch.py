"""A batch of unrolls, converted once into network inputs and transitions.

Rows of an `Unroll` are arrivals; row t of a transition leaves state t and arrives in t+1. Only here
is the shift between the two made, and only here are rewards clipped.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.policy import clip_rewards
from meta_impala.algorithm.losses import Transitions
from meta_impala.config import BatchSettings
from meta_impala.environments import Description
from meta_impala.networks.actor_critic import NetworkInputs


class Trajectories(NamedTuple):
    """B trajectories of T transitions.

    Attributes:
      inputs: of the network, on the T+1 states.
      transitions: between them, `[T, B]`.
      core_state: `[B, S]` before the first state.
      eta: `[B, 2]`, the γ and λ that the acting network was fed, or `[B, S]`, all that was drawn.
    """

    inputs: NetworkInputs
    transitions: Transitions
    core_state: tf.Tensor
    eta: tf.Tensor

    def columns(self, indices: tf.Tensor) -> Trajectories:
        """The trajectories with these indices."""
        return Trajectories(
            self.inputs.columns(indices),
            self.transitions.columns(indices),
            tf.gather(self.core_state, indices),
            tf.gather(self.eta, indices),
        )


def batch_signature(
    settings: BatchSettings, description: Description, core_state_size: int, num_eta: int = 2
) -> Unroll:
    """The fixed signature of a batch: `tf.TensorSpec`s in the places of the arrays.

    Args:
      settings: T and B.
      description: of the environment.
      core_state_size: of the network.
      num_eta: entries of η that travel with an unroll.
    """
    rows, columns = settings.unroll_length + 1, settings.batch_size
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
        eta=tf.TensorSpec([columns, num_eta], tf.float32),
    )


def trajectories_of(batch: Unroll, reward_clip: float, dtype: tf.DType) -> Trajectories:
    """A batch of unrolls as the network and the objectives take it.

    Args:
      batch: tensors `[T+1, B, ...]`.
      reward_clip: rewards are clipped to ± this; 0 for no clip.
      dtype: of all numbers but the observations.
    """
    rewards = tf.cast(clip_rewards(batch.rewards, reward_clip), dtype)
    inputs = NetworkInputs(
        observations=batch.observations,
        last_actions=batch.last_actions,
        last_rewards=rewards,
        resets=batch.terminations | batch.truncations,
    )
    # Action, reward and end of transition t are in row t+1 of the batch.
    transitions = Transitions(
        actions=batch.last_actions[1:],
        rewards=rewards[1:],
        continues=1.0 - tf.cast(batch.terminations[1:], dtype),
        step_mask=1.0 - tf.cast(batch.truncations[1:], dtype),
        behaviour_log_probs=tf.cast(batch.behaviour_log_probs, dtype),
    )
    return Trajectories(
        inputs, transitions, tf.cast(batch.core_state, dtype), tf.cast(batch.eta, dtype)
    )
