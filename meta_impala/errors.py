"""Exceptions that are shown as a line, never as a traceback; and how to say it."""

from __future__ import annotations

import contextlib
import re
import sys


class UserError(Exception):
    """A mistake in flags, files or folders; its message is one line that says what is allowed."""

    def __init__(self, message: object = "") -> None:
        # A value that is quoted in it may have lines of its own.
        super().__init__(" ".join(str(message).splitlines()))


class RunFailed(Exception):
    """A run cannot go on, for a reason that needs no traceback: one line, `status.json` failed.

    Attributes:
      leaves_threads: some hang in a library: the process must end without waiting for them.
    """

    leaves_threads = False


def one_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Without the name of the operation: "{{function_node ...}} what is wrong [Op:RestoreV2]".
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", str(error)).strip()
    return text.splitlines()[0][:300].strip() if text else type(error).__name__


def warn(message: str) -> None:
    """Prints to stderr, if there is still somebody to read it: a run outlives its terminal."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)
