"""What the study keeps of a run: its evaluations while training, and what it cost.

Runs are read from their folders once (`tools/study.py collect`), into two CSV files that ship with
the project; the page is made from these.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meta_impala.errors import UserError, one_line, warn
from meta_impala.storage.csv_rows import rows_by_name
from meta_impala.storage.files import read_bounded, write_atomically
from meta_impala.storage.metrics_table import left_out
from meta_impala.training.evaluation_table import parse_evaluations

_MAX_BYTES = 2**26
POINTS, RUNS, RANDOM = "points.csv", "runs.csv", "random.csv"
FINISHED = "finished"
_NUMBER = "{:.6g}"
_RUN_COLUMNS = (
    "part", "task", "variant", "seed", "state", "frames", "total_frames", "cpu_seconds", "commit",
)  # fmt: skip
_POINT_COLUMNS = (
    "part", "task", "variant", "seed", "frames", "mean_return", "standard_error", "games", "gamma",
    "lambda",
)  # fmt: skip


class Point(NamedTuple):
    """One evaluation while training; γ and λ are what the network was fed (NaN if there is none).

    `mean_return` is over `games` games, with its standard error.
    """

    frames: int
    mean_return: float
    standard_error: float
    games: int
    gamma: float
    lambda_: float


@dataclasses.dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
      part, task, variant, seed: which run of the study it is.
      state: `finished`, `failed`, or as the run folder has it.
      frames: trained.
      total_frames: to be trained.
      cpu_seconds: of the training, evaluations included; NaN if it was not measured.
      commit: that it was trained at; empty if unknown.
      points: by frames.
    """

    part: str
    task: str
    variant: str
    seed: int
    state: str
    frames: int
    total_frames: int
    cpu_seconds: float
    commit: str
    points: tuple[Point, ...]

    @property
    def is_finished(self) -> bool:
        """Whether it was trained to its end."""
        return self.state == FINISHED and self.frames >= self.total_frames

    @property
    def counts(self) -> bool:
        """Whether it is a result. A failed run is one."""
        return self.is_finished or self.state == "failed"


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else _NUMBER.format(value)
    return str(value)


def rounded(value: float) -> float:
    """A number as the data have it."""
    return float(_NUMBER.format(value))


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    try:
        return rows_by_name(_content(path).decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None


def _content(path: pathlib.Path) -> bytes:
    """Of a file, empty if there is none. Raises UserError if it cannot be read."""
    try:
        return read_bounded(path, _MAX_BYTES)
    except FileNotFoundError:
        return b""
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None


def read_points(path: pathlib.Path) -> tuple[Point, ...]:
    """The evaluations of a run, from the `evaluations.csv` of its folder; none if there is none.

    A line that is damaged loses only itself, and a warning says so once.

    Raises:
      UserError: if the file cannot be read.
    """
    rows, damaged = parse_evaluations(_content(path))
    if damaged:
        _warn_once(f"warning: {left_out(path, damaged)}")
    return tuple(
        sorted(
            Point(r.frames, r.mean_return, r.standard_error, r.episodes, r.gamma, r.lambda_)
            for r in rows
        )
    )


@functools.cache
def _warn_once(message: str) -> None:
    """The study reads the runs that are under way again and again."""
    warn(message)


def _point(row: dict[str, str], games: int) -> Point:
    numbers = (_number(row[name]) for name in ("mean_return", "standard_error", "gamma", "lambda"))
    mean, error, gamma, lambda_ = numbers
    return Point(int(row["frames"]), mean, error, games, gamma, lambda_)


def read(folder: pathlib.Path) -> list[Record]:
    """The records of a folder of compact data.

    Raises:
      UserError: if it has none, or they are damaged.
    """
    points: dict[tuple[str, ...], list[Point]] = {}
    try:
        for row in _rows(folder / POINTS):
            key = tuple(row[name] for name in _POINT_COLUMNS[:4])
            points.setdefault(key, []).append(_point(row, int(row["games"])))
        records = [
            Record(
                row["part"], row["task"], row["variant"], int(row["seed"]), row["state"],
                int(row["frames"]), int(row["total_frames"]), _number(row["cpu_seconds"]),
                row["commit"],
                tuple(sorted(points.get(tuple(row[name] for name in _RUN_COLUMNS[:4]), ()))),
            )
            for row in _rows(folder / RUNS)
        ]  # fmt: skip
        runs = {(r.part, r.task, r.variant, str(r.seed)) for r in records}
        if of_no_run := sorted(points.keys() - runs):
            raise ValueError(f"{POINTS} has a run that {RUNS} has not: {' '.join(of_no_run[0])}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: the study's data are damaged ({one_line(error)})") from None
    if not records:
        raise UserError(f"{folder}: must hold {RUNS} and {POINTS}, made by tools/study.py collect")
    return records


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], comment: str) -> str:
    text = io.StringIO()
    text.write(f"# {comment}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_text(value) for value in row] for row in rows)
    return text.getvalue()


def write(records: Sequence[Record], folder: pathlib.Path, comment: str) -> None:
    """Writes the records as `runs.csv` and `points.csv`.

    Args:
      records: in any order.
      folder: is made if it is missing.
      comment: first line of both, without #.
    """
    records = sorted(records, key=lambda r: (r.part, r.task, r.variant, r.seed))
    runs = (
        (r.part, r.task, r.variant, r.seed, r.state, r.frames, r.total_frames, r.cpu_seconds,
         r.commit)
        for r in records
    )  # fmt: skip
    points = ((r.part, r.task, r.variant, r.seed, *point) for r in records for point in r.points)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RUNS, _table(_RUN_COLUMNS, runs, comment))
    write_atomically(folder / POINTS, _table(_POINT_COLUMNS, points, comment))


def with_parts_of(found: Sequence[Record], shipped: Sequence[Record]) -> tuple[list[Record], int]:
    """The records of some parts in the place of those that the data have of them.

    Args:
      found: records of parts that have runs in a folder, and those of the data at the same commit.
      shipped: records of the data.

    Returns:
      All records, and how many of other commits are left out, since a part is of one commit.

    Raises:
      UserError: if more results of a part would be left out than there are new ones.
    """
    parts = {record.part for record in found}
    kept = {(record.part, record.commit) for record in found}
    stale = [r for r in shipped if r.part in parts and (r.part, r.commit) not in kept]
    for part in sorted(parts):
        new, lost = (sum(r.part == part and r.counts for r in of) for of in (found, stale))
        if lost > new:
            raise UserError(
                f"--out: has {new} results of part {part}, and the data have {lost} of another "
                "commit, which these would replace; give --data= another folder"
            )
    return [*(record for record in shipped if record.part not in parts), *found], len(stale)


def read_random(folder: pathlib.Path) -> dict[str, float]:
    """The mean return of uniformly random actions, by task, from `random.csv`."""
    path = folder / RANDOM
    try:
        found = {row["task"]: float(row["mean_return"]) for row in _rows(path)}
        if not all(map(math.isfinite, found.values())):
            raise ValueError("a return is not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({one_line(error)})") from None
    return found
