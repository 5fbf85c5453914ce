"""The meta-gradient dJ'/dx through a window of K inner updates.

    g_k = ∇_θ J_k(θ_k, x),    θ_{k+1} = θ_k − U(g_k, s_k, x),    s_{k+1},    dJ'(θ_K)/dx

`nested_window` is the definition: one outer tape around all K updates. `mixed_window` is the same
in mixed mode (MixFlow, arXiv 2505.00793): it goes back through the window with one forward-mode and
one reverse-mode pass over J_k each. It keeps θ_k, s_k, g_k and the batches of the
window, and never the graph of a backward pass. With v = dJ'/dθ_K and s̄ = 0, for k = K−1 … 0:

    Φ = −⟨v, U(g_k, s_k, x)⟩ + ⟨s̄, s_{k+1}⟩
    u = ∂Φ/∂g_k,    dx += ∂Φ/∂x,    s̄ ← ∂Φ/∂s_k
    D = ⟨u, ∇_θ J_k⟩ (forward mode),    dx += ∂D/∂x,    v ← v + ∂D/∂θ_k

u here is minus the u of `meta_gradient.reverse_over_forward`, which is the case K = 1. The targets
of J_k are constant in ∇_θ J_k and not in dθ_{k+1}/dθ_k: ∂D/∂θ_k goes through them, so the
objectives of k ≥ 1 compute them from the θ that they are given as `target_parameters`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.algorithm.meta_gradient import (
    MicroBatches,
    Reduce,
    Tensors,
    alone,
    copies_of,
    gradients_of,
    inner_step,
    meta_loss_and_gradient,
    summed,
)
from meta_impala.algorithm.micro_batches import in_parts
from meta_impala.algorithm.objectives import InnerObjective, MetaObjective
from meta_impala.algorithm.optimizers import Slots
from meta_impala.algorithm.update_rule import OptimizerRule


class WindowUpdate(NamedTuple):
    """One inner update of a window, from any θ_k and slots.

    Attributes:
      objective: J_k.
      rule: U.
      number: of the micro-batches that J_k is computed in.
    """

    objective: InnerObjective
    rule: OptimizerRule
    number: int = 1

    def objective_at(self, parameters: Tensors) -> InnerObjective:
        """J_k, whose targets are computed from these tensors."""
        return dataclasses.replace(self.objective, target_parameters=parameters)

    def parts_at(self, parameters: Tensors) -> MicroBatches:
        """The same in micro-batches."""
        return in_parts(self.number, self.objective_at(parameters))

    def rule_at(self, slots: Slots) -> OptimizerRule:
        """U at these slots."""
        return dataclasses.replace(self.rule, slots=slots)


class WindowState(NamedTuple):
    """What is kept of one inner update beside its batch: θ_k, s_k and g_k."""

    parameters: Tensors
    slots: Slots
    gradients: Tensors


class Carried(NamedTuple):
    """What goes back through a window, from update to update.

    Attributes:
      sensitivities: v, like θ.
      of_slots: s̄, of the numbers of the slots.
      meta_gradient: dJ'/dx so far, like x.
    """

    sensitivities: list[tf.Tensor]
    of_slots: list[tf.Tensor]
    meta_gradient: list[tf.Tensor]


class WindowGradient(NamedTuple):
    """J' (of all learners), its auxiliary output, and dJ'/dx as a list like x."""

    meta_loss: tf.Tensor
    meta_auxiliary: Any
    meta_gradient: list[tf.Tensor]


def nested_window(
    parameters: Tensors,
    slots: Slots,
    x: Tensors,
    updates: Sequence[WindowUpdate],
    meta_objective: MetaObjective,
) -> WindowGradient:
    """The meta-gradient by one outer tape around all updates.

    Args:
      parameters: θ_0.
      slots: s_0.
      x: the logits of η, then those of each auxiliary head.
      updates: of the window, each J a single part.
      meta_objective: J'.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(list(x))
        for update in updates:
            objective, rule = update.objective_at(parameters), update.rule_at(slots)
            step = inner_step(parameters, x, objective, rule)
            parameters, slots = step.parameters, step.update_auxiliary.slots
        meta_loss, auxiliary = meta_objective(parameters)
    return WindowGradient(meta_loss, auxiliary, gradients_of(tape, meta_loss, x))


def mixed_window(
    states: Sequence[WindowState],
    parameters: Tensors,
    x: Tensors,
    updates: Sequence[WindowUpdate],
    meta_objective: MetaObjective,
    *,
    number: int = 1,
    reduce: Reduce = alone,
) -> WindowGradient:
    """The meta-gradient in mixed mode.

    Args:
      states: θ_k, s_k and g_k (of all learners) for k = 0 … K−1.
      parameters: θ_K.
      x: the logits of η, then those of each auxiliary head.
      updates: of the window.
      meta_objective: J'.
      number: of the micro-batches that J' is computed in.
      reduce: sums tensors over the learners; called K + 1 times.
    """
    meta_loss, auxiliary, carried = begin_backward(
        parameters, states[-1].slots, x, meta_objective, number=number, reduce=reduce
    )
    for k in reversed(range(len(updates))):
        carried = back_through(updates[k], states[k], x, carried, reduce=reduce, is_first=k == 0)
    return WindowGradient(meta_loss, auxiliary, carried.meta_gradient)


