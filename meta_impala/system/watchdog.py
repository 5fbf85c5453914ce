"""Watches threads for progress; if one hangs, the run ends with an error that names it.

Time is counted in completed waits, not by a clock: a process that was stopped (SIGSTOP, a suspended
machine) and continues does not report a hang.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from meta_impala.errors import RunFailed, warn
from meta_impala.system.stacks import SaveText, all_stacks, save_stacks

_MAX_SLICE_SECONDS = 1.0
# How long to wait for the watchdog's thread to end: it wakes at once, unless it is writing.
_SECONDS_TO_END = 2.0
# How long the program may take to end cleanly after a thread was found to hang.
GRACE_SECONDS = 60.0
EXIT_CODE = 1


class Stalled(RunFailed, TimeoutError):
    """A thread made no step for too long; the message names it."""

    leaves_threads = True


def stalled(names: str, seconds: float, save: SaveText) -> Stalled:
    """The error for threads that hang; their stacks are shown and saved.

    Args:
      names: of what hangs.
      seconds: without a step.
      save: gets the stacks of all threads.
    """
    message = f"no step for {seconds:g} s (--stall_timeout) from {names}"
    stacks = all_stacks()
    warn(f"{message}\n{stacks}")
    path = save_stacks(save, message, stacks)
    if path is not None:
        message += f"; the stacks of all threads are in {path}"
    return Stalled(message)


class Watched(NamedTuple):
    """A thread under watch.

    Attributes:
      name: of the thread.
      steps: a counter that grows while the thread makes progress.
      is_waiting: whether the thread has nothing to do.
      timeout: seconds without a step after which it is stalled.
    """

    name: str
    steps: Callable[[], int]
    is_waiting: Callable[[], bool]
    timeout: float


class Watchdog(threading.Thread):
    """Watches from `start` to `stop`."""

    def __init__(
        self,
        watched: Callable[[], Sequence[Watched]],
        save_stacks: SaveText,
        on_stall: Callable[[Stalled], None],
        on_exit: Callable[[Stalled], None],
    ) -> None:
        """Args:
        watched: the threads to be watched now; called before every wait.
        save_stacks: gets the stacks of all threads.
        on_stall: makes the run end cleanly.
        on_exit: called just before the process is ended, if it has not ended by itself.
        """
        super().__init__(name="watchdog", daemon=True)
        self._watched = watched
        self._save_stacks = save_stacks
        self._on_stall = on_stall
        self._on_exit = on_exit
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends the watch, and waits a moment for its end."""
        self._stopped.set()
        if threading.current_thread() is not self and self.is_alive():
            self.join(_SECONDS_TO_END)

    def run(self) -> None:
        # Per name: the steps at the last check, and seconds waited since they last changed.
        steps: dict[str, int] = {}
        idle: dict[str, float] = {}
        while True:
            watched = self._watched()
            shortest = min((one.timeout for one in watched), default=_MAX_SLICE_SECONDS)
            slice_seconds = min(_MAX_SLICE_SECONDS, shortest / 10.0)
            if self._stopped.wait(slice_seconds):
                return
            for one in watched:
                now = one.steps()
                if one.is_waiting() or steps.get(one.name) != now:
                    steps[one.name], idle[one.name] = now, 0.0
                else:
                    idle[one.name] += slice_seconds
            if any(idle[one.name] >= one.timeout for one in watched):
                # Threads that hang too, but were found a moment later, are named too.
                late = [one for one in watched if idle[one.name] >= one.timeout / 2.0]
                self._end(late)
                return

    def _end(self, late: Sequence[Watched]) -> None:
        names = ", ".join(one.name for one in late)
        error = stalled(names, max(one.timeout for one in late), self._save_stacks)
        self._on_stall(error)
        if not self._stopped.wait(GRACE_SECONDS):
            self._on_exit(error)
            warn(f"error: {error}")
            os._exit(EXIT_CODE)
