"""What the log says when an actor's environments raise again and again (fault)."""

import logging

import pytest

from meta_impala.actors.restarts import Restarts

LIMIT = 20


def raised(function, *arguments) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001 - the test hands it on
        return error
    raise AssertionError("nothing was raised")


def in_step(number):
    raise ValueError(f"no room for {number}")


def in_reset(number):
    raise ValueError(f"no room for {number}")


def wrapped(number):
    try:
        in_step(number)
    except ValueError as error:
        raise RuntimeError("step() failed") from error


def deep(number):
    return deep(number - 1) if number else in_step(0)


def of_another_process(number):
    error = ValueError("lost")
    error.add_note(f"ray::unroll() (pid={1000 + number}, ip=10.0.0.{number})\n  step()")
    raise error


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.WARNING, logger="absl")
    restarts = Restarts(lambda: None, seed=1, limit=LIMIT, count=0)

    def log(error) -> str:
        caplog.clear()
        restarts.record(3, error)
        (record,) = caplog.records
        return record.getMessage()

    return log


@pytest.mark.parametrize("function", [in_step, wrapped, of_another_process, lambda n: 1 // 0])
def test_a_traceback_is_logged_once(function, logged):
    first = logged(raised(function, 0))
    assert "Traceback" in first or "ray::" in first
    for times in range(2, 8):
        again = logged(raised(function, times))
        assert "Traceback" not in again and "\n" not in again
        assert (
            f"({times} of --max_actor_restarts={LIMIT}): the same error, {times} times: " in again
        )


def test_a_repeated_error_is_logged_with_its_new_message(logged):
    logged(raised(in_step, 1))
    assert logged(raised(in_step, 2)).endswith("the same error, 2 times: ValueError: no room for 2")
    error = raised(in_reset, 1)
    logged(error)
    error.args = ("a\nb\x1b[2J",)
    assert logged(error).endswith("the same error, 2 times: ValueError: a b\\x1b[2J")


def test_errors_from_different_places_are_each_logged_in_full(logged):
    errors = [raised(f, 1) for f in (in_step, in_reset, wrapped, deep, of_another_process)]
    for error in errors:
        assert "the same error" not in logged(error)
    for error in errors:
        assert "the same error, 2 times" in logged(error)


def test_a_cycle_of_causes_is_logged(logged):
    one, two = raised(in_step, 1), raised(in_reset, 1)
    one.__cause__, two.__cause__ = two, one
    assert "Traceback" in logged(one)
    assert "the same error, 2 times" in logged(one)
