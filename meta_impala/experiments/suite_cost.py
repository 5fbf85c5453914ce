"""The rest of a suite and its cost: core-hours, days, disk.

The costs per agent step were measured with `tools/benchmark.py --rows=program_plain,program_meta`
(machine, date and commands: experiments/README.md). They are CPU time, which depends less on other
work on the machine than wall time does. Another machine may take half or twice as much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meta_impala.config import Config
from meta_impala.environments import registry
from meta_impala.experiments.stages import Stage, frames_of, stage_of
from meta_impala.experiments.suite import Run
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.system.processors import processors


class Price(NamedTuple):
    """CPU milliseconds per agent step of training.

    Attributes:
      plain, meta: without and with a meta-gradient.
      measured_at: the B'/B of the measurement with one.
    """

    plain: float
    meta: float
    measured_at: float


# (kind of environment, network) -> price. An LSTM core costs as much as `_CORE` more.
PRICES: Mapping[tuple[str, str], Price] = {
    ("catch", "mlp"): Price(0.09, 0.13, 8 / 8),
    ("features", "mlp"): Price(0.05, 0.06, 8 / 16),
    ("minatar", "mlp"): Price(0.07, 0.08, 8 / 32),
    ("minatar", "minatar"): Price(0.09, 0.12, 8 / 16),
    ("atari", "shallow"): Price(0.6, 0.9, 8 / 32),
    ("atari", "nature"): Price(1.0, 1.4, 8 / 32),
    ("atari", "deep"): Price(5.6, 9.9, 8 / 32),
}
_CORE = 1.05
# A meta-gradient costs a part that does not depend on B'/B and one that grows with it: 2.5 times as
# much at 1 as at 1/4 (shallow network).
_META_UPDATE, _META_BATCH = 0.5, 2.0
# Playing a game costs about this share of the plain price per agent step, whatever was learned.
_PLAYING = 0.5
# Agent steps of a game: what trained agents take, or the length that the environment has.
_STEPS_PER_GAME = {"atari": 2500, "minatar": 300, "features": 200, "catch": 9}
# CPU seconds of the start of a training and an evaluation, tracing included: by a process each, or
# by a fork of one that has TensorFlow loaded.
START_SECONDS = {False: 10.0, True: 4.0}
# MB of a checkpoint: weights, optimiser state, statistics.
CHECKPOINT_MB = {"mlp": 0.1, "minatar": 1.1, "shallow": 5.3, "nature": 13.6, "deep": 8.6}
_ROW_KB = 2.0  # of metrics.csv and TensorBoard


@dataclasses.dataclass(frozen=True)
class Cost:
    """What is left to do.

    Attributes:
      runs: stage -> how many runs.
      frames, frames_left: environment frames of training, in all and to do.
      games_left: games of evaluation to play.
      frames_per_second: of one run, if it was measured or given; else None.
      is_measured: whether it is the speed of runs of this suite.
      core_hours: CPU time of training and evaluation.
      hours: wall time, with `parallel` runs at a time on this machine.
      disk_gb: of the run folders, in all.
    """

    runs: Mapping[str, int]
    frames: int
    frames_left: int
    games_left: int
    frames_per_second: float | None
    is_measured: bool
    core_hours: float
    hours: float
    disk_gb: float


def kind_of(environment: str) -> str:
    """The kind of an environment, as in `PRICES`."""
    if registry.resolve(environment).game is not None:
        return "atari"
    name = environment.lower()
    return next((kind for kind in ("catch", "minatar") if kind in name), "features")


def network_of(config: Config) -> str:
    """The torso of a run; for `auto` the one that `validation.resolve_network` will choose."""
    if config.network != "auto":
        return config.network
    return {"atari": "shallow", "minatar": "minatar"}.get(kind_of(config.environment), "mlp")


def price_of(config: Config) -> float:
    """CPU milliseconds per agent step of training.

    With `sample_reuse` or a bootstrapped target the actors' part is counted several times too, so
    that these are upper estimates.
    """
    price = _price(config)
    step = price.plain
    if config.learned:
        of_batch = config.meta_batch_size / config.batch_size
        step += (price.meta - price.plain) * _share(of_batch) / _share(price.measured_at)
        if config.meta_objective == "bootstrapped":  # L updates more to make the target
            step += price.plain * config.bootstrap_steps / config.inner_steps
    return step * config.sample_reuse


def _share(of_batch: float) -> float:
    """What a meta-gradient costs at a B'/B, up to a factor."""
    return _META_UPDATE + _META_BATCH * of_batch


