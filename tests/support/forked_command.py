"""Commands as processes that need not import everything: forks of one process that has done so.

`Popen` and `run` are used like those of `subprocess`, for `[sys.executable, "-m", module, ...]`,
`[sys.executable, script, ...]` and `[sys.executable, "-c", code, ...]`. The child is a process of
the test's own in every respect: process id, parent, signals, streams, exit code, working folder
and environment. Only what the interpreter reads of the environment before its first line (such as
PYTHONIOENCODING) is that of the test, so what is tested at the start of a process gets a new one.

The import of TensorFlow takes 5 CPU-seconds, more than most of these commands; each test process
pays it once. With `light` the child is a fork of another process, which has the settings loaded and
not TensorFlow: for answers that come before its import.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import random
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_impala.experiments.forked_process import TRAINING_MODULES, can_fork
from meta_impala.system.tensorflow_import import quiet_tensorflow

_FIGURES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
# Not the command modules themselves: they run as `__main__`.
_SETTINGS = (
    "meta_impala.command",
    "meta_impala.config.flags",
    "meta_impala.storage.run_folder",
    "meta_impala.storage.trained_run",
)
_PR_SET_CHILD_SUBREAPER = 36
_MAX_REQUEST = 2**20


class Popen(subprocess.Popen):
    """A `subprocess.Popen` whose child is a fork of a server, where this is possible."""

    def __init__(self, words: Sequence[str], *, light: bool = False, **settings: Any) -> None:
        self._server = _LIGHT if light else _WHOLE
        super().__init__(words, **settings)

    def _execute_child(self, *arguments: Any) -> None:
        """As the base class does it: starts the child, and closes its ends of the pipes here."""
        original = super()._execute_child
        named = inspect.signature(original).bind(*arguments).arguments
        words = list(map(os.fspath, named["args"]))
        if words[0] != sys.executable or not can_fork() or named["preexec_fn"]:
            original(*arguments)
            return
        streams = [named[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = {
            "words": words[1:],
            "folder": os.fspath(named["cwd"] or os.getcwd()),
            "environment": dict(named["env"] or os.environ),
            "session": named["start_new_session"],
            "group": named["process_group"],
        }
        self.pid = self._server.start(
            request, [i if fd == -1 else fd for i, fd in enumerate(streams)]
        )
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(named[name] for name in pipes))


def run(
    words: list, *, capture_output: bool = False, timeout: float | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """A command to its end, like `subprocess.run`."""
    check = settings.pop("check", False)
    if capture_output:
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(words, **settings) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    result = subprocess.CompletedProcess(words, process.returncode, out, errors)
    if check:
        result.check_returncode()
    return result


class _Server:
    """A process that is forked; started when first needed, it ends with this one."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def start(self, request: dict, streams: list[int]) -> int:
        """Starts a child of this process; returns its process id."""
        with self._lock:
            if self._socket is None:
                self._socket = self._launch()
            # The server's grandchild, whose parent ends, is given to this process for adoption.
            _adopt_orphans(True)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
                return int(self._socket.recv(64))
            finally:
                _adopt_orphans(False)

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *self._modules],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        assert ours.recv(64) == b"ready"
        return ours


_WHOLE = _Server(*TRAINING_MODULES, *_FIGURES)
_LIGHT = _Server(*_SETTINGS)


def _adopt_orphans(is_on: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0)


def _serve(requests: socket.socket) -> dict | None:
    """Forks for each request; returns the request in each child, and at the end None."""
    while True:
        received, descriptors, *_ = socket.recv_fds(requests, _MAX_REQUEST, 3)
        if not received:
            return None
        between = os.fork()
        if not between:
            between = os.getpid()
            if os.fork():
                os._exit(0)
            break
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)
    while os.getppid() == between:
        time.sleep(0.001)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return json.loads(received)


def _become(request: dict, rest_of_path: list[str]) -> None:
    """In the child: what the interpreter would set up, and then the command."""
    if request["session"]:
        os.setsid()
    elif request["group"] != -1:
        os.setpgid(0, request["group"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    random.seed()
    np.random.seed()
    kind, *words = request["words"]
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first = os.path.dirname(os.path.abspath(kind)) if kind not in ("-m", "-c") else os.getcwd()
    sys.path[:] = [first, *paths, *rest_of_path]
    if kind == "-m":
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *words[1:]]
        exec(words[0], {"__name__": "__main__"})
    else:
        sys.argv = [kind, *words]
        runpy.run_path(kind, run_name="__main__")


def _main() -> None:
    quiet_tensorflow()
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest_of_path = [path for path in sys.path[1:] if path not in given]
    for module in sys.argv[2:]:
        importlib.import_module(module)
    assert ("tensorflow" in sys.modules) == (TRAINING_MODULES[0] in sys.argv)
    gc.freeze()  # the children's garbage collection leaves these objects alone
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.send(b"ready")
    request = _serve(requests)
    if request is not None:
        requests.send(str(os.getpid()).encode())
        requests.close()
        _become(request, rest_of_path)


if __name__ == "__main__":
    _main()
