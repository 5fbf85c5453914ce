"""Settings of what a run records: checkpoints and metrics."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import FREELY, MAX_FRAMES, OURS, setting


@dataclasses.dataclass(frozen=True)
class RecordSettings:
    """When checkpoints and rows of metrics are written, and to which other records."""

    checkpoint_minutes: float = setting(
        10.0,
        "Time between two checkpoints; 0 for no checkpoints by time.",
        unit="minutes",
        source=OURS,
        low=0.0,
        on_resume=FREELY,
    )
    checkpoint_frames: int = setting(
        0,
        "Frames between two checkpoints; 0 for no checkpoints by frames. With --deterministic the "
        "environments are reset at each of them.",
        unit="environment frames",
        source=OURS,
        low=0,
        high=MAX_FRAMES,
        on_resume=FREELY,
        is_frames=True,
    )
    keep_checkpoints: int = setting(
        3, "Number of checkpoints kept.", source=OURS, low=1, high=10_000, on_resume=FREELY
    )
    log_frames: int = setting(
        50_000,
        "Frames between two rows of metrics.",
        unit="environment frames",
        source=OURS,
        low=1,
        high=MAX_FRAMES,
        on_resume=FREELY,
        is_frames=True,
    )
    wandb_project: str = setting(
        "",
        "Project at Weights & Biases to which metrics are also sent (pip install "
        "'meta_impala[wandb]'); empty for none. A continued run does not take it from its folder: "
        "give it again.",
        value_if_missing="",
        source=OURS,
        on_resume=FREELY,
        from_command_line_only=True,
    )
