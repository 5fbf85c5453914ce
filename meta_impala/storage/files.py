"""Every file is written whole or not at all, and read within bounds. No TensorFlow here.

Writing is one sequence, here and nowhere else: write aside, flush, fsync, rename, fsync the folder.
A reader sees the old content or the new one, and so does the next start after a crash or power cut.
Reading accepts regular files only: reading a named pipe would block, and a device has no end.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from meta_impala.errors import RunFailed, one_line, warn

_CHUNK_BYTES = 2**20
# Errors of file systems that cannot flush a file or a folder at all (some network and FUSE file
# systems, folders on others): no failure of the disk.
_NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# A folder that may be written but not listed cannot even be opened.
_CANNOT_OPEN_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR}) | _NOT_SUPPORTED
# Names have at most 255 bytes; the name aside is longer by the process id and two dots.
_MAX_NAME_ASIDE = 200

_warned_about_flush = False


class NotFlushed(OSError):
    """The file is in place and whole, but it is not certain that it would survive a power cut."""


# Writing.


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Replaces a file as a whole: a reader sees the old content or the new, never a part.

    Raises:
      NotFlushed: the new content is in place, but the folder could not be flushed.
      OSError: it cannot be written; the old content is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends without an exception.

    A symbolic link at `path` is replaced, not followed.

    Raises:
      NotFlushed, OSError: as `write_atomically`.
    """
    aside = aside_of(path)
    try:
        with io.BufferedWriter(_File(_create(aside)), _CHUNK_BYTES) as file:
            yield file
            file.flush()
            _fsync(file.fileno(), aside)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    flush_folder(path.parent)


def put_in_place(aside: pathlib.Path, path: pathlib.Path) -> None:
    """The same for a file that another program wrote aside, in the same folder.

    Raises:
      NotFlushed, OSError: as `write_atomically`; `aside` is then still there.
    """
    flush(aside)
    os.replace(aside, path)
    flush_folder(path.parent)


def make_folder(path: pathlib.Path, *, parents: bool = False) -> list[pathlib.Path]:
    """Makes a folder, flushed to disk; one that exists is left as it is.

    Args:
      path: of the folder.
      parents: whether those above it are made too.

    Returns:
      The folders that were made, the innermost first.

    Raises:
      OSError: if it cannot be made, or is a file; what was made on the way is removed.
    """
    missing: list[pathlib.Path] = []
    for folder in (path, *path.parents) if parents else (path,):
        if folder.exists():
            break
        missing.append(folder)
    made: list[pathlib.Path] = []
    try:
        for folder in reversed(missing):
            try:
                os.mkdir(folder)
            except FileExistsError:  # made by another process meanwhile
                continue
            made.insert(0, folder)
            flush_folder(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Sequence[pathlib.Path]) -> None:
    """Removes folders that `make_folder` made, the innermost first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def append_line(path: pathlib.Path, line: str) -> None:
    """Appends a line to a file in one write, flushed; the file is made if it is not there.

    If an earlier line was torn by a kill, the new one begins after it all the same.

    Raises:
      NotFlushed, OSError: as `write_atomically`; also if it is not a regular file, or there is no
        room for the whole line.
    """
    is_new = not path.exists()
    descriptor = _open_to_append(str(path), os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        append_whole(descriptor, b"\n" * is_torn + line.encode("utf-8") + b"\n")
        _fsync(descriptor, path)
    finally:
        os.close(descriptor)
    if is_new:
        flush_folder(path.parent)


def append_whole(descriptor: int, data: bytes) -> None:
    """Appends all of the data to a file that is open for appending, or nothing.

    Raises:
      OSError: if it cannot be written, or not all of it.
    """
    end = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with contextlib.suppress(OSError):  # the rest is a line that is not read
            os.ftruncate(descriptor, end)
        raise


def open_log(path: pathlib.Path) -> io.FileIO:
    """A file for the output of another process, open for appending; it has the path's name.

    Raises:
      OSError: if it cannot be opened, or there is something else than a regular file.
    """
    return io.FileIO(str(path), "a", opener=lambda name, _: _open_to_append(name, os.O_WRONLY))


def _open_to_append(name: str, mode: int) -> int:
    flags = os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, mode | flags, 0o666)
    try:
        _refuse_special(os.fstat(descriptor), pathlib.Path(name))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def move_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a folder, flushed; `target` is not there, or an empty folder.

    Raises:
      NotFlushed: it is renamed, but the folder above could not be flushed.
      OSError: it cannot be renamed; nothing was changed.
    """
    os.rename(source, target)
    flush_folder(target.parent)
    if source.parent != target.parent:
        flush_folder(source.parent)


