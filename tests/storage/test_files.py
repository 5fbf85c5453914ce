"""Files in and out: what stands in their place (links, pipes, devices), disks that cannot flush."""

import errno
import os
import pathlib
import socket
import stat
import time

import pytest

from meta_impala.errors import RunFailed, UserError
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation.record import PartialGames
from meta_impala.evaluation.starts import read_starts
from meta_impala.storage import files, json_files, manifest, results_folder
from meta_impala.storage.arrays import read_arrays
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_run import open_trained_run, read_agent_file
from meta_impala.training.metrics import MetricsWriter


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # the name of a socket has at most 107 bytes
        made.bind(path.name)


def _endless(path):
    path.symlink_to("/dev/zero")


def _empty_device(path):
    path.symlink_to("/dev/null")


def _folder(path):
    path.mkdir()


def _huge(path):
    with open(path, "wb") as file:
        file.truncate(10**12)  # sparse


def _circle(path):
    path.symlink_to(path.name)


SPECIAL = [_pipe, _socket, _endless, _empty_device, _folder, _huge, _circle]


def _starts(path):
    read_starts(path, environment="Catch", protocol="impala", num_actions=3)


def _config(path):
    folder = RunFolder(path.parent)
    os.rename(path, folder.config_path)
    folder.load_config()


# Everything that reads a file that may come from elsewhere, and what it may raise.
READERS = {
    "agent": (read_agent_file, UserError),
    "starts": (_starts, UserError),
    "config": (_config, UserError),
    "evaluation": (evaluation_record.read_result, UserError),
    "digest": (manifest.file_digest, OSError),
    "arrays": (read_arrays, (OSError, ValueError)),
    "json": (lambda path: json_files.read_json_object(path, 2**20), (OSError, ValueError)),
}


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("name", READERS)
def test_a_path_that_is_not_a_file_is_refused_at_once(name, special, tmp_path):
    read, expected = READERS[name]
    if special is _huge and name == "digest":
        return  # it has no bound but that of the file that the user named
    path = tmp_path / "file"
    special(path)
    started = time.monotonic()
    with pytest.raises(expected) as caught:
        read(path)
    assert time.monotonic() - started < 2.0
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("special", SPECIAL)
def test_an_optional_path_that_is_not_a_file_counts_as_missing(special, tmp_path):
    for name in ("status.json", "metrics.csv", "partial.json"):
        special(tmp_path / name)
    assert RunFolder(tmp_path).read_status() == {}
    assert read_metrics(tmp_path / "metrics.csv") == []
    assert PartialGames(tmp_path / "partial.json", {}).games == []


@pytest.mark.parametrize("special", [_pipe, _endless, _folder])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_checkpoint_with_something_else_inside_is_damaged(special, name, tmp_path):
    special(tmp_path / name)
    with pytest.raises(manifest.Damaged):
        manifest.verify(tmp_path)


