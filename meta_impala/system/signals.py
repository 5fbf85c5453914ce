"""Signals that ask a run to save and stop, SIGQUIT for the stacks of all threads, and time limits.

Installed before TensorFlow is imported, so that a Ctrl-C during start-up shows no traceback.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from meta_impala.errors import UserError
from meta_impala.system.stacks import SaveText, dump_stacks

EXIT_CODE_SECOND_INTERRUPT = 130
# `timeout -s INT` signals its child and then the child's group; so do `srun` and terminals.
SECONDS_OF_ONE_REQUEST = 1.0
DEFAULT_STOP_SIGNALS = "INT,TERM,HUP,USR1,USR2"
_POLL_SECONDS = 0.2
_ALLOWED = ("INT", "TERM", "HUP", "USR1", "USR2", "QUIT", "ALRM", "XCPU")

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0)


def parse_signals(text: str) -> tuple[signal.Signals, ...]:
    """The signals of `--stop_signals`, such as INT,TERM.

    Raises:
      UserError: unless they are names of signals that can stop a run.
    """
    names = [part.strip().upper().removeprefix("SIG") for part in text.split(",") if part.strip()]
    allowed = [name for name in _ALLOWED if hasattr(signal, f"SIG{name}")]
    if not names or not set(names) <= set(allowed):
        raise UserError(
            f"--stop_signals={text}: must be one or more of {', '.join(allowed)}, comma-separated"
        )
    return tuple(signal.Signals[f"SIG{name}"] for name in dict.fromkeys(names))


def parse_duration(text: str) -> float | None:
    """The seconds of `--max_runtime`, such as 5400, 90m or 3h30m; None for an empty text.

    Raises:
      UserError: if it is not a time, or 0.
    """
    if not text.strip():
        return None
    compact = text.replace(" ", "").lower()
    match = _DURATION.fullmatch(compact)
    if compact.isascii() and compact.isdecimal():
        seconds = float(compact[:12])
    elif match is not None:
        seconds = sum(
            float(part[:12]) * unit for part, unit in zip(match.groups("0"), _UNITS, strict=True)
        )
    else:
        seconds = 0.0
    if seconds <= 0.0:
        raise UserError(
            f"--max_runtime={text}: must be a time above 0: seconds, or days, hours, minutes and "
            "seconds such as 2d, 3h30m or 90s"
        )
    return seconds


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


class StopRequest:
    """Whether the run was asked to stop; read between two updates.

    Attributes:
      signal_name: the reason, for the user: name of a signal or of a setting.
      save_stacks: with what SIGQUIT saves the stacks of all threads; None for stderr.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._exits = threading.Lock()
        self._handlers: dict[int, Callable[[int, FrameType | None], None]] = {}
        self._writer = -1
        self.signal_name = ""
        self.save_stacks: SaveText | None = None

    def is_set(self) -> bool:
        """Whether the run was asked to stop."""
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Asks the run to stop; the first reason is kept."""
        if not self._event.is_set():
            self.signal_name = reason
            self._event.set()

    def withdraw(self, reason: str) -> None:
        """Takes a request back, if it was made for this reason."""
        if self.signal_name == reason:
            self.signal_name = ""
            self._event.clear()

    def request_after(self, seconds: float, reason: str) -> None:
        """Asks the run to stop after this many seconds of wall time."""
        seconds = min(seconds, threading.TIMEOUT_MAX)  # 292 years
        timer = threading.Timer(seconds, self.request, [reason])
        timer.daemon = True
        timer.start()

    def install(self, stop_signals: Sequence[signal.Signals] | None = None) -> None:
        """Takes over the signals that stop a run, and SIGQUIT unless it is one (main thread only).

        The first is the request, and later ones change nothing; but a SIGINT more than a second
        after the first SIGINT exits at once.
        """
        numbers = parse_signals(DEFAULT_STOP_SIGNALS) if stop_signals is None else stop_signals
        for number in numbers:
            # `nohup` ignores SIGHUP so that the run outlives its terminal.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = self._handle
        if signal.SIGQUIT not in numbers:
            self._handlers[signal.SIGQUIT] = _ignore  # the thread below acts on it
        # A Python handler runs when the main thread returns from C code, where it may be stuck.
        # A thread receives every signal at once.
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self.hold()
        listener = threading.Thread(
            target=self._listen, args=[reader, frozenset(numbers)], name="signals", daemon=True
        )
        listener.start()

    def hold(self) -> None:
        """Takes the signals over again, if they were installed, after foreign code that may have
        set handlers of its own: constructors of environments, event loops, libraries."""
        if self._handlers and threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            # The parent process, or an environment, may have blocked them.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)
            signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    @contextlib.contextmanager
    def leaving(self, seconds: float, leave: Callable[[], None]) -> Iterator[None]:
        """Around foreign code that may never return, before there is anything to save.

        Args:
          seconds: after the request to stop, that it has to return.
          leave: called then, from a thread; ends the process.
        """
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_POLL_SECONDS):
                if self.is_set():
                    if not done.wait(seconds):
                        leave()
                    return

        threading.Thread(target=watch, name="leaving", daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _listen(self, reader: int, numbers: frozenset[int]) -> None:
        interrupted: float | None = None  # when the first SIGINT came, whatever else came before
        while True:
            for number in os.read(reader, 1):
                now = time.monotonic()
                if number in numbers:
                    self.request(signal.Signals(number).name)
                    if number == signal.SIGINT:
                        interrupted = now if interrupted is None else interrupted
                        if now - interrupted > SECONDS_OF_ONE_REQUEST:
                            self._exit()
                elif number == signal.SIGQUIT:
                    dump_stacks(self.save_stacks, "SIGQUIT")

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.request(signal.Signals(number).name)

    def _exit(self) -> None:
        with self._exits:
            try:
                os.write(sys.stderr.fileno(), b"\nsecond interrupt: exiting without saving\n")
            finally:  # even if stderr is closed
                os._exit(EXIT_CODE_SECOND_INTERRUPT)


_CTRL_C = "Ctrl-C"


@contextlib.contextmanager
def ctrl_c_stops(stop: StopRequest) -> Iterator[None]:
    """A Ctrl-C inside asks the run to stop, and is raised at the end; a second is raised at once.

    Only in the main thread, and only in place of Python's own handler, which is then put back: a
    program that has one of its own has its own way to stop.

    Raises:
      KeyboardInterrupt: at the end, if there was one.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    was_pressed = False

    def request(_number: int, _frame: FrameType | None) -> None:
        nonlocal was_pressed
        was_pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.request(_CTRL_C)

    signal.signal(signal.SIGINT, request)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is request:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if was_pressed:
            stop.withdraw(_CTRL_C)  # the run can be continued
    if was_pressed:
        raise KeyboardInterrupt
