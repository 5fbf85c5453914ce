"""What the commands share: flags made from the config, one-line errors, a quiet TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags

from meta_impala.config import FIELDS, field_type
from meta_impala.errors import UserError

EXIT_CODE_USER_ERROR = 2


def define_config_flags() -> None:
    """One absl flag per field of `Config`; its help gives unit, source and allowed values."""
    for name, field in FIELDS.items():
        metadata = field.metadata
        kind, _ = field_type(field)
        details = [metadata["help"]]
        if metadata["unit"]:
            details.append(f"Unit: {metadata['unit']}.")
        if metadata["choices"]:
            details.append(f"Allowed: {' | '.join(metadata['choices'])}.")
        elif metadata["low"] is not None or metadata["high"] is not None:
            low = "" if metadata["low"] is None else f"{metadata['low']} "
            high = "" if metadata["high"] is None else f" {metadata['high']}"
            left = "<" if metadata["low_open"] else "≤"
            right = "<" if metadata["high_open"] else "≤"
            details.append(
                f"Allowed: {low + left + ' ' if low else ''}{name}{' ' + right + high if high else ''}."
            )
        if metadata["source"]:
            details.append(f"Source: {metadata['source']}.")
        define = {
            bool: flags.DEFINE_bool,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }[kind]
        define(name, field.default, " ".join(details))


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

    app.run(guarded, flags_parser=_with_help(parse))


def _with_help(parse: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    def parse_or_help(arguments: list[str]) -> list[str]:
        app.define_help_flags()
        return parse(arguments)

    return parse_or_help


def fail(message: str) -> Any:
    """Prints one line and exits with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_CODE_USER_ERROR)
