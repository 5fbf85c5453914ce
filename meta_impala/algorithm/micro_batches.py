"""Micro-batches: J and J', which are sums over trajectories, in parts of as many columns each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from meta_impala.algorithm.losses import InnerLossParts
from meta_impala.algorithm.meta_gradient import MicroBatches, Tensors, whole
from meta_impala.algorithm.objectives import InnerObjective, MetaObjective

InnerAuxiliary = tuple[InnerLossParts, Mapping[str, tf.Tensor]]


def in_parts(number: int, inner: InnerObjective, meta: MetaObjective | None = None) -> MicroBatches:
    """J, and J' if there is one, in a number of parts; one part is the whole.

    Args:
      number: of the parts; divides the columns of τ and of τ'.
      inner: J.
      meta: J'.
    """
    if number == 1:
        return whole(inner, meta)

    def inner_part(index: tf.Tensor) -> Any:
        objective = inner.part(index, number)

        def with_sums(live: Tensors, x: Tensors) -> tuple[tf.Tensor, InnerAuxiliary]:
            loss, (parts, eta) = objective(live, x)
            # Means of the parts, so that the parts' shares of them add up.
            return loss, (parts, {name: mean / number for name, mean in eta.items()})

        return with_sums

    def meta_part(index: tf.Tensor) -> MetaObjective:
        assert meta is not None, "there is no meta objective"
        return meta.part(index, number)

    return MicroBatches(number, inner_part, meta_part)
