"""Ctrl-C, SIGTERM or a closed terminal ask the run to save and stop; a second Ctrl-C exits at once.

Installed before TensorFlow is imported, so that a Ctrl-C during start-up is not a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

EXIT_CODE_SECOND_INTERRUPT = 130


class StopRequest:
    """Set by a signal; looked at between two updates."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal_name = ""

    def is_set(self) -> bool:
        """Whether the run was asked to stop."""
        return self._event.is_set()

    def install(self) -> None:
        """Takes over SIGINT, SIGTERM and, where it exists, SIGHUP (main thread only)."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._event.is_set():
            os.write(sys.stderr.fileno(), b"\nsecond interrupt: exiting without saving\n")
            os._exit(EXIT_CODE_SECOND_INTERRUPT)
        self.signal_name = signal.Signals(number).name
        self._event.set()
