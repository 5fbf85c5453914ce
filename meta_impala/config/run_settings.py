"""Settings of the run itself: what is trained, for how long, from which seed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from meta_impala.config.fields import FREELY, IMPALA, MAX_FRAMES, MAX_SEED, NEVER, setting


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Environment, length and seed of a run."""

    environment: str = setting(
        "Pong",
        "Atari game (Pong or ALE/Pong-v5), Catch, MinAtar/Breakout, or any Gymnasium id with "
        "discrete actions and observations of numbers (my_module:MyEnv-v0 imports my_module).",
        on_resume=NEVER,
        also_called=("env", "env_id", "env_name", "game", "task"),
    )
    environment_kwargs: str = setting(
        "",
        "Arguments of a Gymnasium environment's constructor, a JSON object, for example "
        '{"size": 5}; empty for none.',
        value_if_missing="",
        on_resume=NEVER,
        also_called=("env_kwargs", "env_args", "env_config", "environment_args"),
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
        "Length of training; a learning rate that falls reaches 0 here.",
        unit="environment frames (agent steps × action repeat)",
        source=IMPALA,
        low=1,
        high=MAX_FRAMES,
        on_resume=FREELY,
        is_frames=True,
        also_called=(
            "frames",
            "steps",
            "total_timesteps",
            "total_steps",
            "num_frames",
            "max_frames",
        ),
    )
    seed: int = setting(
        1, "Seed of every random number generator of the run.", low=0, high=MAX_SEED
    )
    deterministic: bool = setting(
        False,
        "Bit-identical weights and metrics for the same seed: actors and learner take turns in one "
        "fixed schedule (slower).",
    )

    @property
    def environment_arguments(self) -> dict[str, Any]:
        """`environment_kwargs` as a dictionary. Raises ValueError if it is not a JSON object."""
        if not self.environment_kwargs:
            return {}
        arguments = json.loads(self.environment_kwargs, parse_constant=_refuse_constant)
        if not isinstance(arguments, dict):
            raise ValueError("no object")
        return arguments


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
