"""The two objectives: the inner loss J (equation 12) and the meta loss J' (equation 14).

Both are losses (both go down) and both are *sums* over time and batch, as in IMPALA. What is
constant, and in what, is said here and nowhere else, at the calls of `tf.stop_gradient`:

* in J the targets are constant in θ (V, ρ and c are stopped) and live in η (γ and λ are not);
* in J' the targets are constant in everything; only log π_θ'(A'|S') is differentiated.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from meta_impala.algorithm.meta_parameters import Eta
from meta_impala.algorithm.vtrace import VTraceReturns, vtrace


class Transitions(NamedTuple):
    """What the objectives need of a trajectory besides the network's outputs; all `[T, B]`.

    Row t is the transition that leaves state t: action A_t, then the reward R_{t+1} and the end of
    episode found on arriving in state t+1.

    Attributes:
      actions: int32, A_t.
      rewards: R_{t+1}, already clipped.
      continues: 0 where state t+1 is terminal, else 1; times γ it is the discount γ_{t+1}.
      step_mask: 0 where the step was cut by a time limit (see `vtrace`), else 1.
      behaviour_log_probs: log μ(A_t|S_t) of the policy that acted.
    """

    actions: tf.Tensor
    rewards: tf.Tensor
    continues: tf.Tensor
    step_mask: tf.Tensor
    behaviour_log_probs: tf.Tensor


class LossSettings(NamedTuple):
    """Coefficients of the objectives: b and c of equation (12) and the clips of V-trace."""

    baseline_cost: float = 0.5
    entropy_cost: float = 0.01
    rho_clip: float = 1.0
    c_clip: float = 1.0
    pg_rho_clip: float = 1.0


class InnerLossParts(NamedTuple):
    """Scalars that explain J: its terms (before their costs) and the share of ρ at the clip."""

    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor
    rho_clipped_share: tf.Tensor


def action_log_probs(policy_logits: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """log π(a) from logits `[..., A]` and actions `[...]`."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=actions, logits=policy_logits)


def entropies(policy_logits: tf.Tensor) -> tf.Tensor:
    """H(π) in nats from logits `[..., A]`."""
    log_probs = tf.nn.log_softmax(policy_logits)
    return -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1)


def _targets(
    values: tf.Tensor,
    log_probs: tf.Tensor,
    transitions: Transitions,
    eta: Eta,
    settings: LossSettings,
) -> VTraceReturns:
    """g_η of a trajectory: V and ρ (hence c) are constants, γ and λ are not."""
    log_rhos = tf.stop_gradient(log_probs - transitions.behaviour_log_probs)
    return vtrace(
        log_rhos=log_rhos,
        rewards=transitions.rewards,
        discounts=eta.gamma * transitions.continues,
        lambdas=eta.lambda_ * tf.ones_like(transitions.continues),
        values=tf.stop_gradient(values),
        step_mask=transitions.step_mask,
        rho_clip=settings.rho_clip,
        c_clip=settings.c_clip,
        pg_rho_clip=settings.pg_rho_clip,
    )


def inner_objective(
    policy_logits: tf.Tensor,
    values: tf.Tensor,
    transitions: Transitions,
    eta: Eta,
    settings: LossSettings,
) -> tuple[tf.Tensor, InnerLossParts]:
    """J(τ, θ, η), whose gradient is equation (12) of Xu et al. with its sign turned.

        J = Σ_{t,b} −A_t log π(A_t|S_t) + b ½ (vs_t − V_t)² − c H(π(·|S_t))

    A_t and vs_t come from the same g_η, constant in θ and live in η; differentiating ∇_θ J by η
    gives equation (13).

    Args:
      policy_logits: `[T+1, B, A]`, of the network at θ on the T+1 states of τ.
      values: `[T+1, B]`, likewise; the last row is the bootstrap value.
      transitions: the trajectory, `[T, B]`.
      eta: γ and λ.
      settings: costs and clips.

    Returns:
      J (a scalar) and its parts.
    """
    logits = policy_logits[:-1]
    log_probs = action_log_probs(logits, transitions.actions)
    targets = _targets(values, log_probs, transitions, eta, settings)
    policy_loss = -tf.reduce_sum(targets.pg_advantages * log_probs)
    value_loss = 0.5 * tf.reduce_sum(tf.square(targets.vs - values[:-1]))
    entropy = tf.reduce_sum(entropies(logits))
    loss = policy_loss + settings.baseline_cost * value_loss - settings.entropy_cost * entropy
    at_clip = tf.cast(targets.clipped_rhos >= settings.rho_clip, loss.dtype)
    parts = InnerLossParts(policy_loss, value_loss, entropy, tf.reduce_mean(at_clip))
    return loss, parts


def meta_objective(
    policy_logits: tf.Tensor,
    values: tf.Tensor,
    transitions: Transitions,
    reference: Eta,
    settings: LossSettings,
) -> tf.Tensor:
    """J'(τ', θ', η'), whose gradient is equation (14) with its sign turned.

        J' = −Σ_{t,b} A'_t log π_θ'(A'_t|S'_t)

    The advantage is computed at the fixed reference η' and is a constant: only log π_θ' is
    differentiated.

    Args:
      policy_logits: `[T+1, B', A]`, of the network *at θ'* on the T+1 states of τ'.
      values: `[T+1, B']`, likewise.
      transitions: τ', `[T, B']`.
      reference: η', constants.
      settings: clips (the costs are not used: the policy-gradient term stands alone).

    Returns:
      J', a scalar.
    """
    log_probs = action_log_probs(policy_logits[:-1], transitions.actions)
    constant_reference = Eta(*map(tf.stop_gradient, reference))
    targets = _targets(values, log_probs, transitions, constant_reference, settings)
    return -tf.reduce_sum(tf.stop_gradient(targets.pg_advantages) * log_probs)
