"""A bounded, closeable queue between actors and learner.

Closing it wakes every waiting thread and carries the first exception, so that no wait is endless
and no error is lost in a thread.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueClosed(Exception):
    """The queue was closed; `__cause__` is the exception that closed it, if there was one."""


class TrajectoryQueue(Generic[T]):
    """First in, first out, at most `capacity` items."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, is {capacity}")
        self.capacity = capacity
        self._items: collections.deque[T] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    @property
    def error(self) -> BaseException | None:
        """The first exception the queue was closed with."""
        return self._error

    def put(self, item: T, timeout: float) -> None:
        """Appends an item, waiting for room.

        Raises:
          TimeoutError: after `timeout` seconds without room.
          QueueClosed: if the queue is closed, at once or while waiting.
        """
        with self._changed:
            self._wait(lambda: len(self._items) < self.capacity, timeout, "no room")
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout: float) -> T:
        """Removes and returns the oldest item, waiting for one.

        Raises:
          TimeoutError: after `timeout` seconds without an item.
          QueueClosed: if the queue is closed, at once or while waiting; items left are dropped.
        """
        with self._changed:
            self._wait(lambda: bool(self._items), timeout, "no item")
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, error: BaseException | None = None) -> None:
        """Closes the queue for all threads; the first error given is the one that is carried."""
        with self._changed:
            if error is not None and self._error is None:
                self._error = error
            self._closed = True
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not self._closed and not ready():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"{what} in the trajectory queue for {timeout:g} s")
            self._changed.wait(remaining)
        if self._closed:
            raise QueueClosed from self._error
