"""Every hyper-parameter once, with unit, default, source and allowed values.

The commands make their flags from this dataclass, a run folder saves it as `config.json`, and
everything below the commands takes it, or plain arguments. Nothing here imports TensorFlow, so
that a mistake is answered at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import pathlib
import re
import typing
from typing import Any

from meta_impala.errors import UserError

IMPALA = "IMPALA, arXiv 1802.01561"
BONNET = "Bonnet et al. 2022"
XU = "Xu et al. 2018, arXiv 1805.09801"
OURS = "our choice"

# What a resumed run may do with a setting: never change it, change it freely, or (the default)
# change it only with --override.
NEVER, FREELY, WITH_OVERRIDE = "never", "freely", "with --override"

_MAX_FRAMES = 10**15
_ENVS_PER_ACTOR = 32
# What `auto` takes at most of actors that are threads of one process: some three cores of actors
# keep a learner busy, and every emulator is 0.1 s of the start.
_MOST_ACTORS = 8
_MOST_ENVS = 128
_FEWEST_ENVS = 8


def _setting(
    default: Any,
    help_text: str,
    *,
    source: str = "",
    unit: str = "",
    flag: str = "",
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    choices: tuple[str, ...] = (),
    on_resume: str = WITH_OVERRIDE,
    auto: bool = False,
    is_recent: bool = False,
) -> Any:
    metadata = {
        "auto": auto,
        "is_recent": is_recent,
        "help": help_text,
        "source": source,
        "unit": unit,
        "flag": flag,
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": high_open,
        "choices": choices,
        "on_resume": on_resume,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run. `None` means "derived from the others" until `resolve` is called."""

    # The run.
    environment: str = _setting(
        "Pong",
        "Atari game (Pong or ALE/Pong-v5), Catch, or any Gymnasium id with discrete actions and "
        "a Box observation.",
        on_resume=NEVER,
    )
    protocol: str = _setting(
        "impala",
        "Atari protocol. impala: minimal action set, no sticky actions, 0 to 30 no-ops, life loss "
        "ends an episode for the learner. machado: sticky actions 0.25, 18 actions, no no-ops, no "
        "life-loss signal.",
        source="IMPALA; Machado et al. 2018",
        choices=("impala", "machado"),
        on_resume=NEVER,
    )
    total_frames: int = _setting(
        200_000_000,
        "Length of training; the learning rate reaches 0 here.",
        unit="environment frames (agent steps × action repeat)",
        source=IMPALA,
        low=1,
        high=_MAX_FRAMES,
        on_resume=FREELY,
    )
    seed: int = _setting(1, "Seed of everything random.", low=0, high=2**31 - 1)
    deterministic: bool = _setting(
        False,
        "Bit-identical weights and metrics for the same seed: actors and learner take turns in one "
        "fixed schedule (slower).",
    )

    # What is learned of η, and how.
    meta_parameters: str = _setting(
        "gamma,lambda",
        "What is learned: gamma,lambda, gamma, lambda, or none (plain IMPALA).",
        source=XU,
        choices=("gamma,lambda", "gamma", "lambda", "none"),
        on_resume=NEVER,
    )
    gamma: float = _setting(
        0.99,
        "Discount γ if fixed, its start if learned (a start must lie strictly between 0 and 1).",
        source="IMPALA; the start is " + OURS,
        low=0.0,
        high=1.0,
    )
    lambda_: float | None = _setting(
        None,
        "Bootstrapping parameter λ if fixed, its start if learned (a start must lie strictly "
        "between 0 and 1). Default: 1 if fixed, 0.99 if learned.",
        source="IMPALA; the start is " + OURS,
        flag="lambda",
        low=0.0,
        high=1.0,
    )
    gamma_min: float = _setting(
        0.0, "Lower end of the range of a learned γ.", source=OURS, low=0.0, high=1.0
    )
    gamma_max: float = _setting(
        1.0, "Upper end of the range of a learned γ.", source=OURS, low=0.0, high=1.0
    )
    lambda_min: float = _setting(
        0.0, "Lower end of the range of a learned λ.", source=OURS, low=0.0, high=1.0
    )
    lambda_max: float = _setting(
        1.0, "Upper end of the range of a learned λ.", source=OURS, low=0.0, high=1.0
    )
    meta_parameter_scope: str = _setting(
        "global",
        "global: one γ and λ for all states; state: γ(s) and λ(s) of the state arrived in, from "
        "the torso's features (which they do not train).",
        source=XU + " (state was tried and did not help)",
        choices=("global", "state"),
        on_resume=NEVER,
    )
    reference_gamma: float = _setting(
        0.995, "γ', the fixed discount of the meta objective.", source=XU, low=0.0, high=1.0
    )
    reference_lambda: float = _setting(
        1.0,
        "λ', the fixed bootstrapping parameter of the meta objective.",
        source=XU,
        low=0.0,
        high=1.0,
    )
    reference_tracking: str = _setting(
        "none",
        "Which parts of η' are not fixed but the current γ, λ (as constants).",
        source="a question of the paper's reviewer",
        choices=("none", "gamma", "lambda", "gamma,lambda"),
    )
    eta_schedule: str = _setting(
        "learned",
        "learned: by the meta-gradient. The others condition on η as ever but learn none of it: "
        "fixed (at --gamma, --lambda), random (drawn for every unroll), mixture (one of "
        "--eta_mixture for every unroll): the control for multi-task learning.",
        source="a question of the paper's reviewer",
        choices=("learned", "fixed", "random", "mixture"),
        on_resume=NEVER,
    )
    eta_mixture: str = _setting(
        "0.98,0.9;0.99,0.95;0.995,1",
        "The set of --eta_schedule=mixture: γ,λ;γ,λ;…",
        source=OURS,
    )
    eta_random_gamma: str = _setting(
        "0.9,0.999",
        "Ends of the draws of γ of --eta_schedule=random, inside (0, 1); the logits are uniform.",
        source=OURS,
    )
    eta_random_lambda: str = _setting("0.9,0.999", "The same for λ.", source=OURS)
    meta_batch_size: int = _setting(
        8,
        "B', trajectories of the next batch that judge an update; at most --batch_size.",
        unit="unrolls",
        source=XU + " (from memory)",
        low=0,
    )
    meta_data: str = _setting(
        "next_batch",
        "Which data τ' judge an update. next_batch: B' trajectories of the batch that is learned "
        "from next; held_out: B' trajectories of the same batch, which are not learned from; swap: "
        "two batches take turns, each is learned from and then judges the update on the other.",
        source=XU + " (next_batch: arXiv v1; swap: its appendix)",
        choices=("next_batch", "held_out", "swap"),
    )
    meta_optimizer: str = _setting(
        "adam",
        "Optimiser of the logits of η.",
        source=XU + " (from memory)",
        choices=("adam", "rmsprop", "sgd"),
        on_resume=NEVER,
    )
    meta_learning_rate: float = _setting(
        1e-3,
        "β, step size on the logits of η.",
        source=XU + " (from memory)",
        low=0.0,
        low_open=True,
    )
    meta_max_gradient_norm: float = _setting(
        0.0,
        "Clip of the meta-gradient's norm; 0 for none.",
        source="the paper is silent; later work has 0.1 to 1",
        low=0.0,
    )
    eta_embedding_size: int | None = _setting(
        None,
        "Width of e_η, the learned embedding of η that the network sees; 0 for none. Default: 16 "
        "if something is learned, else 0.",
        source=XU + " (from memory)",
        low=0,
        high=4096,
        on_resume=NEVER,
    )
    eta_embedding_input: str = _setting(
        "logits",
        "What is embedded: the logits of γ and λ (cut to ±7 and divided by 7) or their values.",
        source="the paper is silent; logits is how its reviewer reads it",
        choices=("logits", "values"),
        on_resume=NEVER,
    )
    meta_network_eta: str = _setting(
        "reference",
        "Which η the network is fed when J' is evaluated: the reference η', or the current η.",
        source="the paper is silent; reference is how its reviewer reads it",
        choices=("reference", "current"),
    )
    meta_gradient_paths: str = _setting(
        "returns",
        "Along which paths η acts on the inner update. returns: γ and λ in the targets; embedding: "
        "also through e_η to policy, value and entropy, and to the V of the targets; "
        "importance_weights: also to ρ and c.",
        source=XU + ", equation (13), has returns",
        choices=("returns", "embedding", "importance_weights"),
    )
    meta_gradient_mode: str = _setting(
        "auto",
        "How the meta-gradient is computed: nested_tapes and reverse_over_forward give the same "
        "number; a trace needs accumulative_trace. auto takes that with a trace, "
        "reverse_over_forward with several learners or micro-batches, else nested_tapes.",
        source=OURS,
        choices=("auto", "nested_tapes", "reverse_over_forward", "accumulative_trace"),
    )
    trace_decay: float = _setting(
        0.0,
        "μ of the accumulative trace z' = μ z + ∂f/∂η (4); 0 for the exact gradient of one update.",
        source=XU,
        low=0.0,
        high=1.0,
        on_resume=NEVER,
    )
    trace_curvature: bool = _setting(
        False,
        "z' = μ (I + ∂f/∂θ) z + ∂f/∂η instead, ∂f/∂θ of the whole update. Needs --trace_decay.",
        source=XU,
    )
    differentiate_second_moment: bool = _setting(
        True,
        "Whether the meta-gradient goes through the inner optimiser's second moment.",
        source="the paper is silent",
    )
    differentiate_clip: bool = _setting(
        True,
        "Whether the meta-gradient goes through the coefficient of the gradient clip.",
        source="the paper is silent",
    )

    # The meta objective.
    meta_policy_cost: float = _setting(
        1.0, "Weight of the policy gradient in J'.", source=XU, low=0.0
    )
    meta_baseline_cost: float = _setting(
        0.0, "Weight of the value loss ½(vs'−V')² in J'.", source=XU, low=0.0
    )
    meta_entropy_cost: float = _setting(
        0.0, "Weight of the entropy in J'.", unit="per nat", source=XU, low=0.0
    )
    meta_kl_cost: float = _setting(
        0.0,
        "Weight of KL(π_θ', π_θ) in J'.",
        unit="per nat",
        source=XU + " has none; STACX, arXiv 2002.12928",
        low=0.0,
    )
    meta_value_head: str = _setting(
        "shared",
        "Whose values judge in J'. shared: those of the critic that η trains; reference: of a "
        "second value head, trained at η'.",
        source=XU + "; " + BONNET,
        choices=("shared", "reference"),
        on_resume=NEVER,
    )
    meta_advantage_normalization: str = _setting(
        "none",
        "Whether the advantages of J' are normalised by their moving mean and deviation.",
        source=XU + "; later work has ema",
        choices=("none", "ema"),
        on_resume=NEVER,
    )
    meta_advantage_decay: float = _setting(
        0.99,
        "Decay per update of these moving moments.",
        source=OURS,
        low=0.0,
        high=1.0,
        high_open=True,
    )

    # The inner objective and its optimiser.
    unroll_length: int = _setting(
        20, "T, length of a trajectory.", unit="agent steps", source=IMPALA, low=1, high=10_000
    )
    batch_size: int = _setting(
        32, "B, trajectories per update.", unit="unrolls", source=IMPALA, low=1, high=65_536
    )
    inner_optimizer: str = _setting(
        "rmsprop",
        "Optimiser of the agent's parameters.",
        source=IMPALA,
        choices=("rmsprop", "sgd", "adam"),
        on_resume=NEVER,
    )
    learning_rate: float = _setting(
        6e-4, "Its step size at the start.", source=IMPALA, low=0.0, low_open=True
    )
    learning_rate_schedule: str = _setting(
        "linear",
        "linear: to 0 at --total_frames; constant.",
        source=IMPALA,
        choices=("linear", "constant"),
    )
    rmsprop_decay: float = _setting(
        0.99,
        "Decay of RMSProp's mean square, which starts at one.",
        source=IMPALA + " (released code)",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    rmsprop_epsilon: float = _setting(
        0.01,
        "ε of RMSProp, inside the root.",
        source=IMPALA + ", Atari table; its released code has 0.1",
        low=0.0,
        low_open=True,
    )
    adam_beta1: float = _setting(
        0.9,
        "Decay of Adam's first moment, if it is the inner optimiser.",
        source="Kingma and Ba 2015",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    adam_beta2: float = _setting(
        0.999,
        "Decay of its second moment.",
        source="Kingma and Ba 2015",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    adam_epsilon: float = _setting(
        1e-8, "Its ε, outside the root.", source="Kingma and Ba 2015", low=0.0, low_open=True
    )
    max_gradient_norm: float = _setting(
        40.0, "Clip of the gradient's global norm; 0 for none.", source=IMPALA, low=0.0
    )
    baseline_cost: float = _setting(
        0.5, "b, weight of the value loss ½(vs−V)².", source=IMPALA, low=0.0
    )
    entropy_cost: float = _setting(
        0.01, "c, weight of the entropy.", unit="per nat", source=IMPALA, low=0.0
    )
    reward_clip: float = _setting(
        1.0, "Rewards are cut to ± this for the learner; 0 for no clip.", source=IMPALA, low=0.0
    )
    rho_clip: float = _setting(
        1.0, "ρ̄, clip of V-trace's temporal difference.", source=IMPALA, low=0.0, low_open=True
    )
    c_clip: float = _setting(
        1.0, "c̄, clip of V-trace's trace.", source=IMPALA, low=0.0, low_open=True
    )
    pg_rho_clip: float = _setting(
        1.0,
        "Clip of the importance weight of the policy gradient.",
        source=IMPALA,
        low=0.0,
        low_open=True,
    )
    policy_return: str = _setting(
        "mixed",
        "The return of the policy's advantage. mixed: r + γ[λ vs + (1−λ)V] of the next state, on "
        "policy the λ-return of equation (12); next_target: r + γ vs.",
        source="the paper is silent; IMPALA has next_target, the same at λ = 1",
        choices=("mixed", "next_target"),
    )

    # The network.
    network: str = _setting(
        "auto",
        "Torso: shallow (2 convolutions), nature (3), deep (residual), mlp; auto takes shallow for "
        "84×84 images and mlp otherwise.",
        source=IMPALA + "; Mnih et al. 2015",
        choices=("auto", "shallow", "nature", "deep", "mlp"),
        on_resume=NEVER,
    )
    mlp_sizes: str = _setting(
        "64,64",
        "Widths of the hidden layers of the mlp torso.",
        unit="units, comma-separated",
        source=OURS,
        on_resume=NEVER,
    )
    core: str = _setting(
        "none", "Recurrent core.", source=IMPALA, choices=("none", "lstm"), on_resume=NEVER
    )
    core_size: int = _setting(
        256, "Width of the LSTM.", unit="units", source=IMPALA, low=1, high=8192, on_resume=NEVER
    )
    last_action_and_reward: bool = _setting(
        False,
        "Whether the network also sees the last action and the last clipped reward.",
        source=IMPALA + " (DMLab agents)",
        on_resume=NEVER,
    )

    # Actors and queue.
    actors: str = _setting(
        "threads",
        "Where the actors run: threads of the trainer, or processes on a Ray cluster (pip install "
        "'meta_impala[distributed]').",
        source=OURS,
        choices=("threads", "ray"),
        on_resume=FREELY,
        is_recent=True,
    )
    ray_address: str = _setting(
        "",
        "Of --actors=ray. Empty or local: Ray is started on this machine, for this run alone; "
        "auto: the cluster that this machine belongs to; HOST:PORT: the one with this head.",
        source=OURS,
        on_resume=FREELY,
        is_recent=True,
    )
    # None, or auto on the command line, until `resolve` has chosen.
    num_actors: int = _setting(
        None,
        "Actors: threads (at most 1024) or Ray processes; auto: one for each processor, of threads "
        "at most 8.",
        auto=True,
        source=OURS,
        low=1,
        high=65_536,
        on_resume=FREELY,
    )
    unrolls_in_flight: int = _setting(
        2,
        "Unrolls that a Ray actor is asked for ahead of their being used; with 1 it waits while "
        "its unroll travels, more make the policy lag larger.",
        unit="unrolls",
        source=OURS,
        low=1,
        high=64,
        on_resume=FREELY,
        is_recent=True,
    )
    envs_per_actor: int = _setting(
        None,
        "Environments of one actor, stepped and inferred as a batch. It must divide --batch_size "
        "or be a multiple of it. auto: of such numbers the nearest to 32, where the inference of a "
        "convolutional network stops to get cheaper, or, of threads, to 128 for all of them.",
        auto=True,
        source=OURS,
        low=1,
        high=4096,
        on_resume=FREELY,
    )
    env_threads: int = _setting(
        1, "Emulator threads of one actor (Atari).", source=OURS, low=1, high=256, on_resume=FREELY
    )
    queue_capacity: int = _setting(
        2,
        "Blocks of unrolls (one per actor and unroll) that wait for the learner at most.",
        unit="blocks",
        source=OURS,
        low=1,
        high=4096,
        on_resume=FREELY,
    )
    stall_timeout: float = _setting(
        300.0,
        "A run in which an actor makes no step for so long is stopped with an error that names it.",
        unit="seconds",
        source=OURS,
        low=1.0,
        on_resume=FREELY,
    )
    max_actor_restarts: int = _setting(
        10,
        "How often, in one start of the program, actors whose environments raise an exception go "
        "on with new environments; then the run fails. A Ray actor whose process or node is lost "
        "is started again without limit, unless it is lost more often than this without an unroll "
        "in between.",
        source=OURS,
        low=0,
        high=1_000_000,
        on_resume=FREELY,
    )
    max_bad_updates: int = _setting(
        10,
        "So many updates in a row that are not finite, and so were not applied, end the run.",
        source=OURS,
        low=1,
        high=1_000_000,
        on_resume=FREELY,
    )
    micro_batches: int = _setting(
        1,
        "The update is computed in so many parts of the batch, one after the other in the memory "
        "of one; the result is the same to rounding. Must divide --batch_size and "
        "--meta_batch_size; the meta-gradient is then computed by reverse_over_forward.",
        source=OURS,
        low=1,
        high=65_536,
        on_resume=FREELY,
        is_recent=True,
    )
    precision: str = _setting(
        "auto",
        "Of the computation within the torso: float32, or bfloat16 (heads, returns, "
        "losses, optimisers and η stay float32). auto: float32, since bfloat16 moves the "
        "meta-gradient too far (see BUILD_NOTES.md).",
        source=OURS,
        choices=("auto", "float32", "bfloat16"),
        is_recent=True,
    )
    learner_device: str = _setting(
        "auto",
        "Where the learner computes: auto (a GPU when there is one), cpu, gpu, or a TensorFlow "
        "device such as gpu:1. Actors compute on the CPU.",
        source=OURS,
        on_resume=FREELY,
    )
    learner_addresses: str = _setting(
        "",
        "Several learners share every update: where each of them listens for the others, first "
        "the one that keeps the run folder. Each has --num_actors actors of its own, and learns "
        "from its share of --batch_size and --meta_batch_size. Empty for one learner.",
        unit="host:port, comma-separated",
        source=OURS,
        on_resume=FREELY,
        is_recent=True,
    )
    learner_index: int = _setting(
        0,
        "Which of --learner_addresses this process is. 0 keeps the run folder; the others take "
        "all settings from it.",
        source=OURS,
        low=0,
        high=1023,
        on_resume=FREELY,
        is_recent=True,
    )

    # Records.
    checkpoint_minutes: float = _setting(
        10.0,
        "A checkpoint is saved after so many minutes; 0 for never.",
        unit="minutes",
        source=OURS,
        low=0.0,
        on_resume=FREELY,
    )
    checkpoint_frames: int = _setting(
        0,
        "A checkpoint is saved after so many frames; 0 for never. With --deterministic the "
        "environments start anew there.",
        unit="environment frames",
        source=OURS,
        low=0,
        high=_MAX_FRAMES,
        on_resume=FREELY,
    )
    keep_checkpoints: int = _setting(
        3, "How many checkpoints are kept.", source=OURS, low=1, high=10_000, on_resume=FREELY
    )
    log_frames: int = _setting(
        50_000,
        "A row of metrics is written after so many frames.",
        unit="environment frames",
        source=OURS,
        low=1,
        high=_MAX_FRAMES,
        on_resume=FREELY,
    )
    wandb_project: str = _setting(
        "",
        "Project at Weights & Biases to which the metrics go too (pip install "
        "'meta_impala[wandb]'); empty for none.",
        source=OURS,
        on_resume=FREELY,
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """`learner_addresses`, one by one; empty for one learner."""
        return tuple(self.learner_addresses.split(",")) if self.learner_addresses else ()

    @property
    def num_learners(self) -> int:
        """N, the learners that share every update."""
        return max(1, len(self.addresses))

    @property
    def share(self) -> Config:
        """The settings of one learner's part of a batch, as of one alone: B/N and B'/N columns."""
        return dataclasses.replace(
            self,
            batch_size=self.batch_size // self.num_learners,
            meta_batch_size=self.meta_batch_size // self.num_learners,
            learner_addresses="",
            learner_index=0,
        )

    @property
    def varied(self) -> tuple[str, ...]:
        """The meta-parameters that are learned, or drawn (`eta_schedule`)."""
        if self.meta_parameters == "none":
            return ()
        return tuple(self.meta_parameters.split(","))

    @property
    def learned(self) -> tuple[str, ...]:
        """The meta-parameters that are learned, in the order of the entries of x."""
        return self.varied if self.eta_schedule == "learned" else ()

    @property
    def tracked(self) -> tuple[str, ...]:
        """The parts of η' that are the current values."""
        return (
            () if self.reference_tracking == "none" else tuple(self.reference_tracking.split(","))
        )

    @property
    def second_value_head(self) -> bool:
        """Whether the network has a value head trained at η'."""
        return bool(self.varied) and self.meta_value_head == "reference"

    @property
    def eta_pairs(self) -> tuple[tuple[float, float], ...]:
        """`eta_mixture` as numbers."""
        pairs = (pair.split(",") for pair in self.eta_mixture.split(";"))
        return tuple((float(gamma), float(lambda_)) for gamma, lambda_ in pairs)

    @property
    def eta_draws(self) -> dict[str, tuple[float, float]]:
        """`eta_random_gamma` and `eta_random_lambda` as numbers, of what is varied."""
        texts = {"gamma": self.eta_random_gamma, "lambda": self.eta_random_lambda}
        draws = {}
        for name in self.varied:
            low, high = texts[name].split(",")
            draws[name] = (float(low), float(high))
        return draws

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """`mlp_sizes` as numbers."""
        return tuple(int(width) for width in self.mlp_sizes.split(","))

    @property
    def block_size(self) -> int:
        """Unrolls in one block of the trajectory queue."""
        return min(self.envs_per_actor, self.batch_size // self.num_learners)


def flag_name(field: dataclasses.Field) -> str:
    """The name of a setting on the command line and in `config.json` (`lambda`, not `lambda_`)."""
    return field.metadata["flag"] or field.name


FIELDS: dict[str, dataclasses.Field] = {
    flag_name(field): field for field in dataclasses.fields(Config)
}
_TYPES = typing.get_type_hints(Config)


def field_type(field: dataclasses.Field) -> tuple[type, bool]:
    """The plain type of a setting, and whether it may be None ("derived from the others")."""
    declared = _TYPES[field.name]
    if field.metadata["auto"]:
        return declared, True
    arguments = [kind for kind in typing.get_args(declared) if kind is not type(None)]
    return (arguments[0], True) if arguments else (declared, False)


def nearest(value: str, allowed: typing.Iterable[str]) -> str:
    """ " (did you mean X?)" or nothing."""
    matches = difflib.get_close_matches(value, list(allowed), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def allowed_range(metadata: typing.Mapping[str, Any]) -> str:
    """The values a number may have, in words."""
    low, high = metadata["low"], metadata["high"]
    if low is not None and high is not None:
        left = "(" if metadata["low_open"] else "["
        right = ")" if metadata["high_open"] else "]"
        return f"in {left}{low}, {high}{right}"
    if low is not None:
        return f"{'above' if metadata['low_open'] else 'at least'} {low}"
    return f"at most {high}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond every float
        return False


def _check_field(field: dataclasses.Field, value: Any) -> None:
    name, metadata = flag_name(field), field.metadata
    kind, optional = field_type(field)
    if value is None and optional:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (isinstance(value, kind) if kind is not float else is_number) or (
        kind is int and isinstance(value, bool)
    ):
        raise UserError(f"--{name}={value!r}: must be of type {kind.__name__}")
    if metadata["choices"] and value not in metadata["choices"]:
        choices = " | ".join(metadata["choices"])
        raise UserError(
            f"--{name}={value}: must be one of {choices}{nearest(value, metadata['choices'])}"
        )
    if kind in (int, float):
        low, high = metadata["low"], metadata["high"]
        too_low = low is not None and (value <= low if metadata["low_open"] else value < low)
        too_high = high is not None and (value >= high if metadata["high_open"] else value > high)
        if not _is_finite(value) or too_low or too_high:
            raise UserError(f"--{name}={value}: must be finite and {allowed_range(metadata)}")


def resolve(config: Config) -> Config:
    """Checks every setting and derives those left open; needs no TensorFlow.

    `network=auto` stays: it needs the environment's observation (`resolve_network`).

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    for field in dataclasses.fields(config):
        _check_field(field, getattr(config, field.name))
    learned = config.learned
    if config.lambda_ is None:
        config = dataclasses.replace(config, lambda_=0.99 if "lambda" in learned else 1.0)
    config = _choose_actors(config)
    if config.precision == "auto":
        config = dataclasses.replace(config, precision="float32")
    if config.eta_embedding_size is None:
        config = dataclasses.replace(config, eta_embedding_size=16 if config.varied else 0)
    if config.meta_gradient_mode == "auto":
        in_parts = config.num_learners > 1 or config.micro_batches > 1
        mode = "reverse_over_forward" if in_parts else "nested_tapes"
        if config.trace_decay:
            mode = "accumulative_trace"
        config = dataclasses.replace(config, meta_gradient_mode=mode)
    for name, start, low, high in (
        ("gamma", config.gamma, config.gamma_min, config.gamma_max),
        ("lambda", config.lambda_, config.lambda_min, config.lambda_max),
    ):
        if low >= high:
            raise UserError(f"--{name}_min={low}: must be below --{name}_max={high}")
        if name in learned and not low < start < high:  # type: ignore[operator]
            raise UserError(
                f"--{name}={start}: {name} is learned, so its start must lie in the open range "
                f"({low:g}, {high:g}): at its ends its logit is infinite"
            )
    most_judges = config.batch_size - (config.meta_data == "held_out")
    if learned and not 1 <= config.meta_batch_size <= most_judges:
        why = ", one less than --batch_size with --meta_data=held_out"
        raise UserError(
            f"--meta_batch_size={config.meta_batch_size}: must be in [1, {most_judges}] "
            f"(--batch_size{why if most_judges < config.batch_size else ''}) while "
            f"--meta_parameters={config.meta_parameters} is learned"
        )
    _check_method(config)
    _check_actors(config)
    _check_learners(config)
    _check_micro_batches(config)
    columns = config.share.batch_size
    if max(config.envs_per_actor, columns) % min(config.envs_per_actor, columns):
        of_each = " / the number of learners" if config.num_learners > 1 else ""
        raise UserError(
            f"--envs_per_actor={config.envs_per_actor}: must divide --batch_size="
            f"{config.batch_size}{of_each} or be a multiple of it"
        )
    try:
        widths = config.mlp_widths
    except ValueError:
        widths = (0,)
    if not all(1 <= width <= 65_536 for width in widths):
        raise UserError(
            f"--mlp_sizes={config.mlp_sizes}: must be widths from 1 to 65536, comma-separated, "
            "for example 64,64"
        )
    device = config.learner_device.lower()
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (index and (kind == "auto" or not index.isdigit())):
        raise UserError(
            f"--learner_device={config.learner_device}: must be auto, cpu, gpu or gpu:N"
        )
    return config


def check_addresses(config: Config) -> None:
    """Checks where the learners are, and which one this is.

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    for name in ("learner_addresses", "learner_index", "stall_timeout"):
        _check_field(FIELDS[name], getattr(config, name))
    addresses, number = config.addresses, config.num_learners
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65_535):
            raise UserError(
                f"--learner_addresses={config.learner_addresses}: must be host:port, "
                "comma-separated, for example 10.0.0.1:2222,10.0.0.2:2222"
            )
    if len(set(addresses)) < len(addresses):
        raise UserError(
            f"--learner_addresses={config.learner_addresses}: every learner must have an address "
            "of its own"
        )
    if config.learner_index >= number:
        raise UserError(
            f"--learner_index={config.learner_index}: must be below the number of "
            f"--learner_addresses, {number}"
        )


def _check_learners(config: Config) -> None:
    """Several learners: their shares, and what they cannot do."""
    check_addresses(config)
    number = config.num_learners
    if number == 1:
        return
    if config.batch_size % number:
        raise UserError(
            f"--batch_size={config.batch_size}: must be a multiple of the number of "
            f"--learner_addresses, {number}"
        )
    if config.learned and config.meta_batch_size % number:
        raise UserError(
            f"--meta_batch_size={config.meta_batch_size}: must be a multiple of the number of "
            f"--learner_addresses, {number}"
        )
    if config.learned and config.meta_gradient_mode != "reverse_over_forward":
        raise UserError(
            f"--meta_gradient_mode={config.meta_gradient_mode}: must be reverse_over_forward (or "
            "auto, without --trace_decay) with several --learner_addresses: only its parts add up"
        )
    if config.learned and config.meta_advantage_normalization != "none":
        raise UserError(
            f"--meta_advantage_normalization={config.meta_advantage_normalization}: must be none "
            "with several --learner_addresses"
        )
    if config.deterministic:
        raise UserError(
            "--deterministic=True: needs one learner; must be false with several "
            "--learner_addresses"
        )


def _check_micro_batches(config: Config) -> None:
    """What divides, and what cannot be computed in parts."""
    count = config.micro_batches
    if count == 1:
        return
    given = f"--micro_batches={count}"
    share = config.share
    columns, less = share.batch_size, ""
    if config.learned and config.meta_data == "held_out":
        columns, less = columns - share.meta_batch_size, " less --meta_batch_size"
    if columns % count:
        raise UserError(
            f"{given}: must divide --batch_size={config.batch_size}{less} (of a learner)"
        )
    if not config.learned:
        return
    if share.meta_batch_size % count:
        raise UserError(
            f"{given}: must divide --meta_batch_size={config.meta_batch_size} (of one learner)"
        )
    if config.meta_gradient_mode != "reverse_over_forward":
        raise UserError(
            f"--meta_gradient_mode={config.meta_gradient_mode}: must be reverse_over_forward (or "
            f"auto, without --trace_decay) with {given}: only its parts add up"
        )
    if config.meta_advantage_normalization != "none":
        raise UserError(
            f"--meta_advantage_normalization={config.meta_advantage_normalization}: must be none "
            f"with {given}"
        )


def _check_method(config: Config) -> None:
    """The switches of the meta-gradient that do not go together, and the sets of η."""
    mode = config.meta_gradient_mode
    if config.trace_decay and mode != "accumulative_trace":
        raise UserError(
            f"--meta_gradient_mode={mode}: has no trace; --trace_decay={config.trace_decay:g} "
            "needs accumulative_trace (or auto)"
        )
    if config.trace_curvature and not config.trace_decay:
        raise UserError("--trace_curvature=True: needs --trace_decay above 0; at 0 nothing is kept")
    if config.meta_parameter_scope == "state":
        if mode == "accumulative_trace":
            raise UserError(
                "--meta_parameter_scope=state: has no trace (it would keep a copy of the network "
                "for every weight of γ(s) and λ(s)); use --trace_decay=0 and nested_tapes or "
                "reverse_over_forward, or global"
            )
        if config.varied and not config.learned:
            raise UserError(
                f"--eta_schedule={config.eta_schedule}: must be learned with "
                "--meta_parameter_scope=state; what is drawn is one η for an unroll"
            )
    if config.meta_gradient_paths != "returns" and config.learned and not config.eta_embedding_size:
        raise UserError(
            f"--meta_gradient_paths={config.meta_gradient_paths}: needs an embedding of η, "
            "--eta_embedding_size is 0; must be returns"
        )
    if config.eta_schedule in ("random", "mixture") and not config.varied:
        raise UserError(
            f"--eta_schedule={config.eta_schedule}: needs --meta_parameters to say what is drawn; "
            "they are none"
        )
    if config.eta_schedule == "mixture":
        _check_mixture(config)
    if config.eta_schedule == "random":
        _check_draws(config)


_MAX_ACTOR_THREADS = 1024
_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")


# Of a container, which may be lent less time than there are processors: quota and period.
_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")


def processors() -> int:
    """How many processors this process may use: those it may run on, or what its quota is worth."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    try:
        quota, period = map(float, _QUOTA.read_text(encoding="utf-8").split())
        return max(1, min(count, math.ceil(quota / period)))
    except (OSError, ValueError):  # no such file, or no quota ("max")
        return count


def _choose_actors(config: Config) -> Config:
    """What `auto` stands for, on this machine."""
    if config.num_actors is None:
        count = processors()
        if config.actors == "threads":
            count = min(count, _MOST_ACTORS)
        config = dataclasses.replace(config, num_actors=count)
    if config.envs_per_actor is None:
        wanted = _ENVS_PER_ACTOR
        if config.actors == "threads":  # which make theirs one after the other
            wanted = min(wanted, max(_FEWEST_ENVS, _MOST_ENVS // max(1, config.num_actors)))
        columns = max(1, config.share.batch_size)
        sizes = [n for n in range(1, columns + 1) if columns % n == 0 and n <= wanted]
        sizes.append(columns * math.ceil(wanted / columns))
        nearest_size = min(sizes, key=lambda n: abs(math.log(n / wanted)))
        config = dataclasses.replace(config, envs_per_actor=nearest_size)
    return config


def _check_actors(config: Config) -> None:
    """Where the actors run."""
    if config.actors == "threads":
        if config.num_actors > _MAX_ACTOR_THREADS:
            raise UserError(
                f"--num_actors={config.num_actors}: must be at most {_MAX_ACTOR_THREADS} with "
                "--actors=threads"
            )
        if config.ray_address:
            raise UserError(f"--ray_address={config.ray_address}: must be empty, or --actors=ray")
        return
    if config.deterministic:
        raise UserError(
            "--deterministic=True: must be False with --actors=ray; processes on a cluster do not "
            "take turns"
        )
    address = config.ray_address
    if address.startswith("ray://"):
        raise UserError(
            f"--ray_address={address}: must be HOST:PORT of the cluster's head, from a machine of "
            "the cluster; the Ray client is not for streams of data"
        )
    match = _HOST_AND_PORT.fullmatch(address)
    if address not in ("", "local", "auto") and not (match and 0 < int(match[2]) < 65_536):
        raise UserError(
            f"--ray_address={address}: must be empty, local, auto or HOST:PORT of the cluster's "
            "head, for example 10.0.0.1:6379"
        )


def _check_mixture(config: Config) -> None:
    try:
        pairs = config.eta_pairs
    except ValueError:
        pairs = ()
    if not pairs or not all(0.0 <= value <= 1.0 for pair in pairs for value in pair):
        raise UserError(
            f"--eta_mixture={config.eta_mixture}: must be pairs γ,λ of numbers in [0, 1], "
            "separated by semicolons, for example 0.99,1;0.995,1"
        )
    for index, name in enumerate(("gamma", "lambda")):
        fixed = config.gamma if name == "gamma" else config.lambda_
        if name not in config.varied and any(p[index] != fixed for p in pairs):
            raise UserError(
                f"--eta_mixture={config.eta_mixture}: {name} must be {fixed:g} (--{name}) "
                f"throughout with --meta_parameters={config.meta_parameters}"
            )


def _check_draws(config: Config) -> None:
    for name in config.varied:
        text = config.eta_random_gamma if name == "gamma" else config.eta_random_lambda
        try:
            low, high = map(float, text.split(","))
        except ValueError:
            low = high = 0.0
        if not 0.0 < low < high < 1.0:
            raise UserError(
                f"--eta_random_{name}={text}: must be two numbers LOW,HIGH with "
                "0 < LOW < HIGH < 1, for example 0.9,0.999"
            )


def resolve_frames(config: Config, action_repeat: int) -> None:
    """Checks that the run is at least one batch long.

    Raises:
      UserError: if it is not.
    """
    batch_frames = config.batch_size * config.unroll_length * action_repeat
    if config.total_frames < batch_frames:
        raise UserError(
            f"--total_frames={config.total_frames}: must be at least one batch, {batch_frames} "
            f"frames (batch {config.batch_size} × unroll {config.unroll_length} × action repeat "
            f"{action_repeat})"
        )


# The smallest image side that the valid convolutions of a torso leave anything of.
_MINIMUM_SIDE = {"shallow": 20, "nature": 36, "deep": 8}


def resolve_network(config: Config, observation_shape: tuple[int, ...]) -> Config:
    """Chooses the torso for `network=auto`, or checks that the one asked for fits.

    Raises:
      UserError: for an image torso on something that is no image or too small for it.
    """
    sides: tuple[int, ...] = ()
    if len(observation_shape) == 2:
        sides = observation_shape
    elif len(observation_shape) == 3:
        first = observation_shape[0] < observation_shape[-1]
        sides = observation_shape[1:] if first else observation_shape[:2]
    if config.network == "auto":
        return dataclasses.replace(config, network="shallow" if sides == (84, 84) else "mlp")
    if config.network != "mlp":
        minimum = _MINIMUM_SIDE[config.network]
        if not sides or min(sides) < minimum:
            raise UserError(
                f"--network={config.network}: needs images of at least {minimum}×{minimum}, the "
                f"observations of {config.environment} are {list(observation_shape)}; use mlp"
            )
    return config


# What the learners of a run may differ in.
_OF_A_LEARNER = (
    "learner_index", "env_threads", "queue_capacity", "learner_device", "ray_address",
)  # fmt: skip


def join_learners(first: Config, given: dict[str, Any]) -> Config:
    """The config of another learner than the first: the first one's, and what is its own.

    Args:
      first: the config of learner 0.
      given: flag name -> value, of the flags the user gave this one.

    Raises:
      UserError: naming every other setting that differs.
    """
    wanted = resolve(
        dataclasses.replace(first, **{FIELDS[name].name: value for name, value in given.items()})
    )
    names = [name for name in given if name not in _OF_A_LEARNER]
    different = [
        f"--{name}={getattr(wanted, FIELDS[name].name)} (it has {before})"
        for name in names
        if (before := getattr(first, FIELDS[name].name)) != getattr(wanted, FIELDS[name].name)
    ]
    if different:
        raise UserError(
            f"--learner_index={wanted.learner_index}: learner 0 has other settings: "
            f"{', '.join(different)}; must be the same, or left out"
        )
    return wanted


def to_json(config: Config) -> str:
    """`config.json`: flag names and values, in the order of the dataclass."""
    values = {name: getattr(config, field.name) for name, field in FIELDS.items()}
    return json.dumps(values, indent=2) + "\n"


def from_json(text: str, path: str | os.PathLike[str]) -> Config:
    """The config of a run folder.

    Raises:
      UserError: if the text is not JSON, or a key is missing, unknown or has a bad value.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold one JSON object")
    # A run older than a setting was made as its default makes it.
    missing = [n for n, f in FIELDS.items() if n not in values and not f.metadata["is_recent"]]
    unknown = [name for name in values if name not in FIELDS]
    if missing:
        raise UserError(f"{path}: missing keys: {', '.join(missing)}")
    if unknown:
        raise UserError(
            f"{path}: unknown keys: {', '.join(name + nearest(name, FIELDS) for name in unknown)}"
        )
    try:
        return resolve(Config(**{FIELDS[name].name: value for name, value in values.items()}))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def differing(saved: Config, wanted: Config) -> list[str]:
    """Settings in which they differ, of those that do not change freely in a run; flag names.

    A network left to "auto" was chosen when the run began.
    """
    return [
        name
        for name, field in FIELDS.items()
        if field.metadata["on_resume"] != FREELY
        and getattr(saved, field.name) != getattr(wanted, field.name)
        and not (name == "network" and wanted.network == "auto")
    ]


def merge_for_resume(saved: Config, changes: dict[str, Any], *, override: bool) -> Config:
    """The config of a continued run: the saved one with the flags given this time.

    Args:
      saved: the run's config.
      changes: flag name -> value, of the flags the user gave.
      override: whether --override was given.

    Raises:
      UserError: naming every difference that is not allowed.
    """
    wanted = dataclasses.replace(
        saved, **{FIELDS[name].name: value for name, value in changes.items()}
    )
    modes = ("nested_tapes", "reverse_over_forward")
    if "meta_gradient_mode" not in changes and saved.meta_gradient_mode in modes:
        # Two ways to one number. Which one serves may change with the number of parts.
        wanted = resolve(dataclasses.replace(wanted, meta_gradient_mode="auto"))
        parts = (wanted.micro_batches, wanted.num_learners)
        if parts == (saved.micro_batches, saved.num_learners):
            wanted = dataclasses.replace(wanted, meta_gradient_mode=saved.meta_gradient_mode)
        else:
            saved = dataclasses.replace(saved, meta_gradient_mode=wanted.meta_gradient_mode)
    wanted = resolve(wanted)
    never: list[str] = []
    guarded: list[str] = []
    for name in differing(saved, wanted):
        field = FIELDS[name]
        before, after = getattr(saved, field.name), getattr(wanted, field.name)
        difference = f"--{name}={after} (the run has {before})"
        (never if field.metadata["on_resume"] == NEVER else guarded).append(difference)
    if wanted.network == "auto":
        wanted = dataclasses.replace(wanted, network=saved.network)
    if never:
        raise UserError(
            f"cannot continue this run with {', '.join(never)}: this never changes in a run; use "
            "another --logdir"
        )
    if guarded and not override:
        raise UserError(
            f"cannot continue this run with {', '.join(guarded)}; give --override to change it, "
            "or use another --logdir"
        )
    return wanted
