"""Stopwatches: what is counted; without one nothing is."""

import time

import pytest

from meta_impala.system.timing import RunStopwatches, Stopwatch, timed


def test_shares_are_fractions_of_the_time_since_the_restart():
    watch = Stopwatch()
    sleep = watch.timed("sleep", time.sleep)
    sleep(0.2)
    watch.restart()
    assert watch.shares() == {}
    for _ in range(2):
        sleep(0.1)
    time.sleep(0.2)
    shares = watch.shares()
    assert set(shares) == {"sleep"} and 0.2 < shares["sleep"] < 0.75


def test_a_timed_function_returns_and_raises_as_before():
    watch = Stopwatch()
    assert watch.timed("divide", divmod)(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        watch.timed("divide", divmod)(1, 0)
    assert watch.shares()["divide"] > 0


def test_without_a_stopwatch_the_function_is_the_same():
    assert timed(None, "anything", divmod) is divmod


def test_every_actor_has_its_own_stopwatch():
    watches = RunStopwatches()
    first, second = watches.of_actor(), watches.of_actor()
    assert watches.actors == [first, second] and first is not second
    first.timed("step", time.sleep)(0.01)
    watches.restart()
    assert first.shares() == {}
