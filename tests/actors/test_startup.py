"""The start of the actors: a request to stop is noticed between two of its steps."""

import threading

from meta_impala.actors.startup import ActorStart
from meta_impala.system.signals import StopRequest


class _Actor:
    def __init__(self, index):
        self.index = index
        self.is_closed = False

    def close(self):
        self.is_closed = True


def test_an_actor_that_was_being_made_when_the_stop_came_is_not_started():
    stop, made, started = StopRequest(), [], []

    def make(index):
        made.append(_Actor(index))
        if index == 1:
            stop.request("the test")
        return made[-1]

    ready = ActorStart(stop).actors(range(4), make, started.append)
    assert [actor.index for actor in made] == [0, 1]
    assert ready == started == made[:1]
    assert [actor.is_closed for actor in made] == [False, True]


def test_without_a_stop_all_are_made_and_started_side_by_side():
    both = threading.Barrier(2, timeout=30)
    ready = ActorStart(StopRequest()).actors(range(2), _Actor, lambda _: both.wait())
    assert [actor.index for actor in ready] == [0, 1]
