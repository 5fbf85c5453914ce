"""What the commands share: flags made from the config, one-line errors, a quiet TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app

from meta_impala.config.flags import parse_flags
from meta_impala.errors import RunFailed, UserError, warn
from meta_impala.system.tensorflow_import import quiet_tensorflow

EXIT_CODE_FAILED = 1

EXIT_CODE_USER_ERROR = 2

EXIT_CODE_INTERRUPTED = 130


def run(main: Callable[[], int]) -> None:
    """Parses the flags and runs a command; a user's mistake is one line and exit code 2."""

    def parse(arguments: list[str]) -> list[str]:
        try:
            rest = parse_flags(arguments)
        except UserError as error:
            fail(str(error))
        if len(rest) > 1:
            fail(f"{rest[1]}: unexpected argument; settings are given as --name=value")
        return rest

    def guarded(_: list[str]) -> int:
        quiet_tensorflow()
        try:
            return main()
        except UserError as error:
            fail(str(error))
        except RunFailed as error:
            warn(f"error: {error}")
            if error.leaves_threads:
                os._exit(EXIT_CODE_FAILED)
            return EXIT_CODE_FAILED
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_CODE_INTERRUPTED

    app.run(guarded, flags_parser=_with_help(parse))


def _with_help(parse: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    def parse_or_help(arguments: list[str]) -> list[str]:
        app.define_help_flags()
        return parse(arguments)

    return parse_or_help


def say(message: str) -> None:
    """Prints a line, if there is still somebody to read it: a run outlives its terminal."""
    try:
        print(message, flush=True)
    except OSError:
        # Or the interpreter fails in flushing it when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(message: str) -> NoReturn:
    """Prints one line and exits with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_CODE_USER_ERROR)
