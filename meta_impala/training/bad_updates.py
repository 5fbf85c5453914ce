"""Updates and meta steps that were not finite, and so not applied: warnings, files, the limit."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

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

    With several inner steps the meta steps are counted apart: K updates come between two of them,
    and may all be good.

    Attributes:
      in_a_row: bad updates since the last good one.
      meta_in_a_row: bad meta steps since the last good one, of several inner steps.
    """

    def __init__(
        self, folder: pathlib.Path, limit: int, saved: Mapping[str, Any] | None = None
    ) -> None:
        """Args:
        folder: gets the first ones' statistics and batches.
        limit: `--max_bad_updates`, of either.
        saved: from `state`, of the run that is continued.
        """
        saved = saved or {}
        self.in_a_row = int(saved.get("bad_in_a_row", 0))
        self.meta_in_a_row = int(saved.get("bad_meta_in_a_row", 0))
        self._folder = folder
        self._limit = limit

    def state(self) -> dict[str, int]:
        """Both counts as JSON, to continue from."""
        return {"bad_in_a_row": self.in_a_row, "bad_meta_in_a_row": self.meta_in_a_row}

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
        else:
            self.in_a_row += 1
            of_update = f"update {updates} was not applied"
            self._report(of_update, "updates", self.in_a_row, updates, statistics, batches)
        if statistics.meta_applied == 1.0:
            self.meta_in_a_row = 0
        elif statistics.meta_applied == 0.0:
            self.meta_in_a_row += 1
            of_step = f"update {updates} was applied, but the meta step after it was not"
            self._report(of_step, "meta steps", self.meta_in_a_row, updates, statistics, batches)

    def _report(
        self,
        what: str,
        kind: str,
        in_a_row: int,
        updates: int,
        statistics: Statistics,
        batches: Mapping[str, Unroll],
    ) -> None:
        message = f"{what}, since it is not finite: {describe(statistics, batches)}"
        kept = keep(self._folder, updates, statistics, batches)
        if kept is not None:
            message += f"; it is kept in {kept}"
        warn(f"warning: {message}")
        if in_a_row >= self._limit:
            raise RunFailed(
                f"{in_a_row} {kind} in a row (--max_bad_updates) were not applied; the last: "
                f"{message}"
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
    numbers = statistics.numbers() | {"meta_applied": statistics.meta_applied}
    arrays = {f"statistics {name}": np.array(value) for name, value in numbers.items()}
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
