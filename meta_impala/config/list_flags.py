"""The flags of commands and tools that are lists: an empty one is refused when they are parsed."""

from __future__ import annotations

from collections.abc import Collection

from absl import flags

from meta_impala.config import parsers


def define_list(
    name: str, default: list[str] | None, help_text: str, choices: Collection[str] = ()
) -> None:
    """A flag whose value is a list of texts, separated by commas; the command sees at least one.

    Args:
      name: of the flag.
      default: its value if it is not given.
      help_text: of the flag.
      choices: what each text must be among; none for any.
    """
    parser = parsers.ListParser(name, choices)
    flags.DEFINE(parser, name, default, help_text, serializer=flags.CsvListSerializer(","))
