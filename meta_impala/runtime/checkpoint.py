"""Checkpoints of a run: save, find, restore, and the reading of one for evaluation."""

from __future__ import annotations

import pathlib

import tensorflow as tf

from meta_impala.errors import UserError
from meta_impala.runtime.learner import LearnerState


class Checkpoints:
    """The checkpoints of one folder, numbered by frames."""

    def __init__(self, folder: pathlib.Path, state: LearnerState, keep: int) -> None:
        self._checkpoint = tf.train.Checkpoint(learner=state)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep, checkpoint_name="frames"
        )
        self._state = state

    def restore_latest(self) -> str | None:
        """Restores everything from the newest checkpoint.

        Returns:
          Its path, or None if there is none (the state is then untouched).

        Raises:
          UserError: if it does not fit the network, or cannot be read.
        """
        path = self._manager.latest_checkpoint
        if path is not None:
            _restore(self._checkpoint, path)
        return path

    def save(self) -> str:
        """Saves everything, as number `state.frames`."""
        return self._manager.save(checkpoint_number=int(self._state.frames.numpy()))


def restore_for_evaluation(folder: pathlib.Path, state: LearnerState) -> str:
    """Restores the newest checkpoint of a folder and touches nothing in it.

    Returns:
      The path of the checkpoint.

    Raises:
      UserError: if there is none, or it does not fit, or cannot be read.
    """
    path = tf.train.latest_checkpoint(str(folder))
    if path is None:
        raise UserError(
            f"{folder}: no checkpoint yet; train first, or wait until the first one is saved"
        )
    _restore(tf.train.Checkpoint(learner=state), path)
    return path


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        checkpoint.restore(path).assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path}: cannot be restored; it is damaged or of another network ({reason})"
        ) from error
