"""Runs commands on a Ray cluster, with the interface of `subprocess.Popen`.

All machines see the same files at the same paths: run folders, logs, and the program itself.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Sequence
from typing import IO

import ray
from ray.exceptions import GetTimeoutError, RayError

from meta_impala.storage.files import open_log
from meta_impala.system.processes import end_with_parent

_CODE_LOST = -1


class _Command:
    """A command on the machine where it runs. It ends with the process that Ray made for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, arguments: Sequence[str], log: str, folder: str) -> int:
        with open_log(pathlib.Path(log)) as file:
            if self._is_stopped:
                return _CODE_LOST
            self._process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder if os.path.isdir(folder) else None,
                process_group=0,
                preexec_fn=end_with_parent,
            )
        return self._process.wait()

    def stop(self) -> None:
        self._is_stopped = True
        if self._process is not None:
            self._process.terminate()


class RayProcess:
    """A command on the cluster; queued until CPUs are free."""

    def __init__(self, arguments: Sequence[str], log: IO[bytes], cpus: float) -> None:
        """Args:
        arguments: of the command; the program has the same path on all machines.
        log: gets its output; a file that all machines see.
        cpus: that Ray keeps for it.
        """
        # A second thread, so that it can receive the request to stop.
        actor_class = ray.remote(_Command).options(num_cpus=cpus, max_concurrency=2)
        self._actor = actor_class.remote()
        self._result = self._actor.run.remote(list(arguments), log.name, os.getcwd())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, None while it runs; negative if its machine was lost."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has one.

        Raises:
          subprocess.TimeoutExpired: if it has none after `timeout` seconds.
        """
        if self.returncode is None:
            try:
                self.returncode = ray.get(self._result, timeout=timeout)
            except GetTimeoutError:
                raise subprocess.TimeoutExpired("a command on the cluster", timeout or 0) from None
            except RayError:
                self.returncode = _CODE_LOST
            ray.kill(self._actor)  # gives its place back
        return self.returncode

    def terminate(self) -> None:
        """Asks it to save and stop."""
        self._actor.stop.remote()

    def kill(self) -> None:
        """Ends it at once."""
        ray.kill(self._actor)
