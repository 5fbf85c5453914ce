"""Paths as users type them: `~` is expanded, they are made absolute, impossible ones are refused.

This is done once, at the start: an environment may change the working directory later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator, Sequence

from absl import flags

from meta_impala.errors import UserError

# Longest path in a message, in characters.
_LONGEST_SHOWN = 300
# What makes a path a pattern for TensorFlow.
_OF_PATTERNS = frozenset("*?[\\")


def user_path(text: str, flag: str = "") -> pathlib.Path:
    """The absolute path of what a user typed.

    Args:
      text: as it was typed.
      flag: name of the flag that it was given to, for messages; none for an argument without.

    Raises:
      UserError: if no file can have that name here.
    """
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    name = f"--{flag}={shown}" if flag else shown if shown.strip() else repr(shown)
    try:
        return _path(text)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _path(text: str) -> pathlib.Path:
    """Raises ValueError with the reason."""
    if not text.strip():
        raise ValueError("must be a path")
    if "\0" in text:
        raise ValueError("must be a path without NUL characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be a path in UTF-8") from None
    try:
        path = pathlib.Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            f"there is no user {text.partition('/')[0][1:] or 'with a home'}"
        ) from None
    try:
        path = pathlib.Path(os.path.abspath(path))
    except OSError:
        raise ValueError("the working directory does not exist any more") from None
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whether it must exist is for the command to check
    except OSError as error:  # too long, or a loop of links
        raise ValueError(str(error.strerror)) from None
    return path


def real_path(text: str, flag: str) -> pathlib.Path:
    """The path of a flag without symbolic links; `pathlib` may raise RuntimeError for a circle.

    Args:
      text: absolute; nothing needs to be there.
      flag: name of the flag.

    Raises:
      UserError: if it is a circle of links.
    """
    try:
        os.stat(text)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"--{flag}={text}: {error.strerror}") from None
    return pathlib.Path(os.path.realpath(text))


def one_path(arguments: Sequence[str], flag: str, value: str | None) -> str | None:
    """The path that a user gave as an argument or as a flag; None if neither.

    Args:
      arguments: those that are not flags.
      flag: name of the flag.
      value: of the flag.

    Raises:
      UserError: if there is more than one, or no file can have that name.
    """
    if len(arguments) > 1:
        raise UserError(f"{arguments[1]}: unexpected argument; one folder is taken")
    if not arguments:
        return value or None
    if value:
        raise UserError(f"{arguments[0]}: unexpected argument beside --{flag}={value}; give one")
    return str(user_path(arguments[0]))


class _PathParser(flags.ArgumentParser):
    """A path, as absolute text; empty for none."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        return str(_path(argument)) if argument else ""

    def flag_type(self) -> str:
        return "path"


def define_path(name: str, default: str | None, help_text: str) -> None:
    """A flag whose value is a path; the command sees it absolute.

    Args:
      name: of the flag.
      default: absolute, or None.
      help_text: what it is for.
    """
    flags.DEFINE(_PathParser(), name, default, help_text, serializer=flags.ArgumentSerializer())


@contextlib.contextmanager
def without_pattern(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder by a path that TensorFlow reads from.

    It takes the prefix that it reads (not the one that it writes) as a pattern, and would not find
    `lr=[0.1]`. Such a folder is given to it by its descriptor, which leaves nothing behind.
    """
    if not _OF_PATTERNS.intersection(str(folder)):
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield pathlib.Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
