"""Exceptions that are shown as one line, never as a traceback; text that is safe to print."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable

# Longer messages quote something unreadable, such as a number of a million digits.
_MAX_CHARACTERS = 4000


def printable(text: object) -> str:
    """One line without control characters, whatever the text contains.

    Line breaks become spaces. Everything else that is not printable becomes an escape such as
    `\\x1b`: terminal sequences, text direction marks, invisible spaces, lone surrogates.
    """
    line = " ".join(str(text).splitlines())
    if len(line) > _MAX_CHARACTERS:
        line = f"{line[:_MAX_CHARACTERS]}… ({len(line)} characters)"
    return escaped(line)


def escaped(text: str) -> str:
    """The text, whatever its length, with an escape for each character that is not printable, line
    breaks included; so it can be encoded."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def text_of(value: object, show: Callable[[object], str] = str) -> str:
    """`str` or `repr` of what foreign code made, which may raise anything there."""
    try:
        return show(value)
    except BaseException:  # noqa: BLE001 - see above
        return f"({type(value).__name__}, whose text cannot be shown)"


class UserError(Exception):
    """A mistake in flags, files or folders; its one-line message states what is allowed."""

    def __init__(self, message: object = "") -> None:
        # It may quote a file.
        super().__init__(printable(message))


class RunFailed(Exception):
    """A run cannot go on, for a reason that needs no traceback: one line, `status.json` failed.

    Attributes:
      leaves_threads: some hang in a library: the process must end without waiting for them.
    """

    leaves_threads = False

    def __str__(self) -> str:
        return printable(super().__str__())


def one_line(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    # Without the name of the operation: "{{function_node ...}} what is wrong [Op:RestoreV2]".
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", text_of(error)).strip()
    return printable(text.splitlines()[0])[:300].strip() if text else type(error).__name__


def warn(message: str) -> None:
    """Prints to stderr, and ignores errors: a run may outlive its terminal.

    The message may have several lines; quotes from a file must be made `printable` first.
    """
    _print(message, "stderr")


def tell(message: str) -> None:
    """Prints to stdout at once, and ignores errors, as `warn`."""
    _print(message, "stdout")


def _print(message: str, name: str) -> None:
    """Prints lines to a stream, escaped: a message may quote a file.

    To the stream of the start, if an environment has closed the present one.
    """
    text = "\n".join(escaped(line.expandtabs()) for line in str(message).split("\n"))
    for stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or never opened
            if stream is not None:
                print(text, file=stream, flush=True)
                return
