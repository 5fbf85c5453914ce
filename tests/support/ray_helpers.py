"""What the tests on Ray share: a cluster of several nodes on this machine, all on loopback."""

import contextlib
import os
import pathlib
import time

import psutil

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # addresses stay those of the loopback device

_MARK = "META_IMPALA_TESTS"  # inherited by every process that they start
os.environ[_MARK] = str(os.getpid())

from ray.cluster_utils import Cluster  # noqa: E402 - Ray reads its variables when it is imported

ROOT = pathlib.Path(__file__).parents[2]
# The nodes' processes must find the package, and the environments of the tests, as installed.
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])

_NODE = {
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
    "object_store_memory": 100 * 2**20,
    "num_gpus": 0,
}
TIMEOUT = 240.0


@contextlib.contextmanager
def make_cluster():
    """A head with room for one actor; nodes are added with `add_node`."""
    # Its shutdown at exit would take SIGTERM over, and be for the main thread only.
    cluster = Cluster(shutdown_at_exit=False)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = PYTHONPATH
    try:
        cluster.add_node(num_cpus=1, **_NODE)
        yield cluster
    finally:
        cluster.shutdown()
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def add_node(cluster: Cluster, num_cpus: int = 1):
    """A node with room for so many actors."""
    settings = {name: value for name, value in _NODE.items() if name != "include_dashboard"}
    return cluster.add_node(num_cpus=num_cpus, **settings)


def actor_processes() -> set[int]:
    """The processes of actors that began with these tests, whoever their parent is now."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                " ".join(process.cmdline()).startswith("ray::RemoteActor")
                and process.environ().get(_MARK) == os.environ[_MARK]
            ):
                found.add(process.pid)
    return found


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.1)
