"""Watches the head of the Ray cluster, and this machine's node, and reports their loss.

Ray would end the learner's process itself, without a message, so a loss must be noticed first.
TensorFlow is not imported here.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable

from meta_impala.errors import RunFailed

# Ray ends its driver, without a message, when the head has not answered for 60 s; until then a
# checkpoint must have been saved.
_HEAD_TIMEOUT_SECONDS = 15.0
_SECONDS_BETWEEN_BEATS = 2.0


class ClusterLost(RunFailed):
    """The cluster's head, or this machine's node, does not answer any more."""

    leaves_threads = True  # in Ray, waiting for the head


class ClusterWatch:
    """Checks periodically that the head and this machine's node are alive.

    Time is counted in completed waits, as in the watchdog.
    """

    def __init__(self, on_lost: Callable[[ClusterLost], None]) -> None:
        """Args:
        on_lost: called once, by a thread of the watch.
        """
        self._on_lost = on_lost
        self._stopped = threading.Event()
        self._beats = 0
        self._socket = socket.socket(socket.AF_UNIX)

    def start(self) -> None:
        """Starts two daemon threads; inside `cluster.connected` only."""
        import ray

        here = ray.get_runtime_context().get_node_id()
        (name,) = (n["RayletSocketName"] for n in ray.nodes() if n["NodeID"] == here)
        # Nothing is sent over it: the other side closes it when that process dies.
        self._socket.connect(name)
        for work in (self._beat, self._watch):
            threading.Thread(target=work, name=f"ray-head{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        """Ends it."""
        self._stopped.set()

    def check(self) -> None:
        """Call it before anything that needs the object store of this machine.

        Ray ends this process, without a message, when that is gone.

        Raises:
          ClusterLost: if it is.
        """
        node = select.poll()  # one per call: two threads may not poll the same object at a time
        node.register(self._socket, select.POLLIN)
        if node.poll(0):
            raise ClusterLost("the Ray node of this machine died")

    def _beat(self) -> None:
        import ray

        while not self._stopped.wait(_SECONDS_BETWEEN_BEATS):
            # Does not return while the head is gone.
            with contextlib.suppress(Exception):
                ray.nodes()
                self._beats += 1

    def _watch(self) -> None:
        beats, waited = -1, 0.0
        while not self._stopped.wait(1.0):
            waited = 0.0 if self._beats != beats else waited + 1.0
            beats = self._beats
            try:
                self.check()
                if waited >= _HEAD_TIMEOUT_SECONDS:
                    raise ClusterLost(
                        "the head of the Ray cluster has not answered for "
                        f"{_HEAD_TIMEOUT_SECONDS:g} s"
                    )
            except ClusterLost as error:
                self._on_lost(error)
                return
