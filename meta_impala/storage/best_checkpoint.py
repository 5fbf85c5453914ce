"""`checkpoints_best/`: the checkpoint with the best evaluation while training.

It is an ordinary checkpoint, saved when its evaluation starts (training continues meanwhile). Its
mean return is written beside its files when the games are over, and it is moved into place if that
is the best so far. What a kill or an error leaves in between is finished by the next start or the
next evaluation. A checkpoint is replaced by a better one only, also where the run continues from
before it: the part of the run that it is of is lost, and so is its row in the table.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from meta_impala.errors import warn
from meta_impala.learner.state import LearnerState
from meta_impala.storage.checkpoint import Checkpoints
from meta_impala.storage.files import (
    make_folder,
    move_folder,
    remove_folder,
    unused_name,
    write_atomically,
    writing,
)
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.manifest import list_checkpoints

_CANDIDATE, _UNRATED, _REMOVED = "candidate", "unrated", "removed"
_RECORD, _MEAN_RETURN = "evaluation.json", "mean_return"
_MAX_RECORD_BYTES = 2**12


class BestCheckpoint:
    """The best checkpoint of a run, and the one that is being evaluated."""

    def __init__(
        self,
        folder: pathlib.Path,
        state: LearnerState,
        identity: Mapping[str, Any],
        return_at: Callable[[int], float],
    ) -> None:
        """Finishes what an earlier process has begun, and removes a candidate that is not better.

        Args:
          folder: where it is kept (`RunFolder.best_checkpoint`).
          state: of the learner, restored.
          identity: of its checkpoints.
          return_at: mean return of the run's evaluation at a number of frames, −∞ if it has none.
            It counts for checkpoints whose own is not written. A best checkpoint without either is
            kept beside the one that takes its place, since either may be better.

        Raises:
          RunFailed: if something cannot be written or moved.
        """
        self._folder = folder
        self._state = state
        self._identity = identity
        with writing(folder):
            for path in (*list_checkpoints(folder), *list_checkpoints(folder / _CANDIDATE)):
                mean_return = return_at(_frames(path))
                if _return_of(path) is None and math.isfinite(mean_return):
                    _write_return(path, mean_return)
            self._settle()
        remove_folder(folder / _CANDIDATE)
        for path in list_checkpoints(folder):
            if _return_of(path) is None:
                warn(
                    f"warning: {path}: its evaluation is not in the table; when another checkpoint "
                    f"takes its place, it is kept as {path.name}.{_UNRATED}"
                )
            elif _frames(path) > state.counts[0]:
                warn(
                    f"warning: {path} is later than the checkpoint the run continues from; it "
                    "stays until an evaluation is better"
                )

    def save_candidate(self, progress: Mapping[str, Any]) -> None:
        """Saves the learner as it is, to be evaluated.

        Raises:
          RunFailed: if it cannot be written.
        """
        folder = self._folder / _CANDIDATE
        with writing(self._folder):
            self._settle()
            make_folder(self._folder)
        remove_folder(folder)
        Checkpoints(folder, self._state, 1, self._identity).save(progress)

    def rate(self, frames: int, mean_return: float) -> None:
        """Makes the candidate the best, if there is none with so high a return.

        Args:
          frames: that it was saved at.
          mean_return: of its evaluation.

        Raises:
          OSError: if something cannot be written or moved.
        """
        try:
            _write_return(self._folder / _CANDIDATE / f"frames-{frames}", mean_return)
        finally:  # it may be written, and only not flushed
            self._settle()

    def _settle(self) -> None:
        """Leaves the one whose return is the highest, in place; a candidate without one stays."""
        # Of equal ones the first: the one in place.
        paths = [*list_checkpoints(self._folder), *list_checkpoints(self._folder / _CANDIDATE)]
        returns = {path: value for path in paths if (value := _return_of(path)) is not None}
        if not returns:
            return
        best = max(returns, key=returns.__getitem__)
        target = self._folder / best.name
        if best != target:
            if target.is_dir():  # of a part of the run that was lost
                self._make_room(target)
            move_folder(best, target)
        for path in {*list_checkpoints(self._folder), *returns} - {best, target}:
            self._make_room(path)

    def _make_room(self, path: pathlib.Path) -> None:
        """Removes a checkpoint; one whose return is unknown is renamed."""
        if _return_of(path) is None:
            move_folder(path, unused_name(path, _UNRATED))
            return
        # Killed half-way, nothing is left that looks like a checkpoint.
        removed = unused_name(self._folder / _CANDIDATE / path.name, _REMOVED)
        make_folder(removed.parent)
        move_folder(path, removed)
        remove_folder(removed)


def _frames(path: pathlib.Path) -> int:
    return int(path.name.rpartition("-")[2])


def _return_of(path: pathlib.Path) -> float | None:
    """The mean return that is written in a checkpoint, or None."""
    try:
        value = read_json_object(path / _RECORD, _MAX_RECORD_BYTES).get(_MEAN_RETURN)
    except (OSError, ValueError):
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _write_return(path: pathlib.Path, mean_return: float) -> None:
    write_atomically(path / _RECORD, json.dumps({_MEAN_RETURN: mean_return}) + "\n")
