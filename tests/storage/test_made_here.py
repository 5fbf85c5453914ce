"""Whether a folder is the user's own (fault: copied, moved, tampered with, no home folder)."""

import shutil

import pytest

from meta_impala.storage import made_here


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_folder_is_recognised_on_the_machine_that_made_it(tmp_path, home):
    folder = tmp_path / "run" / "members"
    assert not made_here.is_made_here(folder)
    made_here.mark(folder)
    assert made_here.is_made_here(folder)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert made_here.is_made_here(tmp_path / "link" / "members")
    shutil.copytree(folder, tmp_path / "copy")
    assert not made_here.is_made_here(tmp_path / "copy")
    shutil.rmtree(home)
    assert not made_here.is_made_here(folder)


@pytest.mark.parametrize("content", [b"", b"\n", b"0" * 65, b"0" * 1000, b"\xff" * 65])
def test_a_mark_inside_the_folder_is_not_believed(tmp_path, home, content):
    folder = tmp_path / "members"
    folder.mkdir()
    (folder / "made_here").write_bytes(content)
    assert not made_here.is_made_here(folder)
    made_here.mark(folder)
    (folder / "made_here").write_bytes(content)
    assert not made_here.is_made_here(folder)


def test_a_mark_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    made_here.mark(tmp_path / "members")
    assert "to continue it, give --trust_modules" in capsys.readouterr().err
    assert not made_here.is_made_here(tmp_path / "members")
