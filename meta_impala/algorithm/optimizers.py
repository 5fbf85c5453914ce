"""Optimisers as differentiable functions: (gradients, state) -> (updates, new state).

An update is *subtracted* from the parameters. Everything here can be differentiated in the
gradients, because the meta-gradient goes through the inner step (Xu et al. 2018, equation 2):
the clip and the mean square are part of that step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

Tensors = Sequence[tf.Tensor]


class ClippedGradients(NamedTuple):
    """Gradients after the clip, their norm before it, and the factor they were multiplied by."""

    gradients: list[tf.Tensor]
    norm: tf.Tensor
    coefficient: tf.Tensor


class AdamState(NamedTuple):
    """First and second moment (shaped as the parameter) and the number of updates made."""

    first_moment: tf.Tensor
    second_moment: tf.Tensor
    count: tf.Tensor


def safe_sqrt(square: tf.Tensor) -> tf.Tensor:
    """√x, with derivatives of every order equal to zero (instead of infinite or NaN) at x = 0.

    `tf.clip_by_global_norm` at g = 0 has a NaN second derivative; a batch without any error
    signal must not destroy η.
    """
    positive = square > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, square, 1.0)), 0.0)


def global_norm(tensors: Tensors) -> tf.Tensor:
    """√Σ x² over all elements of all tensors."""
    return safe_sqrt(tf.add_n([tf.reduce_sum(tf.square(tensor)) for tensor in tensors]))


def clip_by_global_norm(gradients: Tensors, max_norm: float) -> ClippedGradients:
    """Scales the gradients so that their global norm is at most `max_norm`.

    Args:
      gradients: any shapes.
      max_norm: the largest global norm left alone; 0 or below means no clip.

    Returns:
      `ClippedGradients`; the coefficient min(1, max_norm / norm) is a differentiable function of
      the gradients.
    """
    norm = global_norm(gradients)
    if max_norm <= 0:
        return ClippedGradients(list(gradients), norm, tf.ones_like(norm))
    limit = tf.constant(max_norm, norm.dtype)
    coefficient = limit / tf.maximum(norm, limit)
    return ClippedGradients([gradient * coefficient for gradient in gradients], norm, coefficient)


def initial_mean_squares(parameters: Tensors) -> list[tf.Tensor]:
    """RMSProp's state before the first update: *ones*, as TensorFlow 1 had it.

    From zeros, as Sonnet, Keras and PyTorch have it, the first update would be 1/√(1 − decay)
    = 3 to 10 times larger.
    """
    return [tf.ones_like(parameter) for parameter in parameters]


def rmsprop(
    gradients: Tensors,
    mean_squares: Tensors,
    learning_rate: tf.Tensor,
    *,
    decay: float,
    epsilon: float,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """RMSProp without momentum in its TensorFlow 1 form: ε is *inside* the root.

        ms ← decay · ms + (1 − decay) g²,    update = learning_rate · g / √(ms + ε)

    Args:
      gradients: g, any shapes.
      mean_squares: ms, of the same shapes (`initial_mean_squares`).
      learning_rate: scalar.
      decay: of the mean square; IMPALA's code has 0.99.
      epsilon: ε; IMPALA's Atari table has 0.01, its released code 0.1.

    Returns:
      The updates to subtract, and the new mean squares; both differentiable in the gradients.
    """
    new_mean_squares = [
        decay * mean_square + (1.0 - decay) * tf.square(gradient)
        for gradient, mean_square in zip(gradients, mean_squares, strict=True)
    ]
    updates = [
        learning_rate * gradient * tf.math.rsqrt(mean_square + epsilon)
        for gradient, mean_square in zip(gradients, new_mean_squares, strict=True)
    ]
    return updates, new_mean_squares


def initial_adam_state(parameter: tf.Tensor) -> AdamState:
    """Adam's state before the first update."""
    zeros = tf.zeros_like(parameter)
    return AdamState(zeros, zeros, tf.zeros([], tf.int64))


def adam(
    gradient: tf.Tensor,
    state: AdamState,
    learning_rate: float | tf.Tensor,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[tf.Tensor, AdamState]:
    """Adam (Kingma and Ba 2015, Algorithm 1), with ε outside the root of the corrected moment.

    Returns:
      The update to subtract, and the new state.
    """
    count = state.count + 1
    steps = tf.cast(count, gradient.dtype)
    first = beta1 * state.first_moment + (1.0 - beta1) * gradient
    second = beta2 * state.second_moment + (1.0 - beta2) * tf.square(gradient)
    corrected_first = first / (1.0 - tf.pow(tf.constant(beta1, gradient.dtype), steps))
    corrected_second = second / (1.0 - tf.pow(tf.constant(beta2, gradient.dtype), steps))
    update = learning_rate * corrected_first / (tf.sqrt(corrected_second) + epsilon)
    return update, AdamState(first, second, count)
