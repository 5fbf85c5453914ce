"""`evaluations.csv`: the evaluations that were played while a run trained."""

from __future__ import annotations

import math
import pathlib
from typing import NamedTuple

from meta_impala.storage.files import read_bounded, write_atomically, writing


class Evaluation(NamedTuple):
    """One row.

    Attributes:
      frames: environment frames that the weights had been trained for.
      mean_return: raw, over the games.
      standard_error: of it; NaN for one game.
      episodes: games.
      gamma, lambda_: that the network was fed; NaN where η belongs to the state.
      seconds: duration of the games. The only column that is not reproducible.
    """

    frames: int
    mean_return: float
    standard_error: float
    episodes: int
    gamma: float
    lambda_: float
    seconds: float


_MAX_BYTES = 2**26

COLUMNS = tuple(name.rstrip("_") for name in Evaluation._fields)


class EvaluationTable:
    """The rows of a file, which is replaced as a whole with every new one.

    Attributes:
      rows: in the order of their frames.
    """

    def __init__(self, path: pathlib.Path, frames: int) -> None:
        """Args:
        path: of the file; it need not be there.
        frames: that the run continues from; later rows are cut.

        Raises:
          RunFailed: here and in `add`, if the file cannot be written.
        """
        self._path = path
        found = [_parse(line) for line in _lines(path)]
        self.rows = [row for row in found if row is not None and row.frames <= frames]
        if len(self.rows) < len(found):
            self._write()

    def add(self, row: Evaluation) -> None:
        """Adds a row."""
        self.rows.append(row)
        self._write()

    def return_at(self, frames: int | None) -> float:
        """The mean return of the evaluation at this number of frames, or −∞."""
        return next((row.mean_return for row in self.rows if row.frames == frames), -math.inf)

    def _write(self) -> None:
        lines = [COLUMNS, *(map(_text, row) for row in self.rows)]
        with writing(self._path):
            write_atomically(self._path, "".join(",".join(cells) + "\n" for cells in lines))


def _text(value: float) -> str:
    """As in `metrics.csv`: a value that is NaN is an empty cell."""
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.8g}"


def _lines(path: pathlib.Path) -> list[str]:
    """The lines of a file below its header; empty if it cannot be read."""
    try:
        return read_bounded(path, _MAX_BYTES).decode("ascii", "replace").split("\n")[1:-1]
    except (OSError, ValueError):
        return []


def _parse(line: str) -> Evaluation | None:
    """A line of the file; None if it is damaged."""
    cells = line.split(",")
    if len(cells) != len(COLUMNS):
        return None
    try:
        frames, episodes = int(cells[0]), int(cells[3])
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return None
    _, mean_return, error, _, *others = numbers
    return Evaluation(frames, mean_return, error, episodes, *others)
