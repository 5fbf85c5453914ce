"""What is said of a trainer that died, or whose folder was copied while it ran (fault)."""

import json
import os
import shutil

import pytest

from meta_impala.storage import lock_record
from meta_impala.storage.folder_lock import FolderLock
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.run_status import (
    describe_dead_trainer,
    failure_of,
    lost_metrics,
    read_status,
    sentence_of_failure,
)


def test_a_trainer_that_died_is_interrupted_and_one_that_lives_is_running(tmp_path):
    folder = RunFolder(tmp_path)
    lock = FolderLock(tmp_path)
    folder.write_status("running", 1200, checkpoint="frames-800")
    assert read_status(folder)["state"] == "running" and failure_of(read_status(folder)) is None
    lock.release()
    status = json.loads(folder.status_path.read_text()) | {"pid": 2**22 + 1}
    folder.status_path.write_text(json.dumps(status))
    found = read_status(folder)
    assert found == status | {"state": "interrupted", "reason": failure_of(found)}
    assert failure_of(found) == (
        "the last trainer here (process 4194305) ended without saving its state at 1,200 frames: "
        "it was killed, or its environment ended the process; its last checkpoint is frames-800"
    )
    assert sentence_of_failure(found) == f"the run was interrupted: {found['reason']}"
    folder.write_status("failed", 1200, reason="no memory")
    assert sentence_of_failure(read_status(folder)) == "the run failed: no memory"
    assert failure_of(read_status(folder)) == "no memory"
    folder.write_status("finished", 1200)
    assert failure_of(read_status(folder)) is None


def test_the_copy_of_a_running_folder_is_not_said_to_have_been_killed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    lock = FolderLock(folder.path)
    folder.write_status("running", 1200)
    shutil.copytree(folder.path, tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy")
    said = describe_dead_trainer(copy, is_held_here=True)
    assert "was at 1,200 frames when this folder was copied" in said
    assert "it had saved no checkpoint yet" in said
    assert (read_status(folder)["state"], read_status(copy)["state"]) == ("running", "interrupted")
    assert failure_of(read_status(copy)) == said
    lock.release()


@pytest.mark.parametrize("changes", [{"started": "1"}, {"namespace": "1"}, {"boot": "another"}])
def test_a_number_that_is_another_process_s_now_does_not_hide_a_death(tmp_path, changes):
    """As of process 1 of a container, seen from the next one, where every start is process 1."""
    folder = RunFolder(tmp_path)
    folder.write_status("running", 1200, checkpoint="frames-800")
    record = json.loads(lock_record.own_record().to_bytes())
    (tmp_path / "lock").write_text(json.dumps(record | changes))
    found = read_status(folder)
    assert found["state"] == "interrupted"
    assert (
        "its number is another process's now; its last checkpoint is frames-800" in found["reason"]
    )


@pytest.mark.parametrize("content", [None, b"", b"4711\n"])
def test_without_a_record_the_number_decides(tmp_path, content):
    """A lock of an earlier version, or none; an empty one while a trainer ends."""
    folder = RunFolder(tmp_path)
    folder.write_status("running", 1200)
    if content is not None:
        (tmp_path / "lock").write_bytes(content)
    assert read_status(folder)["state"] == "running"
    status = json.loads(folder.status_path.read_text()) | {"pid": 2**22 + 1}
    assert os.getpid() != status["pid"]
    folder.status_path.write_text(json.dumps(status))
    assert read_status(folder)["state"] == "interrupted"


def test_metrics_that_were_deleted_are_told_from_those_that_are_not_there_yet(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_status("running", 0)
    assert lost_metrics(folder, read_status(folder)) is None
    folder.write_status("stopped", 378_880)
    said = f"{folder.metrics_path}: is missing; the run is at 378,880 frames (its rows are lost)"
    assert lost_metrics(folder, read_status(folder)) == said
    folder.metrics_path.touch()
    assert lost_metrics(folder, read_status(folder)) == said.replace("missing", "empty")
    folder.metrics_path.write_text("frames\n")  # stopped before the first row
    assert lost_metrics(folder, read_status(folder)) is None
