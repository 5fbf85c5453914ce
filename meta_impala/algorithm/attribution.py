"""Splits the meta-gradient by the place where η acts and by the time step it belongs to.

Every place of `objectives.EtaPlaces`, and within the targets every state of the unroll, is given
its own copy of x, all with equal values. The derivative by the copies is the split. It comes from
`meta_gradient.nested_tapes` on the learner's own objectives, so the copies' derivatives add up to
the meta-gradient that the learner follows.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from meta_impala.algorithm import meta_gradient
from meta_impala.algorithm.meta_gradient import (
    InnerUpdate,
    MetaLossFunction,
    MetaStep,
    Tensors,
    UpdateRule,
)
from meta_impala.algorithm.objectives import (
    PLACES,
    POLICY_ADVANTAGES,
    VALUE_TARGETS,
    EtaPlaces,
    InnerObjective,
    Logits,
)

# The places where each transition of the unroll has an η of its own: equation (13).
TIMED_PLACES = (VALUE_TARGETS, POLICY_ADVANTAGES)

# Where η acts on the update: on ∇_θ J, and on what U makes of it.
UPDATE_RULE = "update rule"
SPLIT_PLACES = (*PLACES, UPDATE_RULE)


class SplitMetaStep(NamedTuple):
    """One inner update with its meta-gradient in parts.

    Attributes:
      step: the update as `nested_tapes` gives it, its `meta_gradient` being dJ'/dx.
      by_place: `[P, *x.shape]`, dJ'/dx along each of `SPLIT_PLACES` alone; exactly 0 where η does
        not act. Their sum is dJ'/dx.
      by_time: `[2, T+1, *x.shape]`, of `TIMED_PLACES`: dJ'/dx along the η of one transition alone.
        Row t is the transition that *arrives* in state t, so row 0 is 0. The sums over t are the
        rows of `by_place`.
    """

    step: MetaStep
    by_place: tf.Tensor
    by_time: tf.Tensor


def split_meta_gradient(
    parameters: Tensors,
    x: Tensors,
    inner_objective: InnerObjective,
    update_rule: UpdateRule,
    meta_objective: MetaLossFunction,
) -> SplitMetaStep:
    """The meta-gradient of one update (μ = 0), in parts.

    Args:
      parameters: θ, tensors.
      x: the logits of η, `[n]` or `[F+1, n]`, first in a list; only these are split.
      inner_objective: J; its η must be a function of x (`given` is None).
      update_rule: U.
      meta_objective: J'.
    """
    assert inner_objective.given is None, "there is no derivative by an η that is no function of x"
    rows = inner_objective.transitions.actions.shape[0] + 1
    logits, *others = x
    configured = inner_objective.places(x)
    timed = [place in ("value_targets", "policy_advantages") for place in EtaPlaces._fields]
    sizes = [*(rows if is_timed else 1 for is_timed in timed), 1]  # the last is the rule's

    def places(copies: Tensors) -> EtaPlaces:
        *parts, _ = tf.split(copies[0], sizes)
        return EtaPlaces(
            *(
                # A path that is closed stays closed: its copy is a constant.
                Logits(part if was.live else tf.stop_gradient(part), True, timed=True)
                if is_timed
                else Logits(part[0] if was.live else tf.stop_gradient(part[0]), was.live)
                for part, is_timed, was in zip(parts, timed, configured, strict=True)
            )
        )

    def rule(gradients: Tensors, copies: Tensors) -> InnerUpdate:
        return update_rule(gradients, [copies[0][-1], *copies[1:]])

    copies = [tf.repeat(logits[tf.newaxis], sum(sizes), axis=0), *others]
    step = meta_gradient.nested_tapes(
        parameters,
        copies,
        dataclasses.replace(inner_objective, places=places),
        rule,
        meta_objective,
    )
    parts = tf.split(step.meta_gradient[0], sizes)
    by_place = tf.stack([tf.reduce_sum(part, axis=0) for part in parts])
    return SplitMetaStep(
        step=step._replace(
            meta_gradient=[tf.reduce_sum(by_place, axis=0), *step.meta_gradient[1:]]
        ),
        by_place=by_place,
        by_time=tf.stack(
            [part for part, is_timed in zip(parts[:-1], timed, strict=True) if is_timed]
        ),
    )
