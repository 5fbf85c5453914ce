"""`checkpoints_best/`: the checkpoint with the best evaluation while training.

It is an ordinary checkpoint, saved when its evaluation starts (training continues meanwhile) and
moved into place when that turns out to be the best so far.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Collection, Mapping
from typing import Any

from meta_impala.errors import RunFailed, one_line, warn
from meta_impala.learner.state import LearnerState
from meta_impala.storage.checkpoint import Checkpoints
from meta_impala.storage.files import make_folder, move_folder, remove_folder, unused_name
from meta_impala.storage.manifest import list_checkpoints

_CANDIDATE, _UNRATED = "candidate", "unrated"


class BestCheckpoint:
    """The best checkpoint of a run, and the one that is being evaluated."""

    # Name of a best checkpoint whose return is unknown.
    _unrated: str | None = None

    def __init__(
        self,
        folder: pathlib.Path,
        state: LearnerState,
        identity: Mapping[str, Any],
        evaluated: Collection[int],
    ) -> None:
        """Removes a candidate that an earlier process left.

        Args:
          folder: where it is kept (`RunFolder.best_checkpoint`).
          state: of the learner.
          identity: of its checkpoints.
          evaluated: frames of the evaluations that the run has. A best checkpoint that is not among
            them is kept beside the one that takes its place, since either may be better.
        """
        self._folder = folder
        self._state = state
        self._identity = identity
        remove_folder(self._folder / _CANDIDATE)
        frames = self.frames
        if frames is None:
            return
        path = folder / f"frames-{frames}"
        if frames > int(state.frames.numpy()):  # of a part of the run that was lost
            warn(f"warning: {path} is later than the checkpoint the run continues from: removed")
            shutil.rmtree(path, ignore_errors=True)
        elif frames not in evaluated:
            self._unrated = path.name
            warn(
                f"warning: {path}: its evaluation is not in the table; when another checkpoint "
                f"takes its place, it is kept as {path.name}.{_UNRATED}"
            )

    @property
    def frames(self) -> int | None:
        """Frames of the best checkpoint, or None."""
        kept = list_checkpoints(self._folder)
        return int(kept[0].name.rpartition("-")[2]) if kept else None

    def save_candidate(self, progress: Mapping[str, Any]) -> None:
        """Saves the learner as it is, to be evaluated.

        Raises:
          RunFailed: if it cannot be written.
        """
        folder = self._folder / _CANDIDATE
        remove_folder(folder)
        try:
            make_folder(self._folder)
        except OSError as error:
            raise RunFailed(f"{self._folder}: cannot be made ({one_line(error)})") from error
        Checkpoints(folder, self._state, 1, self._identity).save(progress)

    def promote(self, frames: int) -> None:
        """Makes the candidate, saved at this number of frames, the best.

        Raises:
          OSError: if it cannot be moved.
        """
        name = f"frames-{frames}"
        before = [path for path in list_checkpoints(self._folder) if path.name != name]
        shutil.rmtree(self._folder / name, ignore_errors=True)
        move_folder(self._folder / _CANDIDATE / name, self._folder / name)
        for path in before:
            if path.name == self._unrated:
                move_folder(path, unused_name(path, _UNRATED))
            else:
                shutil.rmtree(path, ignore_errors=True)
