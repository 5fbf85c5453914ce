"""Actor threads that feed the trajectory queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from meta_impala.actors.actor import Actor
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import QueuedSource
from meta_impala.actors.trajectory import Block, split
from meta_impala.actors.trajectory_queue import QueueClosed, TrajectoryQueue
from meta_impala.agent.policy import Snapshot
from meta_impala.config import Config
from meta_impala.errors import warn
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched


class ActorThread(threading.Thread):
    """Runs an actor until the queue is closed; any exception closes the queue with it.

    Attributes:
      steps: the actor's sign of life.
      is_waiting: for room in the queue: no step is to be expected.
    """

    def __init__(
        self,
        actor: Actor,
        unroll: Callable[[Actor, Snapshot], Block],
        latest_snapshot: Callable[[], Snapshot],
        queue: TrajectoryQueue[Block],
        block_size: int,
        put_timeout: float,
    ) -> None:
        super().__init__(name=f"actor-{actor.index}", daemon=True)
        self.is_waiting = False
        self._actor = actor
        self._unroll = unroll
        self._latest_snapshot = latest_snapshot
        self._queue = queue
        self._block_size = block_size
        self._put_timeout = put_timeout

    @property
    def steps(self) -> int:
        return self._actor.steps

    def run(self) -> None:
        try:
            while True:
                # The newest snapshot, taken between two unrolls: never half an update.
                whole = self._unroll(self._actor, self._latest_snapshot())
                self.is_waiting = True
                for block in split(whole, self._block_size):
                    self._queue.put(block, self._put_timeout)
                self.is_waiting = False
        except QueueClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run must hear of it
            self._queue.close(error)
        finally:
            self.is_waiting = True  # for nothing any more


_JOIN_SECONDS = 5.0

# An actor waits for room for as long as the learner takes; whether a run is stalled is for the
# learner to say, and closing the queue ends the wait.
_PUT_TIMEOUT_SECONDS = 1e6


def close_actor(actor: Actor) -> None:
    """Closes an actor's environments. One that cannot be closed must not cost the last save."""
    try:
        actor.close()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an environment may raise anything
        warn(f"warning: the environments of actor-{actor.index} could not be closed: {error!r}")


class ThreadedSource(QueuedSource):
    """Actor threads that feed the queue."""

    def __init__(
        self, actors: list[Actor], config: Config, stop: StopRequest, restarts: Restarts
    ) -> None:
        super().__init__(config, stop)
        self._is_closed = False
        self._actors = actors
        self._threads = [
            ActorThread(
                actor,
                restarts.unroll,
                self._latest,
                self._queue,
                config.block_size,
                _PUT_TIMEOUT_SECONDS,
            )
            for actor in actors
        ]

    def _latest(self) -> Snapshot:
        return self._snapshot

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for thread in self._threads:
            thread.start()

    def watched(self) -> Sequence[Watched]:
        return [
            Watched(
                thread.name,
                lambda thread=thread: thread.steps,  # type: ignore[misc]
                lambda thread=thread: thread.is_waiting,  # type: ignore[misc]
                self._stall_timeout,
            )
            for thread in self._threads
        ]

    def close(self) -> None:
        if self._is_closed:  # whoever was late then would be waited for again
            return
        self._is_closed = True
        self._queue.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        for thread, actor in zip(self._threads, self._actors, strict=True):
            # An emulator must not be closed under a thread that is still inside it.
            if not thread.is_alive():
                close_actor(actor)
