"""The meta-gradient dJ'/dx through one inner update, in two derivations.

    g = ∇_θ J(τ, θ, η(x)),    θ' = θ − U(g),    dJ'/dx = dJ'(τ', θ', η')/dθ' · dθ'/dx

(Xu et al. 2018, equations 1 and 2, with μ = 0: the exact one-step gradient.) U holds clip,
optimiser and learning rate, and is a function of η through g.

`nested_tapes` is the definition, written down: an outer tape around everything.
`reverse_over_forward` never differentiates a backward pass: with u = Pᵀ dJ'/dθ' held constant,
where P = ∂U/∂g, it is dJ'/dx = −∂/∂x ⟨u, ∇_θ J⟩, and ⟨u, ∇_θ J⟩ is the forward-mode derivative of
J along u. Each is an oracle for the other.
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
InnerObjective = Callable[[Tensors, tf.Tensor], tuple[tf.Tensor, Any]]
# g -> U(g)
UpdateRule = Callable[[Tensors], InnerUpdate]
# θ' -> J'
MetaObjective = Callable[[Tensors], tf.Tensor]


class InnerStep(NamedTuple):
    """One inner update.

    Attributes:
      parameters: θ', in the order of θ.
      inner_loss: J, a scalar.
      loss_auxiliary: what the inner objective returned beside J.
      update_auxiliary: what the update rule returned beside the updates.
    """

    parameters: list[tf.Tensor]
    inner_loss: tf.Tensor
    loss_auxiliary: Any
    update_auxiliary: Any


class MetaStep(NamedTuple):
    """One inner update with its meta-gradient.

    Attributes:
      inner: the inner update, bit-equal to the one without a meta-gradient.
      meta_loss: J', a scalar.
      meta_gradient: dJ'/dx, of the shape of x.
    """

    inner: InnerStep
    meta_loss: tf.Tensor
    meta_gradient: tf.Tensor


def _gradients(tape: tf.GradientTape, loss: tf.Tensor, sources: Tensors) -> list[tf.Tensor]:
    # A parameter the loss does not reach (the embedding of an η of width 0, say) has gradient 0.
    return tape.gradient(loss, list(sources), unconnected_gradients=tf.UnconnectedGradients.ZERO)


def inner_step(
    parameters: Tensors, x: tf.Tensor, inner_objective: InnerObjective, update_rule: UpdateRule
) -> InnerStep:
    """θ' = θ − U(∇_θ J): the ordinary update of plain IMPALA, in the open.

    Args:
      parameters: θ, tensors.
      x: logits of η.
      inner_objective: (θ, x) -> (J, auxiliary).
      update_rule: U.
    """
    parameters = list(parameters)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(parameters)
        loss, loss_auxiliary = inner_objective(parameters, x)
    updates, update_auxiliary = update_rule(_gradients(tape, loss, parameters))
    new_parameters = [
        parameter - update for parameter, update in zip(parameters, updates, strict=True)
    ]
    return InnerStep(new_parameters, loss, loss_auxiliary, update_auxiliary)


def nested_tapes(
    parameters: Tensors,
    x: tf.Tensor,
    inner_objective: InnerObjective,
    update_rule: UpdateRule,
    meta_objective: MetaObjective,
) -> MetaStep:
    """The meta-gradient by reverse mode over reverse mode.

    Args:
      parameters: θ, tensors.
      x: logits of η, a vector.
      inner_objective: (θ, x) -> (J, auxiliary); the only place where x enters.
      update_rule: U, differentiable.
      meta_objective: θ' -> J'.
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer_tape:
        outer_tape.watch(x)
        step = inner_step(parameters, x, inner_objective, update_rule)
        meta_loss = meta_objective(step.parameters)
    (meta_gradient,) = _gradients(outer_tape, meta_loss, [x])
    return MetaStep(step, meta_loss, meta_gradient)


def reverse_over_forward(
    parameters: Tensors,
    x: tf.Tensor,
    inner_objective: InnerObjective,
    update_rule: UpdateRule,
    meta_objective: MetaObjective,
) -> MetaStep:
    """The same meta-gradient by reverse mode over forward mode; arguments as `nested_tapes`.

    No graph of the backward pass of J is kept. The product with Pᵀ (not P) matters: clip and
    RMSProp each have a symmetric Jacobian, their product has not.
    """
    parameters = list(parameters)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(parameters)
        loss, loss_auxiliary = inner_objective(parameters, x)
    gradients = _gradients(tape, loss, parameters)

    with tf.GradientTape(watch_accessed_variables=False) as update_tape:
        update_tape.watch(gradients)
        updates, update_auxiliary = update_rule(gradients)
    new_parameters = [
        parameter - update for parameter, update in zip(parameters, updates, strict=True)
    ]

    with tf.GradientTape(watch_accessed_variables=False) as meta_tape:
        meta_tape.watch(new_parameters)
        meta_loss = meta_objective(new_parameters)
    sensitivities = _gradients(meta_tape, meta_loss, new_parameters)  # dJ'/dθ'
    direction = update_tape.gradient(
        list(updates),
        gradients,
        output_gradients=sensitivities,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )  # u = Pᵀ dJ'/dθ', a constant of what follows

    with tf.GradientTape(watch_accessed_variables=False) as x_tape:
        x_tape.watch(x)
        with tf.autodiff.ForwardAccumulator(parameters, direction) as accumulator:
            again, _ = inner_objective(parameters, x)
        directional = accumulator.jvp(again, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    (mixed,) = _gradients(x_tape, directional, [x])
    inner = InnerStep(new_parameters, loss, loss_auxiliary, update_auxiliary)
    return MetaStep(inner, meta_loss, -mixed)


MODES: dict[str, Callable[..., MetaStep]] = {
    "nested_tapes": nested_tapes,
    "reverse_over_forward": reverse_over_forward,
}
