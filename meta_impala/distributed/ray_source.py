"""Actors on a Ray cluster as a source of blocks: the learner's side.

One thread requests at most `unrolls_in_flight` unrolls from every actor, each with the newest
weights at that time, and puts the results into the queue. It requests the next one only after there
was room: the actors wait for the learner, and policy lag is bounded. A version of the weights is
put into Ray's object store once; all actors get the same reference, and a node fetches it once.

A lost process or node costs the unrolls requested from it. Its actors are started again as soon as
the cluster has room for them.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from meta_impala.actors.making import actor_seed
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import POLL_SECONDS, QueuedSource
from meta_impala.actors.trajectory import split
from meta_impala.actors.trajectory_queue import QueueClosed
from meta_impala.agent.policy import Snapshot
from meta_impala.config import RemoteActorSettings
from meta_impala.distributed.cluster_watch import ClusterLost, ClusterWatch
from meta_impala.distributed.remote_actor import Delivery, RemoteActor
from meta_impala.distributed.weights import Publisher, Weights, save
from meta_impala.environments import Description
from meta_impala.errors import RunFailed, UserError, one_line, warn
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched

_JOIN_SECONDS = 10.0
# An object that is ready is on its way already.
_GET_SECONDS = 60.0
_MAX_BACKOFF_SECONDS = 30.0
_SECONDS_UNTIL_HINT = 30.0


class _Slot:
    """One actor of the run, whose process may be replaced.

    Attributes:
      index: of the actor.
      handle: of the process, or None.
      asked: unanswered requests, oldest first.
      is_placed: whether the cluster has found room for the process.
      since: time of the last answer, by the clock of the source.
      losses: processes lost since the last unroll.
      start_at: earliest time of the next process's start, by that clock.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.handle: Any = None
        self.asked: collections.deque[Any] = collections.deque()
        self.is_placed = False
        self.since = 0.0
        self.losses = 0
        self.start_at = 0.0


