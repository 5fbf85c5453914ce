"""Gives an actor whose environment raised new environments, a limited number of times."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from absl import logging

from meta_impala.actors.actor import Actor, actor_seed
from meta_impala.actors.trajectory import Block
from meta_impala.agent.policy import Snapshot
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.errors import RunFailed

# What does not start again at once may need a moment: a server that is starting, for example.
_SECONDS_BETWEEN_RESTARTS = 1.0


class Restarts:
    """Gives an actor whose environment raised new environments, so many times in a run's life."""

    def __init__(
        self, make_environment: Callable[[], BatchedEnvironment], seed: int, limit: int, count: int
    ) -> None:
        """Args:
        make_environment: N new environments.
        seed: of the run.
        limit: how many restarts are left to this process.
        count: restarts made before.
        """
        self._make_environment = make_environment
        self._seed = seed
        self._limit = limit
        self._left = limit
        self._lock = threading.Lock()
        self.count = count

    def use(self, actor: int, error: BaseException) -> int:
        """Counts a restart of an actor whose environment raised `error`.

        Returns:
          How many there were.

        Raises:
          RunFailed: if no restart is left and the error would end the process without a word.
          BaseException: the error, if no restart is left.
        """
        with self._lock:
            if not self._left:
                if isinstance(error, SystemExit):
                    raise RunFailed(f"an environment ended the program ({error!r})") from error
                raise error
            self._left -= 1
            self.count += 1
            count = self.count
        logging.warning(
            "actor-%d is restarted (%d of --max_actor_restarts=%d): %s",
            actor,
            self._limit - self._left,
            self._limit,
            "".join(traceback.format_exception(error)).strip(),
        )
        return count

    def unroll(self, actor: Actor, snapshot: Snapshot) -> Block:
        """`actor.unroll`, by new environments if the old ones raise.

        Raises:
          BaseException: what the environment raised, if no restart is left.
        """
        while True:
            try:
                return actor.unroll(snapshot)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an environment may raise anything
                self._replace(actor, snapshot, error)

    def _replace(self, actor: Actor, snapshot: Snapshot, error: BaseException) -> None:
        """New environments. If they cannot be made or started, that too is a restart."""
        while True:
            count = self.use(actor.index, error)
            seed = actor_seed(self._seed, snapshot.version, actor.index, actor.num_envs, count)
            try:
                return actor.replace_environment(self._make_environment, seed)
            except (Exception, SystemExit) as again:  # noqa: BLE001 - likewise
                error = again
                time.sleep(_SECONDS_BETWEEN_RESTARTS)