NAMES = (
    "config.json", "status.json", "metrics.csv", "lock", "stacks.txt", "evaluation.json",
    "population.json", "checkpoints", "tensorboard", "bad_updates", "wandb",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_a_link_in_a_run_folder_is_refused_and_its_target_untouched(name, target, tmp_path):
    outside = tmp_path / "outside"
    if target == "file":
        outside.write_text("precious")
    elif target == "folder":
        outside.mkdir()
        (outside / "inside").write_text("precious")
    logdir = tmp_path / "run"
    logdir.mkdir()
    (logdir / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a symbolic link; must be a"):
        RunFolder(logdir).prepare()
    assert [path.name for path in logdir.iterdir()] == [name]
    if target == "file":
        assert outside.read_text() == "precious"
    elif target == "folder":
        assert [path.name for path in outside.iterdir()] == ["inside"]
    else:
        assert not outside.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_a_run_folder_is_refused(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: must be a"):
        RunFolder(tmp_path).prepare()


def test_links_that_come_later_are_replaced_and_never_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    aside = files.aside_of(folder.status_path)
    aside.symlink_to(outside)
    folder.status_path.symlink_to(outside)
    folder.write_status("running", 3)
    assert outside.read_text() == "precious" and not folder.status_path.is_symlink()
    folder.metrics_path.symlink_to(outside)
    MetricsWriter(folder.metrics_path, folder.tensorboard, 0).close()
    assert outside.read_text() == "precious" and not folder.metrics_path.is_symlink()


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to"])
def test_a_full_disk_does_not_write_the_status_through_a_link(make, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    getattr(folder.status_path, make)(outside)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    folder.write_status("failed", 3)
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("what", ["folder", "everything", "opening a folder"])
def test_a_file_system_that_cannot_flush_is_a_warning_once(
    number, what, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(files, "_warned_about_flush", False)
    fsync, opened = os.fsync, os.open

    def refuses(descriptor):
        if what == "everything" or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    def does_not_open(path, flags, *arguments, **named):
        if flags & os.O_DIRECTORY:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *arguments, **named)

    if what == "opening a folder":
        monkeypatch.setattr(os, "open", does_not_open)
    else:
        monkeypatch.setattr(os, "fsync", refuses)
    folder = RunFolder(tmp_path / "new" / "run")
    folder.prepare()
    for frames in (1, 2):
        folder.write_status("running", frames)
    assert folder.read_status()["frames"] == 2
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and "cannot flush it to disk" in warning


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_in_flushing_a_folder_keeps_the_written_file(number, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_status("running", 1)
    fsync = os.fsync

    def fails(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunFailed, match=r"status.json: it is written, but could not be flushed"):
        folder.write_status("running", 2)
    assert folder.read_status()["frames"] == 2


def test_paths_are_absolute_from_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("run")
    folder.prepare()
    monkeypatch.chdir("/")
    folder.write_status("running", 1)
    assert RunFolder(tmp_path / "run").read_status()["frames"] == 1
    assert folder.path == tmp_path / "run"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "~nosuchuser/run", "loop/run"])
def test_an_impossible_path_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("loop").symlink_to("loop")
    for use in (lambda: RunFolder(name).prepare(), lambda: open_trained_run(name)):
        with pytest.raises(UserError) as caught:
            use()
        assert "--logdir" in str(caught.value) and str(caught.value).isprintable()
    assert os.listdir() == ["loop"]


def test_a_folder_that_cannot_be_made_leaves_none_above_it(tmp_path, monkeypatch):
    with pytest.raises(OSError):
        files.make_folder(tmp_path / "new" / ("x" * 300), parents=True)
    with pytest.raises(UserError, match="--logdir="):
        RunFolder(tmp_path / "new" / ("x" * 300)).prepare()
    with pytest.raises(UserError, match="--outdir="):
        results_folder.make_outdir(str(tmp_path / "new" / ("x" * 300)))
    assert not list(tmp_path.iterdir())

    def fails(folder):
        if folder != tmp_path:
            raise OSError(errno.EIO, "fails")

    monkeypatch.setattr(files, "flush_folder", fails)
    with pytest.raises(OSError, match="fails"):
        files.make_folder(tmp_path / "a" / "b" / "c", parents=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("digits", [101, 400, 5000])
def test_a_number_that_no_float_can_hold_is_refused(digits, tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"returns": [[1, 2.5, ' + "9" * 100 + "]]}")
    assert json_files.read_json_object(path, 10_000) == {"returns": [[1, 2.5, 10**100 - 1]]}
    path.write_text('{"returns": [[-' + "9" * digits + "]]}")
    with pytest.raises(ValueError, match=f"a number of {digits} digits"):
        json_files.read_json_object(path, 10_000)


def test_where_results_go_is_checked_and_left_as_it_is(tmp_path):
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    (tmp_path / "pipe.png").symlink_to("/dev/null")
    check = results_folder.check_file
    assert check(old, "out", ".png") == old
    assert check(tmp_path / "new.json", "out") == tmp_path / "new.json"
    for path, endings, message in (
        (tmp_path / "no" / "x.png", (), "--out=.*must be a file in a folder that exists"),
        (old / "x.png", (), "must be a file in a folder that exists"),
        (tmp_path, (), "must be a file in a folder that exists"),
        (tmp_path / "pipe.png", (), "must be a file in a folder that exists"),
        (pathlib.Path("/dev/null"), (), "must be a file in a folder that exists"),
        (pathlib.Path("/proc/x"), (), "cannot be written"),
        (tmp_path / ("x" * 300), (), "cannot be written"),
        (old, (".pdf", ".svg"), "must end in .pdf or .svg"),
        (old, (".html",), "must end in .html"),
    ):
        with pytest.raises(UserError, match=message):
            check(path, "out", *endings)
    assert results_folder.check_outdir(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    with pytest.raises(UserError, match="--data=/proc/x: cannot be made or written to"):
        results_folder.check_outdir("/proc/x", "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.png", "pipe.png"]
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize("existing", [0, 1, 2])
def test_a_refused_start_leaves_no_folder_behind(existing, tmp_path):
    from meta_impala.storage.folder_lock import locked

    path = tmp_path / "a" / "b" / "c"
    path.parents[2 - existing].mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="refused"), locked(RunFolder(path)):
        raise UserError("refused")
    assert sorted(tmp_path.rglob("*")) == before
    # A run that was there, or something else, stays.
    with pytest.raises(UserError, match="refused"), locked(RunFolder(path)) as _:
        (path / "mine").touch()
        raise UserError("refused")
    assert (path / "mine").exists()
