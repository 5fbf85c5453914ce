"""The two objectives, inner loss J (equation 12) and meta loss J' (equation 14), and their returns.

Both are losses (both go down), both are weighted sums of terms, and each term is a *sum* over time
and batch, as in IMPALA. What is constant in them is stated here, at the calls of
`tf.stop_gradient`:

* in J the targets are constant in θ (V, ρ and c are) and live in η: derivatives with respect to γ
  and λ flow through them;
* in J' the targets are constant in everything.

These are functions of a network's outputs. `objectives.py` runs the network for them. A new term is
one function of `TermInputs` and one entry of `TERMS`; a term of J' that is not part of the package
has its weight in `OWN_META_WEIGHTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from meta_impala.algorithm.meta_parameters import (
    Eta,
    constant,
    is_one,
    of_arrivals,
    of_departures,
)
from meta_impala.algorithm.vtrace import VTraceReturns, vtrace


class Transitions(NamedTuple):
    """A trajectory as the objectives need it, besides the network's outputs; all `[T, B]`.

    Row t is the transition that leaves state t: action A_t, then the reward R_{t+1} and the end of
    episode found on arriving in state t+1.

    Attributes:
      actions: int32, A_t.
      rewards: R_{t+1}, already clipped.
      continues: 0 where state t+1 is terminal, else 1; times γ it is the discount γ_{t+1}.
      step_mask: 0 where the step leads from the final observation of a truncated episode to the
        first of the next: nothing was done there, and it has weight 0 in every term; else 1.
      behaviour_log_probs: log μ(A_t|S_t) of the policy that acted.
    """

    actions: tf.Tensor
    rewards: tf.Tensor
    continues: tf.Tensor
    step_mask: tf.Tensor
    behaviour_log_probs: tf.Tensor

    def columns(self, indices: tf.Tensor) -> Transitions:
        """The trajectories with these indices."""
        return Transitions(*(tf.gather(tensor, indices, axis=1) for tensor in self))


class ReturnSettings(NamedTuple):
    """The settings of the returns besides η: the clip of the policy's weight, and which return."""

    pg_rho_clip: float = 1.0
    policy_return: str = "mixed"


