"""The meta-gradient dJ'/dx through one inner update, in three derivations.

    g = ∇_θ J(τ, θ, η(x)),    θ' = θ − U(g),    dJ'/dx = dJ'(τ', θ', η')/dθ' · dθ'/dx

(Xu et al. 2018, equations 1 and 2.) U(g, x) holds clip, optimiser and learning rate. It is a
function of η through g, and by itself where a coefficient of U is learned.

x is a list of tensors here: the logits of η first, then those of each auxiliary head. Where x is a
single tensor (`MetaParameters`, `LearnerState.x`) it is the first of them.

`nested_tapes` is the definition (without a trace, μ = 0): an outer tape around everything.
`reverse_over_forward` never differentiates a backward pass: with v = dJ'/dθ', P = ∂U/∂g and
u = Pᵀ v, held constant, it is dJ'/dx = −∂/∂x ⟨u, ∇_θ J⟩ − ⟨v, ∂U/∂x⟩, and ⟨u, ∇_θ J⟩ is the
forward-mode derivative of J along u. Each is an oracle for the other.
`accumulative_trace` is equation (4), z ≈ dθ/dx carried from update to update, for μ > 0.

With several learners J and J' are sums of parts, one per learner, and `reduce` adds up the
parts of: ∇_θ J before U (the clip is of the sum), dJ'/dθ' before Pᵀ, and −∂/∂x ⟨u, ∇_θ J⟩.
⟨v, ∂U/∂x⟩ is the same for each of them. An outer tape around a part alone would miss how θ' depends
on the other parts' η.

Because J and J' are sums, `reverse_over_forward` can also compute them in micro-batches
(`micro_batches.py`), one after the other.

All three differentiate J with respect to *copies* of θ. Targets computed from the original tensors
are therefore constant in θ. Only the trace with curvature differentiates with respect to the
originals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

Tensors = Sequence[tf.Tensor]


class InnerUpdate(NamedTuple):
    """What U returns: the updates to subtract, and anything else (new slots, norms)."""

    updates: Sequence[tf.Tensor]
    auxiliary: Any


# (θ, x) -> (J, anything worth reporting)
InnerLossFunction = Callable[[Tensors, Tensors], tuple[tf.Tensor, Any]]
# (g, x) -> U(g, x)
UpdateRule = Callable[[Tensors, Tensors], InnerUpdate]
# θ' -> (J', anything worth keeping)
MetaLossFunction = Callable[[Tensors], tuple[tf.Tensor, Any]]
# One learner's part of some tensors -> their sums over all learners, the same for each.
Reduce = Callable[[Tensors], list[tf.Tensor]]
# z: for every entry of the logits, a list like θ.
Trace = Sequence[Tensors]


class MicroBatches(NamedTuple):
    """J and J' as sums of parts, computed one after the other.

    Attributes:
      number: of the parts.
      inner: index (a scalar tensor) -> a part of J. What it returns beside adds up, too.
      meta: index -> a part of J'. What it returns beside is kept of a single part only.
    """

    number: int
    inner: Callable[[tf.Tensor], InnerLossFunction]
    meta: Callable[[tf.Tensor], MetaLossFunction]


def whole(inner: InnerLossFunction, meta: MetaLossFunction | None = None) -> MicroBatches:
    """J and J' as one part."""

    def meta_of(_: tf.Tensor) -> MetaLossFunction:
        assert meta is not None, "there is no meta objective"
        return meta

    return MicroBatches(1, lambda _: inner, meta_of)


