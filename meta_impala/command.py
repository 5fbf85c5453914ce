"""What the commands share: flags made from the config, one-line errors, a quiet TensorFlow."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from absl import app, flags, logging

from meta_impala.config import FIELDS, allowed_range, field_type
from meta_impala.errors import RunFailed, UserError, warn

EXIT_CODE_FAILED = 1
EXIT_CODE_USER_ERROR = 2
EXIT_CODE_INTERRUPTED = 130


class _IntegerOrAuto(flags.IntegerParser):
    """A whole number, or auto (None: what `config.resolve` chooses)."""

    def parse(self, argument: Any) -> int | None:
        return None if argument == "auto" else super().parse(argument)


def define_config_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """One absl flag per field of `Config`; its help gives unit, source and allowed values.

    Args:
      flag_values: where; the flags of the command, if not given.
    """
    for name, field in FIELDS.items():
        metadata = field.metadata
        kind, _ = field_type(field)
        details = [metadata["help"]]
        if metadata["unit"]:
            details.append(f"Unit: {metadata['unit']}.")
        if metadata["choices"]:
            details.append(f"Allowed: {' | '.join(metadata['choices'])}.")
        elif metadata["low"] is not None or metadata["high"] is not None:
            details.append(f"Allowed: {allowed_range(metadata)}.")
        if metadata["source"]:
            details.append(f"Source: {metadata['source']}.")
        define = {
            bool: flags.DEFINE_bool,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }[kind]
        if metadata["auto"]:
            flags.DEFINE(
                _IntegerOrAuto(),
                name,
                "auto" if field.default is None else field.default,
                " ".join(details),
                flag_values=flag_values,
                serializer=flags.ArgumentSerializer(),
            )
            continue
        define(name, field.default, " ".join(details), flag_values=flag_values)


def given_config_flags() -> dict[str, Any]:
    """The config flags that the user gave (on the command line or in a flag file)."""
    return {name: flags.FLAGS[name].value for name in FIELDS if flags.FLAGS[name].present}


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up messages off the screen; before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off on processors without AVX-512 VNNI or AMX, where it is still much
    # the faster: the filter gradient of the first convolution took 5 to 7 times as long without.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Sonnet and TensorFlow Probability speak Keras 2.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


# What TensorFlow and its libraries say at every start, whatever TF_CPP_MIN_LOG_LEVEL is.
_START_UP_NOISE = re.compile(
    rb"absl::InitializeLog|cudart_stub|cuda|TF-TRT|port\.cc|cpu_feature_guard|"
    rb"computation_placer|rebuild TensorFlow|Sets are not currently considered sequences"
)


@contextlib.contextmanager
def without_noise(noise: re.Pattern[bytes]) -> Iterator[None]:
    """Keeps lines that C++ code writes to file descriptor 2 off the screen; others are passed on.

    Args:
      noise: is found in a line that nobody needs.
    """
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        screen = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            captured.seek(0)
            for line in captured.read().splitlines(keepends=True):
                if not noise.search(line):
                    os.write(2, line)


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up noise; anything else it says is passed on.

    The noise is written by C++ code, before any logging can be configured.
    """
    with without_noise(_START_UP_NOISE):
        import tensorflow as tf
        import tree

        tf.config.list_physical_devices()
        tree.flatten(set())  # says once per process that sets are leaves
    # "Sharding callback duration" at every checkpoint, for example.
    logging.set_verbosity(logging.WARNING)


def run(main: Callable[[], int]) -> None:
    """Parses the flags and runs a command; a user's mistake is one line and exit code 2."""

    def parse(arguments: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(arguments)
        except (flags.Error, OSError) as error:
            fail(" ".join(str(error).split()))
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
