"""The watch over a cluster's life, without a cluster."""

import concurrent.futures
import socket

import pytest

from meta_impala.distributed.cluster_watch import ClusterLost, ClusterWatch


def test_several_threads_may_check_at_the_same_time():
    """A poll object may not be polled by two threads at a time."""
    watch = ClusterWatch(lambda error: None)
    watch._socket, other = socket.socketpair()

    def look() -> None:
        for _ in range(5_000):
            watch.check()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for looked in [pool.submit(look) for _ in range(8)]:
            looked.result()
    other.close()
    with pytest.raises(ClusterLost, match="node of this machine died"):
        watch.check()
