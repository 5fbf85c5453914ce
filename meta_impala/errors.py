"""The one exception that means "the user can mend this": shown as a line, never as a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in flags, files or folders; its message is one line that says what is allowed."""
