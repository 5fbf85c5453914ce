"""One trainer per folder (fault): the holder is killed, forked, on another machine, or there are no
locks at all."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from meta_impala.errors import UserError
from meta_impala.storage import folder_lock, lock_record
from meta_impala.storage.folder_lock import FolderLock, is_locked

_HOLD = """
import ctypes, os, pathlib, sys, time
from meta_impala.storage import folder_lock
if "no locks" in sys.argv:
    folder_lock._lock = lambda *_: None
lock = folder_lock.FolderLock(pathlib.Path(sys.argv[1]))
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)
if "fork in C" in sys.argv and ctypes.CDLL(None).fork() == 0:  # nobody closes the descriptor
    time.sleep(600)
print("held", os.getpid(), flush=True)
time.sleep(600)
"""


class Holder:
    """A process that holds the lock of a folder, in a process group of its own."""

    def __init__(self, folder, *how: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, folder, *how],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        word, self.pid = self._process.stdout.readline().split()
        assert word == "held"

    def kill(self) -> None:
        """Kills it, and not the children that it may have."""
        os.kill(int(self.pid), signal.SIGKILL)
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ProcessLookupError):  # it is dead, and had no children
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as NFS without its lock daemon."""

    def refuses(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuses)
    monkeypatch.setattr(folder_lock, "_SECONDS_TO_CONFIRM", 0.05)


@pytest.mark.parametrize("how", [(), ("fork",), ("fork in C",), ("fork", "fork in C")])
def test_the_second_is_refused_until_the_first_is_killed(tmp_path, how):
    assert not is_locked(tmp_path)
    with Holder(tmp_path, *how) as holder:
        assert is_locked(tmp_path)
        with pytest.raises(UserError, match=rf"another trainer \(process {holder.pid} on "):
            FolderLock(tmp_path)
        holder.kill()
        assert not is_locked(tmp_path)
        lock = FolderLock(tmp_path)  # its children live on
        assert is_locked(tmp_path)
        with pytest.raises(UserError, match=rf"process {os.getpid()} on "):
            FolderLock(tmp_path)
        lock.release()
        assert not is_locked(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_without_locks_the_record_decides(tmp_path, no_locks, capsys):
    with Holder(tmp_path, "no locks") as holder:
        assert is_locked(tmp_path)
        with pytest.raises(UserError, match=rf"another trainer \(process {holder.pid} on "):
            FolderLock(tmp_path)
        holder.kill()
    assert not is_locked(tmp_path)
    lock = FolderLock(tmp_path)
    assert "no locks on this file system" in capsys.readouterr().err
    assert is_locked(tmp_path)
    lock.release()
    assert not is_locked(tmp_path)


def test_without_locks_of_two_that_start_at_once_one_is_refused(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(folder_lock, "_SECONDS_TO_CONFIRM", 1.0)
    outcomes = []
    at_once = threading.Barrier(4)

    def start():
        at_once.wait()
        try:
            outcomes.append(FolderLock(tmp_path))
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [outcome for outcome in outcomes if isinstance(outcome, FolderLock)]
    assert len(held) == 1
    held[0].release()


def _record(tmp_path, age: float, **fields):
    record = lock_record.own_record()
    machine = record.machine._replace(
        **{k: v for k, v in fields.items() if k in record.machine._fields}
    )
    own = {name: value for name, value in fields.items() if name in record._fields}
    path = tmp_path / "lock"
    path.write_bytes(record._replace(machine=machine, **own).to_bytes())
    os.utime(path, (time.time() - age, time.time() - age))


ELSEWHERE = {"host": "elsewhere", "boot": "another", "namespace": "1", "pid": 77}


def test_on_another_machine_the_age_of_the_record_decides(tmp_path, no_locks):
    _record(tmp_path, 60.0, **ELSEWHERE)
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match=r"process 77 on elsewhere, seen 6\d s ago"):
        FolderLock(tmp_path)
    _record(tmp_path, lock_record.DEAD_AFTER_SECONDS + 1, **ELSEWHERE)
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).release()


def test_locks_that_work_on_one_machine_only_do_not_hide_another(tmp_path):
    """NFS mounted with local locks: the kernel's lock is free on each of two machines."""
    _record(tmp_path, 5.0, **ELSEWHERE)
    with pytest.raises(UserError, match="process 77 on elsewhere"):
        FolderLock(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"pid": 2**22 + 1},  # more than there are
        {"started": "1"},  # the id was given again
        {"namespace": "1", "pid": 1},  # another container of this machine
        {"boot": "another", "pid": 1},  # before it was restarted
    ],
)
def test_a_dead_holder_never_blocks(tmp_path, fields):
    _record(tmp_path, 1.0, **fields)
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).release()


def test_a_holder_renews_its_record_and_notices_another(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock_record, "RENEWAL_SECONDS", 0.05)
    lock = FolderLock(tmp_path)
    os.utime(tmp_path / "lock", (1, 1))
    deadline = time.monotonic() + 20
    while (tmp_path / "lock").stat().st_mtime < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _record(tmp_path, 0.0, **ELSEWHERE)
    while "process 77 on elsewhere has taken over" not in capsys.readouterr().err:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lock.release()
    assert b"elsewhere" in (tmp_path / "lock").read_bytes()  # it is not ours to clear


def test_an_environment_that_closes_every_file_does_not_give_the_folder_away(tmp_path):
    lock = FolderLock(tmp_path)
    os.close(lock._descriptor)
    with pytest.raises(UserError, match=rf"process {os.getpid()} on "):
        FolderLock(tmp_path)
    lock.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"123\n", b"\0" * 5000, b"[" * 5000, b"{}", b'{"pid": -1}', b"\xff\xfe",
     b'{"pid": 1e999}',
     b'{"pid": 1, "host": 1, "boot": 2, "namespace": 3, "started": 4, "token": 5}'],
)  # fmt: skip
def test_a_record_that_is_none_blocks_nobody(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).release()


def test_a_trainer_of_an_earlier_version_is_respected(tmp_path):
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711\n")
        file.flush()
        with pytest.raises(UserError, match=r"another trainer \(process 4711\)"):
            FolderLock(tmp_path)


def test_what_is_no_plain_file_is_refused_and_untouched(tmp_path):
    path, outside = tmp_path / "lock", tmp_path / "outside"
    outside.write_text("precious")
    for make, reason in (
        (lambda: path.mkdir(), "Is a directory"),
        (lambda: path.symlink_to(outside), "it is a symbolic link"),
        (lambda: path.hardlink_to(outside), "it is not a regular file of its own"),
        (lambda: os.mkfifo(path), "it is not a regular file of its own"),
    ):
        make()
        with pytest.raises(UserError, match=rf"lock: cannot be opened \({reason}\)"):
            FolderLock(tmp_path)
        assert not is_locked(tmp_path) and outside.read_text() == "precious"
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_text_in_a_record_reaches_the_terminal_escaped(tmp_path):
    _record(tmp_path, 1.0, **(ELSEWHERE | {"host": "\x1b[2Jevil\nerror: "}))
    with pytest.raises(UserError) as caught:
        FolderLock(tmp_path)
    assert str(caught.value).isprintable() and "\\x1b[2Jevil" in str(caught.value)
