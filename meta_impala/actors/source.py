"""Sources of the learner's blocks: the interface, and what sources with a queue share.

Actors that feed a queue are threads (`threaded.py`) or processes on a Ray cluster
(`distributed/ray_source.py`); with `--deterministic` they take turns (`turn_taking.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from meta_impala.actors.trajectory import Block
from meta_impala.actors.trajectory_queue import QueueClosed, TrajectoryQueue
from meta_impala.agent.policy import Snapshot
from meta_impala.config import ActorSettings
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched

# How often a waiting learner checks whether the user asked to stop.
POLL_SECONDS = 0.2


class StopRequested(Exception):
    """The user asked to stop while the learner was waiting for data."""


class BlockSource(Protocol):
    """A source of the learner's blocks."""

    @property
    def polls(self) -> int:
        """A count that grows while the learner waits for a block or gets one (for the watchdog)."""
        ...

    def start(self, snapshot: Snapshot) -> None: ...
    def publish(self, snapshot: Snapshot) -> None: ...
    def next_block(self) -> Block: ...
    def fill(self) -> float: ...
    def watched(self) -> Sequence[Watched]: ...
    def fail(self, error: BaseException) -> None: ...
    def close(self) -> None: ...


class QueuedSource:
    """A source whose actors run beside the learner and feed a bounded queue.

    Attributes:
      polls: see `BlockSource`.
    """

    def __init__(self, settings: ActorSettings, stop: StopRequest) -> None:
        self.polls = 0
        self._stop = stop
        self._stall_timeout = settings.stall_timeout
        self._queue: TrajectoryQueue[Block] = TrajectoryQueue(settings.queue_capacity)

    def publish(self, snapshot: Snapshot) -> None:
        # One reference, replaced atomically: actors see the old snapshot or the new one.
        self._snapshot = snapshot

    def next_block(self) -> Block:
        """The oldest block. A wait that is too long is ended by the watchdog, through `fail`.

        Raises:
          StopRequested: if the user asked to stop while none came.
          BaseException: the first exception of an actor, with its own traceback, or that of `fail`.
        """
        while True:
            self.polls += 1
            if self._stop.is_set():
                raise StopRequested
            try:
                return self._queue.get(POLL_SECONDS)
            except TimeoutError:
                continue
            except QueueClosed:
                error = self._queue.error
                assert error is not None, "the queue is closed by its source or by an error"
                raise error from None

    def fill(self) -> float:
        """Share of the queue that is full."""
        return len(self._queue) / self._queue.capacity

    def fail(self, error: BaseException) -> None:
        """Wakes the learner with this error."""
        self._queue.close(error)
