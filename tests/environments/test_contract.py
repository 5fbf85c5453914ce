"""Correct environments are accepted, wrong ones refused in one helpful line (faults, by kind)."""

import asyncio
import contextlib
import os
import pathlib
import signal
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
from support import forked_command, zoo

from meta_impala.environments import (
    UnsupportedEnvironmentError,
    describe,
    faults,
    make,
    make_render,
)
from meta_impala.environments.base import EnvironmentFailed
from meta_impala.errors import text_of

TESTS = pathlib.Path(__file__).parents[1]
ARGUMENTS = {"NeedsConfig": {"config": {"size": 3}}}
PLACES = ("constructor", "reset()", "step()")


@pytest.fixture(scope="module", autouse=True)
def registered():
    zoo.register()


@pytest.fixture(autouse=True)
def handled():
    """As in a command that handles Ctrl-C: no KeyboardInterrupt is a person's."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


def refusal(name, arguments=None):
    with pytest.raises(UnsupportedEnvironmentError) as caught:
        describe(f"zoo/{name}-v0", "impala", arguments)
    message = str(caught.value)
    assert f"zoo/{name}-v0" in message
    assert "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("name", zoo.RIGHT)
def test_a_valid_environment_is_accepted_and_can_be_stepped(name):
    description = describe(f"zoo/{name}-v0", "impala")
    batch = make(f"zoo/{name}-v0", 3, "impala")
    assert batch.observation_shape == description.observation_shape
    rows = [batch.reset(seed=0)]
    ends = 0
    for t in range(25):
        step = batch.step(np.full(3, t % batch.num_actions))
        rows.append(step.observations)
        ends += step.episode_ends.sum()
        assert step.rewards.dtype == np.float32 and np.isfinite(step.rewards).all()
    for observations in rows:
        assert observations.shape == (3, *description.observation_shape)
        assert observations.dtype == description.observation_dtype in (np.uint8, np.float32)
    assert ends
    batch.close()


@pytest.mark.parametrize("name", zoo.WRONG)
def test_an_invalid_environment_is_refused_with_the_fault_and_its_fix(name):
    message = refusal(name)
    for word in zoo.WRONG[name]:
        assert word in message, message


@pytest.mark.parametrize("what", zoo.RAISED)
@pytest.mark.parametrize("where", PLACES)
def test_whatever_an_environment_raises_in_its_trial_is_refused_in_one_line(where, what):
    message = refusal("Raises", {"where": where, "what": what})
    assert f"its {where} raised {what}" in message
    assert "zoo.py, line " in message
    text = " ".join(text_of(zoo.RAISED[what]()).split())
    assert text in message


@pytest.mark.parametrize("what", zoo.RAISED)
@pytest.mark.parametrize(("where", "after"), [("reset()", 1), ("step()", 3)])
def test_whatever_an_environment_raises_later_becomes_environment_failed(where, after, what):
    arguments = {"where": where, "what": what, "after": after}
    batch = make("zoo/Raises-v0", 1, "impala", environment_kwargs=arguments)
    batch.reset(seed=0)
    with pytest.raises(EnvironmentFailed, match="zoo/Raises-v0") as caught:
        for _ in range(12):
            batch.step(np.array([0]))
    assert f"its {where} raised {what}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value.__cause__).__name__ == what


@pytest.mark.parametrize("what", zoo.RAISED)
def test_whatever_close_raises_is_one_warning(what, capfd):
    arguments = {"where": "close()", "what": what}
    zoo.unique += 1
    env_id = f"zoo/Closes{zoo.unique}-v0"
    gymnasium.register(env_id, entry_point=zoo.Raises)
    describe(env_id, "impala", arguments)
    batch = make(env_id, 3, "impala", environment_kwargs=arguments)
    batch.close()
    batch.close()
    warnings = [line for line in capfd.readouterr().err.splitlines() if env_id in line]
    assert len(warnings) == 1 and f"close() raised {what}" in warnings[0]


def test_environments_are_closed_if_a_later_one_cannot_be_made():
    closed = []

    class Third(zoo.Base):
        made = 0

        def __init__(self):
            super().__init__()
            Third.made += 1
            if Third.made == 3:
                raise RuntimeError("no more licences")

        def close(self):
            closed.append(self)

    gymnasium.register("zoo/Third-v0", entry_point=Third)
    with pytest.raises(UnsupportedEnvironmentError, match="no more licences"):
        make("zoo/Third-v0", 4, "impala")
    assert len(closed) == 2


@pytest.mark.parametrize("name", ["SignalInStep", "BoundToItsThread"])
def test_an_environment_that_is_made_and_played_in_one_process_of_its_own_is_tried_there(name):
    """As actors on a cluster do, whose processes have one thread for both."""
    assert describe(f"zoo/{name}-v0", "impala", in_thread=False).observation_shape == (3,)


def _bound_to_its_thread():
    rows = sqlite3.connect(":memory:")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(rows.execute, "select 1").result()


def _raises(message):
    def call():
        raise RuntimeError(message)

    return call


def _failure_in_a_thread(call) -> str:
    """What is said of an environment whose step() does this in an actor's thread."""

    def run():
        try:
            call()
        except Exception as error:  # noqa: BLE001 - of several types
            with pytest.raises(EnvironmentFailed) as caught:
                faults.raise_failure("zoo/X-v0", "step()", error)
            return str(caught.value)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.mark.parametrize(
    "call",
    [
        lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL),
        lambda: signal.set_wakeup_fd(-1),
        asyncio.get_event_loop,
        _bound_to_its_thread,
        _raises("main thread is not in main loop"),
        _raises("Cannot switch to a different thread"),
    ],
)
def test_what_is_about_the_thread_it_runs_in_has_a_hint(call):
    assert "is made in one thread and played in another" in _failure_in_a_thread(call)


