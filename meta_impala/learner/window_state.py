"""What the learner keeps of a window of K inner updates (`--inner_steps`): θ_k, s_k, g_k and τ_k.

All of these are variables of the learner's state, so a checkpoint within a window continues it. An
update that is not applied (something of it is not finite) ends the window without a meta step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from meta_impala.actors.trajectory import Unroll
from meta_impala.algorithm.window_gradient import WindowState


def _variable(shape: Sequence[int], dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(shape, dtype), trainable=False, name=name)


def _like(variable: tf.Variable, name: str) -> tf.Variable:
    return _variable(variable.shape, variable.dtype, name)


def _assign(variables: Any, values: Any) -> None:
    pairs = zip(tf.nest.flatten(variables), tf.nest.flatten(values), strict=True)
    for variable, value in pairs:
        variable.assign(value)


class Window(tf.Module):
    """A window of K inner updates, the first `count` of which are made.

    Attributes:
      length: K.
      count: int64.
      parameters: θ_k, K lists.
      slots: s_k, K dicts of lists.
      gradients: g_k (of all learners), K lists.
      batches: τ_k, K lists in the order of `Unroll`.
      learning_rates: `[K]`, those of the schedule.
      reported: statistics of the last meta step (`update_statistics.meta_columns`).
      is_known: whether there was a meta step.
    """

    def __init__(
        self,
        length: int,
        network: tf.Module,
        slots: Mapping[str, Sequence[tf.Variable]],
        batch: Unroll,
        num_reported: int,
    ) -> None:
        """Args:
        length: K.
        network: θ.
        slots: of the inner optimiser.
        batch: signature of a batch.
        num_reported: size of `reported`.
        """
        super().__init__(name="window")
        self.length = length
        parameters = network.trainable_variables
        self.count = tf.Variable(0, dtype=tf.int64, trainable=False, name="count")
        self.parameters = [[_like(v, "parameters") for v in parameters] for _ in range(length)]
        self.gradients = [[_like(v, "gradients") for v in parameters] for _ in range(length)]
        self.slots = [
            {name: [_like(v, name) for v in of_name] for name, of_name in slots.items()}
            for _ in range(length)
        ]
        self.batches = [
            [_variable(spec.shape, spec.dtype, "batch") for spec in batch] for _ in range(length)
        ]
        self.learning_rates = _variable([length], tf.float32, "learning_rates")
        self.reported = _variable([num_reported], tf.float32, "reported")
        self.is_known = tf.Variable(False, trainable=False, name="is_known")

    @property
    def data(self) -> list[tf.Variable]:
        """The variables of all τ_k."""
        return [variable for batch in self.batches for variable in batch]

    @property
    def made(self) -> int:
        """How many updates of the window are made."""
        return int(self.count.numpy())

    def begin_update(self, parameters: Any, slots: Any) -> None:
        """Keeps θ_k and s_k; before the update."""
        index = self.made
        _assign(self.parameters[index], parameters)
        _assign(self.slots[index], slots)

    def end_update(self, batch: Unroll, gradients: Any, learning_rate: float) -> bool:
        """Keeps τ_k and g_k; after the update. Returns whether the window is full."""
        index = self.made
        _assign(self.batches[index], list(batch))
        _assign(self.gradients[index], list(gradients))
        rates = self.learning_rates.numpy()
        rates[index] = learning_rate
        self.learning_rates.assign(rates)
        self.count.assign(index + 1)
        return index + 1 == self.length

    def clear(self) -> None:
        """Begins a new window."""
        self.count.assign(0)

    def forget(self) -> None:
        """Begins the first window: no meta step was made."""
        self.clear()
        self.is_known.assign(False)

    def report(self, numbers: np.ndarray) -> None:
        """Keeps the statistics of the meta step for the updates that follow."""
        self.reported.assign(numbers)
        self.is_known.assign(True)

    def state(self, k: int) -> WindowState:
        """θ_k, s_k and g_k of a full window, as tensors."""

        def values(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
            return [variable.read_value() for variable in variables]

        slots = {name: values(of_name) for name, of_name in self.slots[k].items()}
        return WindowState(values(self.parameters[k]), slots, values(self.gradients[k]))

    def unroll(self, k: int) -> Unroll:
        """τ_k of a full window, as tensors."""
        return Unroll(*(variable.read_value() for variable in self.batches[k]))