def _price(config: Config) -> Price:
    """The price of an environment, a network and its core."""
    kind, network = kind_of(config.environment), network_of(config)
    of_network = [price for (_, name), price in PRICES.items() if name == network]
    price = PRICES.get((kind, network)) or (of_network or [PRICES["atari", "shallow"]])[-1]
    factor = 1.0 if config.core == "none" else _CORE
    return price._replace(plain=factor * price.plain, meta=factor * price.meta)


def measured_speed(runs: Sequence[Run]) -> float | None:
    """Median frames per second of the rows that the runs have written; None without any."""
    speeds = sorted(
        float(row["frames_per_second"])
        for run in runs
        for row in read_metrics(run.folder.metrics_path)
        if row.get("frames_per_second")
    )
    return speeds[len(speeds) // 2] if speeds else None


def _disk_mb(run: Run) -> float:
    config = run.config
    checkpoint = CHECKPOINT_MB.get(network_of(config), CHECKPOINT_MB["nature"])
    rows = config.total_frames / config.log_frames
    # The folder of a population is that of its best member, with those of all members in it.
    folders = 1 + int(run.variant.population.get("size", 0))
    return folders * config.keep_checkpoints * checkpoint + rows * _ROW_KB / 1e3


def _core_seconds(
    run: Run, stage: Stage, evaluation: Mapping[str, int], is_preloaded: bool
) -> tuple[float, float]:
    """CPU seconds of training and of evaluation that are left."""
    if stage is Stage.DONE:
        return 0.0, 0.0
    spec = registry.resolve(run.config.environment)
    frames = max(0, run.config.total_frames - frames_of(run))
    start = START_SECONDS[is_preloaded] / 2
    training = frames / spec.action_repeat * price_of(run.config) / 1e3 + start if frames else 0.0
    games = evaluation["episodes"]
    if run.config.evaluation_frames:
        games += frames // run.config.evaluation_frames * run.config.evaluation_episodes
    steps = games * _STEPS_PER_GAME[kind_of(run.config.environment)]
    playing = steps * _PLAYING * _price(run.config).plain / 1e3
    # Games that are played while it trains need no process of their own.
    return training, playing + (start if evaluation["episodes"] else 0.0)


def cost(
    runs: Sequence[Run],
    evaluation: Mapping[str, int],
    parallel: int,
    frames_per_second: float | None = None,
    *,
    is_preloaded: bool = True,
    cores: int | None = None,
) -> Cost:
    """The remaining work and its cost.

    Args:
      runs: of the suite.
      evaluation: of the suite.
      parallel: how many at a time.
      frames_per_second: of one run; None for what was measured, or follows from `PRICES`.
      is_preloaded: whether runs are forks of a process that has TensorFlow loaded.
      cores: of this machine; None to ask it.
    """
    stages = [stage_of(run, evaluation) for run in runs]
    left = sum(max(0, run.config.total_frames - frames_of(run)) for run in runs)
    seconds = [
        _core_seconds(run, stage, evaluation, is_preloaded)
        for run, stage in zip(runs, stages, strict=True)
    ]
    training, playing = (sum(of_one) for of_one in zip(*seconds, strict=True))
    measured = measured_speed(runs) if frames_per_second is None else None
    speed = frames_per_second or measured
    at_once = max(1, min(parallel, sum(stage is not Stage.DONE for stage in stages)))
    # A run has as many actor threads as --num_actors, and its learner.
    threads = max((run.config.num_actors or 1) + 1 for run in runs)
    busy = min(cores or processors(), at_once * threads)
    by_clock = left / speed / at_once if speed else training / busy
    return Cost(
        runs={stage.value: stages.count(stage) for stage in Stage},
        frames=sum(run.config.total_frames for run in runs),
        frames_left=left,
        games_left=evaluation["episodes"] * sum(stage is not Stage.DONE for stage in stages),
        frames_per_second=speed,
        is_measured=measured is not None,
        core_hours=(training + playing) / 3600,
        hours=(by_clock + playing / busy) / 3600,
        disk_gb=sum(map(_disk_mb, runs)) / 1e3,
    )
