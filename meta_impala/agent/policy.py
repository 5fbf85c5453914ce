"""The policy that acts, and the snapshot of (θ, η) that it acts by.

Shared by actors and evaluation, so that both see the inputs that the learner sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.agent.builders import meta_parameters_of
from meta_impala.agent.shared_arrays import as_tensor
from meta_impala.algorithm.losses import action_log_probs
from meta_impala.algorithm.meta_parameters import embedding_input
from meta_impala.config import AgentSettings
from meta_impala.environments import Description
from meta_impala.networks.actor_critic import ActorCritic, NetworkInputs, NetworkOutput


class EtaSnapshot(NamedTuple):
    """The part of a snapshot that belongs to η.

    Attributes:
      values: `[E]`, the entries of η that are inputs of the network (γ, λ, ...); with an η per
        state the weights x `[F+1, n]` of their logits (see `MetaParameters.at_states`).
      per_state: which of the two.
    """

    values: tf.Tensor
    per_state: bool = False


class Snapshot(NamedTuple):
    """An immutable, numbered copy of (θ, η), with which actors and evaluations act.

    Attributes:
      version: number of learner updates.
      parameters: θ, in the order of the network's `trainable_variables`.
      eta: the network's input of η.
    """

    version: int
    parameters: tuple[tf.Tensor, ...]
    eta: EtaSnapshot


class PolicyInputs(NamedTuple):
    """The states of N environments, and what has led there.

    Attributes:
      observations: `[N, ...]`; must not be changed before the call returns.
      last_actions: `[N]` int32.
      rewards: `[N]` float32, raw, received on arriving here.
      resets: `[N]` bool, whether an episode ended on arriving here.
      core_state: `[N, S]` float32.
      seed: two int32 (`[N, 2]` for a policy with a seed per environment); new ones for every call.
    """

    observations: np.ndarray
    last_actions: np.ndarray
    rewards: np.ndarray
    resets: np.ndarray
    core_state: np.ndarray
    seed: tuple[int, int] | np.ndarray


# (θ, η, inputs) -> actions `[N]` int32, their log-probabilities `[N]` float32, core state `[N, S]`.
# θ is of a `Snapshot`; η is `[N, E]`, what each environment's network is fed, or with an η per
# state the snapshot's weights `[F+1, n]`.
PolicyFn = Callable[
    [Sequence[tf.Tensor], np.ndarray, PolicyInputs], tuple[np.ndarray, np.ndarray, np.ndarray]
]


def clip_rewards(rewards: tf.Tensor, limit: float) -> tf.Tensor:
    """Rewards clipped to ±limit; unchanged if the limit is 0."""
    return tf.clip_by_value(rewards, -limit, limit) if limit > 0 else rewards


class Policy:
    """Batched stochastic action selection by one fixed-signature `tf.function`.

    Thread-safe once built: the weights are arguments, and the random numbers come from a seed that
    the caller increments.
    """

    def __init__(
        self,
        network: ActorCritic,
        settings: AgentSettings,
        description: Description,
        num_envs: int,
    ) -> None:
        """Args:
        network: whose variables are *not* used: a `Snapshot` takes their place.
        settings: resolved.
        description: of the environment.
        num_envs: N, fixed.
        """
        self._network = network
        self._reward_clip = settings.reward_clip
        self._embedding = settings.eta_embedding_input
        self._meta_parameters = meta_parameters_of(settings)
        eta_shape = [num_envs, len(settings.embedded)]
        if settings.eta_is_per_state:
            eta_shape = [network.num_features + 1, len(settings.learned)]
        state_size = network.settings.core_state_size
        signature = (
            [tf.TensorSpec(v.shape, v.dtype) for v in network.trainable_variables],
            tf.TensorSpec(eta_shape, tf.float32),
            tf.TensorSpec(
                [num_envs, *description.observation_shape],
                tf.as_dtype(description.observation_dtype),
            ),
            tf.TensorSpec([num_envs], tf.int32),
            tf.TensorSpec([num_envs], tf.float32),
            tf.TensorSpec([num_envs], tf.bool),
            tf.TensorSpec([num_envs, state_size], tf.float32),
            tf.TensorSpec(self._seed_shape(num_envs), tf.int32),
        )
        self._specs = signature[1:]
        self.function = tf.function(self._act, input_signature=signature, autograph=False)
        # Called without comparing every argument with the signature, which takes longer
        # than the rest of a call with 16 environments.
        self._flat = self.function.get_concrete_function().inference_fn.call_flat

    def _act(
        self,
        parameters: Sequence[tf.Tensor],
        eta: tf.Tensor,
        observations: tf.Tensor,
        last_actions: tf.Tensor,
        rewards: tf.Tensor,
        resets: tf.Tensor,
        core_state: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """The graph: actions, log-probabilities, core state, and what `_more` adds."""
        with tf.device("CPU:0"):
            inputs = NetworkInputs(
                observations[tf.newaxis],
                last_actions[tf.newaxis],
                clip_rewards(rewards, self._reward_clip)[tf.newaxis],
                resets[tf.newaxis],
            )

            features = self._network.body_at(parameters, inputs.observations)
            if self._meta_parameters.is_per_state:
                values = self._meta_parameters.at_states(eta, features)
                fed = self._meta_parameters.fed(values, features.dtype)
            else:
                fed = tf.unstack(eta[tf.newaxis], axis=-1)
            output = self._network.heads_at(
                parameters, features, inputs, core_state, embedding_input(fed, self._embedding)
            )
            logits = output.policy_logits[0]
            # From logits that are NaN it draws the action after the last.
            actions = tf.minimum(self._choose(logits, seed), logits.shape[1] - 1)
            chosen = actions, action_log_probs(logits, actions), output.core_state
            return *chosen, *self._more(output, fed)

    def _more(self, output: NetworkOutput, fed: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """What `run` returns besides; `fed` is what the network was told of η."""
        return ()

    # How the random numbers of a batch depend on its seed.

    def _seed_shape(self, num_envs: int) -> list[int]:
        return [2]

    def _choose(self, logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_categorical(logits, 1, seed, dtype=tf.int32)[:, 0]

    def __call__(
        self, parameters: Sequence[tf.Tensor], eta: np.ndarray, inputs: PolicyInputs
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One action per environment: `PolicyFn`."""
        actions, log_probs, core_state = self.run(parameters, eta, inputs)[:3]
        return actions, log_probs, core_state

    def run(
        self, parameters: Sequence[tf.Tensor], eta: np.ndarray, inputs: PolicyInputs
    ) -> tuple[np.ndarray, ...]:
        """Everything that the policy's graph computes: as a call, and what a subclass adds."""
        eta_spec, observation_spec, *specs = self._specs
        observations, *others = inputs
        results = self._flat(
            *parameters,
            tf.constant(eta, eta_spec.dtype),
            as_tensor(observations, observation_spec.dtype),
            *(tf.constant(given, spec.dtype) for given, spec in zip(others, specs, strict=True)),
        )
        return tuple(tensor.numpy() for tensor in results)
