"""Starts a run's actors: their environments are made one after the other and started beside that.

An emulator takes as long to start as it takes to make, and an environment may hang in either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from meta_impala.actors.actor import Actor
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched

# How often a wait looks up to see whether the user asked to stop.
_POLL_SECONDS = 0.2
# How long environments that are starting are waited for once the user asked to stop.
_SECONDS_AFTER_STOP = 1.0


class _Starting(threading.Thread):
    """Starts the environments of one actor. A daemon: one that hangs must not keep the process."""

    def __init__(self, actor: Actor, start: Callable[[Actor], None]) -> None:
        super().__init__(name=f"start of actor-{actor.index}", daemon=True)
        self.actor = actor
        self.error: BaseException | None = None
        self._start_actor = start

    def run(self) -> None:
        try:
            self._start_actor(self.actor)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run must hear of it
            self.error = error


class ActorStart:
    """The start of a run's actors, under the eyes of the watchdog."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._steps = 0
        self._error: BaseException | None = None
        self._deadline: float | None = None

    def watched(self, timeout: float) -> Watched:
        """For the watchdog: an actor that was made is a step, and so is one that was started."""
        name = "the start of the environments"
        return Watched(name, lambda: self._steps, lambda: False, timeout)

    def fail(self, error: BaseException) -> None:
        """Ends the wait with this error."""
        self._error = error

    def actors(
        self, count: int, make: Callable[[int], Actor], start: Callable[[Actor], None]
    ) -> list[Actor]:
        """Makes and starts actors 0 … count − 1.

        Args:
          count: how many.
          make: number -> actor, its environments made.
          start: starts its environments.

        Returns:
          The actors; those that are ready, if the user asks to stop meanwhile.

        Raises:
          BaseException: what `make` or `start` raised, or what `fail` was given.
        """
        begun = []
        for index in range(count):
            if self._stop.is_set():
                break  # an emulator takes 0.1 s to make: do not make the user wait for many
            actor = make(index)
            self._steps += 1
            if self._stop.is_set():
                actor.close()
                break  # nor for as long again until they have started
            begun.append(_Starting(actor, start))
            begun[-1].start()
        return [starting.actor for starting in begun if self._is_ready(starting)]

    def _is_ready(self, starting: _Starting) -> bool:
        """Waits for one; False if the user asked to stop and it does not come."""
        while True:
            starting.join(_POLL_SECONDS)
            if not starting.is_alive():
                if starting.error is not None:
                    raise starting.error
                self._steps += 1
                return True
            if self._error is not None:
                raise self._error
            if self._stop.is_set():
                now = time.monotonic()
                self._deadline = self._deadline or now + _SECONDS_AFTER_STOP
                if now >= self._deadline:
                    return False
