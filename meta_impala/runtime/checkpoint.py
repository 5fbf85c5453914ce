"""Checkpoints of a run: save, find, restore, and the reading of one for evaluation."""

from __future__ import annotations

import pathlib
import re

import tensorflow as tf

from meta_impala.errors import UserError
from meta_impala.runtime.learner import LearnerState


class Checkpoints:
    """The checkpoints of one folder, numbered by frames."""

    def __init__(self, folder: pathlib.Path, state: LearnerState, keep: int) -> None:
        """Raises UserError if the folder's list of checkpoints cannot be read."""
        self._checkpoint = tf.train.Checkpoint(learner=state)
        try:
            self._manager = tf.train.CheckpointManager(
                self._checkpoint, str(folder), max_to_keep=keep, checkpoint_name="frames"
            )
        except ValueError as error:  # also UnicodeDecodeError
            raise _unreadable_list(folder, error) from error
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
    try:
        path = tf.train.latest_checkpoint(str(folder))
    except ValueError as error:  # also UnicodeDecodeError
        raise _unreadable_list(folder, error) from error
    if path is None:
        raise UserError(
            f"{folder}: no checkpoint yet; train first, or wait until the first one is saved"
        )
    _restore(tf.train.Checkpoint(learner=state), path)
    return path


def _unreadable_list(folder: pathlib.Path, error: Exception) -> UserError:
    return UserError(f"{folder / 'checkpoint'}: cannot be read ({error})")


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        checkpoint.restore(path).assert_consumed()
    except (AssertionError, LookupError, ValueError, tf.errors.OpError) as error:
        # Or this line is followed by a page of "unrestored values" when the interpreter exits.
        tf.get_logger().setLevel("ERROR")
        # Without the name of the operation: "{{function_node ...}} what is wrong [Op:RestoreV2]".
        text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", str(error)).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        raise UserError(
            f"{path}: cannot be restored; it is damaged or of another network ({reason})"
        ) from error
