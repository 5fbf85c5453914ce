"""Where the learner's blocks come from: actor threads behind a queue, or actors taking turns."""

from __future__ import annotations

import collections
import itertools
from typing import Protocol

from meta_impala.agent import Snapshot
from meta_impala.config import Config
from meta_impala.runtime.actor import Actor, ActorThread
from meta_impala.runtime.signals import StopRequest
from meta_impala.runtime.trajectory import Block, split
from meta_impala.runtime.trajectory_queue import QueueClosed, TrajectoryQueue

# How often a wait looks up to see whether the user asked to stop.
_POLL_SECONDS = 0.2
_JOIN_SECONDS = 5.0
# An actor waits for room for as long as the learner takes; whether a run is stalled is for the
# learner to say, and closing the queue ends the wait.
_PUT_TIMEOUT_SECONDS = 1e6


class StopRequested(Exception):
    """The user asked to stop while the learner was waiting for data."""


class BlockSource(Protocol):
    """Where the learner's blocks come from."""

    def start(self, snapshot: Snapshot) -> None: ...
    def publish(self, snapshot: Snapshot) -> None: ...
    def next_block(self) -> Block: ...
    def fill(self) -> float: ...
    def close(self) -> None: ...


class ThreadedSource:
    """Actor threads that feed a bounded queue."""

    def __init__(self, actors: list[Actor], config: Config, stop: StopRequest) -> None:
        self._stop = stop
        self._stall_timeout = config.stall_timeout
        self._queue: TrajectoryQueue[Block] = TrajectoryQueue(config.queue_capacity)
        self._actors = actors
        self._threads = [
            ActorThread(actor, self._latest, self._queue, config.block_size, _PUT_TIMEOUT_SECONDS)
            for actor in actors
        ]

    def _latest(self) -> Snapshot:
        return self._snapshot

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for thread in self._threads:
            thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        # One reference, replaced as a whole: actors see the old snapshot or the new one.
        self._snapshot = snapshot

    def next_block(self) -> Block:
        """The oldest block.

        Raises:
          StopRequested: if the user asked to stop while none came.
          TimeoutError: naming the threads, if none came for `stall_timeout` seconds.
          BaseException: the first exception of an actor, with its own traceback.
        """
        for waited in itertools.count():
            if self._stop.is_set():
                raise StopRequested
            try:
                return self._queue.get(_POLL_SECONDS)
            except TimeoutError:
                if waited * _POLL_SECONDS >= self._stall_timeout:
                    names = ", ".join(thread.name for thread in self._threads)
                    raise TimeoutError(
                        f"no unroll for {self._stall_timeout:g} s (--stall_timeout) from {names}"
                    ) from None
            except QueueClosed:
                error = self._queue.error
                assert error is not None, "the queue is closed by its source or by an error"
                raise error from None
        raise AssertionError("unreachable")

    def fill(self) -> float:
        """Share of the queue that is full."""
        return len(self._queue) / self._queue.capacity

    def close(self) -> None:
        self._queue.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN_SECONDS)
        for thread, actor in zip(self._threads, self._actors, strict=True):
            # An emulator must not be closed under a thread that is still inside it.
            if not thread.is_alive():
                actor.close()


class TurnTakingSource:
    """`--deterministic`: no threads; the actors play in turn whenever the learner wants a block.

    The schedule is fixed: an actor's unroll always uses the snapshot of the newest update.
    """

    def __init__(self, actors: list[Actor], config: Config, stop: StopRequest) -> None:
        self._actors = actors
        self._turn = itertools.cycle(actors)
        self._block_size = config.block_size
        self._stop = stop
        self._pending: collections.deque[Block] = collections.deque()

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def next_block(self) -> Block:
        if self._stop.is_set():
            raise StopRequested
        if not self._pending:
            block = next(self._turn).unroll(self._snapshot)
            self._pending.extend(split(block, self._block_size))
        return self._pending.popleft()

    def fill(self) -> float:
        return 0.0

    def close(self) -> None:
        for actor in self._actors:
            actor.close()
