"""`evaluations.csv`: the evaluations that were played while a run trained."""

from __future__ import annotations

import math
import pathlib
import re
from typing import NamedTuple

from meta_impala.errors import RunFailed, one_line
from meta_impala.storage.files import read_bounded, write_atomically, writing
from meta_impala.storage.metrics_table import keep_damaged


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
# Python's numbers also have spaces around them, and underscores within.
_NUMBER = re.compile(r"[-+.\deinfa]*", re.ASCII)

COLUMNS = tuple(name.rstrip("_") for name in Evaluation._fields)


class EvaluationTable:
    """The rows of a file, which is replaced as a whole with every new one.

    Attributes:
      rows: in the order of their frames.
    """

    def __init__(self, path: pathlib.Path, frames: int) -> None:
        """Args:
        path: of the file; it need not be there. If lines are damaged there is a warning, and the
            file is kept aside.
        frames: that the run continues from; later rows are cut.

        Raises:
          RunFailed: if the file cannot be read; here and in `add`, if it cannot be written.
        """
        self._path = path
        content = _content(path)
        found, damaged = parse_evaluations(content)
        if damaged:
            keep_damaged(path, content, damaged, len(found))
        self.rows = [row for row in found if row.frames <= frames]
        if damaged or len(self.rows) < len(found):
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


def _content(path: pathlib.Path) -> bytes:
    """Of a file, empty if there is none. Raises RunFailed if it cannot be read."""
    try:
        return read_bounded(path, _MAX_BYTES)
    except FileNotFoundError:
        return b""
    except (OSError, ValueError) as error:
        raise RunFailed(f"{path}: cannot be read ({one_line(error)})") from error


def parse_evaluations(content: bytes) -> tuple[list[Evaluation], list[int]]:
    """The rows of a file, and the numbers of the lines that are damaged (the header is line 1).

    Each line is read on its own, so that one that is damaged loses no other.
    """
    *lines, torn = content.decode("ascii", "replace").split("\n")
    damaged = [1] if lines and lines[0].rstrip("\r") != ",".join(COLUMNS) else []
    found = [_parse(line) for line in lines[1:]]
    damaged += [number for number, row in enumerate(found, start=2) if row is None]
    if torn:  # empty, unless the last line was cut
        damaged.append(len(lines) + 1)
    return [row for row in found if row is not None], damaged


def _parse(line: str) -> Evaluation | None:
    """A line of the file; None if it is damaged."""
    cells = line.removesuffix("\r").split(",")
    if len(cells) != len(COLUMNS) or not all(map(_NUMBER.fullmatch, cells)):
        return None
    try:
        frames, episodes = int(cells[0]), int(cells[3])
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return None
    _, mean_return, error, _, *others = numbers
    if not math.isfinite(mean_return):  # nothing can be compared with it
        return None
    return Evaluation(frames, mean_return, error, episodes, *others)
