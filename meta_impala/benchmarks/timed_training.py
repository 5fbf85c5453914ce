"""Trains a preset in a process of its own until a score is reached: `time_to_score`'s runs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags as absl_flags

from meta_impala import config as config_lib
from meta_impala.benchmarks import time_to_score
from meta_impala.benchmarks.time_to_score import TASKS, VARIANTS, Result
from meta_impala.config import Config, presets
from meta_impala.config.flags import define_config_flags, given_config_flags, parse_flags
from meta_impala.environments import UnknownEnvironmentError, registry
from meta_impala.errors import RunFailed, UserError, one_line
from meta_impala.storage.files import open_log, write_atomically, writing
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.results_folder import refuse_links
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust, module_of
from meta_impala.system.processes import end_with_parent

PROGRAM = "meta_impala"
_POLL_SECONDS = 0.5
_SECONDS_TO_STOP = 120.0
_MAX_RECORD_BYTES = 2**20

# The flags of `meta-impala train` that are no settings of a run: with a value, and true or false.
TEXTS_OF_COMMAND = ("logdir", "stop_signals", "max_runtime", "exit_code_stopped")
SWITCHES_OF_COMMAND = ("override", "trust_modules")


class Limits(NamedTuple):
    """When a run that has not reached its last level ends."""

    cpu_minutes: float
    frames: int | None = None


def name_of(task: str, variant: str, seed: int) -> str:
    """The name of a run's folder."""
    return f"{task}-{variant}-{seed}"


def settings_of(task: str, variant: str, seed: int, flags: Sequence[str]) -> list[str]:
    """The flags of a run of a task; those that are given come last.

    Schedules end at the task's frames: a limit ends a run and does not change how it trains.
    """
    what = TASKS[task]
    return [
        f"--preset={what.preset}",
        f"--environment={what.environment}",
        f"--log_frames={what.log_frames}",
        f"--total_frames={what.total_frames}",
        *VARIANTS[variant],
        f"--seed={seed}",
        *flags,
    ]


def command_of(
    task: str, variant: str, seed: int, logdir: pathlib.Path, flags: Sequence[str]
) -> list[str]:
    """The command that trains a run of a task, with the flags of `settings_of`."""
    settings = settings_of(task, variant, seed, flags)
    return [sys.executable, "-m", "meta_impala", "train", *settings, f"--logdir={logdir}"]


def refuse_other_settings(
    task: str, variant: str, seed: int, folder: pathlib.Path, flags: Sequence[str]
) -> None:
    """Refuses the run of a folder that was started with other flags, or other settings, than these.

    The flags are in a record beside the run's folder. A run without one is of a version that made
    none, and counts as started without flags. The settings are those of its `config.json`; what may
    change freely in a run, such as its length, may differ. Arguments as `train`.

    Raises:
      UserError: naming both; or the record or the config is damaged, or a link is in the folder's
        place.
    """
    logdir = refuse_links(folder / name_of(task, variant, seed), folder)
    run = RunFolder(str(logdir))
    if not (run.has_run() or run.metrics_path.exists()):
        return
    started = _recorded_flags(_record_of(logdir))
    if started != list(flags):
        raise UserError(
            f"--train_flags={shlex.join(flags)}: {logdir} has a run with "
            f"{shlex.join(started) or 'no --train_flags on record'}; must be the same, or give "
            "another --folder"
        )
    if not run.has_run():
        return
    saved = run.load_config(Trust(everything=True))  # nothing is imported: names are compared
    wanted = config_of(settings_of(task, variant, seed, flags))
    if differences := config_lib.differences(saved, wanted):
        raise UserError(
            f"{', '.join(differences)}: {logdir} was trained with other settings than {task} has "
            "now; must be the same, or give another --folder"
        )


def config_of(arguments: Sequence[str]) -> Config:
    """The config of a run that is trained with these flags.

    Args:
      arguments: of `meta-impala train`.

    Raises:
      UserError: naming the flag, its value and what is allowed.
    """
    values = absl_flags.FlagValues()
    define_config_flags(values)
    presets.define_preset_flag(values)
    for name in TEXTS_OF_COMMAND:
        absl_flags.DEFINE_string(name, None, "", flag_values=values)
    for name in SWITCHES_OF_COMMAND:
        absl_flags.DEFINE_bool(name, False, "", flag_values=values)
    parse_flags(["train", *arguments], values)
    given = given_config_flags(values)
    named = {config_lib.FIELDS[name].name: value for name, value in given.items()}
    config = config_lib.resolve(Config(**named), is_stored=True)
    if module_of(config.environment):  # which is imported where the run is trained
        return config
    try:
        environment = registry.resolve(config.environment).id
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={config.environment}: {error}") from None
    return dataclasses.replace(config, environment=environment)


def _record_of(logdir: pathlib.Path) -> pathlib.Path:
    return logdir.with_suffix(".flags.json")


def _recorded_flags(record: pathlib.Path) -> list[str]:
    try:
        flags = read_json_object(record, _MAX_RECORD_BYTES).get("train_flags")
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            raise ValueError("train_flags must be a list of text")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{record}: cannot be read ({one_line(error)})") from None
    return flags


def train(
    task: str,
    variant: str,
    seed: int,
    folder: pathlib.Path,
    flags: Sequence[str],
    limits: Limits,
) -> list[Result]:
    """Trains until the last level is reached or a limit is, and says when each level was.

    A folder whose run has come that far is read, not trained; one that was stopped continues.

    Args:
      task, variant: keys of `TASKS` and `VARIANTS`.
      seed: of the run.
      folder: of all runs; this one's is `name_of` within it.
      flags: settings that differ from the preset's.
      limits: of the run.

    Raises:
      UserError: its folder has a run with other flags or settings.
      RunFailed: the run failed, its log is beside its folder; or a file cannot be written.
    """
    refuse_other_settings(task, variant, seed, folder, flags)
    logdir = folder / name_of(task, variant, seed)
    run = RunFolder(str(logdir))
    table = run.metrics_path
    if not _has_ended(task, table, limits):
        logdir.parent.mkdir(parents=True, exist_ok=True)
        if not run.has_run():
            record = _record_of(logdir)
            with writing(record):
                write_atomically(record, json.dumps({"train_flags": list(flags)}) + "\n")
        command = command_of(task, variant, seed, logdir, flags)
        _train_until(task, command, table, logdir.with_suffix(".log"), limits)
    points = time_to_score.points_of(read_metrics(table))
    return time_to_score.results_of(task, PROGRAM, variant, seed, points)


def _train_until(
    task: str, command: list[str], table: pathlib.Path, log: pathlib.Path, limits: Limits
) -> None:
    with writing(log):
        output = open_log(log)
    with output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # Ctrl-C ends the measurement, which then lets the run save
            preexec_fn=end_with_parent,
        )
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                if _has_ended(task, table, limits):
                    break
        finally:
            _stop(process)
    if process.returncode:
        raise RunFailed(f"{' '.join(command)}: exit code {process.returncode}; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Lets the run save and end; kills it if it does not."""
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _has_ended(task: str, table: pathlib.Path, limits: Limits) -> bool:
    """Whether the last level was reached, or a limit was, whether games have ended or not."""
    rows, what = read_metrics(table), TASKS[task]
    frames, cpu_seconds = time_to_score.progress_of(rows)
    return (
        time_to_score.reached(time_to_score.points_of(rows), what.levels[-1]) is not None
        or cpu_seconds >= 60.0 * limits.cpu_minutes
        or frames >= (limits.frames or what.total_frames)
    )
