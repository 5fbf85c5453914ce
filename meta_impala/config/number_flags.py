"""The numeric flags of commands and tools that are no settings of a run, each with its range.

A number out of its range, NaN, or text that is no number is refused when the flags are parsed.
"""

from __future__ import annotations

from absl import flags

from meta_impala.config import parsers
from meta_impala.config.fields import MAX_FRAMES, MAX_SEED

# Far above what anybody waits for: lists of this length still fit into memory.
MAX_COUNT = 10**6


def define_integer(
    name: str,
    default: int | None,
    help_text: str,
    *,
    low: int = 1,
    high: int = MAX_COUNT,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """A flag that is a whole number.

    Args:
      name: of the flag.
      default: its value if it is not given.
      help_text: of the flag, without its range.
      low: smallest value.
      high: largest value.
      flag_values: where; the flags of the command, if not given.
    """
    inner = parsers.IntegerParser(name)
    parser = parsers.RangeParser(inner, "a whole number", low, high)
    _define(parser, default, help_text, flag_values)


def define_float(
    name: str,
    default: float | None,
    help_text: str,
    *,
    low: float = 0,
    high: float,
    low_open: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """A flag that is a number; arguments as `define_integer`.

    Args:
      low_open: whether `low` itself is refused.
    """
    inner = parsers.FloatParser(name)
    parser = parsers.RangeParser(inner, "a number", low, high, low_open=low_open)
    _define(parser, default, help_text, flag_values)


def define_frames(
    name: str,
    default: int | None,
    help_text: str,
    *,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """A flag that counts frames: also takes 1e6, 10M and 200_000_000; arguments as above."""
    inner = parsers.FramesParser(name)
    parser = parsers.RangeParser(inner, "a whole number (such as 1e6 or 10M)", 1, MAX_FRAMES)
    _define(parser, default, help_text, flag_values)


def define_seed(help_text: str) -> None:
    """`--seed`, 1 if it is not given."""
    define_integer("seed", 1, help_text, low=0, high=MAX_SEED)


def _define(
    parser: parsers.RangeParser,
    default: float | None,
    help_text: str,
    flag_values: flags.FlagValues,
) -> None:
    help_text = f"{help_text} Allowed: {parser.range}."
    flag = flags.Flag(parser, flags.ArgumentSerializer(), parser.name, default, help_text)
    flags.DEFINE_flag(flag, flag_values)
