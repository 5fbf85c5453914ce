"""A network's outputs on a batch and their gradients: in NumPy for a perceptron without a core.

The perceptron is written out, so that the oracle needs nothing of the package for it, and is fast:
a TensorFlow operation on a few numbers costs more than all of this. For other networks there is
the module itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.policy import clip_rewards
from meta_impala.learner.batch import trajectories_of
from meta_impala.networks import ActorCritic
from meta_impala.networks.actor_critic import LAST_HIDDEN


class Seen(NamedTuple):
    """What one head says, `[T+1, B, ...]`, and how to differentiate it.

    Attributes:
      policy_logits: of the head.
      values: of the head.
      reference_values: of the second value head, or None without one.
      gradient: derivatives of a scalar by these three -> its derivative by θ, a list.
    """

    policy_logits: np.ndarray
    values: np.ndarray
    reference_values: np.ndarray | None
    gradient: Callable[[np.ndarray, np.ndarray, np.ndarray | None], list[np.ndarray]]


def is_perceptron(network: ActorCritic) -> bool:
    """Whether `Perceptron` is this network."""
    return network.settings.torso == "mlp" and network.settings.core == "none"


def seen_by_module(
    network: ActorCritic, batch: Unroll, reward_clip: float, eta_input: np.ndarray, head: int = 0
) -> Seen:
    """The outputs of the module itself; arguments as `Perceptron.seen`."""
    with tf.GradientTape() as tape:
        states = trajectories_of(batch, reward_clip, network.dtype)
        output = network(states.inputs, states.core_state, tf.constant(eta_input))
    of_head = output.auxiliary[head - 1] if head else output
    outputs = [of_head.policy_logits, of_head.values, output.reference_values]

    def gradient(*by_outputs: np.ndarray | None) -> list[np.ndarray]:
        used = [index for index, given in enumerate(by_outputs) if given is not None]
        found = tape.gradient(
            [outputs[index] for index in used],
            network.trainable_variables,
            output_gradients=[tf.constant(by_outputs[index]) for index in used],
            unconnected_gradients="zero",
        )
        return [tensor.numpy() for tensor in found]

    return Seen(*(None if o is None else o.numpy() for o in outputs), gradient)


class Perceptron:
    """`--network=mlp` without a core, as a function of θ."""

    def __init__(self, network: ActorCritic) -> None:
        settings = network.settings
        self._settings = settings
        names = [v.name.partition("/")[2].removesuffix(":0") for v in network.trainable_variables]
        self._places = {name: index for index, name in enumerate(names)}
        self._layers = [f"mlp_torso/mlp/linear_{i}" for i in range(len(settings.mlp_sizes))]
        # φ is the input of the last layer where something may join it there.
        self._splits = settings.eta_embedding_place == LAST_HIDDEN
        self._of_body = self._layers[: -1 if self._splits else None]

    def _get(self, theta: Sequence[np.ndarray], name: str) -> np.ndarray:
        return theta[self._places[name]]

    def _layer(self, theta: Sequence[np.ndarray], name: str, rows: np.ndarray) -> np.ndarray:
        return rows @ self._get(theta, f"{name}/w") + self._get(theta, f"{name}/b")

    def body(self, theta: Sequence[np.ndarray], batch: Unroll) -> list[np.ndarray]:
        """The input of every layer of the body, `[(T+1)·B, ...]`, and φ last."""
        observations = batch.observations.numpy()
        assert observations.dtype == np.float32
        found = [observations.reshape(np.prod(observations.shape[:2]), -1).astype(np.float64)]
        for name in self._of_body:
            found.append(np.maximum(self._layer(theta, name, found[-1]), 0.0))
        return found

    def features(self, theta: Sequence[np.ndarray], batch: Unroll) -> np.ndarray:
        """φ `[T+1, B, F]`."""
        return self.body(theta, batch)[-1].reshape(*batch.rewards.shape, -1)

    def _joining(
        self,
        theta: Sequence[np.ndarray],
        batch: Unroll,
        reward_clip: float,
        fed: np.ndarray,
    ) -> np.ndarray:
        """What joins φ, `[(T+1)·B, J]`; J may be 0."""
        parts = [np.zeros([len(fed), 0])]
        if self._settings.last_action_and_reward:
            rewards = clip_rewards(batch.rewards, reward_clip).numpy().astype(np.float64)
            actions = np.eye(self._settings.num_actions)[batch.last_actions.numpy().ravel()]
            parts += [actions, rewards.reshape(-1, 1)]
        if self._settings.eta_embedding_size:
            parts.append(self._layer(theta, "eta_embedding", fed))
        return np.concatenate(parts, axis=1)

    def seen(
        self,
        theta: Sequence[np.ndarray],
        batch: Unroll,
        reward_clip: float,
        eta_input: np.ndarray,
        head: int = 0,
    ) -> Seen:
        """The outputs of a head.

        Args:
          theta: in the order of the module's variables.
          batch: of which the states are looked at.
          reward_clip: of the last reward, where it is an input.
          eta_input: what of η is embedded, `[E]` or `[T+1, B, E]`.
          head: 0 for the one that acts.
        """
        shape = tuple(batch.rewards.shape)
        number = shape[0] * shape[1]
        fed = np.broadcast_to(eta_input, (*shape, eta_input.shape[-1])).reshape(number, -1)
        inputs = self.body(theta, batch)
        joined = self._joining(theta, batch, reward_clip, fed)
        rows = inputs[-1]
        last = self._layers[-1]
        if self._splits:
            before = self._layer(theta, last, rows)
            if joined.shape[1]:
                before = before + joined @ self._get(theta, "joined/w")
            rows = np.maximum(before, 0.0)
        else:
            rows = np.concatenate([rows, joined], axis=1)
        suffix = f"_{head - 1}" if head else ""
        prefix = "auxiliary_" if head else ""
        heads = [f"{prefix}policy_head{suffix}", f"{prefix}value_head{suffix}"]
        if self._settings.second_value_head:
            heads.append("reference_value_head")
        outputs = [self._layer(theta, name, rows) for name in heads]

        def gradient(*by_outputs: np.ndarray | None) -> list[np.ndarray]:
            found = [np.zeros_like(value) for value in theta]

            def back(name: str, of_layer: np.ndarray, by_output: np.ndarray) -> np.ndarray:
                """Notes the derivative by the layer's parameters; returns that by its input."""
                found[self._places[f"{name}/w"]] += of_layer.T @ by_output
                found[self._places[f"{name}/b"]] += by_output.sum(axis=0)
                return by_output @ self._get(theta, f"{name}/w").T

            by_rows = np.zeros_like(rows)
            for name, given in zip(heads, by_outputs, strict=False):
                if given is not None:
                    by_rows += back(name, rows, given.reshape(number, -1))
            if self._splits:
                by_before = by_rows * (rows > 0.0)
                by_features = back(last, inputs[-1], by_before)
                if joined.shape[1]:
                    weights = self._get(theta, "joined/w")
                    found[self._places["joined/w"]] += joined.T @ by_before
                    by_joined = by_before @ weights.T
            else:
                by_features, by_joined = np.split(by_rows, [inputs[-1].shape[1]], axis=1)
            if self._settings.eta_embedding_size:
                back("eta_embedding", fed, by_joined[:, -self._settings.eta_embedding_size :])
            for index in reversed(range(len(self._of_body))):
                by_layer = by_features * (inputs[index + 1] > 0.0)
                by_features = back(self._of_body[index], inputs[index], by_layer)
            return found

        policy_logits, values, *reference = outputs
        return Seen(
            policy_logits.reshape(*shape, -1),
            values.reshape(shape),
            reference[0].reshape(shape) if reference else None,
            gradient,
        )
