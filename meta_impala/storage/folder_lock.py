"""One trainer per folder: a lock that the kernel gives back when its holder dies, however."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib

from meta_impala.errors import UserError, warn

FILE_NAME = "lock"


class FolderLock:
    """The lock of a run folder, held until `release` or the end of the process."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the lock.

        Raises:
          UserError: if another process holds it, or it cannot be opened.
        """
        path = folder / FILE_NAME
        try:
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror})") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self.release()
                raise UserError(
                    f"--logdir={folder}: another trainer (process {holder or 'unknown'}) is at "
                    "work in this folder; must be a folder of its own, or wait until it has ended"
                ) from None
            # Some network file systems have no locks; that is no reason not to train.
            warn(f"warning: {path}: cannot be locked ({error.strerror})")
            return
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Gives the lock back; the file stays, since removing it would let two hold "the" lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(folder: pathlib.Path) -> bool:
    """Whether a trainer is at work in the folder; touches nothing."""
    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(descriptor)
    return False
