"""Population based training (Jaderberg et al. 2017) with Ray Tune: many plain runs, side by side.

Every member is an ordinary run folder, trained by the ordinary command. After each interval the
worst quarter take the checkpoint and the settings of one of the best, and these settings are
changed a little: `--learning_rate`, `--entropy_cost`, `--gamma` and `--lambda`. What is searched
of γ and λ is 1 − γ and 1 − λ. No TensorFlow here: members are processes of their own.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from meta_impala.errors import RunFailed
from meta_impala.experiments.pbt_settings import ADAPTED, Population, recorded_arguments
from meta_impala.experiments.suite_runner import last_line
from meta_impala.storage import made_here
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.files import (
    append_line,
    flush,
    flush_folder,
    make_folder,
    move_folder,
    open_log,
    read_bounded,
    write_atomically,
)
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust
from meta_impala.system.processes import end_with_parent

_METRIC = "episode_return"
_NO_GAME_YET = -1e30
_FACTORS = (1.2, 0.8)  # as in the paper on population based training
_RESAMPLE = 0.25
_QUANTILE = 0.25
_HISTORY = "history.jsonl"
_MAX_HISTORY_BYTES = 2**24
# A member's checkpoints while they are replaced: what comes, and what goes.
_TAKEN, _LEFT = "checkpoints.taken", "checkpoints.left"


def settings_of(searched: Mapping[str, float]) -> dict[str, float]:
    """Flags from what is searched: `one_minus_gamma` is 1 − γ."""
    settings = {}
    for name in ADAPTED:
        complement = f"one_minus_{name}"
        settings[name] = 1.0 - searched[complement] if complement in searched else searched[name]
    return settings


def _searched_ranges(population: Population) -> dict[str, tuple[float, float]]:
    ranges = {}
    for name, (low, high) in population.ranges.items():
        if name in ("gamma", "lambda"):
            ranges[f"one_minus_{name}"] = (1.0 - high, 1.0 - low)
        else:
            ranges[name] = (low, high)
    return ranges


def _draws(low: float, high: float, generator: random.Random) -> Callable[[], float]:
    """Log-uniform."""
    return lambda: math.exp(generator.uniform(math.log(low), math.log(high)))


class Member(tune.Trainable):
    """One of a population; a step trains it for an interval."""

    def setup(self, config: dict[str, Any]) -> None:
        self._number = int(self.trial_id.rsplit("_", 1)[-1])
        self._folder = RunFolder(pathlib.Path(config["folder"]) / f"member_{self._number:02}")
        make_folder(self._folder.path, parents=True)
        _finish_replacing(self._folder)

    def step(self) -> dict[str, Any]:
        config = self.config
        frames = min((self.iteration + 1) * config["interval"], config["frames"])
        flags = {"total_frames": frames, "seed": config["seed"] + self._number}
        flags |= settings_of(config)
        given = recorded_arguments(self._folder.path.parent)
        common = config["arguments"] if given is None else given  # of an older version
        arguments = [f"--{name}={value!r}" for name, value in flags.items()]
        log = self._folder.path / "train.log"
        with open_log(log) as file:
            code = subprocess.run(
                [sys.executable, "-m", "meta_impala.train", *common, *arguments,
                 f"--logdir={self._folder.path}", "--override"],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False,
                preexec_fn=end_with_parent,
            ).returncode  # fmt: skip
        if code or self._folder.read_status().get("state") != run_folder_lib.FINISHED:
            raise RuntimeError(f"{self._folder.path}: {last_line(log) or code}")
        trained = self._folder.read_status()["frames"]
        row = {"frames": trained, _METRIC: _last_return(self._folder), **settings_of(config)}
        append_line(self._folder.path / _HISTORY, json.dumps(row))
        return row | {"folder": str(self._folder.path), "done": frames >= config["frames"]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        name = self._folder.read_status()["checkpoint"]
        shutil.copytree(self._folder.checkpoints / name, pathlib.Path(checkpoint_dir) / name)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Takes a checkpoint in the place of its own: another member's, or an earlier one."""
        taken = self._folder.path / _TAKEN
        shutil.rmtree(taken, ignore_errors=True)
        aside = self._folder.path / f".{_TAKEN}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        (source,) = pathlib.Path(checkpoint).glob("frames-*")
        shutil.copytree(source, aside / source.name)
        _flush_below(aside)
        move_folder(aside, taken)  # whole from here on
        _finish_replacing(self._folder)


