"""`--deterministic`: actors that take turns in one fixed schedule.

One thread steps all environments while the learner's thread waits: a request to stop is noticed
however long an unroll takes.
"""

from __future__ import annotations

import collections
import functools
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from meta_impala.actors.actor import Actor
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import POLL_SECONDS, StopRequested
from meta_impala.actors.startup import close_actor
from meta_impala.actors.trajectory import Block, Episode, Unroll, split
from meta_impala.agent.policy import Snapshot
from meta_impala.config import ActorSettings
from meta_impala.errors import warn
from meta_impala.system.ending import ForeignCodeThread
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched

# How long to wait for the current unroll once the user asked to stop.
_SECONDS_AFTER_STOP = 15.0

_GIVEN_UP = (
    f"warning: an unroll took more than {_SECONDS_AFTER_STOP:g} s after the request to stop and "
    "was abandoned: the continued run resets its environments, and will not be bit-identical "
    "to one that was not stopped"
)

T = TypeVar("T")


class _Worker(ForeignCodeThread):
    """Makes calls one at a time, for a caller that must be able to stop waiting."""

    def __init__(self) -> None:
        super().__init__("actors")
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._results.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - raised again by `call`
                self._results.put((None, error))

    def call(self, function: Callable[[], T], is_late: Callable[[], bool]) -> T:
        """The function's result.

        Raises:
          StopRequested: once `is_late` is true while there is no result; the call continues.
          BaseException: what the function or `is_late` raised.
        """
        self._calls.put(function)
        while True:
            try:
                result, error = self._results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if is_late():
                    raise StopRequested from None
                continue
            if error is not None:
                raise error
            return result

    def end(self) -> None:
        """Ends the thread after the current call."""
        self._calls.put(None)


class TurnTakingSource:
    """`--deterministic`: one actor after the other plays when the learner wants a block.

    The schedule is fixed: an actor's unroll always uses the snapshot of the newest update.
    """

    def __init__(
        self, actors: list[Actor], block_size: int, stop: StopRequest, restarts: Restarts
    ) -> None:
        """Args:
        actors: started; closed with the source.
        block_size: unrolls in a block.
        stop: set when the wait for a block is to end.
        restarts: replaces environments that raise.
        """
        self._actors = actors
        self._restarts = restarts
        self._turn = 0
        self._block_size = block_size
        self._stop = stop
        self._stop_seen: float | None = None
        self._pending: collections.deque[Block] = collections.deque()
        self._worker = _Worker()
        # An unroll was given up: the actors' state is not that between two unrolls.
        self._is_abandoned = False
        self._failure: BaseException | None = None

    @property
    def polls(self) -> int:
        return sum(actor.steps for actor in self._actors)

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def next_block(self) -> Block:
        """The next block.

        Raises:
          StopRequested: if the user asked to stop before, or during an unroll that takes long.
          BaseException: what an environment raised, if no restart is left.
        """
        if self._stop.is_set():
            raise StopRequested
        if not self._pending:
            actor = self._actors[self._turn % len(self._actors)]
            self._turn += 1
            snapshot = self._snapshot
            try:
                block = self._call(lambda: self._restarts.unroll(actor, snapshot))
            except StopRequested:
                warn(_GIVEN_UP)
                raise
            self._pending.extend(split(block, self._block_size))
        return self._pending.popleft()

    def _call(self, function: Callable[[], T]) -> T:
        if self._worker.ident is None:
            self._worker.start()
        try:
            return self._worker.call(function, self._is_late)
        except StopRequested:
            self._is_abandoned = True
            raise

    def _is_late(self) -> bool:
        if self._failure is not None:
            raise self._failure
        if not self._stop.is_set():
            return False
        now = time.monotonic()
        self._stop_seen = self._stop_seen or now
        return now - self._stop_seen >= _SECONDS_AFTER_STOP

    def fill(self) -> float:
        return 0.0

    def watched(self) -> Sequence[Watched]:
        return []  # the learner waits for every step, so it is watched

    def fail(self, error: BaseException) -> None:
        self._is_abandoned = True
        self._failure = error

    def close(self) -> None:
        self._worker.end()
        if self._is_abandoned:
            return  # an emulator must not be closed under a thread that is still inside it
        for actor in self._actors:
            close_actor(actor)

    def state(self, unused: Sequence[Block]) -> dict[str, np.ndarray] | None:
        """The state for `restore`, as arrays; None if an unroll was given up, or no actor was ready
        when the user asked to stop.

        Args:
          unused: the last blocks that `next_block` returned; after `restore` they come first.
        """
        if self._is_abandoned or not self._actors:
            return None
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
        """Restores the actors' state.

        Raises:
          StopRequested: if the user asked to stop meanwhile.
          RunFailed: if an environment does not behave as it did before.
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
            if not self._call(functools.partial(self._replay, actor, arrays)):
                raise StopRequested

    def _replay(self, actor: Actor, arrays: Mapping[str, np.ndarray]) -> bool:
        return actor.replay(_under(arrays, f"actor {actor.index} "), self._stop.is_set)


def fits(
    arrays: Mapping[str, np.ndarray], settings: ActorSettings, unroll_length: int, block_size: int
) -> bool:
    """Whether a saved state has this many actors and environments, and blocks of this shape."""
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
        len(actors) == settings.num_actors
        and widths == {settings.envs_per_actor}
        and blocks <= {(unroll_length + 1, block_size)}
    )


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
