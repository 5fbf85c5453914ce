"""Settings of the meta objective J'."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import BONNET, FLENNERHAG, NEVER, OURS, XU, setting


@dataclasses.dataclass(frozen=True)
class MetaLossSettings:
    """Weights of the terms of J'; the default is equation (14): the policy gradient alone."""

    meta_policy_cost: float = setting(
        1.0,
        "Weight of the policy gradient in J'.",
        value_if_missing=1.0,
        source=XU,
        low=0.0,
    )
    meta_baseline_cost: float = setting(
        0.0,
        "Weight of the value loss ½(vs'−V')² in J'.",
        value_if_missing=0.0,
        source=XU,
        low=0.0,
    )
    meta_entropy_cost: float = setting(
        0.0,
        "Weight of the entropy in J'.",
        value_if_missing=0.0,
        unit="per nat",
        source=XU,
        low=0.0,
    )
    meta_kl_cost: float = setting(
        0.0,
        "Weight of KL(π_θ', π_θ) in J'.",
        value_if_missing=0.0,
        unit="per nat",
        source=XU + " has none; STACX, arXiv 2002.12928",
        low=0.0,
    )


@dataclasses.dataclass(frozen=True)
class MetaObjectiveSettings:
    """Which meta objective: J' on a meta batch, or the distance to a target some updates ahead."""

    meta_objective: str = setting(
        "validation",
        "validation: J' is the objective at η' on the meta batch (--meta_policy_cost and so on). "
        "bootstrapped: the distance from a target that is --bootstrap_steps more updates ahead "
        "(--matching_policy_cost, --matching_value_cost). The weights of the other one must be "
        "their defaults.",
        value_if_missing="validation",
        source=XU + "; bootstrapped: " + FLENNERHAG,
        choices=("validation", "bootstrapped"),
        on_resume=NEVER,
    )
    bootstrap_steps: int = setting(
        1,
        "L, updates of the target of --meta_objective=bootstrapped: L − 1 at η on the next batches "
        "of the queue, and one at η' on the meta batch. Batches wait L − 1 updates longer, so the "
        "policy lag grows by L − 1.",
        value_if_missing=1,
        source=FLENNERHAG,
        low=1,
        high=64,
        on_resume=NEVER,
    )
    matching_policy_cost: float = setting(
        1.0,
        "Weight of KL(π_target, π_θ') in a bootstrapped J'.",
        value_if_missing=1.0,
        unit="per nat",
        source=FLENNERHAG,
        low=0.0,
    )
    matching_value_cost: float = setting(
        0.5,
        "Weight of ½(V_target − V_θ')² in a bootstrapped J'.",
        value_if_missing=0.5,
        source=FLENNERHAG + " (from memory)",
        low=0.0,
    )


@dataclasses.dataclass(frozen=True)
class MetaAdvantageSettings:
    """The critic of J', and the normalisation of its advantages."""

    meta_value_head: str = setting(
        "shared",
        "Which value head the returns of J' use. shared: the one that is trained at η (the "
        "paper's), which can drive γ the wrong way (Bonnet et al. 2022); reference: a second one, "
        "trained at η'. On Patience, with either head, γ rose or fell depending on the seed from "
        ".6 and .8, and always rose from .95 (suite value_head).",
        value_if_missing="shared",
        source=XU + "; " + BONNET,
        choices=("shared", "reference"),
        on_resume=NEVER,
    )
    meta_advantage_normalization: str = setting(
        "none",
        "ema: the advantages of J' are normalised by their moving mean and standard deviation.",
        value_if_missing="none",
        source=XU + "; later work has ema",
        choices=("none", "ema"),
        on_resume=NEVER,
    )
    meta_advantage_decay: float = setting(
        0.99,
        "Decay per update of the moving moments of --meta_advantage_normalization=ema.",
        value_if_missing=0.99,
        source=OURS,
        low=0.0,
        high=1.0,
        high_open=True,
    )
