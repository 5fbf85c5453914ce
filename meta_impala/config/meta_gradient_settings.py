"""Settings of the meta-gradient: its data, its optimiser, e_η, and how it is computed."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import NEVER, OURS, XU, setting


@dataclasses.dataclass(frozen=True)
class MetaBatchSettings:
    """On which trajectories τ' the meta objective J' is evaluated."""

    meta_batch_size: int = setting(
        8,
        "B', trajectories on which J' is evaluated (the meta batch); at most --batch_size. Short "
        "trajectories bias J', see --unroll_length.",
        unit="unrolls",
        source=XU + " (from memory)",
        low=0,
        high=65_536,
    )
    meta_data: str = setting(
        "next_batch",
        "Where the meta batch τ' comes from. next_batch: B' trajectories of the batch that is "
        "trained on next; held_out: B' trajectories of the same batch, which are not trained on; "
        "swap: batches come in pairs, each is trained on once and is the meta batch of the update "
        "on the other (so the second update of a pair is evaluated on data that θ was just trained "
        "on); same: B' trajectories of the batch that is trained on (measured: with τ as "
        "its own meta batch η moves towards η' in every game).",
        value_if_missing="next_batch",
        source=XU + " (next_batch: arXiv v1; swap: its appendix); same: STAC, arXiv 2002.12928",
        choices=("next_batch", "held_out", "swap", "same"),
    )


@dataclasses.dataclass(frozen=True)
class MetaOptimizerSettings:
    """The optimiser of x, the logits of η."""

    meta_optimizer: str = setting(
        "adam",
        "Optimiser of the logits of η.",
        value_if_missing="adam",
        source=XU + " (from memory)",
        choices=("adam", "rmsprop", "sgd"),
        on_resume=NEVER,
    )
    meta_learning_rate: float = setting(
        1e-3,
        "β, step size on the logits of η.",
        source=XU + " (from memory)",
        low=0.0,
        low_open=True,
        also_called=("meta_lr",),
    )
    meta_max_gradient_norm: float = setting(
        0.0,
        "Clip of the meta-gradient's norm; 0 for none. Measured norms are 1e-5 to 1e-1, so the "
        "usual 0.1 to 1 almost never binds: choose it from a run's column meta_gradient_norm.",
        value_if_missing=0.0,
        source="the paper is silent",
        low=0.0,
    )


@dataclasses.dataclass(frozen=True)
class EtaEmbeddingSettings:
    """e_η, the embedding of η that is an input of the network."""

    eta_embedding_size: int | None = setting(
        None,
        "Width of e_η, the learned embedding of η that the network sees; 0 for none. Default: 16 "
        "if something is learned, else 0.",
        source=XU + " (from memory)",
        low=0,
        high=4096,
        on_resume=NEVER,
    )
    eta_embedding_input: str = setting(
        "logits",
        "What is embedded: the logits of γ and λ (clipped to ±7 and divided by 7) or their values. "
        "Beyond ±7 (above 0.99909, below 0.00091) the network cannot tell logits apart.",
        source="the paper is silent; logits is how a published review of it reads it",
        choices=("logits", "values"),
        on_resume=NEVER,
    )
    eta_embedding_place: str = setting(
        "last_hidden",
        "Where e_η (and the last action and reward, see --last_action_and_reward) join the "
        "network. last_hidden: at the input of the last hidden layer. heads: after that layer, "
        "beside the features that the linear heads read; without a core e_η then only adds a bias "
        "to the policy and value heads. With --core=lstm they join at the core's input in both "
        "cases. Runs and agents from before this setting have heads.",
        value_if_missing="heads",
        source="the paper is silent",
        choices=("last_hidden", "heads"),
        on_resume=NEVER,
    )


@dataclasses.dataclass(frozen=True)
class MetaGradientSettings:
    """Along which paths the meta-gradient is taken, and how it is computed."""

    meta_network_eta: str = setting(
        "reference",
        "Which η is the network's input when J' is evaluated: the reference η', or the current η.",
        source="the paper is silent; reference is how a published review of it reads it",
        choices=("reference", "current"),
    )
    meta_gradient_paths: str = setting(
        "returns",
        "Along which paths η acts on the inner update. returns: γ and λ in the targets; embedding: "
        "also through e_η to policy, value and entropy, and to the V of the targets; "
        "importance_weights: also to ρ and c.",
        value_if_missing="returns",
        source=XU + ", equation (13), has returns",
        choices=("returns", "embedding", "importance_weights"),
    )
    meta_gradient_mode: str = setting(
        "auto",
        "How the meta-gradient is computed. nested_tapes and reverse_over_forward give the same "
        "number; --trace_decay needs accumulative_trace. auto: accumulative_trace with "
        "--trace_decay, reverse_over_forward with several learners or micro-batches, else "
        "nested_tapes.",
        source=OURS,
        choices=("auto", "nested_tapes", "reverse_over_forward", "accumulative_trace"),
    )
    inner_steps: int = setting(
        1,
        "K, inner updates per meta step: the meta-gradient goes through the last K of them. Each "
        "is applied and published as usual; the learner keeps K batches, with θ and the "
        "optimiser's slots before each. No effect if nothing is learned.",
        value_if_missing=1,
        source=XU + " has 1; more: Flennerhag et al. 2022, MixFlow (arXiv 2505.00793)",
        low=1,
        high=64,
        on_resume=NEVER,
    )
    trace_decay: float = setting(
        0.0,
        "μ of the accumulative trace z' = μ z + ∂f/∂x (4); 0 for the exact gradient of one update.",
        value_if_missing=0.0,
        source=XU,
        low=0.0,
        high=1.0,
        on_resume=NEVER,
    )
    trace_curvature: bool = setting(
        False,
        "z' = μ (I + ∂f/∂θ) z + ∂f/∂x instead, ∂f/∂θ of the whole update. Needs --trace_decay.",
        value_if_missing=False,
        source=XU,
    )
    differentiate_second_moment: bool = setting(
        True,
        "Whether the meta-gradient goes through the inner optimiser's second moment.",
        value_if_missing=True,
        source="the paper is silent",
    )
    differentiate_clip: bool = setting(
        True,
        "Whether the meta-gradient goes through the coefficient of the gradient clip.",
        value_if_missing=True,
        source="the paper is silent",
    )
