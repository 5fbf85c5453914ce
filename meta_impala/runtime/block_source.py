"""Where the learner's blocks come from: actors behind a queue, or actors taking turns.

The actors behind a queue are threads, or processes on a Ray cluster (`ray_actors.py`).
"""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from meta_impala.agent import Snapshot
from meta_impala.config import Config
from meta_impala.errors import warn
from meta_impala.runtime.actor import Actor, ActorThread, Restarts
from meta_impala.runtime.signals import StopRequest
from meta_impala.runtime.trajectory import Block, Episode, Unroll, split
from meta_impala.runtime.trajectory_queue import QueueClosed, TrajectoryQueue
from meta_impala.runtime.watchdog import Watched

# How often a wait looks up to see whether the user asked to stop.
POLL_SECONDS = 0.2
_JOIN_SECONDS = 5.0
# An actor waits for room for as long as the learner takes; whether a run is stalled is for the
# learner to say, and closing the queue ends the wait.
_PUT_TIMEOUT_SECONDS = 1e6


def _close(actor: Actor) -> None:
    """Closes an actor's environments. One that cannot be closed must not cost the last save."""
    try:
        actor.close()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an environment may raise anything
        warn(f"warning: the environments of actor-{actor.index} could not be closed: {error!r}")


class StopRequested(Exception):
    """The user asked to stop while the learner was waiting for data."""


class BlockSource(Protocol):
    """Where the learner's blocks come from."""

    @property
    def looks(self) -> int:
        """A count that grows while the learner waits for a block, or is given one."""
        ...

    def start(self, snapshot: Snapshot) -> None: ...
    def publish(self, snapshot: Snapshot) -> None: ...
    def next_block(self) -> Block: ...
    def fill(self) -> float: ...
    def watched(self) -> Sequence[Watched]: ...
    def fail(self, error: BaseException) -> None: ...
    def close(self) -> None: ...


class QueuedSource:
    """What sources have in common whose actors run beside the learner: a bounded queue."""

    def __init__(self, config: Config, stop: StopRequest) -> None:
        self.looks = 0
        self._stop = stop
        self._stall_timeout = config.stall_timeout
        self._queue: TrajectoryQueue[Block] = TrajectoryQueue(config.queue_capacity)

    def publish(self, snapshot: Snapshot) -> None:
        # One reference, replaced as a whole: actors see the old snapshot or the new one.
        self._snapshot = snapshot

    def next_block(self) -> Block:
        """The oldest block. A wait without end is for the watchdog to end, through `fail`.

        Raises:
          StopRequested: if the user asked to stop while none came.
          BaseException: the first exception of an actor, with its own traceback, or that of `fail`.
        """
        while True:
            self.looks += 1
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
                _close(actor)


class TurnTakingSource:
    """`--deterministic`: no threads; the actors play in turn whenever the learner wants a block.

    The schedule is fixed: an actor's unroll always uses the snapshot of the newest update.
    """

    def __init__(
        self, actors: list[Actor], config: Config, stop: StopRequest, restarts: Restarts
    ) -> None:
        self._actors = actors
        self._restarts = restarts
        self._turn = 0
        self._block_size = config.block_size
        self._stop = stop
        self._pending: collections.deque[Block] = collections.deque()

    @property
    def looks(self) -> int:
        return sum(actor.steps for actor in self._actors)

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def next_block(self) -> Block:
        if self._stop.is_set():
            raise StopRequested
        if not self._pending:
            actor = self._actors[self._turn % len(self._actors)]
            self._turn += 1
            block = self._restarts.unroll(actor, self._snapshot)
            self._pending.extend(split(block, self._block_size))
        return self._pending.popleft()

    def fill(self) -> float:
        return 0.0

    def watched(self) -> Sequence[Watched]:
        return []  # the learner's own thread steps the environments

    def fail(self, error: BaseException) -> None:
        pass  # there is nobody to wake

    def close(self) -> None:
        for actor in self._actors:
            _close(actor)

    def state(self, unused: Sequence[Block]) -> dict[str, np.ndarray]:
        """Everything to go on from, as arrays.

        Args:
          unused: the last blocks that `next_block` gave out; `restore` takes them back.
        """
        arrays = {"turn": np.array(self._turn)}
        for index, block in enumerate([*unused, *self._pending]):
            fields = {
                **block.unroll._asdict(),
                "version": np.array(block.version),
                "actor": np.array(block.actor),
                "episodes": np.array(block.episodes, np.float64).reshape([-1, 2]),
            }
            arrays |= {f"block {index} {name}": array for name, array in fields.items()}
        for actor in self._actors:
            arrays |= {f"actor {actor.index} {name}": a for name, a in actor.state().items()}
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes where `state` was taken.

        Raises:
          StopRequested: if the user asked to stop on the way.
          RunFailed: if an environment does not do the same again.
        """
        self._turn = int(arrays["turn"])
        index = 0
        while f"block {index} version" in arrays:
            named = _under(arrays, f"block {index} ")
            episodes = tuple(Episode(float(r), int(frames)) for r, frames in named["episodes"])
            unroll = Unroll._make(named[name] for name in Unroll._fields)
            block = Block(unroll, int(named["version"]), episodes, int(named["actor"]))
            self._pending.append(block)
            index += 1
        for actor in self._actors:
            if not actor.replay(_under(arrays, f"actor {actor.index} "), self._stop.is_set):
                raise StopRequested


def fits(arrays: Mapping[str, np.ndarray], config: Config) -> bool:
    """Whether a saved state is of as many actors and environments, and blocks as large, as the
    config has."""
    actors = {name.split()[1] for name in arrays if name.startswith("actor ")}
    widths = {
        array.shape[1]
        for name, array in arrays.items()
        if name.startswith("actor ") and name.endswith(" actions")
    }
    blocks = {
        array.shape
        for name, array in arrays.items()
        if name.startswith("block ") and name.endswith(" last_actions")
    }
    return (
        len(actors) == config.num_actors
        and widths == {config.envs_per_actor}
        and blocks <= {(config.unroll_length + 1, config.block_size)}
    )


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
