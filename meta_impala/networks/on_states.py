"""The network on the states of some trajectories, as functions of θ: what J and J' run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from meta_impala.networks.actor_critic import ActorCritic, NetworkInputs, NetworkOutput


class NetworkOnStates(NamedTuple):
    """A network with all of its inputs but θ and η.

    Attributes:
      network: its variables are not used.
      inputs: T+1 states of B trajectories.
      core_state: `[B, S]` before the first state.
    """

    network: ActorCritic
    inputs: NetworkInputs
    core_state: tf.Tensor

    def body(self, parameters: Sequence[tf.Tensor]) -> tf.Tensor:
        """φ `[T+1, B, F]`."""
        return self.network.body_at(parameters, self.inputs.observations)

    def heads(
        self, parameters: Sequence[tf.Tensor], features: tf.Tensor, eta_input: tf.Tensor
    ) -> NetworkOutput:
        """The outputs from φ and from what of η is embedded."""
        return self.network.heads_at(parameters, features, self.inputs, self.core_state, eta_input)

    def columns(self, indices: tf.Tensor) -> NetworkOnStates:
        """The same on the trajectories with these indices."""
        core_state = tf.gather(self.core_state, indices)
        return NetworkOnStates(self.network, self.inputs.columns(indices), core_state)
