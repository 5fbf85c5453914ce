"""The stacks of all threads, as text: for a thread that hangs, and for SIGQUIT."""

from __future__ import annotations

import pathlib
import sys
import threading
import time
import traceback

from meta_impala.errors import warn


def all_stacks() -> str:
    """The stacks of all threads but the calling one."""
    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        if thread.ident in frames and thread is not threading.current_thread():
            stack = "".join(traceback.format_stack(frames[thread.ident]))
            parts.append(f"thread {thread.name}:\n{stack}")
    return "\n".join(parts)


def write_stacks(path: pathlib.Path, message: str, stacks: str) -> bool:
    """Replaces `path` by the time, a message and the stacks; returns whether that worked."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    try:
        path.write_text(f"{stamp} {message}\n\n{stacks}", encoding="utf-8")
    except OSError:
        return False
    return True


def dump_stacks(path: pathlib.Path | None, reason: str) -> None:
    """Writes the stacks to `path`, or to stderr if there is none or it cannot be written."""
    stacks = all_stacks()
    if path is not None and write_stacks(path, reason, stacks):
        warn(f"{reason}: the stacks of all threads are in {path}")
    else:
        warn(f"{reason}:\n{stacks}")
