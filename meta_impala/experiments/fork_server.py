"""A process that has TensorFlow loaded and forks one child per command, in place of `python -m`.

The import of TensorFlow costs over 2 CPU-seconds, as much as a short run. The server pays it once
and starts no TensorFlow operation, so a fork of it is a fresh process in every respect: memory,
threads, signals, process-wide settings and exit code are its own, and its results are those of the
command run by itself.

Requests are lines of JSON on standard input, replies lines of JSON on standard output:

    {"start": 7, "module": "meta_impala.train", "arguments": ["--logdir=a"], "log": "a.log"}
    {"signal": 15, "job": 7}
    -> {"job": 7, "code": 0, "cpu_seconds": 9.5}

The code is negative for the signal that ended the child; CPU-seconds are of all its threads.

The server ends when its standard input is closed; its children are then sent SIGTERM. Its arguments
are the modules to load.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import pathlib
import random
import runpy
import selectors
import signal
import sys
from typing import Any

import numpy as np

from meta_impala.storage.files import open_log
from meta_impala.system.processes import end_with_parent
from meta_impala.system.tensorflow_import import quiet_tensorflow, without_keras


@dataclasses.dataclass(frozen=True)
class Command:
    """What a child is to run: `python -m module arguments`, its output appended to `log`."""

    module: str
    arguments: tuple[str, ...]
    log: str


class ForkServer:
    """Forks a child for each request until standard input is closed."""

    def __init__(self, requests: int, replies: int) -> None:
        """Args:
        requests: file descriptor that requests are read from.
        replies: file descriptor that replies are written to.
        """
        self._requests = requests
        self._replies = replies
        self._unread = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, int]] = {}  # job -> (process, file descriptor of it)

    def serve(self) -> Command | None:
        """Returns in each child with its command, and in the server, at its end, with None."""
        while True:
            for key, _ in self._selector.select():
                if key.fd != self._requests:
                    self._reap(key.data)
                    continue
                received = os.read(self._requests, 2**16)
                if not received:
                    return None
                *lines, self._unread = (self._unread + received).split(b"\n")
                for line in lines:
                    command = self._handle(json.loads(line))
                    if command is not None:
                        return command

    def _handle(self, request: dict[str, Any]) -> Command | None:
        if "start" not in request:
            child = self._children.get(request["job"])
            if child is not None:  # not yet reaped: the number is still its own
                os.kill(child[0], request["signal"])
            return None
        command = Command(request["module"], tuple(request["arguments"]), request["log"])
        server = os.getpid()
        process = os.fork()
        if process == 0:
            self._leave(command, server)
            return command
        descriptor = os.pidfd_open(process)
        self._children[request["start"]] = (process, descriptor)
        self._selector.register(descriptor, selectors.EVENT_READ, request["start"])
        return None

    def _leave(self, command: Command, server: int) -> None:
        """In the child: keeps nothing that is the server's."""
        os.setpgid(0, 0)  # Ctrl-C is for the runner to pass on
        end_with_parent()
        if os.getppid() != server:  # it died before it could be watched
            os._exit(1)
        self._selector.close()
        for _, descriptor in self._children.values():
            os.close(descriptor)
        os.close(self._replies)
        nothing = os.open(os.devnull, os.O_RDONLY)
        with open_log(pathlib.Path(command.log)) as log:
            for source, target in ((nothing, 0), (log.fileno(), 1), (log.fileno(), 2)):
                os.dup2(source, target)
        os.close(nothing)
        # Otherwise an environment that draws from these would be the same in all children.
        random.seed()
        np.random.seed()

    def _reap(self, job: int) -> None:
        process, descriptor = self._children.pop(job)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        _, status, used = os.wait4(process, 0)
        reply = {
            "job": job,
            "code": os.waitstatus_to_exitcode(status),
            "cpu_seconds": used.ru_utime + used.ru_stime,
        }
        os.write(self._replies, json.dumps(reply).encode() + b"\n")


def main() -> None:
    """Loads the modules that the arguments name and serves; in a child, runs the command."""
    # Output of libraries is not a reply.
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    quiet_tensorflow()
    with without_keras():
        for module in sys.argv[1:]:
            importlib.import_module(module)
    gc.freeze()  # the children's garbage collection leaves TensorFlow's objects alone
    command = ForkServer(requests, replies).serve()
    if command is None:
        return
    os.close(requests)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it
    sys.argv = [command.module, *command.arguments]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