def _flush_below(folder: pathlib.Path) -> None:
    """Makes a copied folder outlive a power cut."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            flush_folder(path)
        else:
            flush(path)
    flush_folder(folder)


def _finish_replacing(folder: RunFolder) -> None:
    """Puts copied checkpoints in place; if killed half-way, the next start continues."""
    taken, left = folder.path / _TAKEN, folder.path / _LEFT
    if taken.is_dir():
        if folder.checkpoints.is_dir():
            shutil.rmtree(left, ignore_errors=True)
            move_folder(folder.checkpoints, left)
        move_folder(taken, folder.checkpoints)
        # What the run is at is what its checkpoint is at.
        frames = max(int(p.name.partition("-")[2]) for p in folder.checkpoints.glob("frames-*"))
        folder.write_status(run_folder_lib.STOPPED, frames, checkpoint=f"frames-{frames}")
    shutil.rmtree(left, ignore_errors=True)


def _last_return(folder: RunFolder) -> float:
    rows = read_metrics(folder.metrics_path)
    text = rows[-1].get(_METRIC, "") if rows else ""
    return float(text) if text else _NO_GAME_YET


def _history(member: pathlib.Path) -> list[dict[str, Any]]:
    """A row for every interval of a member; of one that was trained twice the second."""
    rows = {}
    text = read_bounded(member / _HISTORY, _MAX_HISTORY_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # torn by a kill
            row = json.loads(line)
            rows[row["frames"]] = {"member": member.name, **row}
    return list(rows.values())


class Outcome(NamedTuple):
    """What became of a population.

    Attributes:
      best: folder of the member with the highest return at the end.
      frames: of all members together.
      history: a row for every member and interval.
    """

    best: pathlib.Path
    frames: int
    history: list[dict[str, Any]]


def train(
    population: Population, arguments: Sequence[str], seed: int, folder: pathlib.Path
) -> Outcome:
    """Trains a population, or continues that of the folder; Ray is connected.

    Args:
      population: what it is of.
      arguments: of `meta_impala.train`, without what the population decides.
      seed: of the first member; the others have those after it.
      folder: gets the members and Tune's own files.

    Raises:
      RunFailed: if a member failed, or the user stopped it.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    ranges = _searched_ranges(population)
    generator = random.Random(seed)
    random.seed(seed)  # Tune draws its changes from it
    space = {name: _draws(low, high, generator) for name, (low, high) in ranges.items()}

    def inside(config: dict[str, Any]) -> dict[str, Any]:
        bounded = {n: min(max(config[n], low), high) for n, (low, high) in ranges.items()}
        return config | bounded

    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations=space,
        custom_explore_fn=inside,
        perturbation_factors=_FACTORS,
        resample_probability=_RESAMPLE,
        quantile_fraction=_QUANTILE,
        synch=True,  # at equal frames
    )
    # A process for each interval costs seconds; an interval takes minutes.
    warnings.filterwarnings("ignore", message="Consider boosting PBT")
    trainable = tune.with_resources(Member, {"cpu": population.cpus})
    state = folder / "tune" / "population"
    if not os.path.lexists(folder / "tune"):
        made_here.mark(folder)
    if tune.Tuner.can_restore(str(state)):
        tuner = tune.Tuner.restore(str(state), trainable=trainable, resume_errored=True)
    else:
        fixed = {
            "folder": str(folder),
            "arguments": list(arguments),
            "interval": population.interval,
            "frames": population.frames_of_each,
            "seed": seed,
        }
        searched = {name: tune.sample_from(lambda _, draw=draw: draw())
                    for name, draw in space.items()}  # fmt: skip
        tuner = tune.Tuner(
            trainable,
            param_space=fixed | searched,
            tune_config=tune.TuneConfig(
                metric=_METRIC, mode="max", scheduler=scheduler, num_samples=population.size
            ),
            run_config=tune.RunConfig(
                name="population", storage_path=str(folder / "tune"), verbose=0
            ),
        )
    results = tuner.fit()
    if results.errors:
        raise RunFailed(f"a member failed: {str(results.errors[0]).strip().splitlines()[-1]}")
    ends = [result.metrics or {} for result in results]
    if not all(end.get("done") for end in ends):
        raise RunFailed("the population was stopped; the same command continues it")
    best = max(ends, key=lambda end: end[_METRIC])
    history = [row for end in ends for row in _history(pathlib.Path(end["folder"]))]
    frames = sum(int(end["frames"]) for end in ends)
    return Outcome(pathlib.Path(best["folder"]), frames, history)


def publish(outcome: Outcome, population: Population, seed: int, run: RunFolder) -> None:
    """Makes the run folder that of the best member, and records the population.

    Args:
      outcome: of `train`.
      population: what it is of.
      seed: of the population; the best member's own is another, unless it is the first.
      run: where the result goes.
    """
    best = RunFolder(outcome.best)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.copytree(best.checkpoints, run.checkpoints)
    shutil.copytree(best.tensorboard, run.tensorboard, dirs_exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(best.metrics_path, run.metrics_path)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(outcome.history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(outcome.history, key=lambda row: (row["frames"], row["member"])))
    write_atomically(run.path / "population.csv", table.getvalue())
    trained = best.read_status()
    about = {
        "size": population.size,
        "seed": seed,
        "interval": population.interval,
        "ranges": population.ranges,
        "best": outcome.best.name,
        "frames": outcome.frames,
        "frames_of_best": trained["frames"],
    }
    write_atomically(run.population_path, json.dumps(about, indent=2) + "\n")
    # It is copied, and nothing is imported.
    run.save_config(best.load_config(Trust(everything=True)))
    run.write_status(
        run_folder_lib.FINISHED,
        outcome.frames,
        checkpoint=trained["checkpoint"],
        frames_of_best=trained["frames"],
    )
