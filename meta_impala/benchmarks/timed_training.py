"""Trains a preset in a process of its own until a score is reached: `time_to_score`'s runs."""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from meta_impala.benchmarks import time_to_score
from meta_impala.benchmarks.time_to_score import TASKS, VARIANTS, Result
from meta_impala.errors import RunFailed, UserError, one_line
from meta_impala.storage.files import open_log, write_atomically, writing
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.results_folder import refuse_links
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.processes import end_with_parent

PROGRAM = "meta_impala"
_POLL_SECONDS = 0.5
_SECONDS_TO_STOP = 120.0
_MAX_RECORD_BYTES = 2**20


class Limits(NamedTuple):
    """When a run that has not reached its last level ends."""

    cpu_minutes: float
    frames: int | None = None


def name_of(task: str, variant: str, seed: int) -> str:
    """The name of a run's folder."""
    return f"{task}-{variant}-{seed}"


def command_of(
    task: str, variant: str, seed: int, logdir: pathlib.Path, flags: Sequence[str]
) -> list[str]:
    """The command that trains a run of a task; `flags` come last.

    Schedules end at the task's frames: a limit ends a run and does not change how it trains.
    """
    what = TASKS[task]
    return [
        sys.executable,
        "-m",
        "meta_impala",
        "train",
        f"--preset={what.preset}",
        f"--environment={what.environment}",
        f"--log_frames={what.log_frames}",
        f"--total_frames={what.total_frames}",
        *VARIANTS[variant],
        f"--seed={seed}",
        *flags,
        f"--logdir={logdir}",
    ]


def refuse_other_flags(
    task: str, variant: str, seed: int, folder: pathlib.Path, flags: Sequence[str]
) -> None:
    """Refuses the run of a folder that was started with other flags than these.

    They are in a record beside the run's folder. A run without one is of a version that made none,
    and counts as started without flags. Arguments as `train`.

    Raises:
      UserError: naming both; or the record is damaged, or a link is in the folder's place.
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
      UserError: its folder has a run with other flags.
      RunFailed: the run failed, its log is beside its folder; or a file cannot be written.
    """
    refuse_other_flags(task, variant, seed, folder, flags)
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
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
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
