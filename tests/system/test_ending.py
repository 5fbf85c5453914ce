"""The end of a process: its exit code, within a bounded time, whatever else runs in it (fault)."""

import subprocess
import sys
import time

import pytest

from meta_impala.errors import RunFailed
from meta_impala.system.ending import ended_program

PRELUDE = """
import atexit, os, signal, sys, threading, time
from meta_impala.system import ending
ending._SECONDS_FOR_OTHERS = 2.0
atexit.register(print, "exit handler")
"""


def run(code: str) -> tuple[int, str, str, float]:
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr, time.monotonic() - started


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(-1)", 255),
        ("sys.exit('a message')", 1),
        ("1 / 0", 1),
    ],
)
def test_the_exit_code_is_the_commands_and_exit_handlers_run(code, expected):
    returned, out, err, _ = run(f"with ending.ending_the_process():\n    print('said')\n    {code}")
    assert (returned, out) == (expected, "said\nexit handler\n")
    assert ("ZeroDivisionError" in err) == ("1 / 0" in code)
    assert ("a message" in err) == ("a message" in code)


@pytest.mark.parametrize(
    "code",
    [
        "threading.Thread(target=time.sleep, args=[1e6]).start()",
        "atexit.register(time.sleep, 1e6)",
        "atexit.register(lambda: sys.exit(9))",
        "lock = threading.Lock(); lock.acquire(); atexit.register(lock.acquire)",
        # What an executor's idle threads would do, if they were joined without being told to end.
        "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor(2).submit(int)",
    ],
)
def test_threads_of_other_code_do_not_keep_the_process(code):
    """Of any command: all of them run in `command.run`."""
    returned, _, err, seconds = run(f"""
from meta_impala import command
def main():
    {code}
    return 5
command.run(main)
""")
    assert returned == 5, err
    assert seconds < 60


def test_a_thread_in_foreign_code_ends_the_process_without_exit_handlers():
    """They would close a library under the thread that is inside it."""
    code = """
class Hung(ending.ForeignCodeThread):
    def run(self):
        time.sleep(1e6)
with ending.ending_the_process():
    Hung("actor-0").start()
    print("said")
    sys.exit(3)
"""
    returned, out, err, seconds = run(code)
    assert (returned, out, err) == (3, "said\n", "")


def test_a_signal_ends_the_wait_with_the_same_code():
    code = """
def send():
    time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
ending._SECONDS_FOR_OTHERS = 1e6
with ending.ending_the_process():
    threading.Thread(target=send, daemon=True).start()
    atexit.register(time.sleep, 1e6)
    sys.exit(4)
"""
    returned, _, err, seconds = run(code)
    assert (returned, err) == (4, "") and seconds < 60


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_an_exception_that_would_end_the_program_is_named(error):
    failure = ended_program(error)
    assert isinstance(failure, RunFailed) and type(error).__name__ in str(failure)