@pytest.mark.parametrize(
    "message",
    ["can't start new thread", "ThreadPool size must be 4", "number of threads must be positive",
     "a thread died", "cannot schedule new futures after shutdown of ThreadPoolExecutor",
     "pthread_create failed", "THREAD limit of this licence"],
)  # fmt: skip
def test_other_errors_with_the_word_thread_have_none(message):
    said = _failure_in_a_thread(_raises(message))
    assert f"RuntimeError: {message} (" in said and "played in another" not in said


def test_ctrl_c_during_the_trial_is_not_an_error_of_the_environment():
    class Stopped(zoo.Base):
        def step(self, action):
            signal.raise_signal(signal.SIGINT)
            return super().step(action)

    gymnasium.register("zoo/Stopped-v0", entry_point=Stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            describe("zoo/Stopped-v0", "impala")
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_environment_in_an_actors_thread_cannot_stop_the_program():
    batch = make(
        "zoo/Raises-v0",
        1,
        "impala",
        environment_kwargs={"where": "step()", "what": "KeyboardInterrupt"},
    )
    batch.reset(seed=0)
    raised = []

    def run():
        with contextlib.suppress(BaseException):
            try:
                batch.step(np.array([0]))
            except BaseException as error:
                raised.append(error)
                raise

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert isinstance(raised[0], EnvironmentFailed)


def test_the_trial_of_a_slow_environment_ends_early(monkeypatch):
    steps = []

    class Slow(zoo.Base):
        def step(self, action):
            steps.append(action)
            return super().step(action)

    from meta_impala.environments import contract

    clock = iter(range(0, 1000, 1))
    monkeypatch.setattr(contract.time, "monotonic", lambda: float(next(clock)))
    gymnasium.register("zoo/Slow-v0", entry_point=Slow)
    describe("zoo/Slow-v0", "impala")
    assert 1 <= len(steps) <= 3


@pytest.mark.parametrize(
    ("name", "vectors"),
    [
        ("DiscreteObservation", [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]),
        ("DictObservation", [[0, 0, 0, 0, 1, 0, 0], [0.1, 0.1, 0.1, 0.1, 0, 1, 0]]),
        ("DictOfDictsObservation", [[0, 0, 1, 1], [0.1, 0.1, 1, 1]]),
        ("TupleOfBoxes", [[0, 0, 0, 0, 0], [0.1, 0.1, 1, 1, 1]]),
    ],
)
def test_composite_observations_become_one_vector(name, vectors):
    batch = make(f"zoo/{name}-v0", 1, "impala")
    assert batch.observation_dtype == np.float32
    first = batch.reset(seed=0)
    second = batch.step(np.array([0])).observations
    np.testing.assert_allclose([first[0], second[0]], vectors, rtol=1e-6)


def test_text_observations_are_left_out_with_a_warning(capfd):
    batch = make("zoo/DictWithText-v0", 1, "impala")
    assert batch.observation_shape == (4 + 12,)
    assert batch.reset(seed=0)[0].sum() == 1.0
    assert batch.step(np.array([0])).observations[0].sum() == 13.0


def test_a_discrete_observation_of_gymnasium_is_accepted():
    assert describe("FrozenLake-v1", "impala").observation_shape == (16,)


def test_the_arguments_reach_the_constructor_everywhere():
    class Sized(zoo.Base):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self, size=3, render_mode=None):
            super().__init__()
            self.observation_space = gymnasium.spaces.Box(-1, 1, (size,), np.float32)
            self.size, self.render_mode = size, render_mode

        def obs(self):
            return np.zeros(self.size, np.float32)

    gymnasium.register("zoo/Sized-v0", entry_point=Sized)
    arguments = {"size": 5}
    assert describe("zoo/Sized-v0", "impala").observation_shape == (3,)
    assert describe("zoo/Sized-v0", "impala", arguments).observation_shape == (5,)
    batch = make("zoo/Sized-v0", 2, "impala", environment_kwargs=arguments)
    assert batch.reset(seed=0).shape == (2, 5)
    single = make_render("zoo/Sized-v0", "impala", seed=0, environment_kwargs=arguments)
    assert single.observation_space.shape == (5,)
    with pytest.raises(UnsupportedEnvironmentError, match=r"sise.*--environment_kwargs"):
        describe("zoo/Sized-v0", "impala", {"sise": 5})