class TargetInputs(NamedTuple):
    """The inputs of the targets of J besides the trajectory and η. Constant in θ.

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


class TermInputs(NamedTuple):
    """The inputs of a term of J or J'.

    Attributes:
      logits: `[T, B, A]` of the policy, live in θ.
      log_probs: `[T, B]` log π(A_t|S_t), live in θ.
      values: `[T, B]` V_t, live in θ.
      value_targets: `[T, B]` vs_t, constant in θ.
      advantages: `[T, B]` times their importance weight, constant in θ.
      old_logits: `[T, B, A]` of the policy before the update, constants; None if not asked for.
    """

    logits: tf.Tensor
    log_probs: tf.Tensor
    values: tf.Tensor
    value_targets: tf.Tensor
    advantages: tf.Tensor
    old_logits: tf.Tensor | None = None


# A loss per step `[T, B]`, before its weight.
Term = Callable[[TermInputs], tf.Tensor]


class InnerLossParts(NamedTuple):
    """Scalars that explain J: its terms (before their weights), and shares of real steps.

    Attributes:
      policy_loss, value_loss, entropy: sums over the steps of weight 1.
      rhos_clipped: how many of these steps have ρ at its clip.
      steps: how many there are.
    """

    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor
    rhos_clipped: tf.Tensor
    steps: tf.Tensor


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


def policy_term(inputs: TermInputs) -> tf.Tensor:
    """−A_t log π(A_t|S_t), whose gradient is the policy gradient."""
    return -inputs.advantages * inputs.log_probs


def value_term(inputs: TermInputs) -> tf.Tensor:
    """½ (vs_t − V_t)²."""
    return 0.5 * tf.square(inputs.value_targets - inputs.values)


def entropy_term(inputs: TermInputs) -> tf.Tensor:
    """−H(π(·|S_t))."""
    return -entropies(inputs.logits)


def kl_term(inputs: TermInputs) -> tf.Tensor:
    """KL(π, π_old) of the policy before the update."""
    if inputs.old_logits is None:
        raise ValueError("the KL term needs the policy before the update")
    return kl_divergences(inputs.logits, inputs.old_logits)


POLICY, VALUE, ENTROPY, KL = "policy", "value", "entropy", "kl"

# Terms of J and J' by name.
TERMS: dict[str, Term] = {
    POLICY: policy_term,
    VALUE: value_term,
    ENTROPY: entropy_term,
    KL: kl_term,
}
# The terms of J: name -> the entry of η that is its weight (1, b and c of equation 12).
INNER_WEIGHTS: dict[str, str] = {
    POLICY: "policy_cost",
    VALUE: "baseline_cost",
    ENTROPY: "entropy_cost",
}
# Weights in J' of terms that were added to `TERMS` and have no setting of their own.
OWN_META_WEIGHTS: dict[str, float] = {}
# The terms of J' by default: equation (14), the policy gradient alone.
POLICY_GRADIENT_ONLY: Mapping[str, float] = {POLICY: 1.0}


def targets(
    target_inputs: TargetInputs, transitions: Transitions, eta: Eta, settings: ReturnSettings
) -> VTraceReturns:
    """V-trace of a trajectory at η; stops no gradient. This is where γ enters the return.

    `eta` has every row of the table of meta-parameters, learned or constant.
    """
    rows = tf.ones_like(transitions.continues)
    return vtrace(
        log_rhos=target_inputs.log_probs - transitions.behaviour_log_probs,
        rewards=transitions.rewards,
        discounts=of_arrivals(eta["gamma"]) * transitions.continues,
        lambdas=of_arrivals(eta["lambda"]) * rows,
        values=target_inputs.values,
        step_mask=transitions.step_mask,
        rho_clip=of_departures(eta["rho_clip"]),
        c_clip=of_departures(eta["c_clip"]),
        alpha=of_departures(eta["vtrace_alpha"]),
        pg_rho_clip=settings.pg_rho_clip,
        policy_return=settings.policy_return,
    )


def _weighted(weight: tf.Tensor | float, per_step: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Σ weight · loss, from the losses `[T, B]` (0 in masked steps) and their sum."""
    if is_one(weight):
        return weight * total
    return tf.reduce_sum(of_departures(weight) * per_step)


def inner_objective(
    policy_logits: tf.Tensor,
    values: tf.Tensor,
    transitions: Transitions,
    eta: Eta,
    settings: ReturnSettings,
    *,
    target_inputs: TargetInputs | None = None,
    reference_critic: ReferenceCritic | None = None,
    policy_eta: Eta | None = None,
) -> tuple[tf.Tensor, InnerLossParts]:
    """J(τ, θ, η), whose gradient is equation (12) of Xu et al. with its sign turned.

        J = Σ_{t,b} −a A_t log π(A_t|S_t) + b ½ (vs_t − V_t)² − c H(π(·|S_t))

    with a = 1 in the paper. A_t and vs_t come from the same g_η, constant in θ and live in η;
    differentiating ∇_θ J by η gives equation (13).

    Args:
      policy_logits: `[T+1, B, A]`, of the network at θ on the T+1 states of τ.
      values: `[T+1, B]`, likewise; the last row is the bootstrap value.
      transitions: the trajectory, `[T, B]`.
      eta: every row of the table of meta-parameters, learned or constant: γ and λ, the weights of
        the terms, the clips and the leak; each a scalar or `[T+1, B]`.
      settings: of the returns.
      target_inputs: what the targets are made of, already constant in θ; None for the network's
        outputs above, made constant here.
      reference_critic: adds b ½ (vs − V)² of a second value head at its own η.
      policy_eta: η of A_t where it is not the one of vs_t; None for `eta`.

    Returns:
      J (a scalar) and its parts.
    """
    logits, mask = policy_logits[:-1], transitions.step_mask
    log_probs = action_log_probs(logits, transitions.actions)
    if target_inputs is None:
        target_inputs = TargetInputs(
            tf.stop_gradient(values),
            tf.stop_gradient(log_probs),
            None if reference_critic is None else tf.stop_gradient(reference_critic.values),
        )
    returns = targets(target_inputs, transitions, eta, settings)
    advantages = returns.pg_advantages
    if policy_eta is not None:
        advantages = targets(target_inputs, transitions, policy_eta, settings).pg_advantages
    inputs = TermInputs(logits, log_probs, values[:-1], returns.vs, advantages)
    per_step = {name: mask * TERMS[name](inputs) for name in INNER_WEIGHTS}
    sums = {name: tf.reduce_sum(losses) for name, losses in per_step.items()}
    weighted = [
        _weighted(eta[weight], per_step[name], sums[name]) for name, weight in INNER_WEIGHTS.items()
    ]
    loss = sum(weighted[1:], weighted[0])
    if reference_critic is not None:
        assert target_inputs.reference_values is not None
        second = target_inputs._replace(values=target_inputs.reference_values)
        vs = targets(second, transitions, constant(reference_critic.eta), settings).vs
        of_second = inputs._replace(values=reference_critic.values[:-1], value_targets=vs)
        errors = mask * value_term(of_second)
        loss += _weighted(eta[INNER_WEIGHTS[VALUE]], errors, tf.reduce_sum(errors))
    at_clip = tf.cast(returns.clipped_rhos >= of_departures(eta["rho_clip"]), loss.dtype)
    parts = InnerLossParts(
        policy_loss=sums[POLICY],
        value_loss=sums[VALUE],
        entropy=-sums[ENTROPY],
        rhos_clipped=tf.reduce_sum(mask * at_clip),
        steps=tf.reduce_sum(mask),
    )
    return loss, parts


