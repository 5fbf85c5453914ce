"""Signals, time limits and what they ask for; the process itself is tested in test_stopping.py."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from meta_impala.errors import UserError
from meta_impala.system.signals import (
    DEFAULT_STOP_SIGNALS,
    StopRequest,
    ctrl_c_stops,
    parse_duration,
    parse_signals,
)

PRELUDE = (
    "import os, signal, sys, threading, time;"
    "from meta_impala.system.signals import StopRequest, parse_signals;"
    "stop = StopRequest();"
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (DEFAULT_STOP_SIGNALS, ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"]),
        ("TERM", ["SIGTERM"]),
        (" sigterm, usr1,TERM ", ["SIGTERM", "SIGUSR1"]),
        ("QUIT,INT", ["SIGQUIT", "SIGINT"]),
    ],
)
def test_signal_names_are_parsed(text, names):
    assert [number.name for number in parse_signals(text)] == names


@pytest.mark.parametrize("text", ["", ",", "KILL", "STOP", "TERM;INT", "SEGV", "15", "TERM,NOPE"])
def test_invalid_stop_signals_are_refused(text):
    with pytest.raises(UserError, match=f"--stop_signals={text}: must be one or more of INT, TERM"):
        parse_signals(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5400", 5400), ("90m", 5400), ("1h30m", 5400), ("3h 30m", 12600), ("2d", 172800), ("9s", 9),
     ("1D2H3M4S", 93784)],
)  # fmt: skip
def test_durations_are_parsed(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "h", "1.5h", "30m2h", "1h30", "nan", "٣h", "0s", "1w"])
def test_invalid_durations_are_refused(text):
    with pytest.raises(UserError, match="--max_runtime=.*: must be a time above 0"):
        parse_duration(text)


def test_an_empty_duration_is_none():
    assert parse_duration("") is None and parse_duration("  ") is None


def test_the_first_reason_is_kept():
    stop = StopRequest()
    assert not stop.is_set()
    stop.request_after(0.05, "--max_runtime=1s")
    deadline = time.monotonic() + 30
    while not stop.is_set():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop.request("SIGTERM")
    assert stop.signal_name == "--max_runtime=1s"


def test_every_default_signal_is_a_request_and_signals_in_a_second_are_one():
    for name in DEFAULT_STOP_SIGNALS.split(","):
        result = run(
            # Under nohup SIGHUP would be ignored.
            f"signal.signal(signal.SIG{name}, signal.SIG_DFL); stop.install();"
            f"[os.kill(os.getpid(), signal.SIG{name}) for _ in range(3)];"
            "time.sleep(0.3); print(stop.is_set(), stop.signal_name)"
        )
        assert (result.returncode, result.stdout) == (0, f"True SIG{name}\n"), result.stderr


def test_a_second_interrupt_exits_and_no_other_signal_does_or_counts_as_the_first():
    # A scheduler's signals come first, and a person's Ctrl-C then.
    others = "[os.kill(os.getpid(), n) for n in parse_signals('TERM,HUP,USR1,USR2')];"
    interrupt = "os.kill(os.getpid(), signal.SIGINT);"
    result = run(
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # under nohup it would be ignored
        f"stop.install(); {others} time.sleep(1.3); {interrupt} time.sleep(0.3);"
        f"print('on', flush=True); time.sleep(1.0); {others} time.sleep(0.3);"
        f"print('still on', flush=True); {interrupt} time.sleep(60)"
    )
    assert (result.returncode, result.stdout) == (130, "on\nstill on\n")
    assert result.stderr == "\nsecond interrupt: exiting without saving\n"


def test_only_the_chosen_signals_stop():
    result = run(
        "stop.install(parse_signals('USR2')); os.kill(os.getpid(), signal.SIGUSR2);"
        "time.sleep(0.2); print(stop.signal_name, flush=True);"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    )
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "SIGUSR2\n")


def test_sigquit_writes_the_stacks_and_the_program_continues(tmp_path):
    path = tmp_path / "stacks.txt"
    result = run(
        "from meta_impala.storage.run_folder import RunFolder;"
        f"stop.save_stacks = RunFolder({str(tmp_path)!r}).write_stacks; stop.install();"
        "threading.Thread(target=lambda: time.sleep(5), name='busy', daemon=True).start();"
        "os.kill(os.getpid(), signal.SIGQUIT); time.sleep(1.0); print(stop.is_set())"
    )
    assert (result.returncode, result.stdout) == (0, "False\n")
    assert "SIGQUIT" in path.read_text("utf-8") and "thread busy:" in path.read_text("utf-8")
    assert str(path) in result.stderr and "thread busy" not in result.stderr
    # Without a folder they are printed.
    result = run("stop.install(); os.kill(os.getpid(), signal.SIGQUIT); time.sleep(1.0)")
    assert result.returncode == 0 and "thread MainThread:" in result.stderr


def test_other_threads_see_a_request():
    stop, heard = StopRequest(), threading.Event()

    def wait():
        while not stop.is_set():
            time.sleep(0.01)
        heard.set()

    threading.Thread(target=wait, daemon=True).start()
    stop.request("the test")
    assert heard.wait(30)


_TAKES_THEM = (
    "signal.signal(signal.SIGINT, signal.default_int_handler);"
    "signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.signal(signal.SIGUSR1, signal.SIG_IGN);"
    "signal.set_wakeup_fd(-1); stop.hold();"
)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_handlers_replaced_by_an_environment_are_restored(name):
    result = run(
        f"stop.install(); {_TAKES_THEM} os.kill(os.getpid(), signal.{name}); time.sleep(0.3);"
        "print(stop.signal_name)"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{name}\n", "")


@pytest.mark.parametrize(
    "calls", ["{block} stop.install();", "stop.install(); {block} stop.hold();"]
)
def test_signals_that_were_blocked_are_received(calls):
    """By the process that started this one, or by an environment."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT]);"
    result = run(
        f"{calls.format(block=block)} os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.3);"
        "print(stop.signal_name)"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "SIGTERM\n", "")


def test_hold_without_install_changes_no_handler():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    StopRequest().hold()
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_call_that_never_returns_is_abandoned_only_after_a_stop():
    left = threading.Event()
    stop = StopRequest()
    with stop.leaving(0.2, left.set):
        assert not left.wait(1.0)  # nobody asked
        stop.request("SIGTERM")
        assert left.wait(5.0)
    left.clear()
    with stop.leaving(5.0, left.set):
        pass  # it returns in time
    assert not left.wait(0.5)


def test_a_time_limit_of_any_length_is_accepted(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    seconds = parse_duration("999999999999d")
    StopRequest().request_after(seconds, "--max_runtime")
    time.sleep(0.2)
    assert not raised


def test_ctrl_c_in_a_program_asks_first_and_interrupts_then():
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), ctrl_c_stops(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
    assert not stop.is_set() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ended = []
    with pytest.raises(KeyboardInterrupt), ctrl_c_stops(stop):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        ended.append(1)
    assert not ended and not stop.is_set()
    stop.request("other")
    with pytest.raises(KeyboardInterrupt), ctrl_c_stops(stop):
        signal.raise_signal(signal.SIGINT)
    assert stop.is_set() and stop.signal_name == "other"


def test_a_handler_of_the_program_stays_and_so_do_other_threads():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with ctrl_c_stops(StopRequest()):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]

    def elsewhere():
        with ctrl_c_stops(StopRequest()):
            seen.append(2)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [1, 2]
