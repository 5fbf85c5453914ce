"""Settings of the inner objective J: its batches, the terms of the loss, and V-trace."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import IMPALA, OURS, setting


@dataclasses.dataclass(frozen=True)
class BatchSettings:
    """The size of a batch."""

    unroll_length: int = setting(
        20,
        "T, length of a trajectory. A short T makes a learned η myopic until the values are good: "
        "J' sees T rewards and then bootstraps (t statistic of the meta-gradient of γ, with γ held "
        "at 0.6 on Patience: 1.3 at T = 10, 7.2 at T = 32).",
        unit="agent steps",
        source=IMPALA,
        low=1,
        high=10_000,
        also_called=("num_steps", "n_steps", "rollout"),
    )
    batch_size: int = setting(
        32, "B, trajectories per update.", unit="unrolls", source=IMPALA, low=1, high=65_536
    )
    sample_reuse: int = setting(
        1,
        "Updates that are made on each batch, one after the other (IMPALA's replay, in its "
        "simplest form); V-trace corrects for the older policy. Its frames and games count once, "
        "with the last of them. All of them have the same meta batch τ', which is learned from "
        "after them. Not with --meta_data=swap, --inner_steps or a bootstrapped target.",
        value_if_missing=1,
        unit="updates",
        source=OURS,
        low=1,
        high=64,
    )


@dataclasses.dataclass(frozen=True)
class CostSettings:
    """Weights of equation (12): a = 1, b and c."""

    policy_cost: float = setting(
        1.0,
        "a, weight of the policy gradient.",
        value_if_missing=1.0,
        source=IMPALA,
        low=0.0,
    )
    baseline_cost: float = setting(
        0.5,
        "b, weight of the value loss ½(vs−V)².",
        source=IMPALA,
        low=0.0,
        also_called=("vf_coef", "value_cost", "value_loss_coeff"),
    )
    entropy_cost: float = setting(
        0.01,
        "c, weight of the entropy.",
        unit="per nat",
        source=IMPALA,
        low=0.0,
        also_called=("ent_coef", "entropy_coef", "entropy_bonus"),
    )


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """How the learner clips rewards."""

    reward_clip: float = setting(
        1.0,
        "Rewards are clipped to ± this for the learner; 0 for no clip.",
        source=IMPALA,
        low=0.0,
    )


@dataclasses.dataclass(frozen=True)
class VTraceSettings:
    """The clips of V-trace, and the return of its policy gradient."""

    rho_clip: float = setting(
        1.0, "ρ̄, clip of V-trace's temporal difference.", source=IMPALA, low=0.0, low_open=True
    )
    c_clip: float = setting(
        1.0, "c̄, clip of V-trace's trace.", source=IMPALA, low=0.0, low_open=True
    )
    vtrace_alpha: float = setting(
        1.0,
        "α of leaky V-trace: ρ = α min(ρ̄, π/μ) + (1 − α) π/μ, c likewise; 1 is V-trace.",
        value_if_missing=1.0,
        source=IMPALA + "; the leak: Zahavy et al. 2020, arXiv 2002.12928",
        low=0.0,
        high=1.0,
    )
    pg_rho_clip: float = setting(
        1.0,
        "Clip of the importance weight of the policy gradient.",
        source=IMPALA,
        low=0.0,
        low_open=True,
    )
    policy_return: str = setting(
        "mixed",
        "The return of the policy's advantage. mixed: r + γ[λ vs + (1−λ)V] of the next state, on "
        "policy the λ-return of equation (12); next_target: r + γ vs.",
        value_if_missing="mixed",
        source="the paper is silent; IMPALA has next_target, the same at λ = 1",
        choices=("mixed", "next_target"),
    )


@dataclasses.dataclass(frozen=True)
class LossSettings(VTraceSettings, CostSettings):
    """Coefficients of J: weights of its terms, clips of V-trace, and the policy's return."""
