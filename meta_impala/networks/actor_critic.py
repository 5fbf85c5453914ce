"""The actor-critic: torso, embedding of η, optional LSTM core, policy and value heads.

π([S; e_η]) and v([S; e_η]), with e_η a learned embedding of the current η (Xu et al. 2018, section
1.4). The paper does not say where e_η joins. Here it is the input of the last hidden layer, since
after it e_η would be no more than a bias of linear heads. So the network is two functions:

    body(observations) -> φ
    heads(φ, e_η, last action, last reward) -> last hidden layer, then policy and values

With an LSTM core φ are the torso's features, and the rest joins at the core's input.

The module is an ordinary Sonnet module; `body_at` and `heads_at` run it with tensors in place of
its variables, which is how the learner evaluates θ'.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from meta_impala.networks.own_torso import check_own_torso, make_torso
from meta_impala.networks.torsos import UNIT, ImageScaling

# Where e_η and the last action and reward join a network without a core.
LAST_HIDDEN, HEADS = "last_hidden", "heads"


class NetworkInputs(NamedTuple):
    """Consecutive states of B environments; every row is a state *arrived in*.

    Attributes:
      observations: `[T, B, ...]`.
      last_actions: `[T, B]` int32, the action that led here.
      last_rewards: `[T, B]`, the clipped reward received on arriving here.
      resets: `[T, B]` bool, whether an episode (for the learner) ended on the way here: the core
        is reset *before* it sees this state.
    """

    observations: tf.Tensor
    last_actions: tf.Tensor
    last_rewards: tf.Tensor
    resets: tf.Tensor

    def columns(self, indices: tf.Tensor) -> NetworkInputs:
        """Those of the environments with these indices."""
        return NetworkInputs(*(tf.gather(tensor, indices, axis=1) for tensor in self))


class HeadOutput(NamedTuple):
    """What one policy and value head says: `[T, B, A]` and `[T, B]`."""

    policy_logits: tf.Tensor
    values: tf.Tensor


class NetworkOutput(NamedTuple):
    """Attributes:
    policy_logits: `[T, B, A]`.
    values: `[T, B]`.
    core_state: `[B, S]` after the last row; S = 0 without a core.
    reference_values: `[T, B]` of the second value head, or None without one.
    auxiliary: of the heads that do not act, logits and values like the first ones.
    """

    policy_logits: tf.Tensor
    values: tf.Tensor
    core_state: tf.Tensor
    reference_values: tf.Tensor | None = None
    auxiliary: tuple[HeadOutput, ...] = ()


@dataclasses.dataclass(frozen=True)
class NetworkDefinition:
    """Defines the network; a checkpoint fits only a network of equal settings.

    Attributes:
      torso: one of `torsos.TORSOS`, or `module:Class`.
      num_actions: A.
      core: "none" or "lstm".
      core_size: width of the LSTM.
      mlp_sizes: hidden widths of the "mlp" torso.
      eta_embedding_size: width of e_η; 0 for none.
      eta_embedding_place: `LAST_HIDDEN`, or `HEADS`: beside the features of the last hidden layer,
        as in versions before 0.2.
      num_embedded: E, how many entries of η are embedded.
      last_action_and_reward: whether the last action (one-hot) and the last clipped reward are
        inputs.
      second_value_head: whether there is a value head besides the one that η trains.
      auxiliary_heads: how many policy and value heads there are besides the one that acts.
    """

    torso: str
    num_actions: int
    core: str = "none"
    core_size: int = 256
    mlp_sizes: tuple[int, ...] = (64, 64)
    eta_embedding_size: int = 0
    eta_embedding_place: str = LAST_HIDDEN
    num_embedded: int = 2
    last_action_and_reward: bool = False
    second_value_head: bool = False
    auxiliary_heads: int = 0

    @property
    def core_state_size(self) -> int:
        """S: hidden and cell state of the LSTM side by side, or 0."""
        return 2 * self.core_size if self.core == "lstm" else 0

    @property
    def joined_size(self) -> int:
        """Width of the inputs that join φ: e_η, one-hot action and reward."""
        return self.eta_embedding_size + self.last_action_and_reward * (self.num_actions + 1)

    @property
    def joins_last_hidden(self) -> bool:
        """Whether something joins at the input of the last hidden layer."""
        at_last_hidden = self.core == "none" and self.eta_embedding_place == LAST_HIDDEN
        return at_last_hidden and self.joined_size > 0


class ActorCritic(snt.Module):
    """π and v on a shared torso."""

    def __init__(
        self,
        settings: NetworkDefinition,
        dtype: tf.DType = tf.float32,
        torso_dtype: tf.DType | None = None,
        name: str = "actor_critic",
        image_scaling: ImageScaling = UNIT,
    ) -> None:
        """Args:
        settings: sizes and kinds.
        dtype: of weights and computation (float64 for gradient checks).
        torso_dtype: of the computation within the torso; `dtype` if not given.
        name: of the module.
        image_scaling: how images of bytes become numbers.
        """
        super().__init__(name=name)
        self.settings = settings
        self.dtype = dtype
        self._torso = make_torso(
            settings.torso, dtype, settings.mlp_sizes, torso_dtype, image_scaling
        )
        self._eta_embedding = (
            snt.Linear(settings.eta_embedding_size, name="eta_embedding")
            if settings.eta_embedding_size
            else None
        )
        # The rows of the last hidden layer's matrix for the inputs that join. Made in `build`,
        # where |φ| is known.
        self._joined: snt.Linear | None = None
        self._core = snt.LSTM(settings.core_size, dtype=dtype) if settings.core == "lstm" else None
        self._policy_head = snt.Linear(settings.num_actions, name="policy_head")
        self._value_head = snt.Linear(1, name="value_head")
        self._reference_value_head = (
            snt.Linear(1, name="reference_value_head") if settings.second_value_head else None
        )
        self._auxiliary_heads = [
            (
                snt.Linear(settings.num_actions, name=f"auxiliary_policy_head_{index}"),
                snt.Linear(1, name=f"auxiliary_value_head_{index}"),
            )
            for index in range(settings.auxiliary_heads)
        ]

    @property
    def splits_before_last_hidden(self) -> bool:
        """Whether φ is the input of the last hidden layer (else the torso's features)."""
        place = self.settings.eta_embedding_place
        return self.settings.core == "none" and place == LAST_HIDDEN

    def initial_core_state(self, batch_size: int) -> tf.Tensor:
        """`[B, S]` zeros."""
        return tf.zeros([batch_size, self.settings.core_state_size], self.dtype)

    def body(self, observations: tf.Tensor) -> tf.Tensor:
        """φ `[T, B, F]` of observations `[T, B, ...]`."""
        time, batch = observations.shape[:2]
        features = self._torso.body(snt.merge_leading_dims(observations, 2))
        if not self.splits_before_last_hidden:
            features = self._torso.last_hidden(features)
        return tf.reshape(features, [time, batch, features.shape[-1]])

    def heads(
        self,
        features: tf.Tensor,
        inputs: NetworkInputs,
        core_state: tf.Tensor,
        eta_input: tf.Tensor,
    ) -> NetworkOutput:
        """Everything after φ: last hidden layer or core, and the heads.

        Args:
          features: φ `[T, B, F]`.
          inputs: T rows of B environments; the observations are not used.
          core_state: `[B, S]` before the first row.
          eta_input: what of η is embedded (`meta_parameters.embedding_input`): `[E]`, or
            `[T, B, E]`.
        """
        time, batch = inputs.last_actions.shape
        rows = self.last_hidden(features, inputs, eta_input)
        if not self.splits_before_last_hidden:
            joined = self._joining(inputs, eta_input)
            if joined is not None:
                whole = joined if joined.shape[0] != 1 else tf.repeat(joined, time * batch, axis=0)
                rows = tf.concat([rows, whole], axis=-1)
        if self._core is not None:
            rows, core_state = self._run_core(rows, inputs.resets, core_state)
        policy_logits = self._policy_head(rows)
        reference_values = None
        if self._reference_value_head is not None:
            reference_values = tf.reshape(self._reference_value_head(rows), [time, batch])
        return NetworkOutput(
            policy_logits=tf.reshape(policy_logits, [time, batch, self.settings.num_actions]),
            values=tf.reshape(self._value_head(rows), [time, batch]),
            core_state=core_state,
            reference_values=reference_values,
            auxiliary=tuple(
                HeadOutput(
                    tf.reshape(policy(rows), [time, batch, self.settings.num_actions]),
                    tf.reshape(value(rows), [time, batch]),
                )
                for policy, value in self._auxiliary_heads
            ),
        )

    def last_hidden(
        self, features: tf.Tensor, inputs: NetworkInputs, eta_input: tf.Tensor
    ) -> tf.Tensor:
        """The torso's last hidden layer after its ReLU, `[T·B, H]`; arguments as `heads`."""
        time, batch = inputs.last_actions.shape
        rows = tf.reshape(features, [time * batch, features.shape[-1]])
        if not self.splits_before_last_hidden:
            return rows
        joined = None
        if self._joined is not None:
            joined = self._joined(self._joining(inputs, eta_input))
        return self._torso.last_hidden(rows, joined)

    def _joining(self, inputs: NetworkInputs, eta_input: tf.Tensor) -> tf.Tensor | None:
        """The inputs that join φ, `[T·B, J]`; `[1, J]` where they are the same for all states."""
        parts = []
        time, batch = inputs.last_actions.shape
        if self.settings.last_action_and_reward:
            last_actions = tf.one_hot(
                tf.reshape(inputs.last_actions, [-1]), self.settings.num_actions, dtype=self.dtype
            )
            parts += [
                last_actions,
                tf.reshape(tf.cast(inputs.last_rewards, self.dtype), [-1, 1]),
            ]
        if self._eta_embedding is not None:
            fed = tf.cast(eta_input, self.dtype)
            rows = 1 if fed.shape.rank == 1 else time * batch
            embedded = self._eta_embedding(tf.reshape(fed, [rows, fed.shape[-1]]))
            if parts:
                embedded = tf.broadcast_to(embedded, [time * batch, embedded.shape[-1]])
            parts.append(embedded)
        return tf.concat(parts, axis=-1) if parts else None

    def __call__(
        self, inputs: NetworkInputs, core_state: tf.Tensor, eta_input: tf.Tensor
    ) -> NetworkOutput:
        """Body and heads; arguments as `heads`."""
        return self.heads(self.body(inputs.observations), inputs, core_state, eta_input)

    def _run_core(
        self, features: tf.Tensor, resets: tf.Tensor, core_state: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The LSTM over `[T·B, F]`, its state zeroed where `resets` is True.

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

    @contextlib.contextmanager
    def _with(self, parameters: Sequence[tf.Tensor]) -> Iterator[None]:
        """Tensors in place of the variables, in `trainable_variables` order.

        Sonnet's getter patches every Sonnet module of the process while it is open, so this is
        entered only while a `tf.function` is traced, before the first actor acts.
        """
        tensors = {
            variable.ref(): tensor
            for variable, tensor in zip(self.trainable_variables, parameters, strict=True)
        }
        with snt.custom_variable_getter(lambda variable: tensors[variable.ref()]):
            yield

    def body_at(self, parameters: Sequence[tf.Tensor], observations: tf.Tensor) -> tf.Tensor:
        """`body` with tensors in place of the variables; only while a function is traced."""
        with self._with(parameters):
            return self.body(observations)

    def heads_at(
        self,
        parameters: Sequence[tf.Tensor],
        features: tf.Tensor,
        inputs: NetworkInputs,
        core_state: tf.Tensor,
        eta_input: tf.Tensor,
    ) -> NetworkOutput:
        """`heads` with tensors in place of the variables; only while a function is traced."""
        with self._with(parameters):
            return self.heads(features, inputs, core_state, eta_input)

    def build(self, observation_shape: Sequence[int], observation_dtype: np.dtype | type) -> None:
        """Creates the variables by one call on zeros, and sets F (`num_features`)."""
        inputs = NetworkInputs(
            tf.zeros([1, 1, *observation_shape], tf.as_dtype(observation_dtype)),
            tf.zeros([1, 1], tf.int32),
            tf.zeros([1, 1]),
            tf.zeros([1, 1], tf.bool),
        )
        check_own_torso(self.settings.torso, self._torso, inputs.observations[0], self.dtype)
        features = self.body(inputs.observations)
        self.num_features = int(features.shape[-1])
        if self.settings.joins_last_hidden:
            # Initialised like one matrix whose input is φ and what joins it.
            fan_in = self.num_features + self.settings.joined_size
            self._joined = snt.Linear(
                self._torso.last_layer.output_size,
                with_bias=False,
                w_init=snt.initializers.TruncatedNormal(stddev=1.0 / math.sqrt(fan_in)),
                name="joined",
            )
        self.heads(
            features,
            inputs,
            self.initial_core_state(1),
            tf.zeros([self.settings.num_embedded]),
        )
