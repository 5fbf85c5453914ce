"""The exceptions that are shown as a line, never as a traceback."""

from __future__ import annotations

import re


class UserError(Exception):
    """A mistake in flags, files or folders; its message is one line that says what is allowed."""


class RunFailed(Exception):
    """A run cannot go on, for a reason that needs no traceback: one line, `status.json` failed."""


def one_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Without the name of the operation: "{{function_node ...}} what is wrong [Op:RestoreV2]".
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", str(error)).strip()
    return text.splitlines()[0][:300].strip() if text else type(error).__name__
