"""What the objectives need of a network: two functions of θ on the states of one trajectory.

`networks.on_states.NetworkOnStates` is the implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

Tensors = Sequence[tf.Tensor]


class HeadOutputs(Protocol):
    """What one policy and value head says on the T+1 states."""

    @property
    def policy_logits(self) -> tf.Tensor: ...
    @property
    def values(self) -> tf.Tensor: ...


class Outputs(Protocol):
    """What a network gives on the T+1 states of a trajectory (as `actor_critic.NetworkOutput`).

    `reference_values` (`[T+1, B]`) are needed for a second value head only.
    """

    @property
    def policy_logits(self) -> tf.Tensor: ...
    @property
    def values(self) -> tf.Tensor: ...
    @property
    def reference_values(self) -> tf.Tensor | None: ...
    @property
    def auxiliary(self) -> Sequence[HeadOutputs]: ...


class TrajectoryNetwork(Protocol):
    """A network on the T+1 states of one trajectory, in two parts, as functions of θ."""

    def body(self, parameters: Tensors) -> tf.Tensor:
        """φ `[T+1, B, F]`, before η joins; what an η per state is a function of."""
        ...

    def heads(self, parameters: Tensors, features: tf.Tensor, eta_input: tf.Tensor) -> Outputs:
        """The outputs, from φ and from what of η is embedded (`[E]` or `[T+1, B, E]`)."""
        ...

    def columns(self, indices: tf.Tensor) -> TrajectoryNetwork:
        """The same on the trajectories with these indices (for micro-batches)."""
        ...
