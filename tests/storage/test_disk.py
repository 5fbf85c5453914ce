"""Disks that fill up, folders that vanish or may not be written, in the middle of a run (fault)."""

import errno
import os
import pathlib
import shutil
import subprocess
import time

import pytest
from support.run_helpers import (
    BATCH_FRAMES,
    make_config,
    make_trainer,
    read_metrics,
    read_status,
)

from meta_impala.errors import RunFailed, UserError
from meta_impala.experiments import study_runs
from meta_impala.storage import checkpoint as checkpoint_lib
from meta_impala.storage import run_folder
from meta_impala.storage.checkpoint import list_checkpoints, verify
from meta_impala.storage.files import write_atomically
from meta_impala.storage.folder_lock import FolderLock
from meta_impala.storage.metrics_table import COLUMNS
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest
from meta_impala.training.metrics import MetricsWriter


class AtUpdate(StopRequest):
    """Never asks to stop; calls something once, when so many updates were made."""

    def __init__(self, updates: int, call) -> None:
        super().__init__()
        self.trainer = None
        self._updates, self._call = updates, call

    def is_set(self) -> bool:
        if self._call and self.trainer and self.trainer.updates >= self._updates:
            call, self._call = self._call, None
            call()
        return False


def run(path, damage):
    """A long run that is damaged after 8 updates; returns the message of its failure."""
    config = make_config(
        meta_parameters="none",
        total_frames=10**9,
        checkpoint_frames=3 * BATCH_FRAMES,
        log_frames=BATCH_FRAMES,
    )
    stop = AtUpdate(8, damage)
    stop.trainer = make_trainer(path, config, stop)
    with pytest.raises(RunFailed) as caught:
        stop.trainer.run()
    message = str(caught.value)
    assert "\n" not in message
    return message


