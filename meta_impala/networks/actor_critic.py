"""The actor-critic: torso, embedding of η, optional LSTM core, policy and value heads.

π([S; e_η]) and v([S; e_η]), with e_η a learned embedding of the current η concatenated to the
features (Xu et al. 2018, section 1.4). The module is an ordinary Sonnet module; `at_parameters`
runs it with tensors in place of its variables, which is how the learner evaluates θ'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import sonnet as snt
import tensorflow as tf

from meta_impala.networks.torsos import TORSOS


class NetworkInputs(NamedTuple):
    """A stretch of time seen by B environments; every row is a state *arrived in*.

    Attributes:
      observations: `[T, B, ...]`.
      last_actions: `[T, B]` int32, the action that led here.
      last_rewards: `[T, B]`, the clipped reward received on arriving here.
      resets: `[T, B]` bool, whether an episode (for the learner) ended on the way here: the core
        starts anew *before* it sees this state.
    """

    observations: tf.Tensor
    last_actions: tf.Tensor
    last_rewards: tf.Tensor
    resets: tf.Tensor


class NetworkOutput(NamedTuple):
    """Attributes:
    policy_logits: `[T, B, A]`.
    values: `[T, B]`.
    core_state: `[B, S]` after the last row; S = 0 without a core.
    features: `[T, B, F]` of the torso alone, before e_η joins them.
    reference_values: `[T, B]` of the second value head, or None without one.
    """

    policy_logits: tf.Tensor
    values: tf.Tensor
    core_state: tf.Tensor
    features: tf.Tensor
    reference_values: tf.Tensor | None = None


# What of η is embedded: `[2]`, or `[T, B, 2]` for one η per state; or a function of the features
# that gives it.
EtaInput: TypeAlias = tf.Tensor | Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """What defines the network; a checkpoint fits only a network of equal settings.

    Attributes:
      torso: a key of `torsos.TORSOS`.
      num_actions: A.
      core: "none" or "lstm".
      core_size: width of the LSTM.
      mlp_sizes: hidden widths of the "mlp" torso.
      eta_embedding_size: width of e_η; 0 for none.
      last_action_and_reward: whether the last action (one-hot) and the last clipped reward are
        inputs.
      second_value_head: whether there is a value head besides the one that η trains.
    """

    torso: str
    num_actions: int
    core: str = "none"
    core_size: int = 256
    mlp_sizes: tuple[int, ...] = (64, 64)
    eta_embedding_size: int = 0
    last_action_and_reward: bool = False
    second_value_head: bool = False

    @property
    def core_state_size(self) -> int:
        """S: hidden and cell state of the LSTM side by side, or 0."""
        return 2 * self.core_size if self.core == "lstm" else 0


class ActorCritic(snt.Module):
    """π and v on a shared torso."""

    def __init__(
        self,
        settings: NetworkSettings,
        dtype: tf.DType = tf.float32,
        torso_dtype: tf.DType | None = None,
        name: str = "actor_critic",
    ) -> None:
        """Args:
        settings: sizes and kinds.
        dtype: of weights and computation (float64 for gradient checks).
        torso_dtype: of the computation within the torso; `dtype` if not given.
        name: of the module.
        """
        super().__init__(name=name)
        self.settings = settings
        self.dtype = dtype
        self._torso = TORSOS[settings.torso](dtype, settings.mlp_sizes, torso_dtype)
        self._eta_embedding = (
            snt.Linear(settings.eta_embedding_size, name="eta_embedding")
            if settings.eta_embedding_size
            else None
        )
        self._core = snt.LSTM(settings.core_size, dtype=dtype) if settings.core == "lstm" else None
        self._policy_head = snt.Linear(settings.num_actions, name="policy_head")
        self._value_head = snt.Linear(1, name="value_head")
        self._reference_value_head = (
            snt.Linear(1, name="reference_value_head") if settings.second_value_head else None
        )

    def initial_core_state(self, batch_size: int) -> tf.Tensor:
        """`[B, S]` zeros."""
        return tf.zeros([batch_size, self.settings.core_state_size], self.dtype)

    def __call__(
        self, inputs: NetworkInputs, core_state: tf.Tensor, eta_input: EtaInput
    ) -> NetworkOutput:
        """Runs the network over T rows.

        Args:
          inputs: T rows of B environments.
          core_state: `[B, S]` before the first row.
          eta_input: what of η is embedded (`meta_parameters.embedding_input`).

        Returns:
          `NetworkOutput`.
        """
        time, batch = inputs.observations.shape[:2]
        features = self._torso(snt.merge_leading_dims(inputs.observations, 2))
        torso_features = tf.reshape(features, [time, batch, features.shape[-1]])
        extras = []
        if self.settings.last_action_and_reward:
            last_actions = tf.one_hot(
                tf.reshape(inputs.last_actions, [-1]), self.settings.num_actions, dtype=self.dtype
            )
            last_rewards = tf.reshape(tf.cast(inputs.last_rewards, self.dtype), [-1, 1])
            extras += [last_actions, last_rewards]
        if self._eta_embedding is not None:
            fed = eta_input(torso_features) if callable(eta_input) else eta_input
            fed = tf.cast(fed, self.dtype)
            if fed.shape.rank == 1:
                embedded = tf.repeat(self._eta_embedding(fed[tf.newaxis]), time * batch, axis=0)
            else:
                embedded = self._eta_embedding(tf.reshape(fed, [time * batch, 2]))
            extras.append(embedded)
        if extras:
            features = tf.concat([features, *extras], axis=-1)
        if self._core is not None:
            features, core_state = self._run_core(features, inputs.resets, core_state)
        policy_logits = self._policy_head(features)
        reference_values = None
        if self._reference_value_head is not None:
            reference_values = tf.reshape(self._reference_value_head(features), [time, batch])
        return NetworkOutput(
            policy_logits=tf.reshape(policy_logits, [time, batch, self.settings.num_actions]),
            values=tf.reshape(self._value_head(features), [time, batch]),
            core_state=core_state,
            features=torso_features,
            reference_values=reference_values,
        )

    def _run_core(
        self, features: tf.Tensor, resets: tf.Tensor, core_state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The LSTM over `[T·B, F]`, its state zeroed wherever `resets` says so.

        A Python loop: T is static, and forward-mode differentiation fails through a TensorArray.
        """
        assert self._core is not None
        time, batch = resets.shape
        keep = 1.0 - tf.cast(resets, self.dtype)[..., tf.newaxis]
        rows = tf.unstack(tf.reshape(features, [time, batch, features.shape[-1]]))
        outputs = []
        for row, kept in zip(rows, tf.unstack(keep), strict=True):
            hidden, cell = tf.split(core_state * kept, 2, axis=-1)
            output, state = self._core(row, snt.LSTMState(hidden, cell))
            core_state = tf.concat([state.hidden, state.cell], axis=-1)
            outputs.append(output)
        return tf.concat(outputs, axis=0), core_state

    def at_parameters(
        self,
        parameters: Sequence[tf.Tensor],
        inputs: NetworkInputs,
        core_state: tf.Tensor,
        eta_input: EtaInput,
    ) -> NetworkOutput:
        """`__call__` with tensors in place of the variables, in `trainable_variables` order.

        Sonnet's getter patches every Sonnet module of the process while it is open, so this is
        called only while a `tf.function` is traced, before the first thread starts.
        """
        tensors = {
            variable.ref(): tensor
            for variable, tensor in zip(self.trainable_variables, parameters, strict=True)
        }
        with snt.custom_variable_getter(lambda variable: tensors[variable.ref()]):
            return self(inputs, core_state, eta_input)

    def build(self, observation_shape: Sequence[int], observation_dtype: np.dtype | type) -> None:
        """Creates the variables, by one call on zeros, and learns F (`num_features`)."""
        output = self(
            NetworkInputs(
                tf.zeros([1, 1, *observation_shape], tf.as_dtype(observation_dtype)),
                tf.zeros([1, 1], tf.int32),
                tf.zeros([1, 1]),
                tf.zeros([1, 1], tf.bool),
            ),
            self.initial_core_state(1),
            tf.zeros([2]),
        )
        self.num_features = int(output.features.shape[-1])
