"""Files that are written as a whole or not at all, and read within bounds. No TensorFlow here."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from meta_impala.errors import RunFailed, one_line


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file as a whole: a reader sees the old text or the new, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    flush(path.parent)


def flush(path: pathlib.Path) -> None:
    """Makes what is in a file, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: pathlib.Path, max_bytes: int) -> bytes:
    """A file's content.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it has more bytes.
    """
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes} bytes")
    return content


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """What goes wrong inside is that this file cannot be written: RunFailed, in one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written ({one_line(error)})") from error
