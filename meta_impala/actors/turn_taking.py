"""`--deterministic`: actors that take turns in one fixed schedule, without threads."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from meta_impala.actors.actor import Actor
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import StopRequested
from meta_impala.actors.threaded import close_actor
from meta_impala.actors.trajectory import Block, Episode, Unroll, split
from meta_impala.agent.policy import Snapshot
from meta_impala.config import Config
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import Watched


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
            close_actor(actor)

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
