"""Flag files (`--flagfile=PATH`): one flag a line, `#` and `//` begin comments, files may nest.

absl can read them, but a folder, a binary file or a circle of files gives a traceback or no
message, so they are replaced by their lines before absl sees the command line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence

from absl import flags

from meta_impala.config.fields import nearest
from meta_impala.config.suggestions import unknown_flag
from meta_impala.config.text import shown
from meta_impala.errors import UserError

_MAX_BYTES = 1_000_000

# Files that include each other repeatedly grow without bound.
_MAX_LINES = 10_000

_MAX_LISTED = 1000

_DIRECTIVE = re.compile(r"--?flagfile(?:=(.*))?", re.DOTALL)


def expand_flag_files(arguments: Sequence[str], flag_values: flags.FlagValues) -> list[str]:
    """The command line with the lines of the flag files in their places.

    Args:
      arguments: without the program's name.
      flag_values: the flags that exist.

    Raises:
      UserError: for a flag that does not exist, or a file that is not a file of flags.
    """
    expanded: list[str] = []
    rest = list(reversed(arguments))
    checks_names = not any(argument.lstrip("-").startswith("undefok") for argument in arguments)
    while rest:
        argument = rest.pop()
        directive = _DIRECTIVE.fullmatch(argument)
        if directive is not None:
            if directive[1] is None and not rest:
                raise UserError("--flagfile: must have a value, the path of a file")
            path = rest.pop() if directive[1] is None else directive[1]
            expanded += _lines(path, flag_values, (), [_MAX_LINES], checks_names)
            continue
        expanded.append(argument)
        if not argument.lstrip("-"):  # nothing but dashes: the end of the flags
            break
        if argument.startswith("-"):
            if checks_names:
                _check_name(argument, "", flag_values)
            if rest and not rest[-1].startswith("-") and _takes_next(argument, flag_values):
                expanded.append(rest.pop())
        elif not flag_values.is_gnu_getopt():
            break
    return expanded + rest[::-1]


def _takes_next(argument: str, flag_values: flags.FlagValues) -> bool:
    """Whether the next argument is the value of this one (`--name value`)."""
    name = argument.lstrip("-")
    return "=" not in argument and name in flag_values and not flag_values[name].boolean


def _lines(
    path: str,
    flag_values: flags.FlagValues,
    outer: tuple[str, ...],
    lines_left: list[int],
    checks_names: bool,
) -> Iterator[str]:
    """The flags of a file and of those it includes.

    Args:
      path: as given; empty for no file.
      flag_values: the flags that exist.
      outer: paths of the files that are being read.
      lines_left: one number, how many lines may still be read.
      checks_names: whether a flag that does not exist is refused.
    """
    path = path.strip()
    if not path:  # as absl
        return
    given = f"--flagfile={shown(path)}"
    text = _read(path, given)
    place = os.path.realpath(os.path.expanduser(path))
    if place in outer:
        raise UserError(f"{given}: includes itself; must not include itself")
    takes_next = False
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        lines_left[0] -= 1
        if lines_left[0] < 0:
            raise UserError(f"{given}: must have at most {_MAX_LINES} lines, with what it includes")
        directive = _DIRECTIVE.fullmatch(line)
        if directive is not None:
            inner = directive[1] or ""
            yield from _lines(inner, flag_values, (*outer, place), lines_left, checks_names)
            continue
        if not takes_next and checks_names:
            _check_line(line, f"{given}, line {number}", flag_values)
        takes_next = not takes_next and _takes_next(line, flag_values)
        yield line


def _check_line(line: str, where: str, flag_values: flags.FlagValues) -> None:
    if not line.startswith("-") or not line.strip("-"):
        raise UserError(f"{where}: {shown(line)}: must be a flag, --name=value")
    _check_name(line, f"{where}: ", flag_values)


def _check_name(argument: str, where: str, flag_values: flags.FlagValues) -> None:
    """Refuses a flag that does not exist (absl's own search for similar ones has no bound)."""
    name = argument.lstrip("-").partition("=")[0]
    known = set(flag_values) | {f"no{other}" for other in flag_values if flag_values[other].boolean}
    if name not in known and name != "undefok":
        raise UserError(f"{where}{unknown_flag(name, flag_values)}")


def _read(path: str, given: str) -> str:
    """The text of a file that may have any content.

    Args:
      path: of the file; ~ is the home folder.
      given: how messages name it.
    """
    path = os.path.expanduser(path)
    try:
        # Opening a pipe would wait for its writer.
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{given}: is a folder; must be a file of flags, one per line")
        if not stat.S_ISREG(mode):
            raise UserError(
                f"{given}: is not a regular file; must be a file of flags, one per line"
            )
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{given}: there is no such file{_similar_file(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{given}: cannot be read ({reason})") from None
    if len(data) > _MAX_BYTES:
        raise UserError(f"{given}: must have at most {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{given}: is not text (UTF-8); must be a file of flags, one per line")
    return text


def _similar_file(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MAX_LISTED), strict=False)]
    except (OSError, ValueError):
        return ""
    flag_files = [other for other in names if other.endswith(".flags")]
    return nearest(name, flag_files) or nearest(name, names)
