"""Actors that are made while training goes on: a run begins with those that are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meta_impala.actors.actor import Actor
from meta_impala.actors.startup import ActorStart
from meta_impala.system.ending import ForeignCodeThread
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched


class LateActors(ForeignCodeThread):
    """Makes and starts actors in a thread; each joins as soon as it has started."""

    def __init__(
        self,
        stop: StopRequest,
        indices: Iterable[int],
        make: Callable[[int], Actor],
        start: Callable[[Actor], None],
    ) -> None:
        """Args:
        stop: set when no more are to be made.
        indices, make, start: as for `ActorStart.actors`.
        """
        super().__init__("start of further actors")
        # Of its own: to give up does not stop the run.
        self._given_up = StopRequest()
        self._users_stop = stop
        self._starting = ActorStart(self._given_up)
        self._indices = indices
        self._make = make
        self._start_actor = start

    def begin(self, join: Callable[[Actor], None], fail: Callable[[BaseException], None]) -> None:
        """Starts the thread.

        Args:
          join: takes an actor that has started, in any thread.
          fail: takes what `make` or `start` raised.
        """
        self._join, self._fail = join, fail
        self.start()

    def run(self) -> None:
        try:
            self._starting.actors(self._indices, self._make_unless_stopped, self._start_and_join)
        except BaseException as error:  # noqa: BLE001 - raised again in the learner's thread
            self._fail(error)

    def _make_unless_stopped(self, index: int) -> Actor:
        actor = self._make(index)
        if self._users_stop.is_set():
            self.give_up()
        return actor

    def _start_and_join(self, actor: Actor) -> None:
        self._start_actor(actor)
        self._join(actor)

    def give_up(self) -> None:
        """Makes no more of them; one that is being made is closed."""
        self._given_up.request("the end of the run")

    def watched(self, timeout: float) -> list[Watched]:
        """For the watchdog, while it works."""
        return [self._starting.watched(timeout)] if self.is_alive() else []