def continues(path) -> None:
    """The folder opens, and its run goes on to an end."""
    frames = int(list_checkpoints(path / "checkpoints")[0].name.split("-")[1])
    config = make_config(
        meta_parameters="none",
        total_frames=frames + 4 * BATCH_FRAMES,
        log_frames=BATCH_FRAMES,
    )
    trainer = make_trainer(path, config)
    assert trainer.frames == frames >= 6 * BATCH_FRAMES
    assert trainer.run() == "finished"
    rows = [int(row["frames"]) for row in read_metrics(path)]
    assert rows == list(range(BATCH_FRAMES, frames + 4 * BATCH_FRAMES + 1, BATCH_FRAMES))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_ends_the_run_with_one_line(small_disk):
    def fill():
        with open(small_disk / "filler", "wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    return

    run_path = small_disk / "run"
    message = run(run_path, fill)
    assert "No space left on device" in message
    status = read_status(run_path)  # says so, though there was no room
    assert (status["state"], status["reason"]) == ("failed", message)
    assert not list(run_path.glob(".*")), "half-written files were left"
    for path in list_checkpoints(run_path / "checkpoints"):
        verify(path)
    rows = (run_path / "metrics.csv").read_text("utf-8")
    assert rows.endswith("\n") and len({row.count(",") for row in rows.splitlines()}) == 1
    os.unlink(small_disk / "filler")
    continues(run_path)


def test_a_deleted_folder_ends_the_run_with_one_line(tmp_path):
    path = tmp_path / "run"
    message = run(path, lambda: shutil.rmtree(path))
    assert str(path) in message
    assert "No such file or directory" in message
    assert not path.exists()


@pytest.mark.parametrize("what", ["", "checkpoints", "metrics.csv"])
def test_a_folder_that_became_read_only_ends_the_run_with_one_line(tmp_path, what):
    path = tmp_path / "run"
    locked = path / what

    def lock(sign):
        return subprocess.run(["chattr", f"{sign}i", locked], capture_output=True, check=False)

    (tmp_path / "probe").touch()
    probe = ["chattr", "+i", tmp_path / "probe"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("files cannot be made immutable here")
    subprocess.run(["chattr", "-i", tmp_path / "probe"], check=True)
    if what == "metrics.csv":
        # An open file stays writable: the next start is what is refused.
        config = make_config(total_frames=8 * BATCH_FRAMES)
        make_trainer(path, config).run()
        before = (path / what).read_bytes()
        lock("+")
        try:
            with pytest.raises(RunFailed, match=r"metrics.csv: cannot be written \(Operation not"):
                make_trainer(path, make_config(total_frames=9 * BATCH_FRAMES)).run()
        finally:
            lock("-")
        assert (path / what).read_bytes() == before
        return
    try:
        message = run(path, lambda: lock("+"))
    finally:
        lock("-")
    assert "Operation not permitted" in message
    assert read_status(path)["state"] == "failed"
    continues(path)


@pytest.mark.slow
def test_a_slow_disk_is_not_reported_as_a_hang(tmp_path, monkeypatch):
    """Saving takes longer than actors may stand still; they wait for room meanwhile."""
    flush = checkpoint_lib.flush
    monkeypatch.setattr(checkpoint_lib, "flush", lambda path: (time.sleep(3.2), flush(path)))
    config = make_config(stall_timeout=4.0, checkpoint_frames=5 * BATCH_FRAMES)
    started = time.monotonic()
    assert make_trainer(tmp_path, config).run() == "finished"
    assert time.monotonic() - started > 12.0
    assert not (tmp_path / "stacks.txt").exists()


def test_a_metrics_file_that_is_not_a_table_is_kept(tmp_path, capsys):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"\x00\xffsomething else\n1,2,3\n")
    MetricsWriter(path, tmp_path / "tensorboard", 0).close()
    assert path.read_text("utf-8").startswith("frames,updates,")
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == b"\x00\xffsomething else\n1,2,3\n"
    assert "kept as metrics.csv.damaged" in capsys.readouterr().err


def test_a_row_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    writer = MetricsWriter(tmp_path / "metrics.csv", tmp_path / "tensorboard", 0)
    before = (tmp_path / "metrics.csv").read_bytes()

    write = os.write
    # A disk with too little room.
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, line: write(file, line[: len(line) // 2]))
        with pytest.raises(RunFailed, match=r"metrics.csv: cannot be written \(No space left"):
            writer.write(dict.fromkeys(COLUMNS, 1))
    assert (tmp_path / "metrics.csv").read_bytes() == before
    writer.close()


def test_a_line_is_appended_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "costs.csv"
    study_runs.add_cost(path, "a", 1.5)
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, line: write(file, line[: len(line) // 2]))
        with pytest.raises(OSError, match="No space left"):
            study_runs.add_cost(path, "b", 2.0)
    study_runs.add_cost(path, "c", 3.0)
    assert path.read_text() == "a,1.50\nc,3.00\n"


def test_a_status_that_does_not_fit_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_status("running", 5)
    before = read_status(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pwrite = os.pwrite
    size = folder.status_path.stat().st_size
    monkeypatch.setattr(run_folder, "write_atomically", full)
    monkeypatch.setattr(os, "pwrite", lambda file, text, at: pwrite(file, text[:size], at))
    folder.write_failure(RunFailed("a reason that needs more room than there is" * 20))
    assert read_status(tmp_path) == before and folder.status_path.stat().st_size == size
    monkeypatch.setattr(os, "pwrite", pwrite)
    folder.write_failure(RunFailed("a reason"))
    assert read_status(tmp_path)["state"] == "failed"


def test_a_lock_that_does_not_fit_is_not_taken(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, text, at: pwrite(file, text[:9], at))
    with pytest.raises(UserError, match="lock: cannot be opened .No space left"):
        FolderLock(tmp_path)


def test_incomplete_files_of_a_killed_trainer_are_removed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare()
    write_atomically(folder.status_path, "{}")
    for name in (".status.json.123", ".config.json.4", ".metrics.csv.5", ".writable.6"):
        (tmp_path / name).touch()
    (tmp_path / ".evaluation.json.7").touch()  # an evaluation may be writing it
    folder.clean()
    assert {path.name for path in tmp_path.iterdir()} == {"status.json", ".evaluation.json.7"}


def test_deleted_checkpoints_leave_the_metrics(tmp_path):
    config = make_config(total_frames=4 * BATCH_FRAMES)
    make_trainer(tmp_path, config).run()
    before = (tmp_path / "metrics.csv").read_bytes()
    pathlib.Path(tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    from meta_impala.errors import UserError

    with pytest.raises(UserError, match="holds no checkpoint, but frames-80 was saved there"):
        make_trainer(tmp_path, config)
    assert (tmp_path / "metrics.csv").read_bytes() == before
