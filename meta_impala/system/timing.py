"""Stopwatches: wall time of a thread by activity. For benchmarks only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Seconds that one thread spent, by activity, since the last `restart`."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def timed(self, activity: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function, with its time counted under this activity."""

        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                self._seconds[activity] = self._seconds.get(activity, 0.0) + spent

        return wrapped

    def restart(self) -> None:
        """Starts over."""
        self._seconds.clear()
        self._started = time.perf_counter()

    def shares(self) -> dict[str, float]:
        """Activity -> share of the time since the last `restart`."""
        whole = time.perf_counter() - self._started
        return {activity: seconds / whole for activity, seconds in self._seconds.items()}


def timed(stopwatch: Stopwatch | None, activity: str, function: Callable[P, R]) -> Callable[P, R]:
    """`stopwatch.timed`; the unchanged function if there is no stopwatch."""
    return function if stopwatch is None else stopwatch.timed(activity, function)


class RunStopwatches:
    """The stopwatches of a run: one of the learner's thread, and one of each actor thread."""

    def __init__(self) -> None:
        self.learner = Stopwatch()
        self.actors: list[Stopwatch] = []

    def of_actor(self) -> Stopwatch:
        """A new one."""
        self.actors.append(Stopwatch())
        return self.actors[-1]

    def restart(self) -> None:
        """Restarts all."""
        for stopwatch in (self.learner, *self.actors):
            stopwatch.restart()
