"""Detects a trainer that died: its run folder still says `running`, but nobody holds the lock."""

from __future__ import annotations

import os

from meta_impala.storage.folder_lock import is_locked
from meta_impala.storage.run_folder import RUNNING, RunFolder


def describe_dead_trainer(folder: RunFolder, *, is_held_here: bool = False) -> str | None:
    """One line about a trainer that died without writing a status, or None.

    Args:
      folder: of the run.
      is_held_here: whether this process holds the folder's lock.
    """
    status = folder.read_status()
    process, frames = status.get("pid"), status.get("frames")
    if status.get("state") != RUNNING or not isinstance(process, int):
        return None
    if not is_held_here and (is_locked(folder.path) or _is_alive(process)):
        return None
    at = f" at {frames:,} frames" if isinstance(frames, int) else ""
    saved = status.get("checkpoint")
    return (
        f"the last trainer here (process {process}) ended without saving its state{at}: it was "
        "killed, or its environment ended the process; "
        + (f"its last checkpoint is {saved}" if saved else "it had saved no checkpoint yet")
    )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True