def summed(number: int, function: Callable[[tf.Tensor], Any]) -> Any:
    """Σ function(i), i = 0 … number − 1, tensor by tensor; one after the other."""

    def add(index: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return index + 1, *map(tf.add, sums, tf.nest.flatten(function(index)))

    first = function(tf.constant(0))
    if number == 1:
        return first
    _, *sums = tf.while_loop(
        lambda index, *_: index < number,
        add,
        (tf.constant(1), *tf.nest.flatten(first)),
        parallel_iterations=1,
    )
    return tf.nest.pack_sequence_as(first, sums)


class InnerStep(NamedTuple):
    """One inner update.

    Attributes:
      parameters: θ', in the order of θ.
      inner_loss: J, a scalar (of all learners).
      loss_auxiliary: what the inner objective returned beside J.
      update_auxiliary: what the update rule returned beside the updates.
      gradients: ∇_θ J (of all learners).
    """

    parameters: list[tf.Tensor]
    inner_loss: tf.Tensor
    loss_auxiliary: Any
    update_auxiliary: Any
    gradients: list[tf.Tensor]


class MetaStep(NamedTuple):
    """One inner update with its meta-gradient.

    Attributes:
      inner: the inner update, bit-equal to the one without a meta-gradient.
      meta_loss: J', a scalar (of all learners).
      meta_auxiliary: what the meta objective returned beside J'.
      meta_gradient: dJ'/dx, a list like x.
      trace: z' of `accumulative_trace`, else None.
    """

    inner: InnerStep
    meta_loss: tf.Tensor
    meta_auxiliary: Any
    meta_gradient: list[tf.Tensor]
    trace: list[list[tf.Tensor]] | None = None


def gradients_of(tape: tf.GradientTape, loss: tf.Tensor, sources: Tensors) -> list[tf.Tensor]:
    """The derivative by each source; 0 where there is none."""
    # A parameter that the loss does not depend on (such as an embedding of width 0) has gradient 0.
    return tape.gradient(loss, list(sources), unconnected_gradients=tf.UnconnectedGradients.ZERO)


def copies_of(tensors: Tensors) -> list[tf.Tensor]:
    """Other tensors with the same values."""
    return [tf.identity(tensor) for tensor in tensors]


def _updated(parameters: Tensors, updates: Tensors) -> list[tf.Tensor]:
    return [parameter - update for parameter, update in zip(parameters, updates, strict=True)]


def alone(parts: Tensors) -> list[tf.Tensor]:
    """The `Reduce` of a single learner: its part is the sum."""
    return list(parts)


def meta_loss_and_gradient(
    meta_objective: MetaLossFunction, parameters: Tensors
) -> tuple[tf.Tensor, Any, list[tf.Tensor]]:
    """J' at these θ', its auxiliary output, and dJ'/dθ'."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(parameters)
        meta_loss, auxiliary = meta_objective(parameters)
    return meta_loss, auxiliary, gradients_of(tape, meta_loss, parameters)


def _inner_gradients(
    parameters: Tensors,
    x: Tensors,
    reduce: Reduce,
    micro_batches: MicroBatches,
) -> tuple[list[tf.Tensor], tf.Tensor, Any]:
    """∇_θ J, J, and its auxiliary output."""

    def of(objective: InnerLossFunction) -> tuple[list[tf.Tensor], tf.Tensor, Any]:
        live = copies_of(parameters)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(live)
            loss, auxiliary = objective(live, x)
        return gradients_of(tape, loss, live), loss, auxiliary

    parts = micro_batches.inner
    gradients, loss, auxiliary = summed(micro_batches.number, lambda i: of(parts(i)))
    *gradients, loss = reduce([*gradients, loss])
    return gradients, loss, auxiliary


def inner_step(
    parameters: Tensors,
    x: Tensors,
    inner_objective: InnerLossFunction,
    update_rule: UpdateRule,
    *,
    reduce: Reduce = alone,
    micro_batches: MicroBatches | None = None,
) -> InnerStep:
    """θ' = θ − U(∇_θ J): the ordinary update of plain IMPALA.

    Args:
      parameters: θ, tensors.
      x: the logits of η, then those of each auxiliary head.
      inner_objective: (θ, x) -> (J, auxiliary).
      update_rule: U.
      reduce: sums tensors over the learners; called once.
      micro_batches: instead of the objective, if given.
    """
    micro_batches = micro_batches or whole(inner_objective)
    gradients, loss, loss_auxiliary = _inner_gradients(parameters, x, reduce, micro_batches)
    updates, update_auxiliary = update_rule(gradients, x)
    new = _updated(parameters, updates)
    return InnerStep(new, loss, loss_auxiliary, update_auxiliary, gradients)


def nested_tapes(
    parameters: Tensors,
    x: Tensors,
    inner_objective: InnerLossFunction,
    update_rule: UpdateRule,
    meta_objective: MetaLossFunction,
) -> MetaStep:
    """The meta-gradient by reverse mode over reverse mode.

    Args:
      parameters: θ, tensors.
      x: the logits of η, then those of each auxiliary head; any shapes.
      inner_objective: (θ, x) -> (J, auxiliary). x enters here and in `update_rule`.
      update_rule: U, (∇_θ J, x) -> updates; differentiable.
      meta_objective: θ' -> (J', auxiliary).
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer_tape:
        outer_tape.watch(list(x))
        step = inner_step(parameters, x, inner_objective, update_rule)
        meta_loss, meta_auxiliary = meta_objective(step.parameters)
    return MetaStep(step, meta_loss, meta_auxiliary, gradients_of(outer_tape, meta_loss, x))


