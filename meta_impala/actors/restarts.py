"""New environments for an actor whose environments raised, a limited number of times."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from absl import logging

from meta_impala.actors.actor import Actor
from meta_impala.actors.making import actor_seed
from meta_impala.actors.trajectory import Block
from meta_impala.agent.policy import Snapshot
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.system.ending import ended_program

# An environment that cannot be made at once may need a moment (a server that is starting).
_SECONDS_BETWEEN_RESTARTS = 1.0


class Restarts:
    """Replaces the environments of actors that raised, and counts it.

    Attributes:
      count: restarts in the whole run.
    """

    def __init__(
        self, make_environment: Callable[[], BatchedEnvironment], seed: int, limit: int, count: int
    ) -> None:
        """Args:
        make_environment: N new environments.
        seed: of the run.
        limit: most restarts in this process.
        count: restarts before this process.
        """
        self._make_environment = make_environment
        self._seed = seed
        self._limit = limit
        self._left = limit
        self._lock = threading.Lock()
        self.count = count

    def record(self, actor: int, error: BaseException) -> int:
        """Counts a restart of an actor whose environments raised `error`.

        Returns:
          The number of restarts in the run.

        Raises:
          RunFailed: if no restart is left and the error would end the process as if it had
            succeeded.
          Exception: the error, if no restart is left.
        """
        with self._lock:
            if not self._left:
                if not isinstance(error, Exception):
                    raise ended_program(error) from error
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
        """`actor.unroll`; if the environments raise, with new ones.

        Raises:
          Exception: what the environments raised, if no restart is left.
        """
        while True:
            try:
                return actor.unroll(snapshot)
            except BaseException as error:  # noqa: BLE001 - an environment may raise anything
                self._replace(actor, snapshot, error)

    def _replace(self, actor: Actor, snapshot: Snapshot, error: BaseException) -> None:
        """New environments; a failure to make or start them counts as a further restart."""
        while True:
            count = self.record(actor.index, error)
            seed = actor_seed(self._seed, snapshot.version, actor.index, actor.num_envs, count)
            try:
                return actor.replace_environment(self._make_environment, seed)
            except BaseException as again:  # noqa: BLE001 - likewise
                error = again
                time.sleep(_SECONDS_BETWEEN_RESTARTS)
