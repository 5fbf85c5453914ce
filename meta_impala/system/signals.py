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
        self._exits = threading.Lock()
        self.signal_name = ""

    def is_set(self) -> bool:
        """Whether the run was asked to stop."""
        return self._event.is_set()

    def install(self) -> None:
        """Takes over SIGINT, SIGTERM and, where it exists, SIGHUP (main thread only)."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # `nohup` ignores SIGHUP so that the run outlives its terminal.
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue
            signal.signal(number, self._handle)
        # Handlers run when the main thread is back from a library's code, and it may be stuck
        # there. The second interrupt is heard by a thread.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=[reader], name="signals", daemon=True).start()

    def _listen(self, reader: int) -> None:
        asked = False
        while True:
            for number in os.read(reader, 1):
                if number == signal.SIGINT and asked:
                    self._exit()
                asked = asked or number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._event.is_set():
            self._exit()
        self.signal_name = signal.Signals(number).name
        self._event.set()

    def _exit(self) -> None:
        with self._exits:  # once: handler and thread both come here
            try:
                os.write(sys.stderr.fileno(), b"\nsecond interrupt: exiting without saving\n")
            finally:  # also if there is nobody left to read it
                os._exit(EXIT_CODE_SECOND_INTERRUPT)
