"""Prediction with a γ and a λ per state, and the meta-gradient through one update of it.

Xu et al. 2018, section 1: the λ-return (7), the prediction objective J of (8) and (9), and the meta
objective J' of (10) and (11), for a table of values. `[K, B]` holds B independent runs side by
side: K values v_θ, one per observation, for each run. Nothing mixes columns, so one
gradient of a sum over columns is B gradients.

The return is `vtrace.vtrace` with ρ = c = 1 and the gradient is `meta_gradient.nested_tapes`: the
same code as the agent's. New here are only which state's γ a transition uses, and the trace (4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.algorithm import meta_gradient
from meta_impala.algorithm.meta_gradient import InnerStep, UpdateRule
from meta_impala.algorithm.vtrace import vtrace


class Eta(NamedTuple):
    """γ and λ of the states or observations: scalars or arrays of one shape."""

    gamma: tf.Tensor
    lambda_: tf.Tensor


# x `[K, B]` -> γ and λ of each observation, `[K, B]`
EtaOf = Callable[[tf.Tensor], Eta]


class Chain(NamedTuple):
    """The states of an episode, which visits all of them in order.

    Attributes:
      observations: for each time step t of T, the row of `[K, B]` that S_t is seen as.
      arrived: whether the γ and λ of a transition are those of the state arrived in (as
        everywhere in this package) or of the state left.
    """

    observations: Sequence[int]
    arrived: bool = True

    def at_states(self, table: tf.Tensor) -> tf.Tensor:
        """`[K, B]` per observation -> `[T, B]` per time step."""
        if list(self.observations) == list(range(table.shape[0])):
            return table
        # Not `tf.gather`, whose gradient is not a tensor (IndexedSlices).
        rows = tf.unstack(table)
        return tf.stack([rows[row] for row in self.observations])


class PredictionStep(NamedTuple):
    """One inner update with its meta-gradient.

    Attributes:
      parameters: θ' `[K, B]`.
      inner_loss: J, a scalar.
      slots: what the update rule returned beside the updates.
      meta_loss: J', a scalar.
      meta_gradient: dJ'/dx `[K, B]`.
      trace: z' ≈ dθ'/dx `[K, K, B]` (θ first), or None if no trace is kept.
    """

    parameters: tf.Tensor
    inner_loss: tf.Tensor
    slots: Any
    meta_loss: tf.Tensor
    meta_gradient: tf.Tensor
    trace: tf.Tensor | None


def state_returns(rewards: tf.Tensor, eta: Eta, values: tf.Tensor, *, arrived: bool) -> tf.Tensor:
    """The λ-return (7) of every state of an episode that ends after T steps.

        arrived: g_t = R_{t+1} + γ(S_{t+1}) [(1 − λ(S_{t+1})) v(S_{t+1}) + λ(S_{t+1}) g_{t+1}]
        left:    g_t = R_{t+1} + γ(S_t)     [(1 − λ(S_t))     v(S_{t+1}) + λ(S_t)     g_{t+1}]

    with v = g = 0 at S_T, which is terminal. `trfl.multistep_forward_view` gives the same up to
    rounding (a test), but by a loop that takes two to three times as long under nested tapes.

    Args:
      rewards: `[T, B]`, R_{t+1} in row t.
      eta: γ(S_t) and λ(S_t) of the states, `[T, B]` each.
      values: `[T, B]`, v(S_t).
      arrived: which of the two.

    Returns:
      `[T, B]`; no gradient is stopped.
    """
    ended = tf.zeros_like(rewards[:1])  # v(S_T): multiplied by 0, the last γ and λ have no effect

    def of_transition(of_state: tf.Tensor) -> tf.Tensor:
        # Row t of V-trace is the transition from S_t to S_{t+1}.
        return tf.concat([of_state[1:], ended], axis=0) if arrived else of_state

    return vtrace(
        log_rhos=tf.zeros_like(rewards),
        rewards=rewards,
        discounts=of_transition(eta.gamma),
        lambdas=of_transition(eta.lambda_),
        values=tf.concat([values, ended], axis=0),
    ).vs


def prediction_loss(
    values: tf.Tensor,
    rewards: tf.Tensor,
    eta: Eta,
    bootstrap_values: tf.Tensor,
    *,
    arrived: bool,
) -> tf.Tensor:
    """½ Σ_{t,b} (g_t − v_t)²: J of (8) at η, J' of (10) at η'; the one sum over time.

    The ½ makes the step of size α on it v ← v + α (g − v); the paper has none, which is an α twice
    as large.

    Args:
      values: `[T, B]`, v_θ(S_t), what is fitted.
      rewards: `[T, B]`.
      eta: γ and λ of the states, `[T, B]` each.
      bootstrap_values: `[T, B]`, v_θ(S_t) again, used in the target g. The semi-gradients
        (9) and (11) are gradients at constant `bootstrap_values`; the caller makes them constant.
      arrived: see `state_returns`.
    """
    targets = state_returns(rewards, eta, bootstrap_values, arrived=arrived)
    return 0.5 * tf.reduce_sum(tf.square(targets - values))


def inner_update(
    parameters: tf.Tensor,
    x: tf.Tensor,
    rewards: tf.Tensor,
    chain: Chain,
    eta_of: EtaOf,
    update_rule: UpdateRule,
    *,
    bootstrap_parameters: tf.Tensor,
) -> InnerStep:
    """θ' = θ + f(τ, θ, η(x)), equations (1), (8) and (9).

    Args:
      parameters: θ `[K, B]`, fitted.
      x: logits `[K, B]`.
      rewards: τ, `[T, B]`.
      chain: the states.
      eta_of: x -> η.
      update_rule: U of `meta_gradient`, element by element.
      bootstrap_parameters: θ again, of the target; another tensor than `parameters`, so that the
        gradient of J does not go through it.
    """
    objective = _inner_objective(rewards, chain, eta_of, bootstrap_parameters)
    return meta_gradient.inner_step([parameters], [x], objective, update_rule)


def _inner_objective(
    rewards: tf.Tensor, chain: Chain, eta_of: EtaOf, bootstrap_parameters: tf.Tensor
) -> meta_gradient.InnerLossFunction:
    def objective(
        thetas: meta_gradient.Tensors, x: meta_gradient.Tensors
    ) -> tuple[tf.Tensor, tuple]:
        eta = Eta(*map(chain.at_states, eta_of(x[0])))
        loss = prediction_loss(
            chain.at_states(thetas[0]),
            rewards,
            eta,
            chain.at_states(bootstrap_parameters),
            arrived=chain.arrived,
        )
        return loss, ()

    return objective


def meta_loss(parameters: tf.Tensor, rewards: tf.Tensor, chain: Chain, reference: Eta) -> tf.Tensor:
    """J'(τ', θ', η') of (10); its gradient is (11): the target is constant, in θ' too.

    Args:
      parameters: θ' `[K, B]`.
      rewards: τ', `[T, B]`.
      chain: the states.
      reference: η', two scalars, constants.
    """
    values = chain.at_states(parameters)
    everywhere = Eta(*(tf.stop_gradient(part) * tf.ones_like(values) for part in reference))
    return prediction_loss(
        values, rewards, everywhere, tf.stop_gradient(values), arrived=chain.arrived
    )


def prediction_step(
    parameters: tf.Tensor,
    x: tf.Tensor,
    rewards: tf.Tensor,
    meta_rewards: tf.Tensor,
    chain: Chain,
    eta_of: EtaOf,
    reference: Eta,
    update_rule: UpdateRule,
) -> PredictionStep:
    """One update of Algorithm 1 with μ = 0: the exact gradient of J' through one inner update.

    Args:
      parameters: θ `[K, B]`.
      x: logits `[K, B]`.
      rewards: τ, `[T, B]`.
      meta_rewards: τ', `[T, B]`, of another episode.
      chain: the states.
      eta_of: x -> η.
      reference: η'.
      update_rule: U.
    """
    step = meta_gradient.nested_tapes(
        [parameters],
        [x],
        _inner_objective(rewards, chain, eta_of, tf.stop_gradient(parameters)),
        update_rule,
        lambda thetas: (meta_loss(thetas[0], meta_rewards, chain, reference), None),
    )
    return PredictionStep(
        parameters=step.inner.parameters[0],
        inner_loss=step.inner.inner_loss,
        slots=step.inner.update_auxiliary,
        meta_loss=step.meta_loss,
        meta_gradient=step.meta_gradient[0],
        trace=None,
    )


def traced_prediction_step(
    parameters: tf.Tensor,
    x: tf.Tensor,
    trace: tf.Tensor,
    rewards: tf.Tensor,
    meta_rewards: tf.Tensor,
    chain: Chain,
    eta_of: EtaOf,
    reference: Eta,
    update_rule: UpdateRule,
    *,
    decay: float,
    full: bool,
) -> PredictionStep:
    """The same with the accumulative trace of equation (4).

        z' = A z + ∂f/∂x,    A = μ I, or μ (I + ∂f/∂θ),    dJ'/dx ≈ dJ'/dθ' · z'

    ∂f/∂θ is that of the whole update: through the targets too, which J's own gradient holds
    constant. Slots of the update rule count as constants.

    Args:
      trace: z `[K, K, B]`, of θ's row by x's row.
      decay: μ.
      full: whether A is μ (I + ∂f/∂θ).
      others: see `prediction_step`.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch([parameters, x])
        step = inner_update(
            tf.identity(parameters),
            x,
            rewards,
            chain,
            eta_of,
            update_rule,
            bootstrap_parameters=parameters,
        )
        rows = tf.unstack(step.parameters[0])
    by_theta_and_x = [
        tape.gradient(row, [parameters, x], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for row in rows
    ]
    del tape
    carried = trace
    if full:
        by_theta = tf.stack([pair[0] for pair in by_theta_and_x])  # ∂θ'/∂θ = I + ∂f/∂θ
        carried = tf.einsum("ijb,jkb->ikb", by_theta, trace)
    by_x = tf.stack([pair[1] for pair in by_theta_and_x])  # ∂f/∂x
    new_trace = decay * carried + by_x

    (new_parameters,) = step.parameters
    with tf.GradientTape(watch_accessed_variables=False) as meta_tape:
        meta_tape.watch(new_parameters)
        loss = meta_loss(new_parameters, meta_rewards, chain, reference)
    sensitivities = meta_tape.gradient(loss, new_parameters)  # dJ'/dθ', `[K, B]`
    return PredictionStep(
        parameters=new_parameters,
        inner_loss=step.inner_loss,
        slots=step.update_auxiliary,
        meta_loss=loss,
        meta_gradient=tf.einsum("ib,ikb->kb", sensitivities, new_trace),
        trace=new_trace,
    )
