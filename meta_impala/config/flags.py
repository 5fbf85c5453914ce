"""One absl flag for each setting of `Config`, and the command line of every command.

`parse_flags` is absl's parser with messages of one kind: a UserError of one line that names the
flag (or the flag file and its line), the value and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from meta_impala.config import parsers
from meta_impala.config.fields import allowed_range, nearest
from meta_impala.config.flag_files import expand_flag_files
from meta_impala.config.schema import FIELDS, field_type
from meta_impala.config.suggestions import unknown_flag
from meta_impala.config.text import shown
from meta_impala.errors import UserError


def define_config_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """One absl flag per field of `Config`; its help gives unit, source and allowed values.

    Args:
      flag_values: where; the flags of the command, if not given.
    """
    for name, field in FIELDS.items():
        kind, _ = field_type(field)
        if kind is bool:
            flag: flags.Flag = flags.BooleanFlag(name, field.default, help_of(name))
            flag.parser = parsers.BoolParser(name)
        else:
            parser = _parser(name, kind, field.metadata)
            is_auto = field.metadata["auto"] and field.default is None
            default = "auto" if is_auto else field.default
            flag = flags.Flag(parser, flags.ArgumentSerializer(), name, default, help_of(name))
        flags.DEFINE_flag(flag, flag_values)


def _parser(name: str, kind: type, metadata: Mapping[str, Any]) -> flags.ArgumentParser:
    if kind is str:
        return parsers.TextParser(name)
    if kind is float:
        return parsers.FloatParser(name)
    if metadata["is_frames"]:
        return parsers.FramesParser(name)
    return parsers.IntegerOrAutoParser(name) if metadata["auto"] else parsers.IntegerParser(name)


def help_of(name: str) -> str:
    """The help of a setting's flag.

    Args:
      name: of the flag.
    """
    metadata = FIELDS[name].metadata
    details = [metadata["help"]]
    if metadata["unit"]:
        details.append(f"Unit: {metadata['unit']}.")
    if metadata["choices"]:
        own = ", or module:Class" if metadata["or_module"] else ""
        details.append(f"Allowed: {' | '.join(metadata['choices'])}{own}.")
    elif metadata["low"] is not None or metadata["high"] is not None:
        details.append(f"Allowed: {allowed_range(metadata)}.")
    if metadata["source"]:
        details.append(f"Source: {metadata['source']}.")
    return " ".join(details)


def parse_flags(arguments: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Reads a command line, flag files included, into the flags.

    Args:
      arguments: `sys.argv`, the program's name first.
      flag_values: where the flags are defined; the flags of the command, if not given.

    Returns:
      The program's name, and the arguments that are not flags.

    Raises:
      UserError: for a flag that does not exist, a value that cannot be one, or a flag file that
        cannot be read.
    """
    try:
        return flag_values([arguments[0], *expand_flag_files(arguments[1:], flag_values)])
    except flags.UnrecognizedFlagError as error:
        raise UserError(unknown_flag(error.flagname, flag_values)) from None
    except (flags.Error, ValueError, OSError, RecursionError) as error:
        raise UserError(_in_our_words(error, flag_values)) from None


# The values may contain anything, so absl's reasons are listed.
_ILLEGAL_VALUE = re.compile(
    r"flag --(\w+)=(.*?): (?:invalid literal for int|could not convert string|"
    r"value should be one of|\('Non-boolean argument|\S+ is not an? )",
    re.DOTALL,
)


def _in_our_words(error: Exception, flag_values: flags.FlagValues) -> str:
    """absl's message about a command's own flag, in the words of the settings' parsers."""
    found = _ILLEGAL_VALUE.match(str(error))
    if not isinstance(error, flags.IllegalFlagValueError) or not found:
        return shown(" ".join(str(error).split()), longest=500)
    name, value = found[1], found[2]
    parser = flag_values[name].parser
    allowed, hint = parser.syntactic_help, ""
    if isinstance(parser, flags.EnumParser):
        allowed = f"one of {' | '.join(parser.enum_values)}"
        hint = nearest(value, parser.enum_values)
    elif flag_values[name].boolean:
        allowed = "true or false"
    if not allowed:
        return shown(" ".join(str(error).removeprefix("flag ").split()), longest=500)
    return f"--{name}={shown(value)}: must be {allowed}{hint}"


def given_config_flags(values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """The config flags that the user gave (on the command line or in a flag file).

    Args:
      values: where they were parsed; the flags of the command, if not given.
    """
    return {name: values[name].value for name in FIELDS if values[name].present}
