"""Settings of the learner: how and where an update is computed."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import FREELY, OURS, setting


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """How the update is divided, in which precision and on which devices it is computed."""

    max_bad_updates: int = setting(
        10,
        "The run fails after this many non-finite updates in a row, or with --inner_steps above 1 "
        "this many non-finite meta steps in a row. What is not finite is not applied.",
        value_if_missing=10,
        source=OURS,
        low=1,
        high=1_000_000,
        on_resume=FREELY,
    )
    micro_batches: int = setting(
        1,
        "Number of micro-batches (gradient accumulation): the update is computed on one part of "
        "the batch after the other, which needs less memory; the result is the same to rounding. "
        "Must divide --batch_size and --meta_batch_size; the meta-gradient is then computed by "
        "reverse_over_forward.",
        value_if_missing=1,
        source=OURS,
        low=1,
        high=65_536,
        on_resume=FREELY,
    )
    precision: str = setting(
        "auto",
        "Precision of the computation in the torso: float32, or bfloat16 (heads, returns, "
        "losses, optimisers and η stay float32). auto: float32, since bfloat16 moves the "
        "meta-gradient too far (see BUILD_NOTES.md).",
        value_if_missing="float32",
        source=OURS,
        choices=("auto", "float32", "bfloat16"),
    )
    learner_device: str = setting(
        "auto",
        "Device of the learner: auto (a GPU if there is one), cpu, gpu, or a TensorFlow "
        "device such as gpu:1. Actors compute on the CPU.",
        source=OURS,
        on_resume=FREELY,
        also_called=("device", "cuda", "gpu"),
    )
    learner_addresses: str = setting(
        "",
        "Addresses of several learners that share every update; the first one keeps the run "
        "folder. Each has --num_actors actors of its own, and trains on its share of --batch_size "
        "and --meta_batch_size. Empty for one learner. The port is unauthenticated: use a trusted "
        "network only. A continued run does not take it from its folder: give it again.",
        value_if_missing="",
        unit="host:port, comma-separated",
        source=OURS,
        on_resume=FREELY,
        from_command_line_only=True,
    )
    learner_index: int = setting(
        0,
        "Which of --learner_addresses this process is. 0 keeps the run folder; the others take "
        "all settings from it.",
        value_if_missing=0,
        source=OURS,
        low=0,
        high=1023,
        on_resume=FREELY,
        from_command_line_only=True,
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """`learner_addresses`, one by one; empty for one learner."""
        return tuple(self.learner_addresses.split(",")) if self.learner_addresses else ()

    @property
    def num_learners(self) -> int:
        """N, the learners that share every update."""
        return max(1, len(self.addresses))
