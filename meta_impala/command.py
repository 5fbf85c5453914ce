"""The frame of every command and tool: flags, one-line errors, exit codes, signals, streams.

    if __name__ == "__main__":
        define_flags()
        command.run(main)

Exit codes: 0 done (also for help, and if nobody reads the output), 1 failed, 2 a user's mistake,
130 interrupted. A command may give others of its own.
"""

from __future__ import annotations

import faulthandler
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from absl import flags, logging

from meta_impala import usage
from meta_impala.config.fields import MAX_SEED
from meta_impala.config.flags import parse_flags
from meta_impala.errors import RunFailed, UserError, one_line, printable, tell, warn
from meta_impala.system.ending import ending_the_process
from meta_impala.system.interrupt import EXIT_CODE_INTERRUPTED, leave_on_interrupt
from meta_impala.system.streams import prepare_streams
from meta_impala.system.tensorflow_import import import_tensorflow, quiet_tensorflow

EXIT_CODE_FAILED = 1

EXIT_CODE_USER_ERROR = 2

_MOST_DIGITS = 18

# The first line of a command that takes seconds to import TensorFlow.
LOADING = "loading TensorFlow"


def run(main: Callable[..., int], positional: str = "") -> NoReturn:
    """Parses the flags and runs a command to its end.

    Args:
      main: the command; returns its exit code. Takes the arguments that are not flags as a list, if
        there is a `positional`, and nothing otherwise.
      positional: name in help of the arguments that are not flags, such as `RUN ...`.
    """
    # Every command: each may run environments, whose threads and exit handlers outlive it.
    with ending_the_process():
        prepare_streams()
        leave_on_interrupt()
        quiet_tensorflow()
        usage.define_help_flags(usage.Usage(main, positional))
        arguments = _parse(sys.argv, positional)
        logging.use_absl_handler()
        faulthandler.enable()
        sys.exit(_guarded(main, arguments if positional else None))


def _parse(arguments: list[str], positional: str) -> list[str]:
    """Parses the flags; returns the other arguments."""
    try:
        rest = parse_flags(arguments)
    except UserError as error:
        fail(str(error))
    if len(rest) > 1 and not positional:
        fail(f"{rest[1]}: unexpected argument; settings are given as --name=value")
    return rest[1:]


def _guarded(main: Callable[..., int], arguments: list[str] | None) -> int:
    """Runs the command; exceptions become a line and an exit code."""
    try:
        return main() if arguments is None else main(arguments)
    except UserError as error:
        fail(str(error))
    except RunFailed as error:
        warn(f"error: {error}")
        if error.leaves_threads:
            os._exit(EXIT_CODE_FAILED)
        return EXIT_CODE_FAILED
    except SystemExit as error:
        # Commands return their codes: this is of a person's code, or of a library.
        if error.code not in (None, 0):
            raise
        warn("error: an exception ended the program (SystemExit) as if it had succeeded")
        return EXIT_CODE_FAILED
    except KeyboardInterrupt:
        warn("interrupted")
        return EXIT_CODE_INTERRUPTED
    except OSError as error:  # a full disk, a folder that was removed
        named = f"{printable(os.fsdecode(error.filename))}: " if _is_path(error.filename) else ""
        warn(f"error: {named}{one_line(error)}")
        return EXIT_CODE_FAILED


def _is_path(name: Any) -> bool:
    return isinstance(name, (str, bytes))


def whole_numbers(flag: str, texts: Sequence[str], least: int = 0) -> list[int]:
    """The numbers of a flag that is a list.

    Raises:
      UserError: unless all are whole numbers from `least` to `MAX_SEED`.
    """
    for text in texts or [""]:
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
        if not (is_number and least <= int(text) <= MAX_SEED):
            raise UserError(
                f"--{flag}={','.join(texts)}: must be whole numbers from {least} to {MAX_SEED}"
            )
    return [int(text) for text in texts]


def refuse_given(names: Iterable[str], why: str) -> None:
    """Refuses flags that the command would ignore.

    Args:
      names: of the flags.
      why: the end of the message, after "has no effect".

    Raises:
      UserError: naming the first of them that is given.
    """
    for name in names:
        flag = flags.FLAGS[name]
        if flag.present:
            raise UserError(f"--{name}={flag.value}: has no effect {why}")


def arguments_of(flag: str, text: str) -> list[str]:
    """A flag that holds arguments of a command, split as a shell does. Raises UserError."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: cannot be split into arguments ({error})") from None


def say(message: str) -> None:
    """Prints a line at once; what does not print in it is escaped."""
    tell(message)


def load_tensorflow(*, quietly: bool = False) -> None:
    """Imports TensorFlow, which takes seconds: a line says so first, unless quietly."""
    if not quietly:
        say(LOADING)
    import_tensorflow()


def fail(message: str) -> NoReturn:
    """Prints one line and exits with code 2."""
    warn(f"error: {message}")
    sys.exit(EXIT_CODE_USER_ERROR)
