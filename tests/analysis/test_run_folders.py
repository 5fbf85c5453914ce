"""Run folders are found by path or below a folder; mistakes are one line."""

import os

import pytest

from meta_impala.analysis import run_folders
from meta_impala.errors import UserError


def _run(path):
    path.mkdir(parents=True)
    for name in ("config.json", "status.json"):
        (path / name).write_text("{}")
    return path


def test_runs_are_found_by_path_and_below_folders_without_duplicates(tmp_path):
    runs = [_run(tmp_path / name) for name in ("a/x/1", "a/x/2", "a/.hidden/3", "_b")]
    _run(tmp_path / "a/x/1/checkpoints/of_a_run")  # nothing is searched below a run
    (tmp_path / "empty").mkdir()
    os.symlink(tmp_path, tmp_path / "a/loop")

    def found(*names):
        return [run.path for run in run_folders.find([str(tmp_path / name) for name in names])]

    assert found("a/x/1") == [runs[0]]
    assert found("a") == [runs[2], runs[0], runs[1]]
    assert found("a/x/2", "a", "_b") == [runs[1], runs[2], runs[0], runs[3]]
    assert found("a/x/../x/1", "a/x/1") == [runs[0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "holds no run"),
        ("nowhere", "is not a folder"),
        ("file", "is not a folder"),
        ("a" * 5000, "is not a folder"),
        ("nul\0", "not a path|is not a folder"),
    ],
)
def test_a_path_without_a_run_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message) as error:
        run_folders.find([f"{tmp_path}/{name}"])
    assert "\n" not in str(error.value)
