"""The lines that `train` prints at its start: environment, network, batches, actors, folder."""

from __future__ import annotations

import pathlib

from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.experiments.suite_cost import price_of
from meta_impala.system.processors import processors

# A run that takes longer on this machine gets a hint at a preset.
_LONG_HOURS = 4.0


def lines(
    config: Config,
    description: Description,
    folder: pathlib.Path,
    *,
    num_parameters: int,
    device: str,
    frames: int,
) -> list[str]:
    """The lines, the first of them a sentence.

    Args:
      config: resolved, network included.
      description: of its environment.
      folder: of the run.
      num_parameters: of the network, trainable.
      device: where the learner computes.
      frames: environment frames trained before this start.
    """
    if frames:
        first = f"continuing {folder} from {frames:,} frames"
    else:
        first = f"training on {config.environment} for {config.total_frames:,} frames in {folder}"
    shape = "×".join(map(str, description.observation_shape))
    core = "" if config.core == "none" else f" with {config.core}"
    meta_batch = f", B' = {config.meta_batch_size} for the meta-gradient" if config.learned else ""
    learners = f", {config.num_learners} learners" * (config.num_learners > 1)
    table = {
        "environment": f"{config.environment}: observations {shape}, {description.num_actions} "
        "actions",
        "network": f"{config.network}{core}, {num_parameters:,} parameters, on {device}",
        "batch": f"B = {config.batch_size} unrolls of T = {config.unroll_length} steps"
        f"{meta_batch}{learners}",
        "actors": f"{config.num_actors} {config.actors} × {config.envs_per_actor} environments",
        "learned": _learned(config),
        "output": f"a row of metrics.csv after every {config.log_frames:,} frames, some also here",
    }
    return [first, *(f"  {name + ':':<12} {text}" for name, text in table.items())]


def _learned(config: Config) -> str:
    *others, last = config.meta_parameters.split(",")
    names = f"{', '.join(others)} and {last}" if others else last
    if config.learned:
        return f"{names}, by the meta-gradient"
    if config.varied:
        how = {"replay": "replayed", "mixture": "of a mixture", "linear": "linear in frames"}
        be = "are" if others else "is"
        return f"none: {names} {be} {how.get(config.eta_schedule, config.eta_schedule)}"
    return f"none: gamma {config.gamma:g}, lambda {config.lambda_:g} are fixed"


def short_target(config: Config) -> str:
    """A warning where a bootstrapped target makes its last update on a part of a batch, else "".

    J is a sum over trajectories, and slots, clip and step size are those of whole batches.
    """
    size, whole = config.meta_batch_size, config.batch_size
    if not config.learned or config.meta_objective != "bootstrapped" or size == whole:
        return ""
    return (
        f"--meta_batch_size={size}: the last update of the bootstrapped target sums over {size} of "
        f"{whole} trajectories, so its gradient is smaller than that of a whole update; "
        f"--meta_batch_size={whole} makes it whole"
    )


def hint(config: Config, description: Description, frames: int) -> str:
    """A hint for a run that is long for this machine, else an empty text.

    The estimate is of CPU time and does not hold where the learner has a GPU.

    Args:
      config: resolved, network included.
      description: of its environment.
      frames: trained before this start.
    """
    steps = max(0, config.total_frames - frames) / description.action_repeat
    hours = steps * price_of(config) / 1e3 / 3600 / (processors() * config.num_learners)
    if hours < _LONG_HOURS:
        return ""
    spoken = f"{hours:,.0f} hours" if hours < 48 else f"{hours / 24:,.0f} days"
    # The preset is of Atari; another environment has no background.
    shorter = "a smaller --total_frames" if description.game is None else "--preset=laptop"
    return (
        f"{config.total_frames - frames:,} frames take about {spoken} with the {processors()} "
        f"processors here. For a first result within an hour: {shorter}"
    )
