"""Detects a trainer that died: its run folder still says `running`, but nobody holds the lock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from meta_impala.errors import printable
from meta_impala.storage.folder_lock import has_record, is_locked
from meta_impala.storage.run_folder import FAILED, RUNNING, RunFolder

# In place of `running` where the trainer died; no `status.json` says so itself.
INTERRUPTED = "interrupted"


def read_status(folder: RunFolder) -> dict[str, Any]:
    """`status.json` as it is true now: of a trainer that died the state is `interrupted`, and the
    reason says how."""
    status = folder.read_status()
    if died := describe_dead_trainer(folder):
        return status | {"state": INTERRUPTED, "reason": died}
    return status


def failure_of(status: Mapping[str, Any]) -> str | None:
    """Why a run failed or was interrupted; None if it was not.

    Args:
      status: of `read_status`.
    """
    if status.get("state") not in (FAILED, INTERRUPTED):
        return None
    return printable(status.get("reason", "it does not say why"))


def sentence_of_failure(status: Mapping[str, Any]) -> str | None:
    """ "the run failed: REASON" or "the run was interrupted: REASON"; None if neither happened.

    Args:
      status: of `read_status`.
    """
    failure = failure_of(status)
    how = "was interrupted" if status.get("state") == INTERRUPTED else "failed"
    return None if failure is None else f"the run {how}: {failure}"


def lost_metrics(folder: RunFolder, status: Mapping[str, Any]) -> str | None:
    """One line about a `metrics.csv` that was deleted or emptied, or None.

    Training writes it with its header before the first frame.

    Args:
      folder: of the run.
      status: of `read_status`.
    """
    frames, path = status.get("frames", 0), folder.metrics_path
    if not frames or folder.has_metrics():
        return None
    what = "is empty" if path.exists() else "is missing"
    return f"{path}: {what}; the run is at {frames:,} frames (its rows are lost)"


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
    if not is_held_here and (is_locked(folder.path) or _may_live(folder, process)):
        return None
    at = f" at {frames:,} frames" if isinstance(frames, int) else ""
    what = (
        f"the last trainer here (process {process}) ended without saving its state{at}: it was "
        "killed, or its environment ended the process"
    )
    if _is_alive(process):  # and does not hold this folder
        what = (
            f"the last trainer here (process {process}) was{at} when this folder was copied, or it "
            "was killed there, and its number is another process's now"
        )
    saved = status.get("checkpoint")
    return f"{what}; " + (
        f"its last checkpoint is {saved}" if saved else "it had saved no checkpoint yet"
    )


def _may_live(folder: RunFolder, process: int) -> bool:
    """Of a folder that is not locked.

    A number alone says little: it may be another process's now, as in the next container, or that
    of the original of a copied folder. So it counts only where no record says more.
    """
    return not has_record(folder.path) and _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True
