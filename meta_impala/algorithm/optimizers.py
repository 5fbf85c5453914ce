"""Optimisers as differentiable functions: (gradients, slots) -> (updates, new slots).

An update is *subtracted* from the parameters. Everything here can be differentiated in the
gradients, because the meta-gradient goes through the inner step (Xu et al. 2018, equation 2):
the clip and the second moment are part of that step, unless the caller asks to hold them constant.

All are the same kind of object. `Sgd` and `Adam` serve θ and the logits of η alike; RMSProp has a
form for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

import tensorflow as tf

from meta_impala.config import OptimizerSettings
from meta_impala.config.fields import add_choice

Tensors = Sequence[tf.Tensor]
# What an optimiser remembers, by name; every list is in the order of the parameters.
Slots = dict[str, list[tf.Tensor]]


class ClippedGradients(NamedTuple):
    """Gradients after the clip, their norm before it, and the factor they were multiplied by."""

    gradients: list[tf.Tensor]
    norm: tf.Tensor
    coefficient: tf.Tensor


def safe_sqrt(square: tf.Tensor) -> tf.Tensor:
    """√x, with derivatives of every order equal to zero (instead of infinite or NaN) at x = 0.

    `tf.clip_by_global_norm` at g = 0 has a NaN second derivative; a batch without any error
    signal must not destroy η. NaN inputs stay NaN.
    """
    has_root = tf.logical_not(square <= 0)  # so is NaN's
    return tf.where(has_root, tf.sqrt(tf.where(has_root, square, 1.0)), 0.0)


def global_norm(tensors: Tensors) -> tf.Tensor:
    """√Σ x² over all elements of all tensors."""
    return safe_sqrt(tf.add_n([tf.reduce_sum(tf.square(tensor)) for tensor in tensors]))


def clip_by_global_norm(
    gradients: Tensors, max_norm: tf.Tensor | float, *, differentiate_coefficient: bool = True
) -> ClippedGradients:
    """Scales the gradients so that their global norm is at most `max_norm`.

    Args:
      gradients: any shapes.
      max_norm: the largest global norm left alone; a number of 0 or below means no clip. A tensor
        is above 0.
      differentiate_coefficient: whether the coefficient is a function of the gradients for whoever
        differentiates, or a constant in them. It is one of `max_norm` in both cases.

    Returns:
      `ClippedGradients`, with the coefficient min(1, max_norm / norm).
    """
    norm = global_norm(gradients)
    if isinstance(max_norm, float | int) and max_norm <= 0:
        return ClippedGradients(list(gradients), norm, tf.ones_like(norm))
    limit = tf.convert_to_tensor(max_norm, norm.dtype)
    of_gradients = norm if differentiate_coefficient else tf.stop_gradient(norm)
    coefficient = limit / tf.maximum(of_gradients, limit)
    return ClippedGradients([gradient * coefficient for gradient in gradients], norm, coefficient)


class Optimizer(Protocol):
    """What `Sgd`, `RMSProp` and `Adam` are."""

    def initial_slots(self, parameters: Tensors) -> Slots:
        """The slots before the first update."""

    def step(
        self, gradients: Tensors, slots: Slots, learning_rate: tf.Tensor | float
    ) -> tuple[list[tf.Tensor], Slots]:
        """Updates to subtract, of the shapes of the gradients, and the new slots."""


@dataclasses.dataclass(frozen=True)
class Sgd:
    """update = learning_rate · g."""

    def initial_slots(self, parameters: Tensors) -> Slots:
        return {}

    def step(
        self, gradients: Tensors, slots: Slots, learning_rate: tf.Tensor | float
    ) -> tuple[list[tf.Tensor], Slots]:
        return [learning_rate * gradient for gradient in gradients], {}


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """RMSProp without momentum in its TensorFlow 1 form: ε is *inside* the root.

        ms ← decay · ms + (1 − decay) g²,    update = learning_rate · g / √(ms + ε)

    The mean square starts at *ones*, as TensorFlow 1 had it. From zeros, as Sonnet, Keras and
    PyTorch have it, the first update would be 1/√(1 − decay) = 3 to 10 times larger.

    Attributes:
      decay: of the mean square; IMPALA's code has 0.99. A tensor where it is learned.
      epsilon: ε; IMPALA's Atari table has 0.01, its released code 0.1.
      differentiate_second_moment: whether the mean square in the denominator is a function of g
        and of the mean square before for whoever differentiates, or constant in both. It changes
        no update.
    """

    decay: tf.Tensor | float
    epsilon: float
    differentiate_second_moment: bool = True

    def initial_slots(self, parameters: Tensors) -> Slots:
        return {"mean_squares": [tf.ones_like(parameter) for parameter in parameters]}

    def step(
        self, gradients: Tensors, slots: Slots, learning_rate: tf.Tensor | float
    ) -> tuple[list[tf.Tensor], Slots]:
        def mean_square_of(gradient: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
            return self.decay * before + (1.0 - self.decay) * tf.square(gradient)

        pairs = list(zip(gradients, slots["mean_squares"], strict=True))
        mean_squares = [mean_square_of(*pair) for pair in pairs]
        denominators = mean_squares
        if not self.differentiate_second_moment:
            denominators = [mean_square_of(*map(tf.stop_gradient, pair)) for pair in pairs]
        updates = [
            learning_rate * gradient * tf.math.rsqrt(denominator + self.epsilon)
            for gradient, denominator in zip(gradients, denominators, strict=True)
        ]
        return updates, {"mean_squares": mean_squares}


@dataclasses.dataclass(frozen=True)
class CorrectedRMSProp:
    """RMSProp for the logits of η: the mean square starts at zeros, with Adam's bias correction.

        ms ← decay · ms + (1 − decay) g²,    update = learning_rate · g / (√(ms / (1 − decayⁿ)) + ε)

    Meta-gradients are small (1e-5 to 1e-1 here), so the mean square of ones that θ's RMSProp starts
    with would hold x still for some 1,800 updates.

    Attributes:
      decay: of the mean square.
      epsilon: ε, outside the root.
    """

    decay: float = 0.99
    epsilon: float = 1e-8

    # The count of a checkpoint that is older than the correction: its mean squares started at ones
    # and must not be scaled. 1 − 0.99ⁿ is 1 to rounding.
    COUNT_IF_MISSING: ClassVar[int] = 10_000

    def initial_slots(self, parameters: Tensors) -> Slots:
        return {
            "mean_squares": [tf.zeros_like(parameter) for parameter in parameters],
            "count": [tf.zeros([], tf.int64)],
        }

    def step(
        self, gradients: Tensors, slots: Slots, learning_rate: tf.Tensor | float
    ) -> tuple[list[tf.Tensor], Slots]:
        count = slots["count"][0] + 1
        mean_squares = [
            self.decay * mean_square + (1.0 - self.decay) * tf.square(gradient)
            for gradient, mean_square in zip(gradients, slots["mean_squares"], strict=True)
        ]
        updates = []
        for gradient, mean_square in zip(gradients, mean_squares, strict=True):
            dtype = gradient.dtype
            decayed = tf.pow(tf.constant(self.decay, dtype), tf.cast(count, dtype))
            corrected = mean_square / (1.0 - decayed)
            updates.append(learning_rate * gradient / (safe_sqrt(corrected) + self.epsilon))
        return updates, {"mean_squares": mean_squares, "count": [count]}


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, Algorithm 1), ε outside the root of the corrected second moment.

    Attributes:
      beta1, beta2: decays of the first and the second moment.
      epsilon: ε.
      differentiate_second_moment: as in `RMSProp`.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    differentiate_second_moment: bool = True

    def initial_slots(self, parameters: Tensors) -> Slots:
        zeros = [tf.zeros_like(parameter) for parameter in parameters]
        return {
            "first_moments": zeros,
            "second_moments": list(zeros),
            "count": [tf.zeros([], tf.int64)],
        }

    def step(
        self, gradients: Tensors, slots: Slots, learning_rate: tf.Tensor | float
    ) -> tuple[list[tf.Tensor], Slots]:
        count = slots["count"][0] + 1
        first_moments = [
            self.beta1 * moment + (1.0 - self.beta1) * gradient
            for gradient, moment in zip(gradients, slots["first_moments"], strict=True)
        ]
        second_moments = [
            self.beta2 * moment + (1.0 - self.beta2) * tf.square(gradient)
            for gradient, moment in zip(gradients, slots["second_moments"], strict=True)
        ]
        updates = []
        for first, second in zip(first_moments, second_moments, strict=True):
            steps = tf.cast(count, first.dtype)
            corrected_first = first / (1.0 - tf.pow(tf.constant(self.beta1, first.dtype), steps))
            corrected_second = _denominator(second, self.differentiate_second_moment) / (
                1.0 - tf.pow(tf.constant(self.beta2, first.dtype), steps)
            )
            updates.append(
                learning_rate * corrected_first / (safe_sqrt(corrected_second) + self.epsilon)
            )
        new_slots = {
            "first_moments": first_moments,
            "second_moments": second_moments,
            "count": [count],
        }
        return updates, new_slots


def _denominator(second_moment: tf.Tensor, differentiate: bool) -> tf.Tensor:
    return second_moment if differentiate else tf.stop_gradient(second_moment)


def _sgd(_: OptimizerSettings, __: bool) -> Optimizer:
    return Sgd()


def _rmsprop(settings: OptimizerSettings, through: bool) -> Optimizer:
    return RMSProp(settings.rmsprop_decay, settings.rmsprop_epsilon, through)


def _adam(settings: OptimizerSettings, through: bool) -> Optimizer:
    return Adam(settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon, through)


# (settings, whether its second moment is differentiated through) -> optimiser of θ.
OptimizerFactory = Callable[[OptimizerSettings, bool], Optimizer]

# Optimisers of θ by the name that `inner_optimizer` has.
OPTIMIZERS: dict[str, OptimizerFactory] = {"sgd": _sgd, "rmsprop": _rmsprop, "adam": _adam}


def register_optimizer(name: str, factory: OptimizerFactory) -> None:
    """Adds an optimiser of θ, for `Config(inner_optimizer=name)` in this process.

    A run that was trained with it is continued and evaluated by programs that register it too.

    Args:
      name: that no optimiser of the package has.
      factory: makes it. Every operation has to be differentiable in the gradients.

    Raises:
      ValueError: if the name is taken by another factory.
    """
    if OPTIMIZERS.setdefault(name, factory) is not factory:
        raise ValueError(f"the optimiser {name!r} exists already; must be another name")
    add_choice("inner_optimizer", name)
