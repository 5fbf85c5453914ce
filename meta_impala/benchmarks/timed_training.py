"""Trains a preset in a process of its own until a score is reached: `time_to_score`'s runs."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from meta_impala.benchmarks import time_to_score
from meta_impala.benchmarks.time_to_score import TASKS, VARIANTS, Point, Result
from meta_impala.errors import RunFailed
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.processes import end_with_parent

PROGRAM = "meta_impala"
_POLL_SECONDS = 0.5
_SECONDS_TO_STOP = 120.0


class Limits(NamedTuple):
    """When a run that has not reached its last level ends."""

    cpu_minutes: float
    total_frames: int | None = None


def name_of(task: str, variant: str, seed: int) -> str:
    """The name of a run's folder."""
    return f"{task}-{variant}-{seed}"


def command_of(
    task: str, variant: str, seed: int, logdir: pathlib.Path, flags: Sequence[str], limits: Limits
) -> list[str]:
    """The command that trains a run of a task; `flags` come last."""
    what = TASKS[task]
    return [
        sys.executable,
        "-m",
        "meta_impala",
        "train",
        f"--preset={what.preset}",
        f"--environment={what.environment}",
        f"--log_frames={what.log_frames}",
        f"--total_frames={limits.total_frames or what.total_frames}",
        *VARIANTS[variant],
        f"--seed={seed}",
        *flags,
        f"--logdir={logdir}",
    ]


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
      RunFailed: the run failed; its log is beside its folder.
    """
    logdir = folder / name_of(task, variant, seed)
    table = RunFolder(str(logdir)).metrics_path
    if not _has_ended(task, _points(table), limits):
        command = command_of(task, variant, seed, logdir, flags, limits)
        _train_until(task, command, table, logdir.with_suffix(".log"), limits)
    return time_to_score.results_of(task, PROGRAM, variant, seed, _points(table))


def _train_until(
    task: str, command: list[str], table: pathlib.Path, log: pathlib.Path, limits: Limits
) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
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
                if _has_ended(task, _points(table), limits):
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


def _has_ended(task: str, points: Sequence[Point], limits: Limits) -> bool:
    """Whether the last level was reached, or a limit was."""
    if not points:
        return False
    last, what = points[-1], TASKS[task]
    return (
        time_to_score.reached(points, what.levels[-1]) is not None
        or last.cpu_seconds >= 60.0 * limits.cpu_minutes
        or last.frames >= (limits.total_frames or what.total_frames)
    )


def _points(table: pathlib.Path) -> list[Point]:
    return time_to_score.points_of(read_metrics(table))