def begin_backward(
    parameters: Tensors,
    slots: Slots,
    x: Tensors,
    meta_objective: MetaObjective,
    *,
    number: int = 1,
    reduce: Reduce = alone,
) -> tuple[tf.Tensor, Any, Carried]:
    """J', its auxiliary output, and what goes back through the last update of a window.

    The other arguments are as in `mixed_window`.

    Args:
      parameters: θ_K.
      slots: like s_K; only their shapes matter.
    """
    auxiliary = None

    def of_part(index: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        nonlocal auxiliary
        part = meta_objective if number == 1 else meta_objective.part(index, number)
        loss, came_with, gradients = meta_loss_and_gradient(part, parameters)
        auxiliary = came_with if number == 1 else None
        return loss, gradients

    meta_loss, sensitivities = summed(number, of_part)
    *sensitivities, meta_loss = reduce([*sensitivities, meta_loss])
    of_slots = [tf.zeros_like(tensor) for tensor in _differentiable(slots)]
    nothing = [tf.zeros_like(tensor) for tensor in x]
    return meta_loss, auxiliary, Carried(sensitivities, of_slots, nothing)


def back_through(
    update: WindowUpdate,
    state: WindowState,
    x: Tensors,
    carried: Carried,
    *,
    reduce: Reduce = alone,
    is_first: bool = False,
) -> Carried:
    """What goes back through update k − 1, from what goes back through update k.

    Args:
      update: k.
      state: of it.
      x: the logits of η, then those of each auxiliary head.
      carried: from update k + 1, or from `begin_backward`.
      reduce: sums tensors over the learners; called once.
      is_first: whether k is 0: nothing but the meta-gradient is needed then.
    """
    direction, through_rule, of_slots = _back_through_rule(
        update, state, x, carried.sensitivities, carried.of_slots
    )
    of_x, of_parameters = _back_through_gradient(
        update, state.parameters, x, direction, reduce, with_parameters=not is_first
    )
    sensitivities = carried.sensitivities
    if not is_first:
        sensitivities = _added(sensitivities, of_parameters)
    meta_gradient = _added(_added(carried.meta_gradient, through_rule), of_x)
    return Carried(sensitivities, of_slots, meta_gradient)


def _added(ones: Tensors, others: Tensors) -> list[tf.Tensor]:
    return [one + other for one, other in zip(ones, others, strict=True)]


def _differentiable(slots: Slots) -> list[tf.Tensor]:
    """All numbers of the slots but counts."""
    return [tensor for tensor in tf.nest.flatten(slots) if tensor.dtype.is_floating]


def _back_through_rule(
    update: WindowUpdate,
    state: WindowState,
    x: Tensors,
    sensitivities: Tensors,
    of_slots: Tensors,
) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
    """∂Φ/∂g_k, ∂Φ/∂x and ∂Φ/∂s_k."""
    gradients, watched = list(state.gradients), _differentiable(state.slots)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([*gradients, *x, *watched])
        updates, auxiliary = update.rule_at(state.slots)(gradients, x)
        new_slots = _differentiable(auxiliary.slots)
    sources = [gradients, list(x), watched]
    direction, of_x, of_slots = tape.gradient(
        [*updates, *new_slots],
        sources,
        output_gradients=[*(-v for v in sensitivities), *of_slots],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return direction, of_x, list(of_slots)


def _back_through_gradient(
    update: WindowUpdate,
    parameters: Tensors,
    x: Tensors,
    direction: Tensors,
    reduce: Reduce,
    *,
    with_parameters: bool,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """∂D/∂x and, if asked for, ∂D/∂θ_k, of all learners."""

    def of_part(index: tf.Tensor) -> list[tf.Tensor]:
        live, targets = copies_of(parameters), copies_of(parameters)
        sources = [*x, *live, *targets] if with_parameters else list(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            with tf.autodiff.ForwardAccumulator(live, direction) as accumulator:
                loss, _ = update.parts_at(targets).inner(index)(live, x)
            directional = accumulator.jvp(loss, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return gradients_of(tape, directional, sources)

    sums = reduce(summed(update.number, of_part))
    of_x, of_parameters = sums[: len(x)], sums[len(x) :]
    if not with_parameters:
        return of_x, []
    half = len(parameters)
    return of_x, _added(of_parameters[:half], of_parameters[half:])
