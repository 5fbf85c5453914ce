"""Everything that a report shows of a run, read from its folder within bounds. No TensorFlow here.

Configs are read as plain JSON: an older run, or one that names a module of its own, is shown all
the same, since nothing of it is executed.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.analysis.curves import no_metrics, read_run_table
from meta_impala.errors import UserError, one_line
from meta_impala.storage import run_status
from meta_impala.storage.files import read_bounded
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.metrics_table import left_out, read_table
from meta_impala.storage.run_folder import RunFolder

# Far above any real file; an evaluation has a number per game, an explanation several per batch.
_MAX_CONFIG_BYTES = 2**20
_MAX_RESULT_BYTES = 2**24
_MAX_PICTURE_BYTES = 2**23
# The report should be small enough to be mailed; an Atari game has one to three MiB.
MAX_VIDEO_BYTES = 2**23
# matplotlib computes squares and sums of what it draws: no overflow below this.
_LARGEST = 1e100
_MP4_BRAND, _PNG_START = b"ftyp", b"\x89PNG\r\n\x1a\n"


class Evaluations(NamedTuple):
    """The rows of `evaluations.csv`, `[n]` each; errors are NaN for a single game."""

    frames: np.ndarray
    means: np.ndarray
    standard_errors: np.ndarray


class RunRecord(NamedTuple):
    """What the folder of a run holds.

    Attributes:
      label: unique among the runs.
      config: of `config.json`, unchanged.
      status: of `run_status.read_status`; empty if there is none.
      metrics: column of `metrics.csv` -> its values, `[rows]` float64, NaN where a cell is empty.
      evaluation: of `evaluation.json`, or None.
      evaluations: that were played while it trained, or None.
      explanation: of `explain/explain.json`, or None.
      picture: PNG of `explain`, or None.
      video: an mp4, or None.
      notes: one line for each file that cannot be shown.
    """

    folder: RunFolder
    label: str
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    metrics: Mapping[str, np.ndarray]
    evaluation: Mapping[str, Any] | None
    evaluations: Evaluations | None
    explanation: Mapping[str, Any] | None
    picture: bytes | None
    video: bytes | None
    notes: tuple[str, ...]

    def last(self, column: str) -> float:
        """The last value of a column that is a number; NaN if there is none."""
        values = self.metrics.get(column, np.empty(0))
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if finite.size else math.nan


def metrics_of(rows: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """The rows of a table as columns of numbers; NaN for text and for numbers beyond 1e100."""
    if not rows:
        return {}
    return {name: np.array([_number(row.get(name, "")) for row in rows]) for name in rows[0]}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if abs(value) <= _LARGEST else math.nan


def read(folder: RunFolder, label: str, *, video: bool = True) -> RunRecord:
    """Reads a run.

    Args:
      folder: of the run.
      label: that the report calls it by.
      video: whether its video is wanted.

    Raises:
      UserError: if its config or its metrics cannot be read.
    """
    try:
        config = read_json_object(folder.config_path, _MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.config_path}: cannot be read ({one_line(error)})") from None
    status = run_status.read_status(folder)
    metrics, notes = read_run_metrics(folder, status)
    explain = folder.path / "explain"
    return RunRecord(
        folder=folder,
        label=label,
        config=config,
        status=status,
        metrics=metrics,
        evaluation=_json(folder.evaluation_path, notes),
        evaluations=_evaluations(folder.evaluations_path, notes),
        explanation=_json(explain / "explain.json", notes),
        picture=_bytes(explain / "explain.png", _MAX_PICTURE_BYTES, 0, _PNG_START, notes),
        video=_bytes(folder.path / "video.mp4", MAX_VIDEO_BYTES, 4, _MP4_BRAND, notes)
        if video
        else None,
        notes=tuple(notes),
    )


def read_run_metrics(
    folder: RunFolder, status: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The metrics of a run, none of one that failed before its first row.

    Args:
      folder: of the run.
      status: of `run_status.read_status`.

    Returns:
      Column -> values, as `metrics_of` has them; and a line that says what is damaged, if anything.

    Raises:
      UserError: if there are none, or they cannot be read.
    """
    table = read_run_table(folder)
    if not table.rows and run_status.failure_of(status) is None:
        raise no_metrics(folder, status)
    lost = run_status.lost_metrics(folder, status)
    notes = [] if lost is None else [lost]
    if table.damaged:
        notes.append(left_out(folder.metrics_path, table.damaged))
    return metrics_of(table.rows), notes


def _json(path: pathlib.Path, notes: list[str]) -> dict[str, Any] | None:
    try:
        return read_json_object(path, _MAX_RESULT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{path}: cannot be read ({one_line(error)})")
        return None


def _bytes(
    path: pathlib.Path, limit: int, place: int, mark: bytes, notes: list[str]
) -> bytes | None:
    """A file that has `mark` at `place`; None if there is none, or it is something else."""
    try:
        content = read_bounded(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{path}: is not shown ({one_line(error)})")
        return None
    if content[place : place + len(mark)] != mark:
        notes.append(f"{path}: is not shown (it is not the kind of file that its name says)")
        return None
    return content


def _evaluations(path: pathlib.Path, notes: list[str]) -> Evaluations | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        table = read_table(path)
        if table.damaged:
            notes.append(left_out(path, table.damaged))
        columns = metrics_of(table.rows)
        kept = np.isfinite(columns["frames"]) & np.isfinite(columns["mean_return"])
        if kept.any():
            names = ("frames", "mean_return", "standard_error")
            return Evaluations(*(columns[name][kept] for name in names))
    return None