def meta_objective(
    policy_logits: tf.Tensor,
    values: tf.Tensor,
    transitions: Transitions,
    reference: Eta,
    settings: ReturnSettings,
    weights: Mapping[str, float] = POLICY_GRADIENT_ONLY,
    *,
    old_policy_logits: tf.Tensor | None = None,
    moments: MovingMoments | None = None,
    moments_decay: float = 0.99,
) -> tuple[tf.Tensor, MovingMoments | None]:
    """J'(τ', θ', η'), whose gradient is equation (14) with its sign turned.

        J' = Σ_{t,b} −A'_t log π_θ'(A'_t|S'_t)                      (the only term in the paper)
                     + b' ½ (vs'_t − V'_t)² − c' H(π_θ') + k' KL(π_θ', π_θ)

    The targets are computed at η' and are constants.

    Args:
      policy_logits: `[T+1, B', A]`, of the network *at θ'* on the T+1 states of τ'.
      values: `[T+1, B']`, likewise, of the critic that J' uses.
      transitions: τ', `[T, B']`.
      reference: η', made constant here.
      settings: of the returns.
      weights: term of `TERMS` -> its weight; terms of weight 0 are not computed.
      old_policy_logits: as `policy_logits`, of the network at θ; needed for the KL term only, and
        made constant here.
      moments: moving moments of q − V, with which it is normalised; None for no normalisation.
      moments_decay: of the moving moments.

    Returns:
      J' (a scalar), and the moments with this batch in them.
    """
    logits, mask = policy_logits[:-1], transitions.step_mask
    log_probs = action_log_probs(logits, transitions.actions)
    returns = VTraceReturns(
        *map(
            tf.stop_gradient,
            targets(TargetInputs(values, log_probs), transitions, constant(reference), settings),
        )
    )
    advantages = returns.pg_advantages
    if moments is not None:
        moments = _updated_moments(moments, returns.advantages, mask, moments_decay)
        # Masked steps have weight zero, so that the subtracted mean does not bring them back.
        advantages = returns.pg_rhos * _normalised(returns.advantages, moments)
    old_logits = None if old_policy_logits is None else tf.stop_gradient(old_policy_logits[:-1])
    inputs = TermInputs(logits, log_probs, values[:-1], returns.vs, advantages, old_logits)
    loss = tf.zeros([], logits.dtype)
    for name, weight in weights.items():
        if weight:
            loss += weight * tf.reduce_sum(mask * TERMS[name](inputs))
    return loss, moments


def _updated_moments(
    moments: MovingMoments, advantages: tf.Tensor, mask: tf.Tensor, decay: float
) -> MovingMoments:
    steps = tf.reduce_sum(mask)
    # A batch with only masked steps changes nothing.
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
