"""The stacks of all threads, as text: for a thread that hangs, and for SIGQUIT."""

from __future__ import annotations

import pathlib
import sys
import threading
import time
import traceback
from collections.abc import Callable

from meta_impala.errors import warn

# Saves a text; returns where, or None if that failed.
SaveText = Callable[[str], pathlib.Path | None]


def all_stacks() -> str:
    """The stacks of all threads but the calling one."""
    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        if thread.ident in frames and thread is not threading.current_thread():
            stack = "".join(traceback.format_stack(frames[thread.ident]))
            parts.append(f"thread {thread.name}:\n{stack}")
    return "\n".join(parts)


def save_stacks(save: SaveText, message: str, stacks: str) -> pathlib.Path | None:
    """Saves the time, a message and the stacks; returns where, or None if that failed."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return save(f"{stamp} {message}\n\n{stacks}")


def dump_stacks(save: SaveText | None, reason: str) -> None:
    """Saves the stacks; writes them to stderr if there is no `save`, or it fails."""
    stacks = all_stacks()
    path = save_stacks(save, reason, stacks) if save is not None else None
    if path is not None:
        warn(f"{reason}: the stacks of all threads are in {path}")
    else:
        warn(f"{reason}:\n{stacks}")
