"""Ctrl-C in a command: ends it at once, or is raised. Imports nothing that takes time."""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_CODE_INTERRUPTED = 130

_STDERR = 2
_screen = _STDERR


def write_to(descriptor: int = _STDERR) -> None:
    """Sets where the line of an interrupted command goes, while stderr is captured."""
    global _screen
    _screen = descriptor


def leave_on_interrupt() -> None:
    """From here on Ctrl-C ends the process at once, with a line and exit code 130.

    Libraries that are interrupted during their import may raise anything, or nothing. Files are
    written whole or not at all, so nothing is lost.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, for a command that has to clean up."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(_screen, b"\ninterrupted\n" if os.isatty(_screen) else b"interrupted\n")
    finally:
        os._exit(EXIT_CODE_INTERRUPTED)
