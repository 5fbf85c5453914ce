"""Every hyper-parameter once, with unit, default, source and allowed values.

The commands make their flags from this dataclass, a run folder saves it as `config.json`, and
everything below the commands takes it, or plain arguments. Nothing here imports TensorFlow, so
that a mistake is answered at once.
"""

from __future__ import annotations

import dataclasses
import typing

from meta_impala.config.fields import BONNET, FREELY, IMPALA, MAX_FRAMES, NEVER, OURS, XU, setting


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run. `None` means "derived from the others" until `resolve` is called."""

    # The run.
    environment: str = setting(
        "Pong",
        "Atari game (Pong or ALE/Pong-v5), Catch, or any Gymnasium id with discrete actions and "
        "a Box observation.",
        on_resume=NEVER,
    )
    protocol: str = setting(
        "impala",
        "Atari protocol. impala: minimal action set, no sticky actions, 0 to 30 no-ops, life loss "
        "ends an episode for the learner. machado: sticky actions 0.25, 18 actions, no no-ops, no "
        "life-loss signal.",
        source="IMPALA; Machado et al. 2018",
        choices=("impala", "machado"),
        on_resume=NEVER,
    )
    total_frames: int = setting(
        200_000_000,
        "Length of training; the learning rate reaches 0 here.",
        unit="environment frames (agent steps × action repeat)",
        source=IMPALA,
        low=1,
        high=MAX_FRAMES,
        on_resume=FREELY,
    )
    seed: int = setting(1, "Seed of everything random.", low=0, high=2**31 - 1)
    deterministic: bool = setting(
        False,
        "Bit-identical weights and metrics for the same seed: actors and learner take turns in one "
        "fixed schedule (slower).",
    )

    # What is learned of η, and how.
    meta_parameters: str = setting(
        "gamma,lambda",
        "What is learned: gamma,lambda, gamma, lambda, or none (plain IMPALA).",
        source=XU,
        choices=("gamma,lambda", "gamma", "lambda", "none"),
        on_resume=NEVER,
    )
    gamma: float = setting(
        0.99,
        "Discount γ if fixed, its start if learned (a start must lie strictly between 0 and 1).",
        source="IMPALA; the start is " + OURS,
        low=0.0,
        high=1.0,
    )
    lambda_: float | None = setting(
        None,
        "Bootstrapping parameter λ if fixed, its start if learned (a start must lie strictly "
        "between 0 and 1). Default: 1 if fixed, 0.99 if learned.",
        source="IMPALA; the start is " + OURS,
        flag="lambda",
        low=0.0,
        high=1.0,
    )
    gamma_min: float = setting(
        0.0, "Lower end of the range of a learned γ.", source=OURS, low=0.0, high=1.0
    )
    gamma_max: float = setting(
        1.0, "Upper end of the range of a learned γ.", source=OURS, low=0.0, high=1.0
    )
    lambda_min: float = setting(
        0.0, "Lower end of the range of a learned λ.", source=OURS, low=0.0, high=1.0
    )
    lambda_max: float = setting(
        1.0, "Upper end of the range of a learned λ.", source=OURS, low=0.0, high=1.0
    )
    meta_parameter_scope: str = setting(
        "global",
        "global: one γ and λ for all states; state: γ(s) and λ(s) of the state arrived in, from "
        "the torso's features (which they do not train).",
        source=XU + " (state was tried and did not help)",
        choices=("global", "state"),
        on_resume=NEVER,
    )
    reference_gamma: float = setting(
        0.995, "γ', the fixed discount of the meta objective.", source=XU, low=0.0, high=1.0
    )
    reference_lambda: float = setting(
        1.0,
        "λ', the fixed bootstrapping parameter of the meta objective.",
        source=XU,
        low=0.0,
        high=1.0,
    )
    reference_tracking: str = setting(
        "none",
        "Which parts of η' are not fixed but the current γ, λ (as constants).",
        source="a question of the paper's reviewer",
        choices=("none", "gamma", "lambda", "gamma,lambda"),
    )
    eta_schedule: str = setting(
        "learned",
        "learned: by the meta-gradient. The others condition on η as ever but learn none of it: "
        "fixed (at --gamma, --lambda), random (drawn for every unroll), mixture (one of "
        "--eta_mixture for every unroll): the control for multi-task learning.",
        source="a question of the paper's reviewer",
        choices=("learned", "fixed", "random", "mixture"),
        on_resume=NEVER,
    )
    eta_mixture: str = setting(
        "0.98,0.9;0.99,0.95;0.995,1",
        "The set of --eta_schedule=mixture: γ,λ;γ,λ;…",
        source=OURS,
    )
    eta_random_gamma: str = setting(
        "0.9,0.999",
        "Ends of the draws of γ of --eta_schedule=random, inside (0, 1); the logits are uniform.",
        source=OURS,
    )
    eta_random_lambda: str = setting("0.9,0.999", "The same for λ.", source=OURS)
    meta_batch_size: int = setting(
        8,
        "B', trajectories of the next batch that judge an update; at most --batch_size.",
        unit="unrolls",
        source=XU + " (from memory)",
        low=0,
    )
    meta_data: str = setting(
        "next_batch",
        "Which data τ' judge an update. next_batch: B' trajectories of the batch that is learned "
        "from next; held_out: B' trajectories of the same batch, which are not learned from; swap: "
        "two batches take turns, each is learned from and then judges the update on the other.",
        source=XU + " (next_batch: arXiv v1; swap: its appendix)",
        choices=("next_batch", "held_out", "swap"),
    )
    meta_optimizer: str = setting(
        "adam",
        "Optimiser of the logits of η.",
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
    )
    meta_max_gradient_norm: float = setting(
        0.0,
        "Clip of the meta-gradient's norm; 0 for none.",
        source="the paper is silent; later work has 0.1 to 1",
        low=0.0,
    )
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
        "What is embedded: the logits of γ and λ (cut to ±7 and divided by 7) or their values.",
        source="the paper is silent; logits is how its reviewer reads it",
        choices=("logits", "values"),
        on_resume=NEVER,
    )
    meta_network_eta: str = setting(
        "reference",
        "Which η the network is fed when J' is evaluated: the reference η', or the current η.",
        source="the paper is silent; reference is how its reviewer reads it",
        choices=("reference", "current"),
    )
    meta_gradient_paths: str = setting(
        "returns",
        "Along which paths η acts on the inner update. returns: γ and λ in the targets; embedding: "
        "also through e_η to policy, value and entropy, and to the V of the targets; "
        "importance_weights: also to ρ and c.",
        source=XU + ", equation (13), has returns",
        choices=("returns", "embedding", "importance_weights"),
    )
    meta_gradient_mode: str = setting(
        "auto",
        "How the meta-gradient is computed: nested_tapes and reverse_over_forward give the same "
        "number; a trace needs accumulative_trace. auto takes that with a trace, "
        "reverse_over_forward with several learners or micro-batches, else nested_tapes.",
        source=OURS,
        choices=("auto", "nested_tapes", "reverse_over_forward", "accumulative_trace"),
    )
    trace_decay: float = setting(
        0.0,
        "μ of the accumulative trace z' = μ z + ∂f/∂η (4); 0 for the exact gradient of one update.",
        source=XU,
        low=0.0,
        high=1.0,
        on_resume=NEVER,
    )
    trace_curvature: bool = setting(
        False,
        "z' = μ (I + ∂f/∂θ) z + ∂f/∂η instead, ∂f/∂θ of the whole update. Needs --trace_decay.",
        source=XU,
    )
    differentiate_second_moment: bool = setting(
        True,
        "Whether the meta-gradient goes through the inner optimiser's second moment.",
        source="the paper is silent",
    )
    differentiate_clip: bool = setting(
        True,
        "Whether the meta-gradient goes through the coefficient of the gradient clip.",
        source="the paper is silent",
    )

    # The meta objective.
    meta_policy_cost: float = setting(
        1.0, "Weight of the policy gradient in J'.", source=XU, low=0.0
    )
    meta_baseline_cost: float = setting(
        0.0, "Weight of the value loss ½(vs'−V')² in J'.", source=XU, low=0.0
    )
    meta_entropy_cost: float = setting(
        0.0, "Weight of the entropy in J'.", unit="per nat", source=XU, low=0.0
    )
    meta_kl_cost: float = setting(
        0.0,
        "Weight of KL(π_θ', π_θ) in J'.",
        unit="per nat",
        source=XU + " has none; STACX, arXiv 2002.12928",
        low=0.0,
    )
    meta_value_head: str = setting(
        "shared",
        "Whose values judge in J'. shared: those of the critic that η trains; reference: of a "
        "second value head, trained at η'.",
        source=XU + "; " + BONNET,
        choices=("shared", "reference"),
        on_resume=NEVER,
    )
    meta_advantage_normalization: str = setting(
        "none",
        "Whether the advantages of J' are normalised by their moving mean and deviation.",
        source=XU + "; later work has ema",
        choices=("none", "ema"),
        on_resume=NEVER,
    )
    meta_advantage_decay: float = setting(
        0.99,
        "Decay per update of these moving moments.",
        source=OURS,
        low=0.0,
        high=1.0,
        high_open=True,
    )

    # The inner objective and its optimiser.
    unroll_length: int = setting(
        20, "T, length of a trajectory.", unit="agent steps", source=IMPALA, low=1, high=10_000
    )
    batch_size: int = setting(
        32, "B, trajectories per update.", unit="unrolls", source=IMPALA, low=1, high=65_536
    )
    inner_optimizer: str = setting(
        "rmsprop",
        "Optimiser of the agent's parameters.",
        source=IMPALA,
        choices=("rmsprop", "sgd", "adam"),
        on_resume=NEVER,
    )
    learning_rate: float = setting(
        6e-4, "Its step size at the start.", source=IMPALA, low=0.0, low_open=True
    )
    learning_rate_schedule: str = setting(
        "linear",
        "linear: to 0 at --total_frames; constant.",
        source=IMPALA,
        choices=("linear", "constant"),
    )
    rmsprop_decay: float = setting(
        0.99,
        "Decay of RMSProp's mean square, which starts at one.",
        source=IMPALA + " (released code)",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    rmsprop_epsilon: float = setting(
        0.01,
        "ε of RMSProp, inside the root.",
        source=IMPALA + ", Atari table; its released code has 0.1",
        low=0.0,
        low_open=True,
    )
    adam_beta1: float = setting(
        0.9,
        "Decay of Adam's first moment, if it is the inner optimiser.",
        source="Kingma and Ba 2015",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    adam_beta2: float = setting(
        0.999,
        "Decay of its second moment.",
        source="Kingma and Ba 2015",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    adam_epsilon: float = setting(
        1e-8, "Its ε, outside the root.", source="Kingma and Ba 2015", low=0.0, low_open=True
    )
    max_gradient_norm: float = setting(
        40.0, "Clip of the gradient's global norm; 0 for none.", source=IMPALA, low=0.0
    )
    baseline_cost: float = setting(
        0.5, "b, weight of the value loss ½(vs−V)².", source=IMPALA, low=0.0
    )
    entropy_cost: float = setting(
        0.01, "c, weight of the entropy.", unit="per nat", source=IMPALA, low=0.0
    )
    reward_clip: float = setting(
        1.0, "Rewards are cut to ± this for the learner; 0 for no clip.", source=IMPALA, low=0.0
    )
    rho_clip: float = setting(
        1.0, "ρ̄, clip of V-trace's temporal difference.", source=IMPALA, low=0.0, low_open=True
    )
    c_clip: float = setting(
        1.0, "c̄, clip of V-trace's trace.", source=IMPALA, low=0.0, low_open=True
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
        source="the paper is silent; IMPALA has next_target, the same at λ = 1",
        choices=("mixed", "next_target"),
    )

    # The network.
    network: str = setting(
        "auto",
        "Torso: shallow (2 convolutions), nature (3), deep (residual), minatar (1 convolution of 16 "
        "3×3 filters), mlp; auto takes shallow for 84×84 images, minatar for several planes with "
        "sides from 5 to 20, and mlp otherwise.",
        source=IMPALA + "; Mnih et al. 2015; minatar: Young and Tian 2019",
        choices=("auto", "shallow", "nature", "deep", "minatar", "mlp"),
        on_resume=NEVER,
    )
    mlp_sizes: str = setting(
        "64,64",
        "Widths of the hidden layers of the mlp torso.",
        unit="units, comma-separated",
        source=OURS,
        on_resume=NEVER,
    )
    core: str = setting(
        "none", "Recurrent core.", source=IMPALA, choices=("none", "lstm"), on_resume=NEVER
    )
    core_size: int = setting(
        256, "Width of the LSTM.", unit="units", source=IMPALA, low=1, high=8192, on_resume=NEVER
    )
    last_action_and_reward: bool = setting(
        False,
        "Whether the network also sees the last action and the last clipped reward.",
        source=IMPALA + " (DMLab agents)",
        on_resume=NEVER,
    )

    # Actors and queue.
    actors: str = setting(
        "threads",
        "Where the actors run: threads of the trainer, or processes on a Ray cluster (pip install "
        "'meta_impala[distributed]').",
        source=OURS,
        choices=("threads", "ray"),
        on_resume=FREELY,
        is_recent=True,
    )
    ray_address: str = setting(
        "",
        "Of --actors=ray. Empty or local: Ray is started on this machine, for this run alone; "
        "auto: the cluster that this machine belongs to; HOST:PORT: the one with this head.",
        source=OURS,
        on_resume=FREELY,
        is_recent=True,
    )
    # None, or auto on the command line, until `resolve` has chosen.
    num_actors: int = setting(
        None,
        "Actors: threads (at most 1024) or Ray processes; auto: one for each processor, of threads "
        "at most 8.",
        auto=True,
        source=OURS,
        low=1,
        high=65_536,
        on_resume=FREELY,
    )
    unrolls_in_flight: int = setting(
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
    envs_per_actor: int = setting(
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
    env_threads: int = setting(
        1, "Emulator threads of one actor (Atari).", source=OURS, low=1, high=256, on_resume=FREELY
    )
    queue_capacity: int = setting(
        2,
        "Blocks of unrolls (one per actor and unroll) that wait for the learner at most.",
        unit="blocks",
        source=OURS,
        low=1,
        high=4096,
        on_resume=FREELY,
    )
    stall_timeout: float = setting(
        300.0,
        "A run in which an actor makes no step for so long is stopped with an error that names it.",
        unit="seconds",
        source=OURS,
        low=1.0,
        on_resume=FREELY,
    )
    max_actor_restarts: int = setting(
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
    max_bad_updates: int = setting(
        10,
        "So many updates in a row that are not finite, and so were not applied, end the run.",
        source=OURS,
        low=1,
        high=1_000_000,
        on_resume=FREELY,
    )
    micro_batches: int = setting(
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
    precision: str = setting(
        "auto",
        "Of the computation within the torso: float32, or bfloat16 (heads, returns, "
        "losses, optimisers and η stay float32). auto: float32, since bfloat16 moves the "
        "meta-gradient too far (see BUILD_NOTES.md).",
        source=OURS,
        choices=("auto", "float32", "bfloat16"),
        is_recent=True,
    )
    learner_device: str = setting(
        "auto",
        "Where the learner computes: auto (a GPU when there is one), cpu, gpu, or a TensorFlow "
        "device such as gpu:1. Actors compute on the CPU.",
        source=OURS,
        on_resume=FREELY,
    )
    learner_addresses: str = setting(
        "",
        "Several learners share every update: where each of them listens for the others, first "
        "the one that keeps the run folder. Each has --num_actors actors of its own, and learns "
        "from its share of --batch_size and --meta_batch_size. Empty for one learner.",
        unit="host:port, comma-separated",
        source=OURS,
        on_resume=FREELY,
        is_recent=True,
    )
    learner_index: int = setting(
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
    checkpoint_minutes: float = setting(
        10.0,
        "A checkpoint is saved after so many minutes; 0 for never.",
        unit="minutes",
        source=OURS,
        low=0.0,
        on_resume=FREELY,
    )
    checkpoint_frames: int = setting(
        0,
        "A checkpoint is saved after so many frames; 0 for never. With --deterministic the "
        "environments start anew there.",
        unit="environment frames",
        source=OURS,
        low=0,
        high=MAX_FRAMES,
        on_resume=FREELY,
    )
    keep_checkpoints: int = setting(
        3, "How many checkpoints are kept.", source=OURS, low=1, high=10_000, on_resume=FREELY
    )
    log_frames: int = setting(
        50_000,
        "A row of metrics is written after so many frames.",
        unit="environment frames",
        source=OURS,
        low=1,
        high=MAX_FRAMES,
        on_resume=FREELY,
    )
    wandb_project: str = setting(
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
