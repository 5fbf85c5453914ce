"""Standard output and error that never end a program: closed, unread, full, or not UTF-8.

A run outlives its terminal, and `evaluate | head -1` still saves its games: output that cannot be
written is dropped. Characters that the terminal cannot show are replaced (γ by "gamma").
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_REPLACE = "meta_impala.readable"

# Replacements; every other character that cannot be encoded becomes "?".
_READABLE = {
    "γ": "gamma",
    "λ": "lambda",
    "η": "eta",
    "θ": "theta",
    "β": "beta",
    "μ": "mu",
    "ρ": "rho",
    "π": "pi",
    "σ": "sigma",
    "ε": "epsilon",
    "τ": "tau",
    "Δ": "delta",
    "∂": "d",
    "×": "x",
    "±": "+/-",
    "½": "1/2",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "\u0304": "",  # the combining bar of ρ̄ and c̄
    "\u00a0": " ",
    "█": "#",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}

# The reader has closed the pipe; other errors, such as a full disk, are reported in a line.
_READER_IS_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)


# Those of the start. Python would close what nobody refers to.
_started_with: list[TextIO | None] = []


class _LastingFile(io.FileIO):
    """A file descriptor whose writes never fail: after the first failure they are dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            self._drop(error)
            return memoryview(data).nbytes

    def _drop(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if error.errno not in _READER_IS_GONE and self.fileno() != 2:
            print(f"warning: standard output was lost ({error.strerror})", file=sys.stderr)


class _LastingStream(io.TextIOWrapper):
    """A stream that cannot be closed: environments hide what simulators print by closing it."""

    def close(self) -> None:
        self.flush()


def prepare_streams() -> None:
    """Makes stdin, stdout and stderr safe to use; before any file is opened.

    A closed descriptor is opened on the null device. Otherwise the next file would get its number,
    and libraries would write their output into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    codecs.register_error(_REPLACE, _replace)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    _started_with.extend([sys.stdout, sys.stderr])
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)
    # Where environments, and `restore_streams`, go back to.
    for name in ("stdout", "stderr"):
        if isinstance(getattr(sys, name), _LastingStream):
            setattr(sys, f"__{name}__", getattr(sys, name))


def restore_streams() -> None:
    """Puts stdout and stderr back where an environment left none, or a closed one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, getattr(sys, f"__{name}__"))


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Around foreign code, for a command whose standard output another program reads: what the code
    prints, also by a library in C, goes to standard error."""
    _flush_stdout()
    screen = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # what C has not written yet
        _flush_stdout()
        os.dup2(screen, 1)
        os.close(screen)


def _flush_stdout() -> None:
    with contextlib.suppress(AttributeError, ValueError):  # None, or closed
        sys.stdout.flush()


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """The same stream with writes that never fail; other streams (in tests) are unchanged."""
    if stream is not None:
        try:
            if not isinstance(stream, io.TextIOWrapper) or stream.fileno() != descriptor:
                return stream
            stream.flush()
        except (OSError, ValueError):
            return stream
    return _LastingStream(
        io.BufferedWriter(_LastingFile(descriptor, "w", closefd=False)),
        encoding=_usable(stream),
        errors=_REPLACE,
        line_buffering=descriptor == 2 or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )


def _usable(stream: TextIO | None) -> str:
    """The encoding that the user chose."""
    return (stream.encoding if stream is not None else None) or "utf-8"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: the replacement of characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_READABLE.get(character, "?") for character in text), error.end