class RaySource(QueuedSource):
    """Actors on the cluster that this process is connected to (`cluster.connected`).

    Attributes:
      unrolls, unroll_bytes: received so far.
      broadcasts, broadcast_bytes: weights put into the object store so far.
    """

    def __init__(
        self,
        settings: RemoteActorSettings,
        block_size: int,
        description: Description,
        stop: StopRequest,
        restarts: Restarts,
        *,
        first_actor: int = 0,
    ) -> None:
        """Args:
        settings: resolved, network included.
        block_size: unrolls in a block.
        description: of the environment.
        stop: set when the wait for a block is to end.
        restarts: counts those of actors.
        first_actor: index of the first of the actors, among those of all learners.
        """
        super().__init__(settings, stop)
        self.unrolls = self.unroll_bytes = self.broadcasts = self.broadcast_bytes = 0
        self._settings = settings
        self._block_size = block_size
        self._description = description
        self._restarts = restarts
        self._actor_class = ray.remote(RemoteActor).options(
            num_cpus=settings.env_threads, max_restarts=0, max_task_retries=0
        )
        self._slots = [_Slot(first_actor + index) for index in range(settings.num_actors)]
        self._weights: tuple[int, Any] | None = None
        # Seconds spent waiting or working: a process that was stopped does not report a hang.
        self._clock = 0.0
        self._last_tick = time.monotonic()
        self._turns = 0
        self._all_waiting_since: float | None = None
        self._hinted = False
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._hand_over = tempfile.mkdtemp(prefix="meta_impala-weights-", dir=memory)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray-actors", daemon=True)
        self._cluster = ClusterWatch(self.fail)

    def start(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._cluster.start()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._publisher = (
            ray.remote(Publisher)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote()
        )
        self._thread.start()

    def watched(self) -> Sequence[Watched]:
        return [
            Watched(
                self._thread.name,
                lambda: self._turns,
                self._closing.is_set,
                self._stall_timeout + _GET_SECONDS,
            )
        ]

    def close(self) -> None:
        self._closing.set()
        self._queue.close()
        self._cluster.stop()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)
        shutil.rmtree(self._hand_over, ignore_errors=True)

    # Everything below runs in the source's thread.

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._tick()
                self._cluster.check()
                for slot in self._slots:
                    if slot.handle is None and self._clock >= slot.start_at:
                        self._start_process(slot)
                for slot in self._ready():
                    self._receive(slot)
                self._check_times()
        except QueueClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the learner's thread
            self._queue.close(error)
        finally:
            if not isinstance(self._queue.error, ClusterLost):  # or it would wait for an answer
                for slot in self._slots:
                    self._end_process(slot)
                ray.kill(self._publisher)

    def _tick(self) -> None:
        now = time.monotonic()
        self._clock += min(now - self._last_tick, 5.0 * POLL_SECONDS)
        self._last_tick = now
        self._turns += 1

    def _start_process(self, slot: _Slot) -> None:
        settings = self._settings
        seed = actor_seed(
            settings.seed,
            self._snapshot.version,
            slot.index,
            settings.envs_per_actor,
            self._restarts.count,
        )
        slot.handle = self._actor_class.remote(slot.index, seed, settings, self._description)
        slot.asked.append(slot.handle.place.remote())

    def _end_process(self, slot: _Slot) -> None:
        handle, slot.handle = slot.handle, None
        slot.is_placed = False
        slot.asked.clear()
        if handle is not None:
            with contextlib.suppress(Exception):  # it may be dead, or the cluster
                ray.kill(handle)

    def _ready(self) -> list[_Slot]:
        """The actors whose oldest answer is here; waits a moment for one."""
        oldest = {slot.asked[0]: slot for slot in self._slots if slot.asked}
        if not oldest:
            self._closing.wait(POLL_SECONDS)
            return []
        references = list(oldest)
        ready, _ = ray.wait(references, num_returns=1, timeout=POLL_SECONDS)
        if ready and len(references) > 1:
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return [oldest[reference] for reference in ready]

    def _receive(self, slot: _Slot) -> None:
        reference = slot.asked.popleft()
        self._cluster.check()
        try:
            answer = ray.get(reference, timeout=_GET_SECONDS)
        except ray.exceptions.RayTaskError as error:
            self._end_process(slot)
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, UserError):  # a new process would fail in the same way
                raise RunFailed(f"actor-{slot.index} cannot run on its node: {cause}") from error
            if cause is not error:
                cause.add_note(str(error))  # holds the traceback of the other process
            self._restarts.record(slot.index, cause)
            return
        except ray.exceptions.RayError as error:
            self._lose(slot, one_line(error))
            return
        slot.since = self._clock
        if isinstance(answer, Delivery):
            slot.losses = 0
            self._pass_on(answer)
        else:
            slot.is_placed = True
        while len(slot.asked) < self._settings.unrolls_in_flight:
            slot.asked.append(slot.handle.unroll.remote(self._newest_weights()))

    def _pass_on(self, delivery: Delivery) -> None:
        """Puts an unroll into the queue, waiting for room."""
        self.unrolls += 1
        self.unroll_bytes += delivery.unroll.nbytes
        for block in split(delivery.block(), self._block_size):
            while True:
                try:
                    self._queue.put(block, POLL_SECONDS)
                    break
                except TimeoutError:
                    self._tick()

    def _newest_weights(self) -> Any:
        """The reference of the newest weights; put into the object store once."""
        snapshot = self._snapshot
        if self._weights is None or self._weights[0] != snapshot.version:
            weights = Weights.of(snapshot)
            path = pathlib.Path(self._hand_over) / f"{snapshot.version}.npz"
            save(weights, path)
            self._weights = snapshot.version, self._publisher.load.remote(str(path))
            self.broadcasts += 1
            self.broadcast_bytes += weights.nbytes
        return self._weights[1]

    def _lose(self, slot: _Slot, reason: str) -> None:
        """A process or node was lost or given up: replaces it."""
        self._end_process(slot)
        slot.losses += 1
        limit = self._settings.max_actor_restarts
        if slot.losses > limit:
            raise RunFailed(
                f"actor-{slot.index} was lost {slot.losses} times without an unroll in between "
                f"(--max_actor_restarts={limit}), the last time: {reason}"
            )
        self._restarts.count += 1
        warn(f"warning: actor-{slot.index} was lost and is started again: {reason}")
        # Not at once: the cluster may not know yet that the node is lost.
        slot.start_at = self._clock + min(2.0 ** (slot.losses - 1), _MAX_BACKOFF_SECONDS)

    def _check_times(self) -> None:
        limit = self._stall_timeout
        for slot in self._slots:
            if slot.is_placed and slot.asked and self._clock - slot.since >= limit:
                ready, _ = ray.wait([slot.asked[0]], timeout=0)
                if not ready:
                    self._lose(slot, f"no unroll for {limit:g} s (--stall_timeout)")
        if any(slot.is_placed for slot in self._slots):
            self._all_waiting_since = None
            return
        if self._all_waiting_since is None:
            self._all_waiting_since = self._clock
        waited = self._clock - self._all_waiting_since
        need = f"room for an actor ({self._settings.env_threads} CPU) anywhere in the Ray cluster"
        if waited >= limit:
            raise RunFailed(f"no {need} for {limit:g} s (--stall_timeout)")
        if waited >= _SECONDS_UNTIL_HINT and not self._hinted:
            self._hinted = True
            warn(f"warning: no {need} for {waited:.0f} s; the run continues when a node joins it")