def remove_folder(path: pathlib.Path) -> None:
    """Removes a folder, or a link or file in its place; what cannot be removed stays."""
    if path.is_symlink() or path.is_file():
        with contextlib.suppress(OSError):
            os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)


def flush(path: pathlib.Path) -> None:
    """Makes the content of a file outlive a power cut.

    Raises:
      OSError: if the disk fails; where it is not supported there is one warning.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _fsync(descriptor, path)
    finally:
        os.close(descriptor)


def flush_open(descriptor: int, path: pathlib.Path) -> None:
    """The same for a file that is open for writing."""
    _fsync(descriptor, path)


def flush_folder(path: pathlib.Path) -> None:
    """Makes the names in a folder outlive a power cut.

    Raises:
      NotFlushed: if the disk fails; where it is not supported there is one warning.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _CANNOT_OPEN_FOLDER:
            raise _not_flushed(error, path) from error
        _warn_not_supported(path, error)
        return
    try:
        _fsync(descriptor, path)
    except OSError as error:
        raise _not_flushed(error, path) from error
    finally:
        os.close(descriptor)


def aside_of(path: pathlib.Path) -> pathlib.Path:
    """Where a file is written before it takes the place of `path`: hidden, in the same folder."""
    name = os.fsdecode(os.fsencode(path.name)[:_MAX_NAME_ASIDE])
    return path.with_name(f".{name}.{os.getpid()}")


def unused_name(path: pathlib.Path, ending: str = "damaged") -> pathlib.Path:
    """Where something is kept that makes room: `NAME.damaged`, or the first free `NAME.damaged-N`.

    Args:
      path: of what is to be kept.
      ending: of the name.
    """
    target, number = path.with_name(f"{path.name}.{ending}"), 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{path.name}.{ending}-{number}")
    return target


def _create(path: pathlib.Path) -> int:
    """A new file; an earlier process's file, or a link, is removed and not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o666)


class _File(io.RawIOBase):
    """A file descriptor open for writing."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return os.write(self._descriptor, data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def close(self) -> None:
        if not self.closed:
            try:
                super().close()
            finally:
                os.close(self._descriptor)


def _fsync(descriptor: int, path: pathlib.Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        _warn_not_supported(path, error)


def _not_flushed(error: OSError, path: pathlib.Path) -> NotFlushed:
    reason = f"it is written, but could not be flushed to disk: {one_line(error)}"
    return NotFlushed(error.errno or errno.EIO, reason, str(path))


def _warn_not_supported(path: pathlib.Path, error: OSError) -> None:
    global _warned_about_flush
    if not _warned_about_flush:
        _warned_about_flush = True
        warn(
            f"warning: {path}: this file system cannot flush it to disk ({one_line(error)}); after "
            "a power cut the newest files may be missing"
        )


# Reading.


@contextlib.contextmanager
def open_regular(path: pathlib.Path) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading.

    Raises:
      OSError: if it cannot be opened, or is not a regular file.
    """
    _refuse_special(os.stat(path), path)  # opening a device may already do something
    # Non-blocking: it may have become a pipe meanwhile.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _refuse_special(os.fstat(descriptor), path)
        yield file


def _refuse_special(status: os.stat_result, path: pathlib.Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_bounded(path: pathlib.Path, max_bytes: int) -> bytes:
    """A file's content.

    Raises:
      OSError: if it cannot be read, or is not a regular file.
      ValueError: if it has more bytes.
    """
    too_large = ValueError(f"it has more than {max_bytes} bytes")
    parts, size = [], 0
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise too_large
        while part := file.read(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > max_bytes:
                raise too_large
    return b"".join(parts)


def read_tail(path: pathlib.Path, max_bytes: int = 2**16) -> str:
    """The last bytes of a text file of any size, such as a log.

    Raises:
      OSError: if it cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        file.seek(-min(max_bytes, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read(max_bytes).decode("utf-8", "replace")


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError inside into RunFailed: this file cannot be written, in one line."""
    try:
        yield
    except NotFlushed as error:
        raise RunFailed(f"{path}: {one_line(error)}") from error
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written ({one_line(error)})") from error
