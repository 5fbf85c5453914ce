"""One trainer per folder (fault: the holder is killed)."""

import subprocess
import sys

import pytest

from meta_impala.errors import UserError
from meta_impala.storage.folder_lock import FolderLock, is_locked


def test_the_second_is_refused_until_the_first_is_killed(tmp_path):
    assert not is_locked(tmp_path)
    code = (
        "import pathlib, sys; from meta_impala.storage.folder_lock import FolderLock;"
        "lock = FolderLock(pathlib.Path(sys.argv[1])); print('held', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert is_locked(tmp_path)
            with pytest.raises(UserError, match=rf"another trainer \(process {holder.pid} on "):
                FolderLock(tmp_path)
        finally:
            holder.kill()
    assert not is_locked(tmp_path)
    lock = FolderLock(tmp_path)
    assert is_locked(tmp_path)
    lock.release()
    assert not is_locked(tmp_path)


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match=r"lock: cannot be opened \(Is a directory\)"):
        FolderLock(tmp_path)
