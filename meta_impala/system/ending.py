"""How a command's process ends: with its own exit code, whatever an environment left running.

An interpreter that shuts down waits for non-daemon threads and `atexit` handlers without a limit,
and aborts (SIGABRT, exit code 134) if a daemon thread comes back from C++ code meanwhile. So the
process is ended by `os._exit`, once everything is saved and foreign code has had a bounded time
to end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from meta_impala.errors import RunFailed, text_of

# Time limit for exit handlers and threads of environments and libraries.
_SECONDS_FOR_OTHERS = 10.0


class ForeignCodeThread(threading.Thread):
    """A daemon thread that runs code of environments or libraries, and so may never end."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)


@contextlib.contextmanager
def ending_the_process() -> Iterator[None]:
    """Around a whole command: the process ends with the command, within a bounded time."""
    code = 0
    try:
        yield
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:  # noqa: BLE001 - the interpreter would print it and exit with 1
        sys.excepthook(*sys.exc_info())
        code = 1
    end_process(code)


def end_process(code: int) -> NoReturn:
    """Ends the process, once foreign threads and exit handlers had a bounded time to end."""
    _flush()
    hung = [t for t in threading.enumerate() if isinstance(t, ForeignCodeThread) and t.is_alive()]
    if not hung:  # or a library would be shut down under a thread that is inside it
        with contextlib.suppress(ValueError, OSError):  # not the main thread
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: os._exit(code))
        timer = threading.Timer(_SECONDS_FOR_OTHERS, os._exit, [code])
        timer.daemon = True
        timer.start()
        # What the interpreter does at its end, in the same order.
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with contextlib.suppress(Exception):
        print(error.code, file=sys.stderr)
    return 1


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """Raises RunFailed for a SystemExit inside, which would end the process as if all were well."""
    try:
        yield
    except SystemExit as error:
        raise RunFailed(f"an exception ended the program ({text_of(error, repr)})") from error


def ended_program(error: BaseException) -> RunFailed:
    """Turns an environment's SystemExit or KeyboardInterrupt into a failure.

    Otherwise the first would end the process as a success, and the second as if the user had
    pressed Ctrl-C.
    """
    return RunFailed(
        f"an environment ended the program ({text_of(error, repr)}); it must raise an ordinary "
        "exception"
    )
