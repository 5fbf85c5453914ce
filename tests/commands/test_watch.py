"""The command `watch` as a user runs it (command)."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image
from support import forked_command
from support.command_helpers import ROOT, TINY, refused
from support.run_helpers import files_of

from meta_impala import watch
from meta_impala.command import LOADING
from meta_impala.errors import UserError
from meta_impala.storage.folder_lock import FolderLock
from meta_impala.storage.run_folder import RunFolder

ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
}


def _run(*arguments, **settings):
    return forked_command.run(
        [sys.executable, "-m", "meta_impala", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        **({"env": ENVIRONMENT} | settings),
    )


def _start(*arguments):
    return forked_command.Popen(
        [sys.executable, "-m", "meta_impala", "watch", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def _frame(url):
    with urllib.request.urlopen(f"{url}frame.jpg", timeout=60) as response:
        return np.asarray(Image.open(io.BytesIO(response.read())))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "catch"
    result = _run("train", *TINY, f"--logdir={folder}", "--total_frames=800")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_page_shows_the_game_until_it_is_stopped(trained, stop):
    before = files_of(trained)
    with _start(str(trained), "--fps=30") as process:
        assert process.stdout.readline() == f"{LOADING}\n"
        line = process.stdout.readline()
        url = re.match(r"(http://127\.0\.0\.1:\d+/) shows meta_impala/Catch-v0 live", line)[1]
        shown = [_frame(url)]
        deadline = time.monotonic() + 60
        while (shown[0] == shown[-1]).all() and time.monotonic() < deadline:
            shown.append(_frame(url))
        assert (shown[0] != shown[-1]).any()
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "interrupted\n")
    assert files_of(trained) == before


def test_watch_shows_a_number_of_games_of_an_exported_agent(trained, tmp_path):
    agent = tmp_path / "agent.npz"
    assert _run("export", f"--logdir={trained}", f"--out={agent}").returncode == 0
    result = _run("watch", f"--agent={agent}", "--web", "--games=2", "--fps=500")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 2


_WINDOW = """
import sys, pygame
frames = []
def flip(original=pygame.display.flip):
    surface = pygame.display.get_surface()
    frames.append(pygame.surfarray.array3d(surface).max())
    if len(frames) == 12:
        pygame.event.post(pygame.event.Event(pygame.QUIT))
    original()
pygame.display.flip = flip
from meta_impala import cli
try:
    cli.main()
finally:
    assert len(frames) == 12 and max(frames) > 200, frames
"""


def test_a_window_shows_the_game_until_it_is_closed(trained):
    pytest.importorskip("pygame")
    result = forked_command.run(
        [sys.executable, "-c", _WINDOW, "watch", f"--logdir={trained}", "--fps=500"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT | {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{LOADING}\n", "")


@pytest.mark.slow
def test_watch_waits_for_the_first_checkpoint_and_shows_newer_ones(tmp_path):
    folder = tmp_path / "run"
    training = subprocess.Popen(
        [sys.executable, "-m", "meta_impala", "train", *TINY, f"--logdir={folder}"]
        + ["--total_frames=10M", "--checkpoint_minutes=0.02"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    try:
        while not (folder / "config.json").exists():
            time.sleep(0.1)
        with _start(str(folder), "--fps=200") as watching:
            line = watching.stdout.readline()
            while "no checkpoint yet; waiting" in line or line.startswith(LOADING):
                line = watching.stdout.readline()
            url = re.match(r"(http://\S+) shows", line)[1]
            # The line that says after how many frames; it changes when a newer checkpoint plays.
            captions = {_frame(url)[48:64, 220:].tobytes()}
            deadline = time.monotonic() + 90
            while len(captions) < 3 and time.monotonic() < deadline:
                captions.add(_frame(url)[48:64, 220:].tobytes())
                time.sleep(0.2)
            watching.send_signal(signal.SIGINT)
            _, err = watching.communicate(timeout=60)
        assert len(captions) >= 3 and watching.returncode == 130, err
        assert training.poll() is None  # undisturbed
    finally:
        training.send_signal(signal.SIGINT)
        assert training.wait(60) == 0


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("failed", "(the state of the run is failed: no memory)"),
        ("finished", "(the state of the run is finished)"),
        (
            "running",
            "(the state of the run is interrupted: the last trainer here (process",
        ),
        (None, "(the state of the run is not known)"),
    ],
)
def test_watch_waits_only_while_a_trainer_is_running(tmp_path, monkeypatch, capsys, state, reason):
    folder = RunFolder(tmp_path)
    folder.config_path.touch()
    if state is not None:
        status = {"state": state, "frames": 0, "pid": 2**22 + 1, "reason": "no memory"}
        folder.status_path.write_text(json.dumps(status))
    with pytest.raises(UserError) as caught:
        watch._wait_for_checkpoint(str(tmp_path))
    assert "no trainer is running that would save one" in str(caught.value)
    assert reason in str(caught.value) and capsys.readouterr().out == ""
    lock = FolderLock(tmp_path)
    first = folder.checkpoints / "frames-1"
    monkeypatch.setattr(time, "sleep", lambda _: first.mkdir(parents=True))
    watch._wait_for_checkpoint(str(tmp_path))
    assert "no checkpoint yet; waiting for the first one" in capsys.readouterr().out
    lock.release()


def test_watch_says_that_a_copy_was_running_when_it_was_copied(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    folder.config_path.touch()
    lock = FolderLock(folder.path)
    folder.write_status("running", 40)
    shutil.copytree(folder.path, tmp_path / "copy")
    with pytest.raises(
        UserError, match=r"is interrupted: .* was at 40 frames when this folder was"
    ):
        watch._wait_for_checkpoint(str(tmp_path / "copy"))
    lock.release()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of: the folder of a run, or --agent=FILE"),
        (["a", "--agent=pong"], "give one of"),
        (["a", "b"], "b: unexpected argument"),
        (["{empty}"], "config.json"),
        (["--agent=pnog"], "did you mean pong"),
        (["--agent=pong", "--port=65536"], "--port=65536: must be a whole number in [0, 65535]"),
        (["--agent=pong", "--fps=0"], "--fps=0: must be a number in (0, 1000]"),
        (["--agent=pong", "--fps=nan"], "--fps=nan: must be a number in (0, 1000]"),
        (["--agent=pong", "--games=-1"], "--games=-1: must be a whole number in [0, "),
    ],
)
def test_mistakes_are_refused_in_one_line_before_tensorflow_is_imported(
    arguments, message, tmp_path
):
    given = [argument.format(empty=tmp_path) for argument in arguments]
    assert message in refused("meta_impala.watch", *given)


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused("meta_impala.watch", "--agent=pong", "--web", f"--port={port}")
    assert f"--port={port}: cannot be used" in message


@pytest.mark.parametrize(
    "arguments", [["watch", "--agent=pong", "--noweb"], ["record", "--environment=Catch"]]
)
def test_without_a_display_no_window_is_opened(arguments):
    result = _run(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: a window cannot be shown: there is no display")
    assert result.stderr.count("\n") == 1
