"""`--help`, `--helpfull` and `--version` of every command, as wide as the terminal.

`--help` lists the everyday flags (`EVERYDAY` of a command's module; all of its flags if it has
none) and `--helpfull` all of them, in groups.
"""

from __future__ import annotations

import inspect
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from absl import flags

from meta_impala import __version__
from meta_impala.config import FIELDS, presets
from meta_impala.config import flags as config_flags
from meta_impala.config.groups import GROUPS

_MIN_COLUMNS, _MAX_COLUMNS = 30, 100
_INDENT = "    "
# A default that is longer than this is not shown in the line of the flag's name.
_LONG = 40
_OF_THIS_COMMAND = "This command"
_OF_ABSL = "Logging and debugging"
_HIDDEN = ("?", "h", "help", "helpshort", "helpfull", "version")


class Usage(NamedTuple):
    """A command as help describes it.

    Attributes:
      main: the command; its module has the text and, as `EVERYDAY`, names of flags.
      positional: name of the arguments that are not flags; empty if there are none.
    """

    main: Callable[..., int]
    positional: str

    def text(self, everything: bool) -> str:
        """The text of `--help`, or `--helpfull`."""
        module = sys.modules[self.main.__module__]
        everyday = getattr(module, "EVERYDAY", ())
        lines = filled(f"usage: {_program()} [--flag=value ...] {self.positional}".rstrip())
        for paragraph in inspect.cleandoc(module.__doc__ or "").split("\n\n"):
            lines += ["", *_paragraph(paragraph)]
        groups = _grouped(flags.FLAGS)
        if everyday and not everything:
            groups = {"Common flags": [flags.FLAGS[name] for name in everyday]}
        elif not everything:
            groups = {title: flags for title, flags in groups.items() if title == _OF_THIS_COMMAND}
        for title, members in groups.items():
            lines += ["", f"{title}:"]
            for flag in members:
                lines += _described(flag, everything)
        if "preset" in flags.FLAGS:
            lines += ["", "Presets (--preset=NAME):"]
            for name in presets.names():
                lines += filled(f"  {name}: {presets.summary(name)}", _INDENT)
        lines += ["", *filled("--helpfull lists every flag.", "")] if not everything else []
        return "\n".join(lines)


def _program() -> str:
    """The command as it was called."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and not sys.argv[0].startswith("meta-impala"):
        return f"python -m {spec.name.removesuffix('.__main__')}"
    name = os.path.relpath(sys.argv[0]) if os.path.isabs(sys.argv[0]) else sys.argv[0]
    return f"python {name}" if name.endswith(".py") else name


def _columns() -> int:
    columns = shutil.get_terminal_size((80, 24)).columns
    return max(_MIN_COLUMNS, min(columns, _MAX_COLUMNS))


def filled(text: str, indent: str = _INDENT) -> list[str]:
    """The lines of a text as wide as the terminal.

    Args:
      text: of one paragraph.
      indent: before every line but the first.
    """
    return textwrap.wrap(
        text,
        _columns(),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paragraph(text: str) -> list[str]:
    """A paragraph as wide as the terminal; a command line in it stays one."""
    if text.startswith(" "):
        return text.splitlines()
    return filled(" ".join(text.split()), "")


def _described(flag: flags.Flag, everything: bool) -> Iterator[str]:
    """The lines of one flag: its name, default and help; with unit and source if everything."""
    default = flag.default_unparsed
    if flag.boolean and flag.parser.flag_type() == "bool":
        head = f"  --[no]{flag.name}" + (" (on by default)" if default else "")
    elif default in (None, "", []) or len(str(default)) > _LONG:
        head = f"  --{flag.name}={_kind(flag)}"
    else:
        value = ",".join(map(str, default)) if isinstance(default, list) else default
        head = f"  --{flag.name}={value}"
    yield head
    text = flag.help or ""
    if not everything and _is_setting(flags.FLAGS, flag.name):
        text = FIELDS[flag.name].metadata["help"]
    if isinstance(flag.parser, flags.EnumParser) and "Allowed:" not in text:
        text += f" Allowed: {' | '.join(flag.parser.enum_values)}."
    yield from (_INDENT + line for line in textwrap.wrap(text, _columns() - len(_INDENT)))


def _is_setting(values: flags.FlagValues, name: str) -> bool:
    """Whether a flag belongs to a setting of `Config` (some commands have others of that name)."""
    return name in FIELDS and values.find_module_defining_flag(name) == config_flags.__name__


def _kind(flag: flags.Flag) -> str:
    """The kind of value, in a word."""
    names = {"string": "TEXT", "multi string": "TEXT", "comma separated list of strings": "LIST"}
    kind = flag.flag_type()
    return names.get(kind, kind.split()[0].upper())


def _grouped(values: flags.FlagValues) -> dict[str, list[flags.Flag]]:
    """Every flag under the title of its group, in the order in which the settings are declared."""
    # A flag with a short name appears twice.
    defined = {values[name].name: values[name] for name in values}
    defined = {name: flag for name, flag in defined.items() if name not in _HIDDEN}
    groups: dict[str, list[flags.Flag]] = {_OF_THIS_COMMAND: []}
    for name in FIELDS:
        if _is_setting(values, name):
            groups.setdefault(GROUPS[name], []).append(defined.pop(name))
    groups[_OF_ABSL] = []
    for name in sorted(defined):
        is_absl = (values.find_module_defining_flag(name) or "").startswith("absl")
        groups[_OF_ABSL if is_absl else _OF_THIS_COMMAND].append(defined[name])
    return {title: members for title, members in groups.items() if members}


class _Printing(flags.BooleanFlag):
    """A flag that prints something and ends the program with exit code 0."""

    def __init__(
        self, name: str, text: Callable[[], str], help_text: str, short_name: str | None = None
    ) -> None:
        super().__init__(name, False, help_text, short_name=short_name)
        self._text = text

    def parse(self, argument: Any) -> None:
        super().parse(argument)
        if self.value:
            print(self._text())
            sys.exit(0)


def version() -> str:
    """The text of `--version`."""
    return f"meta_impala {__version__} (Python {platform.python_version()})"


def define_help_flags(usage: Usage) -> None:
    """Defines `--help`, `--helpfull` and `--version`.

    Args:
      usage: of the command.
    """
    brief, full = lambda: usage.text(False), lambda: usage.text(True)
    for flag in (
        _Printing("help", brief, "Show this help.", short_name="h"),
        _Printing("helpshort", brief, "Show this help."),
        _Printing("helpfull", full, "Show every flag."),
        _Printing("version", version, "Show the version."),
    ):
        flags.DEFINE_flag(flag)
