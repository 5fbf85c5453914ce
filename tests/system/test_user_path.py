"""Paths as users type them."""

import os
import pathlib

import pytest

from meta_impala.errors import UserError
from meta_impala.system.user_path import one_path, real_path, user_path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be a path"),
        (" ", "must be a path"),
        ("\t\n", "must be a path"),
        ("~nosuchuser/x", "there is no user nosuchuser"),
        ("a\0b", "without NUL"),
        ("x" * 256, "File name too long"),
        ("/".join(["y" * 200] * 30), "File name too long"),
        ("caf\udce9", "in UTF-8"),
    ],
)
def test_an_impossible_path_is_refused_with_its_flag(text, reason):
    with pytest.raises(UserError, match=f"^--out=.*{reason}"):
        user_path(text, "out")
    with pytest.raises(UserError, match=reason):
        user_path(text)


def test_a_cycle_of_symbolic_links_is_refused(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert user_path(str(tmp_path / "circle")).name == "circle"  # the link itself is there
    with pytest.raises(UserError, match="--out=.*symbolic links"):
        user_path(str(tmp_path / "circle" / "x"), "out")


def test_a_real_path_has_no_links_and_is_no_cycle_of_them(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to({"one": "two", "two": "one"}[name])
    assert real_path(str(tmp_path / "link" / "x"), "out") == tmp_path / "folder" / "x"
    assert real_path(str(tmp_path / "dangling"), "out") == tmp_path / "nothing"
    for name in ("one", "two", "one/x"):
        with pytest.raises(UserError, match=f"^--out={tmp_path / name}: .*symbolic links$"):
            real_path(str(tmp_path / name), "out")


@pytest.mark.parametrize("text", ["a", "./a", "a/../b", "**", "a b", "γ", "--x", "a/", "no/such/x"])
def test_a_path_is_absolute_from_the_start(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = user_path(text)
    assert path == pathlib.Path(os.path.normpath(tmp_path / text))
    monkeypatch.chdir("/")
    assert path.is_relative_to(tmp_path)


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/runs") == pathlib.Path("/home/me/runs")


def test_a_relative_path_in_a_deleted_working_directory_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(UserError, match="working directory does not exist any more"):
        user_path("runs")
    assert user_path("/runs") == pathlib.Path("/runs")


def test_one_path_is_an_argument_or_a_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert one_path([], "logdir", None) is None
    assert one_path([], "logdir", "") is None
    assert one_path([], "logdir", "/a") == "/a"
    assert one_path(["a"], "logdir", None) == str(tmp_path / "a")
    with pytest.raises(UserError, match="b: unexpected argument; one folder is taken"):
        one_path(["a", "b"], "logdir", None)
    with pytest.raises(UserError, match="a: unexpected argument beside --logdir=/b"):
        one_path(["a"], "logdir", "/b")
    with pytest.raises(UserError, match="NUL"):
        one_path(["a\0"], "logdir", None)
