"""The two objectives: the inner loss J (equation 12) and the meta loss J' (equation 14).

Both are losses (both go down) and both are *sums* over time and batch, as in IMPALA. What is
constant in them is said here, at the calls of `tf.stop_gradient`:

* in J the targets are constant in θ (V, ρ and c are) and live in η (γ and λ are);
* in J' the targets are constant in everything.

These are functions of a network's outputs. `objectives.py` runs the network for them.
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
    """Coefficients of J: b and c of equation (12), the clips of V-trace, and its policy return."""

    baseline_cost: float = 0.5
    entropy_cost: float = 0.01
    rho_clip: float = 1.0
    c_clip: float = 1.0
    pg_rho_clip: float = 1.0
    policy_return: str = "mixed"


class MetaLossSettings(NamedTuple):
    """Weights of the terms of J'; the default is equation (14): the policy gradient alone."""

    policy_cost: float = 1.0
    baseline_cost: float = 0.0
    entropy_cost: float = 0.0
    kl_cost: float = 0.0


POLICY_GRADIENT_ONLY = MetaLossSettings()


class TargetInputs(NamedTuple):
    """What the targets of J are made of besides the trajectory and η. Constant in θ.

    Attributes:
      values: `[T+1, B]`, V.
      log_probs: `[T, B]`, log π(A_t|S_t), for ρ and c.
      reference_values: `[T+1, B]` of the second value head, if there is one.
    """

    values: tf.Tensor
    log_probs: tf.Tensor
    reference_values: tf.Tensor | None = None


class ReferenceCritic(NamedTuple):
    """A second value head, trained at η' (Bonnet et al. 2022): its outputs `[T+1, B]`, and η'."""

    values: tf.Tensor
    eta: Eta


class InnerLossParts(NamedTuple):
    """Scalars that explain J: its terms (before their costs) and the share of ρ at the clip."""

    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor
    rho_clipped_share: tf.Tensor


class MovingMoments(NamedTuple):
    """Exponential moving mean and mean square of the advantages of J', as scalars.

    Attributes:
      mean, mean_square: weighted sums.
      weight: the sum of the weights, 0 before the first update; what the others are divided by.
    """

    mean: tf.Tensor
    mean_square: tf.Tensor
    weight: tf.Tensor


