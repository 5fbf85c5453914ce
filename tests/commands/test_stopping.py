"""Fault: the trainer as a process that is asked to stop, or ended by its environment. The long form
is `tools/torture.py stops`."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
from support import forked_command
from support.command_helpers import TINY

from meta_impala import train
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 300.0


def start(logdir, *flags: str, **variables: str) -> subprocess.Popen:
    """The trainer, endless unless flags say otherwise."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return forked_command.Popen(
        [sys.executable, "-m", "meta_impala", "train", *TINY, f"--logdir={logdir}",
         "--total_frames=1000000000", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )  # fmt: skip


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not get going"
        time.sleep(0.05)


def end(process: subprocess.Popen) -> tuple[str, str]:
    try:
        return process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()


def rows(logdir) -> int:
    path = logdir / "metrics.csv"
    return path.read_text("utf-8").count("\n") - 1 if path.exists() else 0


def status(logdir) -> dict:
    return json.loads((logdir / "status.json").read_text("utf-8"))


def assert_saved(logdir) -> None:
    said = status(logdir)
    assert said["state"] == "stopped"
    if said["frames"]:
        assert said["checkpoint"] == f"frames-{said['frames']}"
        assert (logdir / "checkpoints" / said["checkpoint"] / "manifest.json").exists()


def test_sigquit_writes_stacks_and_two_sigints_at_once_are_one_request(tmp_path):
    process = start(tmp_path, "--exit_code_stopped=75")
    wait_for(lambda: rows(tmp_path) > 1, process)
    process.send_signal(signal.SIGQUIT)
    wait_for(lambda: (tmp_path / "stacks.txt").exists(), process)
    before = rows(tmp_path)
    wait_for(lambda: rows(tmp_path) > before, process)
    # As `timeout -s INT` does: the child, and then its group.
    process.send_signal(signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    out, err = end(process)
    assert process.returncode == 75, err
    assert "stopped by SIGINT" in out and "Traceback" not in err
    assert "SIGQUIT" in (tmp_path / "stacks.txt").read_text("utf-8")
    assert "thread actor-0:" in (tmp_path / "stacks.txt").read_text("utf-8")
    assert_saved(tmp_path)


def test_a_stop_while_the_last_games_are_played(tmp_path):
    process = start(
        tmp_path,
        "--environment=support.endless:support/Endless-v0",
        "--total_frames=400",
        "--evaluation_frames=400",
        "--exit_code_stopped=75",
    )
    wait_for(lambda: rows(tmp_path) == 1, process)
    process.send_signal(signal.SIGTERM)
    out, err = end(process)
    assert process.returncode == 75, err
    assert "stopped by SIGTERM after 400 frames; the same command continues the run" in out
    assert_saved(tmp_path)
    assert not (tmp_path / "evaluations.csv").exists()


@pytest.mark.parametrize(
    "deterministic", ["--nodeterministic", pytest.param("--deterministic", marks=pytest.mark.slow)]
)
def test_a_stop_during_a_long_unroll_in_a_slow_environment(tmp_path, deterministic):
    """Each step takes 5 s; what would keep the process alive is given a bounded time."""
    flags = ("--environment=support.ending_environments:Ending-v0", deterministic)
    process = start(tmp_path, *flags, STEP_SECONDS="5")
    wait_for(lambda: (tmp_path / "status.json").exists(), process)
    time.sleep(2.0)
    started = time.monotonic()
    process.send_signal(signal.SIGUSR1)
    out, err = end(process)
    assert process.returncode == 0, err
    assert "stopped by SIGUSR1" in out
    assert time.monotonic() - started < 45
    assert_saved(tmp_path)


def test_a_stop_in_a_constructor_that_hangs_ends_the_process_though_nothing_can_be_written(
    tmp_path, monkeypatch, capsys
):
    codes, left, stop = [], threading.Event(), StopRequest()

    def end_process(code):
        codes.append(code)
        left.set()

    monkeypatch.setattr(train, "_SECONDS_TO_LEAVE", 0.1)
    monkeypatch.setattr(train, "_prepare", lambda folder: left.wait(20) and None)
    monkeypatch.setattr(train, "os", types.SimpleNamespace(_exit=end_process))
    stop.request("SIGTERM")
    folder = RunFolder(tmp_path / "gone")
    assert train._train(folder, stop) == 0 and codes == [1]
    reason = "cannot be written (No such file or directory)"
    assert capsys.readouterr().err == f"error: {folder.status_path}: {reason}\n"


@pytest.mark.slow
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_stop_in_a_constructor_that_hangs(tmp_path, is_gone):
    flags = ("--environment=support.ending_environments:Ending-v0", "--exit_code_stopped=75")
    process = start(tmp_path / "run", *flags, ENDING_PLACE="constructor", ENDING_BY="hang")
    assert process.stdout.readline() == "hangs\n"
    if is_gone:
        shutil.rmtree(tmp_path / "run")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = end(process)
    assert time.monotonic() - started < 25
    assert process.returncode == (1 if is_gone else 75), err
    assert "Traceback" not in err and err.count("error: ") == is_gone


def test_a_thread_and_an_exit_handler_of_the_environment_do_not_keep_the_process(tmp_path):
    flags = ("--environment=support.ending_environments:Lingering-v0", "--max_runtime=1s")
    process = start(tmp_path, *flags)
    started = time.monotonic()
    wait_for(lambda: (tmp_path / "status.json").exists() and status(tmp_path)["state"] == "stopped",
             process)  # fmt: skip
    assert time.monotonic() - started < TIMEOUT
    # It is deaf to nothing while it waits for the others to end.
    time.sleep(2.0)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = end(process)
    assert process.returncode == 0, err
    assert time.monotonic() - begun < 8
    assert "stopped by --max_runtime=1s" in out
    assert_saved(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "USR2"])
