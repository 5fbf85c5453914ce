"""Makes and starts actors: made one after the other, started while the next is made.

An emulator takes as long to start as it takes to make, and an environment may hang in either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from meta_impala.actors.actor import Actor
from meta_impala.agent.builders import drawn_eta_of
from meta_impala.agent.policy import PolicyFn
from meta_impala.config import ActingSettings
from meta_impala.environments import BatchedEnvironment
from meta_impala.errors import text_of, warn
from meta_impala.system.ending import ForeignCodeThread, ended_program
from meta_impala.system.signals import StopRequest
from meta_impala.system.timing import Stopwatch
from meta_impala.system.watchdog import Watched

# How often a wait checks whether the user asked to stop.
_POLL_SECONDS = 0.2
# How long environments that are starting are waited for once the user asked to stop.
_SECONDS_AFTER_STOP = 1.0


def make_actor(
    index: int,
    settings: ActingSettings,
    policy: PolicyFn,
    environment: BatchedEnvironment,
    *,
    keep_actions: bool = False,
    stopwatch: Stopwatch | None = None,
) -> Actor:
    """An actor, to be started with `Actor.reset`.

    Args:
      index: of the actor, among those of all learners.
      settings: resolved.
      policy: for as many environments as `environment` has.
      environment: to be closed with the actor.
      keep_actions: whether the actor's state can be saved (`--deterministic`).
      stopwatch: gets the time of `environment` (steps) and `inference`.
    """
    played: Any = environment
    if stopwatch is not None:
        played = _TimedEnvironment(environment, stopwatch)
        policy = stopwatch.timed("inference", policy)
    return Actor(
        index,
        played,
        policy,
        settings.unroll_length,
        eta_schedule=drawn_eta_of(settings),
        keep_actions=keep_actions,
    )


class _TimedEnvironment:
    """An environment whose steps are timed."""

    def __init__(self, environment: BatchedEnvironment, stopwatch: Stopwatch) -> None:
        self._environment = environment
        self.step = stopwatch.timed("environment", environment.step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)


def close_actor(actor: Actor) -> None:
    """Closes an actor's environments. A failure to do so must not prevent the last save."""
    try:
        actor.close()
    except BaseException as error:  # noqa: BLE001 - an environment may raise anything
        said = text_of(error, repr)
        warn(f"warning: the environments of actor-{actor.index} could not be closed: {said}")


class _StartThread(ForeignCodeThread):
    """Starts the environments of one actor."""

    def __init__(self, actor: Actor, start: Callable[[Actor], None]) -> None:
        super().__init__(f"start of actor-{actor.index}")
        self.actor = actor
        self.error: BaseException | None = None
        self._start_actor = start

    def run(self) -> None:
        try:
            self._start_actor(self.actor)
        except BaseException as error:  # noqa: BLE001 - raised again by `ActorStart`
            self.error = error


class ActorStart:
    """The start of a run's actors, watched by the watchdog."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._steps = 0
        self._error: BaseException | None = None
        self._deadline: float | None = None

    def watched(self, timeout: float) -> Watched:
        """For the watchdog: every actor that was made or started is a step."""
        name = "the start of the environments"
        return Watched(name, lambda: self._steps, lambda: False, timeout)

    def fail(self, error: BaseException) -> None:
        """Ends the wait with this error."""
        self._error = error

    def actors(
        self, indices: Iterable[int], make: Callable[[int], Actor], start: Callable[[Actor], None]
    ) -> list[Actor]:
        """Makes and starts actors.

        Args:
          indices: their numbers.
          make: number -> actor, its environments made.
          start: starts its environments.

        Returns:
          The actors; if the user asks to stop meanwhile, those that are ready.

        Raises:
          Exception: what `make` or `start` raised, or what `fail` was given.
        """
        begun = []
        for index in indices:
            if self._stop.is_set():
                break  # an emulator takes 0.1 s to make: do not make the user wait for many
            actor = self._made(index, make)
            self._steps += 1
            if self._stop.is_set():
                close_actor(actor)
                break  # nor for their start, which takes as long
            begun.append(_StartThread(actor, start))
            begun[-1].start()
        return [starting.actor for starting in begun if self._is_ready(starting)]

    @staticmethod
    def _made(index: int, make: Callable[[int], Actor]) -> Actor:
        try:
            return make(index)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ended_program(error) from error

    def _is_ready(self, starting: _StartThread) -> bool:
        """Waits for one; False if the user asked to stop and it is not ready in time."""
        while True:
            starting.join(_POLL_SECONDS)
            if not starting.is_alive():
                if isinstance(starting.error, Exception):
                    raise starting.error
                if starting.error is not None:
                    raise ended_program(starting.error) from starting.error
                self._steps += 1
                return True
            if self._error is not None:
                raise self._error
            if self._stop.is_set():
                now = time.monotonic()
                self._deadline = self._deadline or now + _SECONDS_AFTER_STOP
                if now >= self._deadline:
                    return False
