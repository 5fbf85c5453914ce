"""V-trace with a bootstrapping parameter λ, with γ and λ differentiable.

IMPALA (Espeholt et al. 2018, arXiv 1802.01561), equation (1) and Remark 2: λ enters through
c_i = λ min(c̄, ρ_i). On-policy this is the λ-return g_η of Xu et al. 2018, equation (7).

This file stops no gradient. Published V-trace code stops gradients through the whole target,
which makes the meta-gradient identically zero; what is constant here is said by the caller, in
`losses.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# exp(20) = 5e8: far beyond every clip in use, far below the float32 overflow.
MAX_ABS_LOG_RHO = 20.0
# The part of a ratio that leaks past the clip is cut here: the trace is a product of T of them.
MAX_LEAKED_RATIO = 100.0


class VTraceReturns(NamedTuple):
    """Targets of one unroll.

    Attributes:
      vs: `[T, B]` value targets, vs_t.
      advantages: `[T, B]` q_t − V_t.
      pg_rhos: `[T, B]` min(ρ̄_pg, π/μ), zero where the step is masked.
      clipped_rhos: `[T, B]` min(ρ̄, π/μ), likewise, before any leak.
    """

    vs: tf.Tensor
    advantages: tf.Tensor
    pg_rhos: tf.Tensor
    clipped_rhos: tf.Tensor

    @property
    def pg_advantages(self) -> tf.Tensor:
        """`[T, B]` min(ρ̄_pg, ρ_t) (q_t − V_t), what multiplies ∇ log π."""
        return self.pg_rhos * self.advantages


def importance_weights(log_rhos: tf.Tensor) -> tf.Tensor:
    """π/μ from its logarithm, clamped so that the exponential can never overflow."""
    return tf.exp(tf.clip_by_value(log_rhos, -MAX_ABS_LOG_RHO, MAX_ABS_LOG_RHO))


def _leaky(ratios: tf.Tensor, clip: tf.Tensor | float, alpha: tf.Tensor | float) -> tf.Tensor:
    """α min(clip, ratio) + (1 − α) ratio; with a constant α = 1 the clip alone, to the bit."""
    clipped = tf.minimum(ratios, tf.convert_to_tensor(clip, ratios.dtype))
    if isinstance(alpha, float) and alpha == 1.0:
        return clipped
    return alpha * clipped + (1.0 - alpha) * tf.minimum(ratios, MAX_LEAKED_RATIO)


def vtrace(
    *,
    log_rhos: tf.Tensor,
    rewards: tf.Tensor,
    discounts: tf.Tensor,
    lambdas: tf.Tensor,
    values: tf.Tensor,
    step_mask: tf.Tensor | None = None,
    rho_clip: tf.Tensor | float = 1.0,
    c_clip: tf.Tensor | float = 1.0,
    alpha: tf.Tensor | float = 1.0,
    pg_rho_clip: float = 1.0,
    policy_return: str = "mixed",
) -> VTraceReturns:
    """λ-V-trace targets and policy-gradient advantages.

    With ρ_t = min(ρ̄, π/μ) and c_t = λ_{t+1} min(c̄, π/μ):

        δ_t       = ρ_t (r_{t+1} + γ_{t+1} V_{t+1} − V_t)
        vs_t − V_t = δ_t + γ_{t+1} c_t (vs_{t+1} − V_{t+1}),          vs_T = V_T
        q_t       = r_{t+1} + γ_{t+1} [λ_{t+1} vs_{t+1} + (1 − λ_{t+1}) V_{t+1}]
        advantage_t = min(ρ̄_pg, π/μ) (q_t − V_t)

    On-policy this advantage is exactly g_η − V of Xu et al.'s equation (12). With
    `policy_return="next_target"` it is q_t = r_{t+1} + γ_{t+1} vs_{t+1} instead, as IMPALA's code
    has it: the same for λ = 1, else the λ-return of the next state.

    Row t of `rewards`, `discounts` and `lambdas` belongs to the transition that leaves state t and
    arrives in state t+1, so row t of `discounts` is γ_{t+1}: that of the state *arrived in*.

    Args:
      log_rhos: `[T, B]` log π(a_t|s_t) − log μ(a_t|s_t).
      rewards: `[T, B]` r_{t+1}.
      discounts: `[T, B]` γ_{t+1}, 0 where the state arrived in is terminal.
      lambdas: `[T, B]` λ_{t+1}.
      values: `[T+1, B]` V_0 … V_T; the last row is the bootstrap value.
      step_mask: `[T, B]` 1 for an ordinary step, 0 for the one from the final observation of a
        truncated episode to the first of the next: there ρ = c = 0, so that vs_t = V_t and the
        step before bootstraps from V_t. None means all ones.
      rho_clip: ρ̄, clip of the temporal difference; ρ̄, c̄ and α may be `[T, B]`, those of the
        state left.
      c_clip: c̄, clip of the trace.
      alpha: α of leaky V-trace (Zahavy et al. 2020): ρ_t = α min(ρ̄, π/μ) + (1 − α) π/μ, and c_t
        likewise; 1 is V-trace. The ratio that leaks is cut at `MAX_LEAKED_RATIO`. The weight of
        the policy gradient does not leak.
      pg_rho_clip: ρ̄_pg, clip of the weight of the policy gradient.
      policy_return: "mixed" or "next_target", which q_t.

    Returns:
      `VTraceReturns`, all `[T, B]`.

    Raises:
      ValueError: if the shapes do not fit together, T is not known statically, or there is no such
        `policy_return`.
    """
    if policy_return not in ("mixed", "next_target"):
        raise ValueError(f'policy_return must be "mixed" or "next_target", is {policy_return!r}')
    unroll_length = log_rhos.shape[0]
    if unroll_length is None:
        raise ValueError("the unroll length (first dimension of log_rhos) must be static")
    for name, tensor, rows in (
        ("rewards", rewards, unroll_length),
        ("discounts", discounts, unroll_length),
        ("lambdas", lambdas, unroll_length),
        ("values", values, unroll_length + 1),
    ):
        if tensor.shape.rank != 2 or tensor.shape[0] != rows:
            raise ValueError(f"{name} must be [{rows}, B], is {tensor.shape}")

    rhos = importance_weights(log_rhos)
    if step_mask is not None:
        rhos *= step_mask
    clipped_rhos = tf.minimum(rhos, tf.convert_to_tensor(rho_clip, rhos.dtype))
    cs = lambdas * _leaky(rhos, c_clip, alpha)
    pg_rhos = tf.minimum(rhos, tf.convert_to_tensor(pg_rho_clip, rhos.dtype))

    deltas = _leaky(rhos, rho_clip, alpha) * (rewards + discounts * values[1:] - values[:-1])
    decays = discounts * cs

    # A Python loop: T is small and static, and forward-mode differentiation works through it
    # (it does not through a TensorArray).
    delta_rows, decay_rows = tf.unstack(deltas), tf.unstack(decays)
    correction = tf.zeros_like(values[-1])
    corrections = []
    for delta, decay in zip(reversed(delta_rows), reversed(decay_rows), strict=True):
        corrections.append(correction)  # vs_{t+1} − V_{t+1}
        correction = delta + decay * correction
    corrections.append(correction)
    vs_minus_values = tf.stack(corrections[::-1])  # [T+1, B]; the last row is zero

    vs = values[:-1] + vs_minus_values[:-1]
    # λ vs + (1 − λ) V = V + λ (vs − V)
    share = lambdas if policy_return == "mixed" else tf.ones_like(lambdas)
    q = rewards + discounts * (values[1:] + share * vs_minus_values[1:])
    return VTraceReturns(
        vs=vs, advantages=q - values[:-1], pg_rhos=pg_rhos, clipped_rhos=clipped_rhos
    )
