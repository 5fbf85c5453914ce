"""Updates that were not finite, and so were not applied: warnings, saved batches, and the limit."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from meta_impala.actors.trajectory import Unroll
from meta_impala.errors import RunFailed, one_line, warn
from meta_impala.learner.state import Statistics
from meta_impala.storage.arrays import write_arrays
from meta_impala.storage.files import make_folder

# The first ones show what went wrong; later ones add nothing.
MAX_FILES = 5
# The meta statistics are also NaN where nothing is learned.
_SHOWN = ("inner_loss", "gradient_norm", "meta_loss", "meta_gradient_norm")


class BadUpdates:
    """Reports updates that were not applied; the run fails after too many in a row.

    Attributes:
      in_a_row: bad updates since the last good one.
    """

    def __init__(self, folder: pathlib.Path, limit: int, in_a_row: int) -> None:
        """Args:
        folder: gets the first ones' statistics and batches.
        limit: `--max_bad_updates`.
        in_a_row: of the run that is continued.
        """
        self.in_a_row = in_a_row
        self._folder = folder
        self._limit = limit

    def record(self, updates: int, statistics: Statistics, batches: Mapping[str, Unroll]) -> None:
        """Checks an update.

        Args:
          updates: number of the update.
          statistics: of the update.
          batches: name -> batch that it was made from.

        Raises:
          RunFailed: if the limit is reached.
        """
        if statistics.applied:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        message = (
            f"update {updates} was not applied, since it is not finite: "
            f"{describe(statistics, batches)}"
        )
        kept = keep(self._folder, updates, statistics, batches)
        if kept is not None:
            message += f"; it is kept in {kept}"
        warn(f"warning: {message}")
        if self.in_a_row >= self._limit:
            raise RunFailed(
                f"{self.in_a_row} updates in a row (--max_bad_updates) were not applied; the "
                f"last: {message}"
            )


def describe(statistics: Statistics, batches: Mapping[str, Unroll]) -> str:
    """Which inputs are not finite; if all are finite, the statistics that are not."""
    inputs = [
        f"{field} of the {name}"
        for name, batch in batches.items()
        for field, array in batch._asdict().items()
        if not np.isfinite(np.asarray(array)).all()
    ]
    if inputs:
        return ", ".join(inputs)
    return ", ".join(f"{name} {getattr(statistics, name):g}" for name in _SHOWN)


def keep(
    folder: pathlib.Path, updates: int, statistics: Statistics, batches: Mapping[str, Unroll]
) -> pathlib.Path | None:
    """Writes `update-N.npz`: "statistics NAME" and "BATCH FIELD", as `read_arrays` reads them.

    Returns:
      Its path; None if there are enough, or it could not be written.
    """
    path = folder / f"update-{updates}.npz"
    arrays = {f"statistics {name}": np.array(v) for name, v in statistics.numbers().items()}
    for name, batch in batches.items():
        arrays |= {f"{name} {field}": np.asarray(a) for field, a in batch._asdict().items()}
    try:
        make_folder(folder)
        if len(list(folder.iterdir())) >= MAX_FILES:
            return None
        write_arrays(path, arrays)
    except OSError as error:
        warn(f"warning: {path}: cannot be written ({one_line(error)})")
        return None
    return path