@pytest.mark.parametrize("name", ["Pong", "ALE/Breakout-v5"])
def test_an_atari_game_takes_no_arguments(name):
    for call in (
        lambda: describe(name, "impala", {"difficulty": 1}),
        lambda: make(name, 1, "impala", environment_kwargs={"difficulty": 1}),
        lambda: make_render(name, "impala", 0, environment_kwargs={"difficulty": 1}),
    ):
        with pytest.raises(UnsupportedEnvironmentError, match="--environment_kwargs"):
            call()


def test_an_environment_that_cannot_be_rendered_is_refused():
    for name in ("Plain", "NeedsConfig"):
        with pytest.raises(UnsupportedEnvironmentError, match="cannot be rendered"):
            make_render(f"zoo/{name}-v0", "impala", 0, environment_kwargs=ARGUMENTS.get(name))


_FORKING = """
import os, sys, gymnasium
from support.zoo import Base

def fork(place):
    if place == os.environ["PLACE"]:
        child = os.fork()
        if not child:
            if os.environ["ENDS"] == "exit":
                sys.exit(0)
            if os.environ["ENDS"] == "raise":
                raise ValueError("in the child")
        else:
            assert os.waitpid(child, 0)[0] == child

class Forking(Base):
    def __init__(self):
        super().__init__()
        fork("constructor")
    def reset(self, seed=None, options=None):
        fork("reset")
        return super().reset(seed=seed)
    def step(self, action):
        fork("step")
        return super().step(action)
    def close(self):
        fork("close")

fork("module")
gymnasium.register("Forking-v0", entry_point=Forking)
"""


@pytest.mark.parametrize("ends", ["exit", "raise", "return"])
@pytest.mark.parametrize("place", ["module", "constructor", "reset", "step", "close"])
def test_a_process_that_an_environment_forks_does_not_return_to_the_program(place, ends, tmp_path):
    """It would be a second trainer in the same folder."""
    (tmp_path / "forking.py").write_text(_FORKING)
    code = (
        "from meta_impala.environments import describe\n"
        "describe('forking:Forking-v0', 'impala')\n"
        "print('described', flush=True)"
    )
    environment = {"PLACE": place, "ENDS": ends, "PYTHONPATH": f"{tmp_path}:{TESTS}"}
    result = forked_command.run(
        [sys.executable, "-c", code],
        light=True,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (result.returncode, result.stdout) == (0, "described\n"), result.stderr
    said = {"exit": "", "raise": "ValueError: in the child", "return": "must end itself"}[ends]
    assert said in result.stderr and bool(said) == bool(result.stderr)
