"""Those that want to take the lock of a folder at the same moment, where the kernel has no locks.

Each creates a file of its own, and only then looks who else is there. It takes the lock only when
it sees no other candidate and, looking after that, no holder; and it removes its file only after it
has written that it holds the lock. So of any two, the later to create its file sees the other one,
as a candidate or as the holder. Of candidates that see each other the larger token gives way:
exactly one goes on. The file system must show a new file at once to whoever lists the folder; NFS
promises that to a process that has just created one there itself.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable
from types import TracebackType

from meta_impala.storage import lock_record
from meta_impala.storage.files import write_atomically
from meta_impala.storage.lock_record import Record

PREFIX = ".lock-candidate."
_MAX_CANDIDATES = 1000


class Candidate:
    """The file of this process, from entering to leaving the block."""

    def __init__(self, folder: pathlib.Path, record: Record) -> None:
        self._folder = folder
        self._record = record
        self._path = folder / f"{PREFIX}{record.token}"

    def __enter__(self) -> Candidate:
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _write(self) -> None:
        write_atomically(self._path, self._record.to_bytes())  # never seen without its content

    def others(self, is_dead: Callable[[Record, int], bool]) -> list[Record]:
        """The other candidates; the files of dead ones are removed.

        Args:
          is_dead: record, and its open file -> whether that process is dead.

        Raises:
          OSError: if the folder cannot be read.
        """
        while True:
            try:
                names = [name for name in os.listdir(self._folder) if name.startswith(PREFIX)]
            except PermissionError:  # it may be writable but not listable
                return []
            if self._path.name in names:
                break
            self._write()  # this process was taken for dead
        found = []
        for name in sorted(names)[:_MAX_CANDIDATES]:
            if name != self._path.name:
                record = self._alive(self._folder / name, is_dead)
                if record is not None:
                    found.append(record)
        return found

    @staticmethod
    def _alive(path: pathlib.Path, is_dead: Callable[[Record, int], bool]) -> Record | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # decided meanwhile, or nothing that a trainer has made
            return None
        try:
            record = lock_record.parse(os.read(descriptor, lock_record.MAX_BYTES))
            if record is None or not is_dead(record, descriptor):
                return record
        except OSError:  # a folder, a pipe: no trainer's either
            return None
        finally:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None
