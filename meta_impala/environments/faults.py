"""What an environment raised, in one line: where, what, and in which line of whose file.

An environment is foreign code and may raise anything, even `SystemExit` and `KeyboardInterrupt`,
which would end this program without a message. Everything it raises becomes one of the program's
own exceptions here; only a real Ctrl-C passes through.
"""

import contextlib
import functools
import os
import pathlib
import re
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from typing import NoReturn

import gymnasium

from meta_impala.environments.base import EnvironmentFailed, UnsupportedEnvironmentError
from meta_impala.errors import text_of, warn

_OURS = str(pathlib.Path(__file__).parent) + os.sep
_GYMNASIUM = str(pathlib.Path(gymnasium.__file__).parent) + os.sep
_SPACES = os.path.join(_GYMNASIUM, "spaces", "utils.py")
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
_DISPATCH = functools.__file__
_MOST_CHARACTERS = 300
# What Python and its libraries say: "signal only works in main thread", "SQLite objects created in
# a thread can only be used in that same thread", "main thread is not in main loop", "There is no
# current event loop in thread", "cannot switch to a different thread". Others, such as "can't start
# new thread", are not about which thread it is.
_WHICH_THREAD = re.compile("(main|same|different) thread|event loop in thread")
_THREADS = (
    "; an environment is made in one thread and played in another, so it must work in any: set "
    "signal handlers where its module is imported, and bind nothing to the thread of its "
    "constructor"
)


@contextlib.contextmanager
def ending_copies(name: str) -> Iterator[None]:
    """Around foreign code: a copy of this process that it forks does not come out of the block.

    Otherwise a child that returns, or that ends itself by `sys.exit`, would go on as a second
    trainer in the same folder.

    Args:
      name: of the environment or its module.
    """
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            end_copy(name)


def end_copy(name: str) -> NoReturn:
    """Ends this process, a copy that an environment has forked, as Python would end its own."""
    error = sys.exception()
    if isinstance(error, SystemExit):
        os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
    if error is not None:
        warn("".join(traceback.format_exception(error)))
    else:
        warn(f"error: {name}: a process that it forked returned to the program; must end itself")
    os._exit(1)


def import_failure(error: BaseException, module: str) -> str:
    """Why a module cannot be imported, as `describe`, with a hint; only a real Ctrl-C passes.

    Args:
      error: that the import raised.
      module: its name.
    """
    if is_ctrl_c(error):
        raise error
    missing = isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]
    return describe(error) + ("; its folder must be on PYTHONPATH" if missing else "")


def raise_failure(env_id: str, where: str, error: BaseException) -> NoReturn:
    """Raises `EnvironmentFailed` in place of what a running environment raised.

    Args:
      env_id: the environment.
      where: "step()", "reset()".
      error: what it raised.

    Raises:
      EnvironmentFailed: with `error` as its cause.
      KeyboardInterrupt: the error, if it was a Ctrl-C.
    """
    if isinstance(error, EnvironmentFailed | UnsupportedEnvironmentError) or is_ctrl_c(error):
        raise error
    reason = describe(error) + _hint(error)
    raise EnvironmentFailed(f"{env_id}: its {where} raised {reason}") from error


def is_ctrl_c(error: BaseException) -> bool:
    """Whether the user stopped the program (and it was not an environment that raised this).

    Only Python's own handler raises KeyboardInterrupt for a signal, and only in the main thread.
    """
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def is_in_flatten(error: Exception) -> bool:
    """Whether Gymnasium raised it while it flattened an observation."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(f.filename == _SPACES and "flatten" in f.name for f in frames)


def describe(error: BaseException) -> str:
    """Type, message and place of an error, in one line."""
    text = " ".join(text_of(error).split())[:_MOST_CHARACTERS]
    name = type(error).__name__
    place = _place(error)
    return (f"{name}: {text}" if text else name) + (f" ({place})" if place else "")


def _hint(error: BaseException) -> str:
    """What to do, if the error is about the thread that the environment runs in; else empty."""
    is_main = threading.current_thread() is threading.main_thread()
    return "" if is_main or not _WHICH_THREAD.search(text_of(error).lower()) else _THREADS


def _place(error: BaseException) -> str:
    """File and line of the innermost call in the environment's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    # An environment that is an installed package is found by the second pass, the tasks that come
    # with the program by the third.
    for ignored in ((_OURS, *_INSTALLED), (_OURS, _GYMNASIUM, _DISPATCH), (_GYMNASIUM, _DISPATCH)):
        for frame in reversed(frames):
            if not frame.filename.startswith(ignored) and not frame.filename.startswith("<"):
                return f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return ""
