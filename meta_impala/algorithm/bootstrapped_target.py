"""The target of a bootstrapped meta objective (Flennerhag et al. 2022): θ̃, ahead of θ'.

    θ̃ = stop[ θ' after L − 1 more inner updates at η and one at η' ]
    J' = Σ k_π KL(π_θ̃, π_θ') + k_v ½ (V_θ̃ − V_θ')²

J' pulls θ' towards where the learner will be some updates later. It is differentiated by θ' only.
With L = 1, an SGD target of step size α̃ and ½‖θ̃ − θ'‖² in place of the sum, the meta-gradient is
α̃ times the one whose J' is the inner objective at η' (tested).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from meta_impala.algorithm.meta_gradient import Reduce, Tensors, alone, inner_step
from meta_impala.algorithm.optimizers import Slots
from meta_impala.algorithm.window_gradient import WindowUpdate


def bootstrapped_target(
    parameters: Tensors,
    slots: Slots,
    x: Tensors,
    updates: Sequence[WindowUpdate],
    *,
    reduce: Reduce = alone,
) -> list[tf.Tensor]:
    """θ̃, through which no gradient flows.

    Args:
      parameters: θ'.
      slots: of the inner optimiser after the update to θ'; those after it are discarded.
      x: the logits.
      updates: L of them, the last at η'.
      reduce: sums tensors over the learners; called once per update.
    """
    parameters, slots, x = tf.nest.map_structure(
        tf.stop_gradient, (list(parameters), slots, list(x))
    )
    for update in updates:
        step = inner_step(
            parameters,
            x,
            update.objective_at(parameters),
            update.rule_at(slots),
            reduce=reduce,
            micro_batches=update.parts_at(parameters),
        )
        parameters, slots = step.parameters, step.update_auxiliary.slots
    return [tf.stop_gradient(parameter) for parameter in parameters]
