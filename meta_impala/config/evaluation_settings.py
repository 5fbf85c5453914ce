"""Settings of the evaluation while training."""

from __future__ import annotations

import dataclasses

from meta_impala.config.fields import FREELY, MAX_FRAMES, OURS, setting


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """When full games are played while a run trains, how many, and at which η."""

    evaluation_frames: int = setting(
        0,
        "Frames between two evaluations while training: full games with the newest weights, by "
        "the rules of meta_impala.evaluate, written to evaluations.csv; 0 for none. They are "
        "played beside the training, in a thread of low priority; with --deterministic between two "
        "updates. They slow down the training but do not change it.",
        value_if_missing=0,
        unit="environment frames",
        source=OURS,
        low=0,
        high=MAX_FRAMES,
        on_resume=FREELY,
        is_frames=True,
    )
    evaluation_episodes: int = setting(
        20,
        "Games of one evaluation while training.",
        value_if_missing=20,
        unit="games",
        source=OURS,
        low=1,
        high=100_000,
        on_resume=FREELY,
    )
    evaluation_eta: str = setting(
        "",
        "GAMMA,LAMBDA that the network is fed in these games. Empty: the current γ and λ "
        "where they are learned, else --gamma and --lambda (also for a mixture or random draws).",
        value_if_missing="",
        source=OURS,
        on_resume=FREELY,
    )
    keep_best_checkpoint: bool = setting(
        False,
        "Keep the checkpoint with the highest mean return of these games in checkpoints_best.",
        value_if_missing=False,
        source=OURS,
        on_resume=FREELY,
    )

    @property
    def evaluation_eta_values(self) -> tuple[float, float] | None:
        """`evaluation_eta` as numbers; None for the η of the weights."""
        if not self.evaluation_eta:
            return None
        gamma, lambda_ = self.evaluation_eta.split(",")
        return float(gamma), float(lambda_)
