"""New environments for an actor whose environments raised, a limited number of times."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Callable

from absl import logging

from meta_impala.actors.actor import Actor
from meta_impala.actors.making import actor_seed
from meta_impala.actors.trajectory import Block
from meta_impala.agent.policy import Snapshot
from meta_impala.environments.base import BatchedEnvironment, EnvironmentFailed
from meta_impala.errors import printable, text_of
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
        # How often each error was raised; its traceback is logged once.
        self._seen: dict[tuple[object, ...], int] = {}
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
            key = _places(error)
            self._seen[key] = seen = self._seen.get(key, 0) + 1
        # What an environment raised itself; how it was called is of no help to its author.
        cause = error.__cause__ if isinstance(error, EnvironmentFailed) else None
        text = "".join(traceback.format_exception(cause or error)).strip()
        if seen > 1:
            said = printable(f"{type(error).__name__}: {text_of(error)}")
            text = f"the same error, {seen} times: {said}"
        logging.warning(
            "actor-%d is restarted (%d of --max_actor_restarts=%d): %s",
            actor,
            self._limit - self._left,
            self._limit,
            text,
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


def _places(error: BaseException) -> tuple[object, ...]:
    """What two errors with the same traceback have in common, whatever their messages say."""
    found: list[object] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        found.append(type(cause))
        found += [(frame.f_code, line) for frame, line in traceback.walk_tb(cause.__traceback__)]
        # Of an actor in another process there is only the text, with its process id.
        found += [re.sub(r"\d+", "", note) for note in getattr(cause, "__notes__", ())]
        cause = cause.__cause__ or cause.__context__
    return tuple(found)
