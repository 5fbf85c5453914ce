"""Commands as forks of a process that has TensorFlow loaded (`fork_server`).

A `ForkedProcess` is used like a `subprocess.Popen`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from meta_impala.environments import minatar_games
from meta_impala.experiments.suite_runner import LOGS, StartProcess, last_line, start_here
from meta_impala.storage.files import open_log
from meta_impala.system.processes import end_with_parent

# What the commands import. Not the command modules themselves: they run as `__main__`.
TRAINING_MODULES = (
    "meta_impala.training.trainer",
    "meta_impala.storage.trained_agent",
    "meta_impala.evaluation.games",
    "meta_impala.evaluation.video",
    "ale_py",
)

# Forking is safe as long as no device was opened. Not tried with a GPU: there each run is a
# process.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")


def can_fork() -> bool:
    """Whether commands can be forks of one process on this machine: Linux, without a GPU."""
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and not any(os.path.exists(device) for device in _GPU_DEVICES)
    )


@contextlib.contextmanager
def starting_here(
    environments: Iterable[str], out: pathlib.Path, *, preload: bool = True
) -> Iterator[StartProcess]:
    """Yields the function that starts commands on this machine.

    Args:
      environments: ids, of the runs.
      out: folder of the suite.
      preload: whether commands are forks of one process, where this is possible.
    """
    if not (preload and can_fork()):
        yield start_here
        return
    modules = list(TRAINING_MODULES)
    of_minatar = any(name.startswith(minatar_games.NAMESPACE) for name in environments)
    if of_minatar and minatar_games.is_installed():
        modules.append("minatar")
    with contextlib.closing(ForkPool(out / LOGS / "fork_server.log", modules)) as pool:
        yield pool.start


class ForkPool:
    """Starts `python -m` commands as forks of one server, which is started when first needed.

    If the server dies, its children are sent SIGTERM and count as ended by it; the next command
    gets a new server.
    """

    def __init__(self, log: pathlib.Path, modules: Sequence[str] = TRAINING_MODULES) -> None:
        """Args:
        log: gets what the server itself prints.
        modules: that the server loads.
        """
        self._log = log
        self._modules = tuple(modules)
        self._server: subprocess.Popen[bytes] | None = None
        self._running: dict[int, ForkedProcess] = {}
        self._unread = b""
        self._jobs = 0

    @property
    def server_process(self) -> int | None:
        """Process id of the server, or None."""
        return None if self._server is None else self._server.pid

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> ForkedProcess:
        """Starts a command.

        Args:
          arguments: `[python, "-m", module, ...]`.
          log: a file with a name, opened for appending; gets the command's output.

        Raises:
          ValueError: if it is not such a command.
        """
        if len(arguments) < 3 or arguments[1] != "-m":
            raise ValueError(f"not a command of the form python -m module: {arguments}")
        log.flush()
        self.read_replies(0.0)
        if self._server is None:
            self._server = self._start_server()
        self._jobs += 1
        process = self._running[self._jobs] = ForkedProcess(self, self._jobs)
        self.send(
            {
                "start": self._jobs,
                "module": arguments[2],
                "arguments": list(arguments[3:]),
                "log": os.path.abspath(log.name),
            }
        )
        return process

    def _start_server(self) -> subprocess.Popen[bytes]:
        self._unread = b""
        with open_log(self._log) as log:
            return subprocess.Popen(
                [sys.executable, "-m", "meta_impala.experiments.fork_server", *self._modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                process_group=0,  # Ctrl-C is for the runner to pass on
                preexec_fn=end_with_parent,
            )

    def send(self, request: dict[str, object]) -> None:
        """Sends a request to the server, if there still is one."""
        if self._server is None:
            return
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            self._lose_server()

    def read_replies(self, timeout: float) -> None:
        """Notes which commands have ended.

        Args:
          timeout: seconds to wait for the first reply.
        """
        if self._server is None:
            return
        assert self._server.stdout is not None
        while select.select([self._server.stdout], [], [], timeout)[0]:
            received = os.read(self._server.stdout.fileno(), 2**16)
            if not received:
                self._lose_server()
                return
            *lines, self._unread = (self._unread + received).split(b"\n")
            for line in lines:
                reply = json.loads(line)
                process = self._running.pop(reply["job"])
                process.returncode = reply["code"]
                process.cpu_seconds = reply["cpu_seconds"]
            timeout = 0.0

    def _lose_server(self) -> None:
        server = self._server
        assert server is not None
        self.close()
        reason = ""
        if server.returncode > 0:  # not killed: it could not load its modules
            reason = f"{self._log.name}: {last_line(self._log)}"
        for process in self._running.values():
            process.returncode, process.reason = -signal.SIGTERM, reason
        self._running.clear()

    def close(self) -> None:
        """Ends the server. Commands that still run are sent SIGTERM."""
        if self._server is None:
            return
        server, self._server = self._server, None
        assert server.stdin is not None and server.stdout is not None
        server.stdin.close()
        server.stdout.close()
        server.wait()


class ForkedProcess:
    """A command that a `ForkPool` has started.

    Attributes:
      returncode: None while it runs.
      cpu_seconds: of all its threads; None while it runs, and if the server died.
      reason: why the server failed, if it did.
    """

    def __init__(self, pool: ForkPool, job: int) -> None:
        self._pool = pool
        self._job = job
        self.returncode: int | None = None
        self.cpu_seconds: float | None = None
        self.reason = ""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            self._pool.read_replies(0.0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Waits for its end; returns the exit code.

        Raises:
          subprocess.TimeoutExpired: if it still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise subprocess.TimeoutExpired(f"job {self._job}", timeout)
            self._pool.read_replies(left)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            self._pool.send({"signal": int(number), "job": self._job})
