"""The meta-gradient taken apart: by the place where η acts, and by the time step it belongs to.

Every place of `objectives.PLACES`, and within the targets every state of the unroll, is given its
own copy of x, all with equal values. The derivative by the copies is the split. It comes from
`meta_gradient.nested_tapes` on the learner's own objectives, so the copies' derivatives add up to
the meta-gradient that the learner follows.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from meta_impala.algorithm import meta_gradient
from meta_impala.algorithm.meta_gradient import MetaObjective, MetaStep, Tensors, UpdateRule
from meta_impala.algorithm.meta_parameters import Eta
from meta_impala.algorithm.objectives import (
    PLACES,
    POLICY_ADVANTAGES,
    VALUE_TARGETS,
    InnerObjective,
)

# The places where each state of the unroll has an η of its own: equation (13).
TIMED_PLACES = (VALUE_TARGETS, POLICY_ADVANTAGES)


class SplitMetaStep(NamedTuple):
    """One inner update with its meta-gradient in parts.

    Attributes:
      step: the update as `nested_tapes` gives it, its `meta_gradient` being dJ'/dx.
      by_place: `[P, *x.shape]`, dJ'/dx along each of `PLACES` alone; exactly 0 where η does not
        act. Their sum is dJ'/dx.
      by_time: `[2, T+1, *x.shape]`, of `TIMED_PLACES`: dJ'/dx along the η of state t alone. Row t
        is the γ and λ of the transition that *arrives* in state t, so row 0 is 0. The sums over t
        are the rows of `by_place`.
    """

    step: MetaStep
    by_place: tf.Tensor
    by_time: tf.Tensor


def split_meta_gradient(
    parameters: Tensors,
    x: tf.Tensor,
    inner_objective: InnerObjective,
    update_rule: UpdateRule,
    meta_objective: MetaObjective,
) -> SplitMetaStep:
    """The meta-gradient of one update (μ = 0), in parts.

    Args:
      parameters: θ, tensors.
      x: logits of η, `[n]` or `[F+1, n]`.
      inner_objective: J; its η must be a function of x (`drawn` is None).
      update_rule: U.
      meta_objective: J'.
    """
    assert inner_objective.drawn is None, "there is no derivative by an η that is drawn"
    rows = inner_objective.transitions.actions.shape[0] + 1
    sizes = [rows if place in TIMED_PLACES else 1 for place in PLACES]
    starts = {place: sum(sizes[:index]) for index, place in enumerate(PLACES)}
    at_states = inner_objective.meta_parameters.at_states

    def eta_at(copies: tf.Tensor, features: tf.Tensor, place: str) -> Eta:
        start = starts[place]
        if place not in TIMED_PLACES:
            return at_states(copies[start], features)
        etas = [at_states(copies[start + row], features[row]) for row in range(rows)]
        # One number per row (or one per state): [T+1, 1], or [T+1, B].
        return Eta(*(tf.reshape(tf.stack(part), [rows, -1]) for part in zip(*etas, strict=True)))

    copies = tf.repeat(x[tf.newaxis], sum(sizes), axis=0)
    step = meta_gradient.nested_tapes(
        parameters,
        copies,
        dataclasses.replace(inner_objective, eta_at=eta_at),
        update_rule,
        meta_objective,
    )
    parts = dict(zip(PLACES, tf.split(step.meta_gradient, sizes), strict=True))
    by_place = tf.stack([tf.reduce_sum(part, axis=0) for part in parts.values()])
    return SplitMetaStep(
        step=step._replace(meta_gradient=tf.reduce_sum(by_place, axis=0)),
        by_place=by_place,
        by_time=tf.stack([parts[place] for place in TIMED_PLACES]),
    )
