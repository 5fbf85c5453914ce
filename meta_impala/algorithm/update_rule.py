"""U(g, x), the inner update as a function of the gradient: clip, optimiser, learning rate."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from meta_impala.algorithm import optimizers
from meta_impala.algorithm.meta_gradient import InnerUpdate, Tensors
from meta_impala.algorithm.meta_parameters import Eta, MetaParameters
from meta_impala.algorithm.optimizers import Optimizer, Slots


class RuleOutput(NamedTuple):
    """What U gives besides the updates.

    Attributes:
      slots: of the optimiser after the update.
      norm: of the gradient before the clip.
      coefficient: what the clip multiplied it by.
    """

    slots: Slots
    norm: tf.Tensor
    coefficient: tf.Tensor


@dataclasses.dataclass(frozen=True)
class OptimizerRule:
    """U at the slots of one moment.

    Attributes:
      optimizer: of θ.
      meta_parameters: x -> the clip norm, the factor of the learning rate and RMSProp's decay: each
        a constant, learned, or given.
      slots: of the optimiser before the update.
      learning_rate: of the schedule, a scalar.
      differentiate_clip: whether the clip's coefficient is a function of g for whoever
        differentiates.
      given: entries of η that are no function of x.
    """

    optimizer: Optimizer
    meta_parameters: MetaParameters
    slots: Slots
    learning_rate: tf.Tensor
    differentiate_clip: bool = True
    given: Eta | None = None

    def __call__(self, gradients: Tensors, x: Tensors) -> InnerUpdate:
        """The updates to subtract, and `RuleOutput`."""
        eta = {**self.meta_parameters.of_rule(x[0]), **(self.given or {})}
        clipped = optimizers.clip_by_global_norm(
            gradients,
            eta["max_gradient_norm"],
            differentiate_coefficient=self.differentiate_clip,
        )
        optimizer = self.optimizer
        if isinstance(optimizer, optimizers.RMSProp):
            optimizer = dataclasses.replace(optimizer, decay=eta["rmsprop_decay"])
        rate, factor = self.learning_rate, eta["learning_rate_factor"]
        # A product with a constant 1 moves the last bit of the step in some graphs.
        if not isinstance(factor, float) or factor != 1.0:
            rate = rate * factor
        updates, new_slots = optimizer.step(clipped.gradients, self.slots, rate)
        return InnerUpdate(updates, RuleOutput(new_slots, clipped.norm, clipped.coefficient))
