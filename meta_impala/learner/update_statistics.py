"""`Statistics` of an update, summed over the learners, as one vector: one message between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.algorithm.meta_gradient import InnerStep
from meta_impala.algorithm.meta_parameters import GAMMA, LAMBDA
from meta_impala.config.metric_columns import learned_columns
from meta_impala.learner.group import LearnerGroup
from meta_impala.learner.state import FIXED, Statistics

# Means over the steps of weight 1, of all learners.
_PER_STEP = ("inner_loss", "policy_loss", "value_loss", "entropy", "rho_clipped_share")


class MetaUpdate(NamedTuple):
    """What a meta-gradient makes of x.

    Attributes:
      new: (variables, values) pairs: x, its slots, the trace, the moments.
      loss: J', of all learners.
      gradients: dJ'/dx, by the logits of η of each head; the head that acts first.
      norm: of the whole of it, before its clip.
      steps: what is subtracted from these logits.
    """

    new: list[tuple[Any, Any]]
    loss: tf.Tensor
    gradients: Sequence[tf.Tensor]
    norm: tf.Tensor
    steps: Sequence[tf.Tensor]


def to_statistics(vector: Sequence[float], learned: Sequence[str]) -> Statistics:
    """What `statistics_of` computed, by name.

    Args:
      vector: its numbers.
      learned: names of what is learned, head by head in the order of x (`of_all_heads`).
    """
    fixed: dict[str, Any] = dict(zip(FIXED, vector, strict=False))
    others = dict(zip(learned_columns(learned), vector[len(FIXED) :], strict=True))
    return Statistics(**fixed, others=others)


def meta_columns(learned: Sequence[str]) -> tuple[str, ...]:
    """Names of what `meta_statistics_of` computes."""
    of_each = (f"{kind}_{name}" for name in learned for kind in ("meta_gradient", "x_step"))
    return ("meta_loss", "meta_gradient_norm", *of_each)


def meta_statistics_of(
    meta: MetaUpdate, learned: Sequence[str], num_meta_rows: tf.Tensor, group: LearnerGroup
) -> tf.Tensor:
    """What `Statistics` says of a meta step that is not part of an inner update's own function.

    Args:
      meta: the meta update.
      learned: names of what is learned, head by head in the order of x (`of_all_heads`).
      num_meta_rows: steps of weight 1 in this learner's meta batch.
      group: the learners.
    """
    numbers = {
        "meta_loss": meta.loss,
        "meta_gradient_norm": meta.norm,
        **_of_learned(meta, learned),
    }
    steps = group.mean(tf.cast(num_meta_rows, tf.float32)) * group.size
    numbers["meta_loss"] = numbers["meta_loss"] / tf.cast(tf.maximum(steps, 1.0), meta.loss.dtype)
    return tf.stack([tf.cast(numbers[name], tf.float32) for name in meta_columns(learned)])


def with_meta(
    statistics: Statistics, learned: Sequence[str], numbers: Sequence[float]
) -> Statistics:
    """The statistics of an inner update with those of a meta step (`meta_statistics_of`)."""
    by_name = dict(zip(meta_columns(learned), numbers, strict=True))
    fixed: dict[str, Any] = {name: by_name[name] for name in FIXED if name in by_name}
    others = {name: by_name.get(name, value) for name, value in statistics.others.items()}
    return statistics._replace(**fixed, others=others)


def _of_learned(meta: MetaUpdate | None, learned: Sequence[str]) -> dict[str, tf.Tensor]:
    """The meta-gradient and the step of x of every learned row, by column."""
    by_name = {}
    if meta is not None:
        count = len(learned) // len(meta.gradients)
        for index, name in enumerate(learned):
            head, entry = divmod(index, count)
            # Of the bias, the last row, where η belongs to the state.
            gradient, step = (
                tf.reshape(of_heads[head][..., entry], [-1])[-1]
                for of_heads in (meta.gradients, meta.steps)
            )
            by_name[f"meta_gradient_{name}"], by_name[f"x_step_{name}"] = gradient, -step
    return by_name


def statistics_of(
    step: InnerStep,
    meta: MetaUpdate | None,
    learned: Sequence[str],
    emulated: tf.Tensor,
    num_meta_rows: tf.Tensor,
    applied: tf.Tensor,
    group: LearnerGroup,
) -> tf.Tensor:
    """`Statistics` of all learners: those of `FIXED`, then `learned_columns`.

    Args:
      step: the inner update.
      meta: the meta update; None where there was none.
      learned: names of what is learned, head by head in the order of x (`of_all_heads`).
      emulated: agent steps of this learner's batch.
      num_meta_rows: those of weight 1 in its meta batch.
      applied: whether the update was.
      group: the learners.
    """
    parts, eta = step.loss_auxiliary
    _, norm, coefficient = step.update_auxiliary
    nan = tf.constant(float("nan"), norm.dtype)
    by_name = _of_learned(meta, learned)
    sums = Statistics(
        inner_loss=step.inner_loss / group.size,
        policy_loss=parts.policy_loss,
        value_loss=parts.value_loss,
        entropy=parts.entropy,
        gradient_norm=norm,
        clip_coefficient=coefficient,
        rho_clipped_share=parts.rhos_clipped,
        steps=emulated,
        gamma=eta[GAMMA],
        lambda_=eta[LAMBDA],
        applied=applied,
        meta_loss=nan if meta is None else meta.loss / group.size,
        meta_gradient_norm=nan if meta is None else meta.norm,
        meta_gradient_gamma=by_name.get("meta_gradient_gamma", nan),
        meta_gradient_lambda=by_name.get("meta_gradient_lambda", nan),
        x_step_gamma=by_name.get("x_step_gamma", nan),
        x_step_lambda=by_name.get("x_step_lambda", nan),
        others={name: {**eta, **by_name}.get(name, nan) for name in learned_columns(learned)},
    )
    numbers = (*sums[: len(FIXED)], *sums.others.values(), parts.steps, num_meta_rows)
    vector = [tf.cast(value, tf.float32) for value in numbers]
    *means, steps, num_meta_rows = tf.unstack(group.mean(tf.stack(vector)))
    of_all = dict(zip(FIXED, means, strict=False))
    for name in _PER_STEP:
        of_all[name] = of_all[name] / tf.maximum(steps, 1.0)
    of_all["meta_loss"] = of_all["meta_loss"] / tf.maximum(num_meta_rows, 1.0)
    of_all["steps"] = of_all["steps"] * group.size
    return tf.stack([*of_all.values(), *means[len(FIXED) :]])