def action_log_probs(policy_logits: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """log π(a) from logits `[..., A]` and actions `[...]`."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=actions, logits=policy_logits)


def entropies(policy_logits: tf.Tensor) -> tf.Tensor:
    """H(π) in nats from logits `[..., A]`."""
    log_probs = tf.nn.log_softmax(policy_logits)
    return -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1)


def kl_divergences(policy_logits: tf.Tensor, other_logits: tf.Tensor) -> tf.Tensor:
    """KL(π, π_other) in nats from logits `[..., A]`."""
    log_probs, other = tf.nn.log_softmax(policy_logits), tf.nn.log_softmax(other_logits)
    return tf.reduce_sum(tf.exp(log_probs) * (log_probs - other), axis=-1)


def _targets(
    values: tf.Tensor,
    log_probs: tf.Tensor,
    transitions: Transitions,
    eta: Eta,
    settings: LossSettings,
) -> VTraceReturns:
    arrivals = eta.of_arrivals()
    return vtrace(
        log_rhos=log_probs - transitions.behaviour_log_probs,
        rewards=transitions.rewards,
        discounts=arrivals.gamma * transitions.continues,
        lambdas=arrivals.lambda_ * tf.ones_like(transitions.continues),
        values=values,
        step_mask=transitions.step_mask,
        rho_clip=settings.rho_clip,
        c_clip=settings.c_clip,
        pg_rho_clip=settings.pg_rho_clip,
        policy_return=settings.policy_return,
    )


def inner_objective(
    policy_logits: tf.Tensor,
    values: tf.Tensor,
    transitions: Transitions,
    eta: Eta,
    settings: LossSettings,
    *,
    target_inputs: TargetInputs | None = None,
    reference_critic: ReferenceCritic | None = None,
    policy_eta: Eta | None = None,
) -> tuple[tf.Tensor, InnerLossParts]:
    """J(τ, θ, η), whose gradient is equation (12) of Xu et al. with its sign turned.

        J = Σ_{t,b} −A_t log π(A_t|S_t) + b ½ (vs_t − V_t)² − c H(π(·|S_t))

    A_t and vs_t come from the same g_η, constant in θ and live in η; differentiating ∇_θ J by η
    gives equation (13).

    Args:
      policy_logits: `[T+1, B, A]`, of the network at θ on the T+1 states of τ.
      values: `[T+1, B]`, likewise; the last row is the bootstrap value.
      transitions: the trajectory, `[T, B]`.
      eta: γ and λ, scalars or `[T+1, B]`.
      settings: costs and clips.
      target_inputs: what the targets are made of, already constant in θ; None for the network's
        outputs above, made constant here.
      reference_critic: adds b ½ (vs − V)² of a second value head at its own η.
      policy_eta: another η for A_t, to look at the two uses of η one by one; None for `eta`.

    Returns:
      J (a scalar) and its parts.
    """
    logits = policy_logits[:-1]
    log_probs = action_log_probs(logits, transitions.actions)
    if target_inputs is None:
        target_inputs = TargetInputs(
            tf.stop_gradient(values),
            tf.stop_gradient(log_probs),
            None if reference_critic is None else tf.stop_gradient(reference_critic.values),
        )
    targets = _targets(target_inputs.values, target_inputs.log_probs, transitions, eta, settings)
    advantages = targets.pg_advantages
    if policy_eta is not None:
        advantages = _targets(
            target_inputs.values, target_inputs.log_probs, transitions, policy_eta, settings
        ).pg_advantages
    policy_loss = -tf.reduce_sum(advantages * log_probs)
    value_loss = 0.5 * tf.reduce_sum(tf.square(targets.vs - values[:-1]))
    entropy = tf.reduce_sum(entropies(logits))
    loss = policy_loss + settings.baseline_cost * value_loss - settings.entropy_cost * entropy
    if reference_critic is not None:
        assert target_inputs.reference_values is not None
        reference_vs = _targets(
            target_inputs.reference_values,
            target_inputs.log_probs,
            transitions,
            reference_critic.eta.constant(),
            settings,
        ).vs
        errors = reference_vs - reference_critic.values[:-1]
        loss += settings.baseline_cost * 0.5 * tf.reduce_sum(tf.square(errors))
    at_clip = tf.cast(targets.clipped_rhos >= settings.rho_clip, loss.dtype)
    parts = InnerLossParts(policy_loss, value_loss, entropy, tf.reduce_mean(at_clip))
    return loss, parts


def meta_objective(
    policy_logits: tf.Tensor,
    values: tf.Tensor,
    transitions: Transitions,
    reference: Eta,
    settings: LossSettings,
    meta_settings: MetaLossSettings = POLICY_GRADIENT_ONLY,
    *,
    old_policy_logits: tf.Tensor | None = None,
    moments: MovingMoments | None = None,
    moments_decay: float = 0.99,
) -> tuple[tf.Tensor, MovingMoments | None]:
    """J'(τ', θ', η'), whose gradient is equation (14) with its sign turned.

        J' = Σ_{t,b} −A'_t log π_θ'(A'_t|S'_t)                      (all there is in the paper)
                     + b' ½ (vs'_t − V'_t)² − c' H(π_θ') + k' KL(π_θ', π_θ)

    The targets are computed at η' and are constants.

    Args:
      policy_logits: `[T+1, B', A]`, of the network *at θ'* on the T+1 states of τ'.
      values: `[T+1, B']`, likewise, of the critic that judges.
      transitions: τ', `[T, B']`.
      reference: η', made constant here.
      settings: clips and policy return (its costs are those of J and not used).
      meta_settings: weights of the terms.
      old_policy_logits: as `policy_logits`, of the network at θ; needed for the KL term only, and
        made constant here.
      moments: moving moments of q − V, with which it is normalised; None for no normalisation.
      moments_decay: of the moving moments.

    Returns:
      J' (a scalar), and the moments with this batch in them.
    """
    logits = policy_logits[:-1]
    log_probs = action_log_probs(logits, transitions.actions)
    targets = VTraceReturns(
        *map(
            tf.stop_gradient,
            _targets(values, log_probs, transitions, reference.constant(), settings),
        )
    )
    advantages = targets.pg_advantages
    if moments is not None:
        moments = _updated_moments(
            moments, targets.advantages, transitions.step_mask, moments_decay
        )
        # Masked steps have weight zero, so that the subtracted mean does not bring them back.
        advantages = targets.pg_rhos * _normalised(targets.advantages, moments)
    loss = meta_settings.policy_cost * -tf.reduce_sum(advantages * log_probs)
    if meta_settings.baseline_cost:
        errors = targets.vs - values[:-1]
        loss += meta_settings.baseline_cost * 0.5 * tf.reduce_sum(tf.square(errors))
    if meta_settings.entropy_cost:
        loss -= meta_settings.entropy_cost * tf.reduce_sum(entropies(logits))
    if meta_settings.kl_cost:
        if old_policy_logits is None:
            raise ValueError("the KL term needs old_policy_logits")
        old_logits = tf.stop_gradient(old_policy_logits[:-1])
        loss += meta_settings.kl_cost * tf.reduce_sum(kl_divergences(logits, old_logits))
    return loss, moments


def _updated_moments(
    moments: MovingMoments, advantages: tf.Tensor, mask: tf.Tensor, decay: float
) -> MovingMoments:
    steps = tf.reduce_sum(mask)
    # A batch of masked steps alone teaches nothing.
    rate = (1.0 - decay) * tf.cast(steps > 0, advantages.dtype)
    mean = tf.math.divide_no_nan(tf.reduce_sum(mask * advantages), steps)
    mean_square = tf.math.divide_no_nan(tf.reduce_sum(mask * tf.square(advantages)), steps)
    new = (mean, mean_square, tf.ones_like(mean))
    return MovingMoments(*(old + rate * (n - old) for old, n in zip(moments, new, strict=True)))


def _normalised(advantages: tf.Tensor, moments: MovingMoments) -> tf.Tensor:
    mean = tf.math.divide_no_nan(moments.mean, moments.weight)
    mean_square = tf.math.divide_no_nan(moments.mean_square, moments.weight)
    variance = tf.maximum(mean_square - tf.square(mean), 0.0)
    return (advantages - mean) * tf.math.rsqrt(variance + 1e-8)
