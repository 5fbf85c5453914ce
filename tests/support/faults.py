"""Faults at every call to the operating system in turn: errors, and the death of the process.

A clean run counts the calls that change the disk. Then the same is run once for every call, which
fails with an OSError, or at which the process dies: nothing after it happens, no clean-up either.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import pytest
import tensorflow as tf

CALLS = (
    "open", "write", "pwrite", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir",
    "ftruncate", "truncate", "utime",
)  # fmt: skip


class Killed(BaseException):
    """The process is dead."""


class Recorder:
    """Counts the calls, and does something at one of them.

    Attributes:
      calls: names of the calls made so far.
    """

    def __init__(self, at: int | None = None, fault: str = "") -> None:
        self.calls: list[str] = []
        self._at = at
        self._fault = fault
        self._is_dead = False

    def wrap(self, name: str, function: Callable) -> Callable:
        def call(*arguments, **named):
            if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
                if self._is_dead:
                    raise Killed
                return function(*arguments, **named)
            index = len(self.calls)
            self.calls.append(name)
            if self._is_dead:
                raise Killed
            if index == self._at:
                if self._fault == "kill":
                    self._is_dead = True
                    raise Killed
                if self._fault == "kill after":
                    self._is_dead = True
                    function(*arguments, **named)
                    raise Killed
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return function(*arguments, **named)

        return call

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            for name in CALLS:
                patched.setattr(os, name, self.wrap(name, getattr(os, name)))
            write = tf.train.Checkpoint.write
            patched.setattr(tf.train.Checkpoint, "write", self.wrap("tensorflow", write))
            yield


FAULTS = ("error", "kill", "kill after")


def number_of_calls(act: Callable[[], object]) -> int:
    """How many calls change the disk in a run without a fault."""
    recorder = Recorder()
    with recorder.active():
        act()
    return len(recorder.calls)


def run_with_fault(act: Callable[[], object], at: int, fault: str) -> BaseException | None:
    """Runs something with a fault at a call; returns what it raised."""
    recorder = Recorder(at, fault)
    with recorder.active():
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            return error
    return None
