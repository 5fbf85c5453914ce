"""One trainer per folder, even where the file system has no locks.

Two things guard a folder. The kernel's lock on the file `lock`, released when its holder dies in
any way. And the record in it (`lock_record`), which names the holder: it decides where the
file system has no working locks (NFS), and where a child process of a dead trainer still keeps the
kernel's lock.

Of several that start at once, where there are no locks, exactly one holds the folder: each first
creates a file of its own (`lock_candidates`), and nobody takes the lock beside a candidate.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from meta_impala.errors import UserError, one_line, warn
from meta_impala.storage import lock_record
from meta_impala.storage.files import aside_of
from meta_impala.storage.lock_candidates import Candidate
from meta_impala.storage.lock_record import Record
from meta_impala.storage.run_folder import RunFolder

FILE_NAME = "lock"
EXIT_CODE_TAKEN_OVER = 1
_ATTEMPTS = 20
# How long a start waits for another one to decide, which takes milliseconds.
_SECONDS_FOR_OTHERS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.02
_SECONDS_BETWEEN_ATTEMPTS = 0.1
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class FolderLock:
    """The lock of a run folder, held until `release` or the end of the process."""

    def __init__(self, folder: pathlib.Path, on_lost: Callable[[str], None] | None = None) -> None:
        """Takes the lock.

        Args:
          folder: of the run.
          on_lost: called from a thread, with a message, when another trainer has taken the folder
            over because this one was not seen alive for too long; by default the message is printed
            and the process ends at once: whatever it would write would damage the other's run.

        Raises:
          UserError: if another trainer holds it, or it cannot be opened or is not a regular file.
        """
        self._folder = folder
        self._path = folder / FILE_NAME
        self._pid = os.getpid()
        self._on_lost = on_lost or _end_process
        self._record = lock_record.own_record()
        self._released = threading.Event()
        self._descriptor: int | None = self._take()
        _locks.add(self)
        # Another machine can only tell by this that the holder is alive.
        threading.Thread(target=self._renew, name="folder lock", daemon=True).start()

    def release(self, *, remove: bool = False) -> None:
        """Releases the lock.

        Args:
          remove: whether the file is removed; otherwise it stays, empty. Only its holder may remove
            it: another process could be about to take it.
        """
        self._released.set()
        if self._descriptor is None:
            return
        if os.getpid() == self._pid and self._is_own():
            with contextlib.suppress(OSError):
                if remove:
                    os.unlink(self._path)
                else:
                    os.ftruncate(self._descriptor, 0)
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # an environment may have closed everything
                os.close(descriptor)

    def _take(self) -> int:
        try:
            with _guard(self._folder), Candidate(self._folder, self._record) as candidate:
                for _ in range(_ATTEMPTS):
                    descriptor = _open(self._path, os.O_RDWR | os.O_CREAT)
                    try:
                        if self._hold(descriptor, candidate):
                            return descriptor
                    except BaseException:
                        os.close(descriptor)
                        raise
                    os.close(descriptor)  # the file was replaced
        except OSError as error:
            raise UserError(f"{self._path}: cannot be opened ({one_line(error)})") from None
        raise UserError(f"--logdir={self._folder}: another trainer is starting here; try again")

    def _hold(self, descriptor: int, candidate: Candidate) -> bool:
        """Takes the lock of this file; False if it is not the folder's any more."""
        kernel = _lock(descriptor)
        deadline = time.monotonic() + _SECONDS_FOR_OTHERS
        while True:
            others = candidate.others(self._is_dead)
            # After the others: one of them may just have become the holder.
            if not _is_at(descriptor, self._path):
                return False
            holder = lock_record.parse(os.pread(descriptor, lock_record.MAX_BYTES, 0))
            if _is_held(kernel, holder, descriptor, self._age):
                raise self._refusal(descriptor, holder)
            if not others:
                break
            first = min(others, key=lambda other: other.token)
            if first.token < self._record.token or time.monotonic() > deadline:
                raise UserError(
                    f"--logdir={self._folder}: another trainer ({first.holder}) is starting in "
                    "this folder; must be a folder of its own, or wait until it has ended"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # it gives way, or was faster
        if kernel is False:  # only a child process of a dead trainer keeps it
            self._replace_file()
            return False
        self._record = self._record._replace(inode=lock_record.inode_of(descriptor))
        # One write of one length: no reader sees a part.
        content = self._record.to_bytes().ljust(lock_record.MAX_BYTES - 1) + b"\n"
        if os.pwrite(descriptor, content, 0) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, lock_record.MAX_BYTES)
        if kernel is None:
            warn(f"warning: {self._path}: no locks on this file system; this record alone decides")
        return True

    def _is_dead(self, other: Record, descriptor: int) -> bool:
        """Whether the process that wants to start as well, and whose file this is, is dead."""
        alive = lock_record.is_alive(other)
        if alive is None:
            return self._age(descriptor) >= lock_record.DEAD_AFTER_SECONDS
        return not alive

    def _replace_file(self) -> None:
        """Puts an empty file in the place of one that a dead trainer's child keeps locked."""
        aside = aside_of(self._path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        os.replace(aside, self._path)

    def _age(self, descriptor: int) -> float:
        """Seconds since the record was renewed, by the clock of the file system's server."""
        aside = aside_of(self._path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        probe = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            now = os.fstat(probe).st_mtime
        finally:
            os.close(probe)
            os.unlink(aside)
        return now - os.fstat(descriptor).st_mtime

    def _refusal(self, descriptor: int, holder: Record | None) -> UserError:
        hint = "wait until it has ended"
        if holder is not None:
            who = holder.holder
            if lock_record.is_alive(holder) is None:
                who += f", seen {max(0.0, self._age(descriptor)):.0f} s ago"
                hint += (
                    " (if it is dead, or this folder is a copy: "
                    f"{lock_record.DEAD_AFTER_SECONDS:g} s after that)"
                )
        else:  # of an earlier version
            pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            who = f"process {pid if pid.isdecimal() else 'unknown'}"
        return UserError(
            f"--logdir={self._folder}: another trainer ({who}) is running in this folder; must be "
            f"a folder of its own, or {hint}"
        )

    def _is_own(self) -> bool:
        descriptor = self._descriptor
        try:
            return (
                descriptor is not None
                and _is_at(descriptor, self._path)
                and lock_record.parse(os.pread(descriptor, lock_record.MAX_BYTES, 0))
                == self._record
            )
        except OSError:
            return False

    def _renew(self) -> None:
        while not self._released.wait(lock_record.RENEWAL_SECONDS):
            with contextlib.suppress(OSError):
                found = lock_record.parse(_read(self._path))
                if found is not None and found != self._record:
                    self._on_lost(f"{self._path}: {found.holder} has taken over this folder")
                    return
                os.utime(self._path, follow_symlinks=False)


def _end_process(message: str) -> None:
    warn(f"error: {message}; ending without saving")
    os._exit(EXIT_CODE_TAKEN_OVER)


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[FolderLock]:
    """Prepares a run folder and holds its lock; a start that is refused leaves no folder behind.

    Raises:
      UserError: if the folder cannot be used, or another trainer is running in it.
    """
    folder.prepare()
    lock = None
    try:
        lock = FolderLock(folder.path)
        folder.clean()
        yield lock
    except UserError:
        if lock is not None:
            lock.release(remove=not folder.has_run())
        folder.undo_prepare()
        raise
    finally:
        if lock is not None:
            lock.release()


# Locks of this process. A child that Python forks shares an open file with its parent, and so would
# keep the kernel's lock alive when the parent dies.
_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_locks):
        lock._close()


os.register_at_fork(after_in_child=_close_in_child)


def is_locked(folder: pathlib.Path) -> bool:
    """Whether a trainer is running in the folder; touches nothing."""
    path = folder / FILE_NAME
    try:
        descriptor = _open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        kernel = _lock(descriptor, fcntl.LOCK_SH)
        holder = lock_record.parse(os.pread(descriptor, lock_record.MAX_BYTES, 0))
        return _is_held(kernel, holder, descriptor, lambda d: time.time() - os.fstat(d).st_mtime)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def has_record(folder: pathlib.Path) -> bool:
    """Whether the lock file names a trainer, so that `is_locked` knows whether that one lives."""
    try:
        return lock_record.parse(_read(folder / FILE_NAME)) is not None
    except OSError:
        return False


def _is_held(
    kernel: bool | None, holder: Record | None, descriptor: int, age: Callable[[int], float]
) -> bool:
    """Whether a trainer that is alive holds the folder.

    Args:
      kernel: whether the kernel's lock could be taken; None where there are no locks.
      holder: the record in the file, if there is one.
      descriptor: of the file.
      age: of the file -> seconds since the record was renewed.
    """
    if holder is None:
        return kernel is False
    alive = lock_record.is_alive(holder)
    if alive is not None:
        # A folder may be copied while a trainer holds the original. Without locks only the record
        # is left to decide: such a file system may also number its files anew.
        is_copy = bool(kernel) and holder.inode not in ("", lock_record.inode_of(descriptor))
        return alive and not is_copy
    if kernel is False:
        return True
    here = lock_record.this_machine()
    if kernel and (holder.machine.boot == here.boot or holder.machine.host == here.host):
        return False  # another container of this machine, or before its restart
    # The inode tells no copy here: some network file systems (sshfs, CIFS without server's numbers)
    # number the same file anew on each machine, and take locks on each alone. A copy that counts as
    # held costs a wait; two trainers in one folder cost the run.
    return age(descriptor) < lock_record.DEAD_AFTER_SECONDS


@contextlib.contextmanager
def _guard(folder: pathlib.Path) -> Iterator[None]:
    """One process at a time reads the lock file and decides; without locks there is no guard."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # may be writable but not listable
        yield
        return
    try:
        for _ in range(_ATTEMPTS):
            if _lock(descriptor) is not False:
                break
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
        yield
    finally:
        os.close(descriptor)


def _open(path: pathlib.Path, flags: int) -> int:
    """Opens the file; a link, a pipe or a device in its place is refused."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file of its own")
    return descriptor


def _read(path: pathlib.Path) -> bytes:
    descriptor = _open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, lock_record.MAX_BYTES, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Takes the kernel's lock: True if it was free, False if not, None if there are no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)
