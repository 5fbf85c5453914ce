"""Fault: the queue's waits all end, and it carries the first exception."""

import threading
import time

import pytest

from meta_impala.actors.trajectory_queue import QueueClosed, TrajectoryQueue


def test_items_come_out_in_order_and_capacity_bounds_them():
    queue = TrajectoryQueue[int](2)
    queue.put(1, 1.0)
    queue.put(2, 1.0)
    with pytest.raises(TimeoutError, match="no room"):
        queue.put(3, 0.05)
    assert len(queue) == 2
    assert [queue.get(1.0), queue.get(1.0)] == [1, 2]
    with pytest.raises(TimeoutError, match="no item"):
        queue.get(0.05)


def test_a_waiting_put_continues_when_there_is_room():
    queue = TrajectoryQueue[int](1)
    queue.put(1, 1.0)
    thread = threading.Thread(target=queue.put, args=(2, 5.0))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    assert queue.get(1.0) == 1
    thread.join(5.0)
    assert not thread.is_alive()
    assert queue.get(1.0) == 2


@pytest.mark.parametrize("waiting", ["put", "get"])
def test_close_wakes_waiting_threads_and_passes_on_the_first_error(waiting):
    queue = TrajectoryQueue[int](1)
    if waiting == "put":
        queue.put(1, 1.0)
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            queue.put(2, 30.0) if waiting == "put" else queue.get(30.0)
        except QueueClosed as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    first = RuntimeError("first")
    queue.close(first)
    queue.close(RuntimeError("second"))
    thread.join(5.0)
    assert not thread.is_alive()
    assert queue.error is first
    assert seen[0].__cause__ is first


def test_put_and_get_on_a_closed_queue_fail_at_once():
    queue = TrajectoryQueue[int](2)
    queue.put(1, 1.0)
    queue.close()
    started = time.monotonic()
    with pytest.raises(QueueClosed):
        queue.get(30.0)
    with pytest.raises(QueueClosed):
        queue.put(2, 30.0)
    assert time.monotonic() - started < 5.0
    assert queue.error is None


def test_capacity_must_be_positive():
    with pytest.raises(ValueError, match="capacity"):
        TrajectoryQueue[int](0)
