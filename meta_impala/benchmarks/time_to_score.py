"""Frames and CPU time until training reaches a score, for runs of this program and of others.

A run has reached a level at the first row in which its training return, the mean of the last 100
games, is at least the level. Resolution is one row of its table, so rows must be close together.
"""

from __future__ import annotations

import csv
import io
import math
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from meta_impala.errors import printable
from meta_impala.storage.files import read_bounded

GAMES_AVERAGED = 100
_MAX_BYTES = 2**26
_NOT_REACHED = "not reached"


class Task(NamedTuple):
    """What is trained, and the returns that are waited for.

    Attributes:
      environment: of the run.
      preset: its settings.
      levels: returns, lowest first.
      log_frames: frames between two rows.
      total_frames: at which a run that reached no level ends.
    """

    environment: str
    preset: str
    levels: tuple[float, ...]
    log_frames: int
    total_frames: int


TASKS: dict[str, Task] = {
    "pong": Task("Pong", "laptop", (0.0, 18.0), 20_000, 30_000_000),
    "breakout": Task("Breakout", "laptop", (30.0, 100.0, 200.0), 20_000, 30_000_000),
    "minatar": Task("MinAtar/Breakout", "minatar", (10.0,), 20_000, 5_000_000),
    "catch": Task("Catch", "catch", (0.9,), 4_000, 400_000),
}

# Settings that a variant adds.
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": ("--meta_parameters=none",),
    "meta": ("--meta_parameters=gamma,lambda",),
}


class Point(NamedTuple):
    """A row of a run's table: frames and CPU seconds so far, games so far, their mean return."""

    frames: int
    cpu_seconds: float
    seconds: float
    episodes: int
    episode_return: float


class Result(NamedTuple):
    """One level of one run; frames and times are NaN if it was not reached.

    Times alone are NaN if the table has none, as tables of version 0.1 have no CPU time.

    Attributes:
      task: a key of `TASKS`.
      program: which one.
      variant: of its settings.
      seed: of the run.
      level: the return.
      frames: environment frames.
      cpu_minutes: of all its processes and threads, imports and start included.
      minutes: by the clock.
      frames_at_end, cpu_minutes_at_end: of the whole run.
    """

    task: str
    program: str
    variant: str
    seed: int
    level: float
    frames: float
    cpu_minutes: float
    minutes: float
    frames_at_end: float
    cpu_minutes_at_end: float


def points_of(rows: Iterable[Mapping[str, str]]) -> list[Point]:
    """The points of a table that has the columns of `Point`.

    Rows without a return, or without the number of its games, are left out. A time that is not
    there is NaN.
    """
    points = []
    for row in rows:
        frames, cpu, seconds, episodes, mean = (_cell(row, name) for name in Point._fields)
        if all(map(math.isfinite, (mean, frames, episodes))):
            points.append(Point(int(frames), cpu, seconds, int(episodes), mean))
    return points


def progress_of(rows: Sequence[Mapping[str, str]]) -> tuple[float, float]:
    """Frames and CPU seconds of the last row, NaN where it has none."""
    last = rows[-1] if rows else {}
    return _cell(last, "frames"), _cell(last, "cpu_seconds")


def _cell(row: Mapping[str, str], name: str) -> float:
    value = float(row.get(name) or "nan")
    return value if math.isfinite(value) else math.nan


def reached(points: Iterable[Point], level: float) -> Point | None:
    """The first point at or above the level, once as many games as are averaged have ended."""
    for point in points:
        if point.episodes >= GAMES_AVERAGED and point.episode_return >= level:
            return point
    return None


def results_of(
    task: str, program: str, variant: str, seed: int, points: Sequence[Point]
) -> list[Result]:
    """A result for each level of the task."""
    last = points[-1] if points else None
    end = (float(last.frames), last.cpu_seconds / 60.0) if last else (math.nan, math.nan)
    results = []
    for level in TASKS[task].levels:
        point = reached(points, level)
        found = (math.nan, math.nan, math.nan)
        if point is not None:
            found = (float(point.frames), point.cpu_seconds / 60.0, point.seconds / 60.0)
        results.append(Result(task, program, variant, seed, level, *found, *end))
    return results


def as_csv(results: Iterable[Result]) -> str:
    """A table, one line per result; what is NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Result._fields)
    for result in results:
        writer.writerow(
            "" if isinstance(cell, float) and math.isnan(cell)
            else f"{cell:.6g}" if isinstance(cell, float) else cell
            for cell in result
        )  # fmt: skip
    return text.getvalue()


def read_csv(path: pathlib.Path) -> list[Result]:
    """The results of a file of `as_csv`.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no such file.
    """
    text = read_bounded(path, _MAX_BYTES).decode("utf-8")
    try:
        rows = iter(list(csv.reader(io.StringIO(text))))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if tuple(next(rows, ())) != Result._fields:
        raise ValueError(f"its first line must be {','.join(Result._fields)}")
    results = []
    for row in rows:
        if len(row) != len(Result._fields):
            raise ValueError(f"a line has {len(row)} cells, not {len(Result._fields)}")
        *names, seed = row[:4]
        numbers = row[4:]
        task, program, variant = map(printable, names)
        values = [float(cell or "nan") for cell in numbers]
        if math.isnan(values[0]) or any(map(math.isinf, values)):
            raise ValueError("a number is not finite, or a level is missing")
        if any(value < 0 for value in values[1:]):  # a level may be
            raise ValueError("a number of frames or minutes is negative")
        results.append(Result(task, program, variant, int(seed), *values))
    return results


def lines(results: Sequence[Result]) -> list[str]:
    """The table for the screen: of each task, level, program and variant the median over seeds.

    A run that did not reach the level counts as longer than every other. Where it was reached in a
    CPU time that is not known, that is said.
    """
    text = [f"{'':44} {'seeds':>7} {'million frames':>16} {'CPU-minutes':>14} {'range':>16}"]
    groups: dict[tuple[str, float, str, str], list[Result]] = {}
    for result in results:
        key = (result.task, result.level, result.program, result.variant)
        groups.setdefault(key, []).append(result)
    for (task, level, program, variant), group in groups.items():
        there = [result for result in group if not math.isnan(result.frames)]
        missing = [math.inf] * (len(group) - len(there))
        minutes = [result.cpu_minutes for result in there]
        frames = _median([result.frames / 1e6 for result in there] + missing, 3)
        if any(map(math.isnan, minutes)):
            cpu, spread = frames if frames == _NOT_REACHED else "unknown", ""
        else:
            cpu = _median(minutes + missing, 2)
            spread = f"{min(minutes):.2f}–{max(minutes):.2f}" if there else ""
        text.append(
            f"{f'{task} to {level:g}, {program} {variant}':44} "
            f"{f'{len(there)} of {len(group)}':>7} {frames:>16} {cpu:>14} {spread:>16}"
        )
    return text


def _median(values: Sequence[float], digits: int) -> str:
    middle = statistics.median(values)
    return _NOT_REACHED if math.isinf(middle) else f"{middle:.{digits}f}"