def test_every_stop_signal_saves_and_exits(tmp_path, name):
    process = start(tmp_path)
    wait_for(lambda: rows(tmp_path) > 1, process)
    process.send_signal(signal.Signals[f"SIG{name}"])
    out, err = end(process)
    assert process.returncode == 0, err
    assert f"stopped by SIG{name}" in out
    assert_saved(tmp_path)


@pytest.mark.parametrize(
    ("place", "by"),
    [
        ("module", "SystemExit"),
        ("constructor", "KeyboardInterrupt"),
        pytest.param("module", "KeyboardInterrupt", marks=pytest.mark.slow),
        pytest.param("constructor", "SystemExit", marks=pytest.mark.slow),
        pytest.param("reset", "SystemExit", marks=pytest.mark.slow),
        pytest.param("reset", "KeyboardInterrupt", marks=pytest.mark.slow),
        pytest.param("step", "SystemExit", marks=pytest.mark.slow),
        pytest.param("step", "KeyboardInterrupt", marks=pytest.mark.slow),
    ],
)
def test_an_environment_that_ends_the_program_is_named(tmp_path, place, by):
    flags = ("--environment=support.ending_environments:Ending-v0", "--max_actor_restarts=0")
    after = {"module": 0, "constructor": 0, "reset": 0, "step": 500}[place]
    process = start(tmp_path, *flags, ENDING_PLACE=place, ENDING_BY=by, ENDING_AFTER=str(after))
    out, err = end(process)
    assert process.returncode in (1, 2), (out, err)
    assert by in err and "ending_environments.py, line" in err and "Traceback" not in err
    assert err.count("\n") == 1
    if place == "step":
        assert status(tmp_path)["state"] == "failed" and by in status(tmp_path)["reason"]
        assert status(tmp_path)["checkpoint"]


@pytest.mark.slow
def test_a_process_that_died_is_reported_by_the_next_start_and_by_evaluate(tmp_path):
    flags = ("--environment=support.ending_environments:Ending-v0", "--checkpoint_frames=400")
    process = start(tmp_path, *flags, ENDING_PLACE="step", ENDING_BY="_exit", ENDING_AFTER="5000")
    end(process)
    said = status(tmp_path)
    assert said["state"] == "running" and said["pid"] == process.pid
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    played = forked_command.run(
        [sys.executable, "-m", "meta_impala.evaluate", f"--logdir={tmp_path}", "--episodes=1",
         "--trust_modules"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=TIMEOUT,
    )  # fmt: skip
    assert played.returncode == 0
    assert f"process {said['pid']}" in played.stderr and "ended without saving" in played.stderr
    process = start(tmp_path, flags[0], "--max_runtime=1s")
    out, err = end(process)
    assert process.returncode == 0, err
    assert f"process {said['pid']}" in err and "ended without saving" in err
