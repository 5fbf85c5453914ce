"""The exceptions that are shown as a line, never as a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in flags, files or folders; its message is one line that says what is allowed."""


class RunFailed(Exception):
    """A run cannot go on, for a reason that needs no traceback: one line, `status.json` failed."""
