"""One trainer per folder (fault): the holder is killed, forked, on another machine, or there are no
locks at all."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from meta_impala.errors import UserError
from meta_impala.storage import folder_lock, lock_candidates, lock_record
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


_CONTEND = """
import errno, fcntl, os, pathlib, sys
from meta_impala.errors import UserError
from meta_impala.storage.folder_lock import FolderLock

def refuses(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.flock = refuses
print("ready", flush=True)
for line in sys.stdin:
    try:
        lock = FolderLock(pathlib.Path(line.strip()))
    except UserError as error:
        lock = None
        assert "another trainer (process " in str(error), error
    print("held" if lock else "refused", flush=True)
    sys.stdin.readline()
    if lock:
        lock.release()
    print("released", flush=True)
"""


def test_without_locks_exactly_one_of_several_that_start_at_once_holds_the_folder(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CONTEND], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]  # fmt: skip

    def all_say() -> list[str]:
        return [process.stdout.readline().strip() for process in processes]

    def tell_all(line: str) -> None:
        for process in processes:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()

    try:
        assert all_say() == ["ready"] * 4
        for attempt in range(40):
            folder = tmp_path / f"run-{attempt % 3}"  # also where a lock file was left
            folder.mkdir(exist_ok=True)
            tell_all(str(folder))
            assert sorted(all_say()) == ["held", "refused", "refused", "refused"], attempt
            tell_all("")
            assert all_say() == ["released"] * 4
            assert [path.name for path in folder.iterdir()] == ["lock"]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("first_token", ["0", "f"])
def test_without_locks_in_every_interleaving_one_holds_the_folder(
    tmp_path, no_locks, monkeypatch, first_token
):
    """The first start pauses before each of its calls in turn, and the second runs to its end."""
    monkeypatch.setattr(folder_lock, "_SECONDS_FOR_OTHERS", 0.1)
    calls = ("open", "listdir", "unlink", "replace", "pread", "pwrite", "ftruncate", "fsync")
    for name in calls:
        monkeypatch.setattr(os, name, _pausing(getattr(os, name)))
    own_record = lock_record.own_record

    def record():
        token = first_token if isinstance(threading.current_thread(), _Paused) else "7"
        return own_record()._replace(token=token)

    monkeypatch.setattr(lock_record, "own_record", record)
    pauses = 0
    while True:
        folder = tmp_path / str(pauses)
        folder.mkdir()
        first = _Paused(folder, pauses)
        first.start()
        was_paused = first.reached.wait(300) and not first.outcome
        second = _outcome(folder)
        first.go.set()
        first.join()
        held = [lock for lock in (*first.outcome, second) if isinstance(lock, FolderLock)]
        assert len(held) == 1, (pauses, first.outcome, second)
        assert is_locked(folder)
        held[0].release()
        assert [path.name for path in folder.iterdir()] == ["lock"]
        if not was_paused:
            break
        pauses += 1
    assert pauses > 8


def _outcome(folder):
    try:
        return FolderLock(folder)
    except UserError as error:
        return error


class _Paused(threading.Thread):
    """Takes the lock, and pauses before a call until it is told to go."""

    def __init__(self, folder, pause_at: int) -> None:
        super().__init__()
        self.outcome = []
        self.left = pause_at
        self.reached, self.go = threading.Event(), threading.Event()
        self._folder = folder

    def run(self) -> None:
        self.outcome.append(_outcome(self._folder))
        self.reached.set()


def _pausing(function):
    def call(*arguments, **named):
        thread = threading.current_thread()
        if isinstance(thread, _Paused) and not thread.go.is_set():
            if thread.left == 0:
                thread.reached.set()
                thread.go.wait()
            thread.left -= 1
        return function(*arguments, **named)

    return call


def test_a_candidate_that_died_never_blocks(tmp_path, no_locks):
    dead = lock_record.own_record()._replace(pid=2**22 + 1, token="0")
    path = tmp_path / f"{lock_candidates.PREFIX}0"
    path.write_bytes(dead.to_bytes())
    FolderLock(tmp_path).release()
    assert not path.exists()
    elsewhere = dead._replace(machine=dead.machine._replace(host="elsewhere", boot="1"))
    path.write_bytes(elsewhere.to_bytes())
    with pytest.raises(UserError, match="on elsewhere\\) is starting in this folder"):
        FolderLock(tmp_path)
    os.utime(path, (time.time() - 1000, time.time() - 1000))
    FolderLock(tmp_path).release()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_invalid_candidate_files_do_not_block(tmp_path, no_locks):
    for number, content in enumerate([b"", b"[" * 5000, b"\xff", b'{"pid": -1}']):
        (tmp_path / f"{lock_candidates.PREFIX}{number}").write_bytes(content)
    (tmp_path / f"{lock_candidates.PREFIX}folder").mkdir()
    os.mkfifo(tmp_path / f"{lock_candidates.PREFIX}pipe")
    (tmp_path / f"{lock_candidates.PREFIX}link").symlink_to("/dev/zero")
    FolderLock(tmp_path).release()


def test_a_holder_that_lost_the_lock_ends_without_writing(tmp_path):
    code = _HOLD.replace("import ctypes", "from meta_impala.storage import lock_record\n"
                         "lock_record.RENEWAL_SECONDS = 0.05\nimport ctypes")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    _record(tmp_path, 0.0, **ELSEWHERE)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.endswith("77 on elsewhere has taken over this folder; ending without saving\n")


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
    with pytest.raises(UserError, match=r"process 77 on elsewhere, seen 6\d s ago") as caught:
        FolderLock(tmp_path)
    assert str(caught.value).endswith("or this folder is a copy: 120 s after that)")
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


def test_a_copy_of_a_running_folder_is_free(tmp_path):
    (tmp_path / "run").mkdir()
    lock = FolderLock(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    os.rename(tmp_path / "run", tmp_path / "moved")
    assert is_locked(tmp_path / "moved") and not is_locked(tmp_path / "copy")
    with pytest.raises(UserError, match=rf"process {os.getpid()} on "):
        FolderLock(tmp_path / "moved")
    other = FolderLock(tmp_path / "copy")
    assert is_locked(tmp_path / "copy")
    other.release()
    lock.release()


@pytest.mark.parametrize("fields", [{"inode": ""}, {"inode": "1", **ELSEWHERE}])
def test_a_record_that_cannot_tell_a_copy_holds_the_folder(tmp_path, fields):
    """Of an older version; of another machine, where only its age counts."""
    _record(tmp_path, 5.0, **fields)
    assert is_locked(tmp_path)


def test_without_locks_a_copied_record_decides(tmp_path, no_locks):
    _record(tmp_path, 5.0, inode="1")
    assert is_locked(tmp_path)


def test_a_holder_renews_its_record_and_notices_another(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_record, "RENEWAL_SECONDS", 0.05)
    said = []
    lock = FolderLock(tmp_path, on_lost=said.append)
    os.utime(tmp_path / "lock", (1, 1))
    deadline = time.monotonic() + 20
    while (tmp_path / "lock").stat().st_mtime < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _record(tmp_path, 0.0, **ELSEWHERE)
    while not said:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "process 77 on elsewhere has taken over this folder" in said[0]
    lock.release()
    assert b"elsewhere" in (tmp_path / "lock").read_bytes()  # it is not ours to clear


def test_an_environment_that_closes_every_file_does_not_release_the_lock(tmp_path):
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
def test_an_invalid_lock_record_does_not_block(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).release()


def test_the_lock_of_an_earlier_version_is_respected(tmp_path):
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711\n")
        file.flush()
        with pytest.raises(UserError, match=r"another trainer \(process 4711\)"):
            FolderLock(tmp_path)


def test_a_lock_that_is_not_a_regular_file_is_refused_and_unchanged(tmp_path):
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
