"""Actors that join later: each as it has started; a failure reaches the learner, a stop ends it."""

import threading

import pytest

from meta_impala.actors.late_actors import LateActors
from meta_impala.errors import RunFailed
from meta_impala.system.signals import StopRequest


class _Actor:
    def __init__(self, index):
        self.index, self.is_closed = index, False

    def close(self):
        self.is_closed = True


def test_each_late_actor_joins_once_it_has_started():
    joined, first = [], threading.Event()

    def start(actor):
        if actor.index == 1:
            assert first.wait(30), "actor 2 joins while actor 1 still starts"

    def join(actor):
        joined.append(actor.index)
        first.set()

    late = LateActors(StopRequest(), range(1, 3), _Actor, start)
    assert late.watched(1.0) == []
    late.begin(join, pytest.fail)
    late.join(30)
    assert joined == [2, 1] and late.watched(1.0) == []


@pytest.mark.parametrize("raises", ["make", "start"])
@pytest.mark.parametrize(("error", "raised"), [(OSError(), OSError), (SystemExit(), RunFailed)])
def test_an_error_while_a_late_actor_is_made_or_started_is_reported(raises, error, raised):
    failures = []

    def fails(_):
        raise error

    make = fails if raises == "make" else _Actor
    late = LateActors(StopRequest(), [1], make, fails)
    late.begin(lambda _: None, failures.append)
    late.join(30)
    assert len(failures) == 1 and isinstance(failures[0], raised)


@pytest.mark.parametrize("by_user", [True, False])
def test_after_a_stop_no_late_actor_is_made(by_user):
    stop, made = StopRequest(), []

    def make(index):
        made.append(_Actor(index))
        if by_user:
            stop.request("the test")
        else:
            late.give_up()
        return made[-1]

    late = LateActors(stop, range(1, 9), make, lambda _: None)
    late.begin(pytest.fail, pytest.fail)
    late.join(30)
    assert [actor.index for actor in made] == [1] and made[0].is_closed
    assert stop.is_set() == by_user