def reverse_over_forward(
    parameters: Tensors,
    x: Tensors,
    inner_objective: InnerLossFunction,
    update_rule: UpdateRule,
    meta_objective: MetaLossFunction,
    *,
    reduce: Reduce = alone,
    micro_batches: MicroBatches | None = None,
) -> MetaStep:
    """The same meta-gradient by reverse mode over forward mode; arguments as `nested_tapes`.

    No graph of the backward pass of J is kept. The product with Pᵀ (not P) matters: clip and
    RMSProp each have a symmetric Jacobian, their product has not.

    Args:
      reduce: sums tensors over the learners; called three times.
      micro_batches: instead of the objectives, if given.
    """
    parts = micro_batches or whole(inner_objective, meta_objective)
    gradients, loss, loss_auxiliary = _inner_gradients(parameters, x, reduce, parts)

    with tf.GradientTape(watch_accessed_variables=False) as update_tape:
        update_tape.watch([*gradients, *x])
        updates, update_auxiliary = update_rule(gradients, x)
    new = _updated(parameters, updates)
    inner = InnerStep(new, loss, loss_auxiliary, update_auxiliary, gradients)

    meta_auxiliary = None

    def of_part(index: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        nonlocal meta_auxiliary
        loss, auxiliary, gradients = meta_loss_and_gradient(parts.meta(index), inner.parameters)
        meta_auxiliary = auxiliary if parts.number == 1 else None
        return loss, gradients

    meta_loss, sensitivities = summed(parts.number, of_part)
    *sensitivities, meta_loss = reduce([*sensitivities, meta_loss])
    # u = Pᵀ v and ⟨v, ∂U/∂x⟩, constants of what follows.
    direction, through_rule = update_tape.gradient(
        list(updates),
        [list(gradients), list(x)],
        output_gradients=sensitivities,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )

    def mixed_derivative(objective: InnerLossFunction) -> list[tf.Tensor]:
        """∂/∂x ⟨u, ∇_θ J⟩."""
        live = copies_of(parameters)
        with tf.GradientTape(watch_accessed_variables=False) as x_tape:
            x_tape.watch(list(x))
            with tf.autodiff.ForwardAccumulator(live, direction) as accumulator:
                again, _ = objective(live, x)
            directional = accumulator.jvp(again, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return gradients_of(x_tape, directional, x)

    mine = summed(parts.number, lambda i: mixed_derivative(parts.inner(i)))
    meta_gradient = [
        -mixed - direct for mixed, direct in zip(reduce(mine), through_rule, strict=True)
    ]
    return MetaStep(inner, meta_loss, meta_auxiliary, meta_gradient)


def accumulative_trace(
    parameters: Tensors,
    x: Tensors,
    inner_objective: InnerLossFunction,
    update_rule: UpdateRule,
    meta_objective: MetaLossFunction,
    *,
    trace: Trace,
    decay: float,
    curvature: bool = False,
) -> MetaStep:
    """The meta-gradient by the accumulative trace of equations (3) to (5).

        z' = A z + ∂f/∂x,    A = μ I, or with curvature μ (I + ∂f/∂θ),    dJ'/dx ≈ dJ'/dθ' · z'

    ∂f/∂θ is the derivative of the whole update f = −U(∇_θ J), targets and ρ included, although
    ∇_θ J holds these constant. The objective must therefore compute them from the tensors passed as
    `parameters` (`InnerObjective.follow_targets`). The slots of the update rule count as constants.
    Every entry of x costs one forward-mode pass over the update.

    With μ = 1, curvature, plain gradient descent and x held fixed, z is dθ/dx over all updates so
    far, exactly. With μ = 0 the result is that of `nested_tapes`.

    The other arguments are as in `nested_tapes`; x is the logits of η alone, `[n]`.

    Args:
      trace: z before this update; for every entry of x a list like θ.
      decay: μ.
      curvature: whether A is μ (I + ∂f/∂θ).

    Returns:
      `MetaStep` with z' as its `trace`.
    """
    parameters = list(parameters)
    (logits,) = x
    steps, new_trace = [], []
    for index, carried in enumerate(trace):
        decayed = [decay * z for z in carried]
        tangents = decayed if curvature else [tf.zeros_like(z) for z in decayed]
        unit = tf.one_hot(index, logits.shape[0], dtype=logits.dtype)
        with tf.autodiff.ForwardAccumulator(
            [*parameters, logits], [*tangents, unit]
        ) as accumulator:
            step = inner_step(parameters, x, inner_objective, update_rule)
        # θ' = θ + f, so with curvature this is μ (I + ∂f/∂θ) z + ∂f/∂x at once.
        moved = accumulator.jvp(step.parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        if not curvature:
            moved = [z + new for z, new in zip(decayed, moved, strict=True)]
        new_trace.append(moved)
        steps.append(step)
    inner = steps[0]
    meta_loss, meta_auxiliary, sensitivities = meta_loss_and_gradient(
        meta_objective, inner.parameters
    )
    meta_gradient = tf.stack(
        [
            tf.add_n([tf.reduce_sum(u * z) for u, z in zip(sensitivities, column, strict=True)])
            for column in new_trace
        ]
    )
    return MetaStep(inner, meta_loss, meta_auxiliary, [meta_gradient], new_trace)
