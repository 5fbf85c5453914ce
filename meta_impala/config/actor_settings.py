"""Settings of the actors and of the queue between them and the learner."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import FREELY, OURS, setting


@dataclasses.dataclass(frozen=True)
class ActorSettings:
    """Where the actors run, how many there are, and when a run gives them up."""

    actors: str = setting(
        "threads",
        "Where the actors run: threads of the trainer, or processes on a Ray cluster (pip install "
        "'meta_impala[distributed]').",
        value_if_missing="threads",
        source=OURS,
        choices=("threads", "ray"),
        on_resume=FREELY,
    )
    ray_address: str = setting(
        "",
        "Address of the Ray cluster of --actors=ray. Empty or local: Ray is started on this "
        "machine, for this run only; auto: the cluster that this machine belongs to; HOST:PORT: "
        "the cluster with this head. A continued run does not read it from its folder: give it "
        "again.",
        value_if_missing="",
        source=OURS,
        on_resume=FREELY,
        from_command_line_only=True,
    )
    # None, or auto on the command line, until `resolve` has chosen.
    num_actors: int = setting(
        None,
        "Actors: threads (at most 1024) or Ray processes. auto: one for each processor, at most 8 "
        "threads.",
        auto=True,
        source=OURS,
        low=1,
        high=65_536,
        on_resume=FREELY,
        also_called=("num_workers", "workers", "n_actors"),
    )
    unrolls_in_flight: int = setting(
        2,
        "Unrolls that are requested from a Ray actor before they are needed. With 1 the actor is "
        "idle while its unroll is transferred; more increase the policy lag.",
        value_if_missing=2,
        unit="unrolls",
        source=OURS,
        low=1,
        high=64,
        on_resume=FREELY,
    )
    envs_per_actor: int = setting(
        None,
        "Environments of one actor; they are stepped, and evaluated by the network, as one batch. "
        "Must divide --batch_size or be a multiple of it. auto: the valid number that is nearest "
        "to the target of about 32 per actor (larger batches make a convolutional network no "
        "cheaper per step; small networks gain, see --preset=minatar) and, with threads, about "
        "128 in total.",
        auto=True,
        source=OURS,
        low=1,
        high=4096,
        on_resume=FREELY,
        also_called=("num_envs", "n_envs", "envs_per_worker"),
    )
    env_threads: int = setting(
        1, "Emulator threads of one actor (Atari).", source=OURS, low=1, high=256, on_resume=FREELY
    )
    queue_capacity: int = setting(
        2,
        "Maximum number of blocks of unrolls (one per actor and unroll) in the queue.",
        unit="blocks",
        source=OURS,
        low=1,
        high=4096,
        on_resume=FREELY,
    )
    stall_timeout: float = setting(
        300.0,
        "If an actor makes no step for this long, the run ends with an error that names it.",
        unit="seconds",
        source=OURS,
        low=1.0,
        high=1e9,
        on_resume=FREELY,
    )
    max_actor_restarts: int = setting(
        10,
        "How often actors whose environments raise an exception continue with new environments, "
        "per start of the program; after that the run fails. A Ray actor whose process or "
        "node is lost is restarted without limit, unless it is lost more often than this without "
        "delivering an unroll in between.",
        value_if_missing=10,
        source=OURS,
        low=0,
        high=1_000_000,
        on_resume=FREELY,
    )
