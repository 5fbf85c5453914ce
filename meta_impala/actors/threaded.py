"""Actor threads that feed the trajectory queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from meta_impala.actors.actor import Actor
from meta_impala.actors.late_actors import LateActors
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import QueuedSource
from meta_impala.actors.startup import close_actor
from meta_impala.actors.trajectory import Block, split
from meta_impala.actors.trajectory_queue import QueueClosed, TrajectoryQueue
from meta_impala.agent.policy import Snapshot
from meta_impala.config import ActorSettings
from meta_impala.system.ending import ForeignCodeThread
from meta_impala.system.signals import StopRequest
from meta_impala.system.timing import Stopwatch
from meta_impala.system.watchdog import Watched

# How long actor threads are waited for when the source is closed.
_JOIN_SECONDS = 5.0
# An actor waits for room as long as the learner takes: the watchdog decides whether the learner is
# stalled, and closing the queue ends the wait.
_PUT_TIMEOUT_SECONDS = 1e6


class ActorThread(ForeignCodeThread):
    """Runs an actor until the queue is closed; any exception closes the queue with it.

    Attributes:
      is_waiting: whether it waits for room in the queue, so that no step is to be expected.
    """

    def __init__(
        self,
        actor: Actor,
        unroll: Callable[[Actor, Snapshot], Block],
        latest_snapshot: Callable[[], Snapshot],
        queue: TrajectoryQueue[Block],
        block_size: int,
    ) -> None:
        super().__init__(f"actor-{actor.index}")
        self.is_waiting = False
        self._actor = actor
        self._unroll = unroll
        self._latest_snapshot = latest_snapshot
        self._queue = queue
        self._block_size = block_size

    @property
    def steps(self) -> int:
        """Steps that the actor made; grows while all is well."""
        return self._actor.steps

    def run(self) -> None:
        try:
            while True:
                # The newest snapshot, taken between two unrolls: never half an update.
                whole = self._unroll(self._actor, self._latest_snapshot())
                self.is_waiting = True
                for block in split(whole, self._block_size):
                    self._queue.put(block, _PUT_TIMEOUT_SECONDS)
                self.is_waiting = False
        except QueueClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the learner's thread
            self._queue.close(error)
        finally:
            self.is_waiting = True  # no more steps are to be expected


class ThreadedSource(QueuedSource):
    """Actor threads that feed the queue."""

    def __init__(
        self,
        actors: list[Actor],
        settings: ActorSettings,
        block_size: int,
        stop: StopRequest,
        restarts: Restarts,
        stopwatches: Sequence[Stopwatch] = (),
        late: LateActors | None = None,
    ) -> None:
        """Args:
        actors: started; closed with the source.
        settings: resolved.
        block_size: unrolls in a block.
        stop: set when the wait for a block is to end.
        restarts: replaces environments that raise.
        stopwatches: one of each actor, for the time of its unrolls; or none.
        late: makes further actors after the first update.
        """
        assert not stopwatches or late is None, "what is timed is there from the start"
        super().__init__(settings, stop)
        self._is_closed = False
        self._restarts = restarts
        self._block_size = block_size
        self._late = late
        self._joining = threading.Lock()
        unrolls = [restarts.unroll for _ in actors]
        if stopwatches:
            unrolls = [watch.timed("unroll", restarts.unroll) for watch in stopwatches]
        self._actors = [
            (self._thread_of(actor, unroll), actor)
            for actor, unroll in zip(actors, unrolls, strict=True)
        ]

    def _thread_of(self, actor: Actor, unroll: Callable[[Actor, Snapshot], Block]) -> ActorThread:
        return ActorThread(actor, unroll, self._latest, self._queue, self._block_size)

    def _latest(self) -> Snapshot:
        return self._snapshot

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for thread, _ in self._actors:
            thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        super().publish(snapshot)
        if self._late is not None and self._late.ident is None:
            self._late.begin(self._join, self.fail)

    def _join(self, actor: Actor) -> None:
        """Lets an actor that has started play too."""
        with self._joining:
            if self._is_closed:
                return close_actor(actor)
            thread = self._thread_of(actor, self._restarts.unroll)
            self._actors = [*self._actors, (thread, actor)]
            thread.start()

    def watched(self) -> Sequence[Watched]:
        late = [] if self._late is None else self._late.watched(self._stall_timeout)
        return late + [
            Watched(
                thread.name,
                lambda thread=thread: thread.steps,  # type: ignore[misc]
                lambda thread=thread: thread.is_waiting,  # type: ignore[misc]
                self._stall_timeout,
            )
            for thread, _ in self._actors
        ]

    def close(self) -> None:
        if self._is_closed:  # late threads would be waited for again
            return
        with self._joining:
            self._is_closed = True
        self._queue.close()
        if self._late is not None:
            self._late.give_up()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread, _ in self._actors:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        for thread, actor in self._actors:
            # An emulator must not be closed under a thread that is still inside it.
            if not thread.is_alive():
                close_actor(actor)
