"""The trainer as a process that is damaged from outside (fault): stopped, hung, doubled, given
hostile files, left by its terminal. The long forms are `tools/torture.py`."""

import contextlib
import csv
import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from support import forked_command
from support.command_helpers import TINY

from meta_impala.errors import UserError
from meta_impala.evaluation import starts as game_starts
from meta_impala.storage.folder_lock import is_locked
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_run import read_agent_file

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 300.0


def rows(logdir: pathlib.Path) -> list[dict[str, str]]:
    path = logdir / "metrics.csv"
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def wait_for(condition) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not get going"
        time.sleep(0.05)


def status(logdir: pathlib.Path) -> dict:
    return json.loads((logdir / "status.json").read_text("utf-8"))


def train(*flags: str) -> list[str]:
    return [sys.executable, "-m", "meta_impala.train", *flags]


class OnTerminal:
    """A command whose controlling terminal is this one; what it shows is read, or it would wait."""

    def __init__(self, words: list[str]) -> None:
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.chdir(ROOT)
            os.execv(words[0], words)
        self.shown = bytearray()
        self._left = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            while not self._left.is_set():
                if select.select([self._terminal], [], [], 0.1)[0]:
                    self.shown += os.read(self._terminal, 4096)

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait_for(self, condition) -> None:
        """Waits for something that the command does."""
        wait_for(lambda: condition() or self.has_ended())
        assert not self.has_ended(), self.shown.decode()

    def close(self) -> None:
        """Closes the terminal."""
        self._left.set()
        self._reader.join()
        os.close(self._terminal)


def test_a_second_trainer_sigstop_and_a_closed_terminal(tmp_path):
    """One run: a second trainer is refused, SIGSTOP for longer than the watchdog waits changes
    nothing, and when the terminal is closed it saves and ends as on request."""
    flags = (*TINY, f"--logdir={tmp_path}", "--total_frames=1000000000", "--stall_timeout=6")
    run = OnTerminal(train(*flags))
    child = run.process
    try:
        run.wait_for(lambda: len(rows(tmp_path)) > 2)

        before = (tmp_path / "config.json").read_bytes()
        second = subprocess.run(
            train(*flags, "--seed=2", "--override"), cwd=ROOT, capture_output=True, text=True
        )
        assert second.returncode == 2
        assert f"another trainer (process {child} on " in second.stderr
        assert second.stderr.count("\n") == 1
        assert (tmp_path / "config.json").read_bytes() == before
        assert is_locked(tmp_path)

        os.kill(child, signal.SIGSTOP)
        time.sleep(7.5)
        count = len(rows(tmp_path))
        os.kill(child, signal.SIGCONT)
        run.wait_for(lambda: len(rows(tmp_path)) > count + 2)
        assert status(tmp_path)["state"] == "running"

        started = time.monotonic()
        run.close()
        wait_for(run.has_ended)
        _, code = os.waitpid(child, 0)
        assert time.monotonic() - started < 10
    finally:
        if os.path.exists(f"/proc/{child}"):
            os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(code) == 0
    assert status(tmp_path)["state"] == "stopped"
    assert (tmp_path / "checkpoints" / status(tmp_path)["checkpoint"]).is_dir()
    assert not (tmp_path / "stacks.txt").exists()
    frames = [int(row["frames"]) for row in rows(tmp_path)]
    assert frames == list(range(400, 400 * len(frames) + 1, 400))
    assert not is_locked(tmp_path)


# The emulator waits for ever for an action that does not exist. That is a real hang: in C++, and
# outside of Python's reach.
_HANG = """
import sys
import numpy as np
from meta_impala import command, train
from meta_impala.environments import registry
from meta_impala.system import watchdog

make, made = registry.make, []

def make_one_that_hangs(*arguments, **named):
    environment = make(*arguments, **named)
    made.append(environment)
    if len(made) == 3:  # the first was made to describe it
        advance = environment._advance
        steps = iter(range(10**9))
        def hang(actions):
            return advance(actions + (1000 if next(steps) == 30 else 0))
        environment._advance = hang
    return environment

registry.make = make_one_that_hangs
watchdog.GRACE_SECONDS = 3.0 if "--deterministic" in sys.argv else 60.0
train.define_flags()
from meta_impala.system.tensorflow_import import import_tensorflow
import_tensorflow()
from meta_impala.training import trainer
trainer._LEARNER_EXTRA_SECONDS = 0.0
command.run(train.main)
"""


@pytest.mark.parametrize(
    "deterministic", ["--nodeterministic", pytest.param("--deterministic", marks=pytest.mark.slow)]
)
def test_an_emulator_that_hangs_ends_the_run(tmp_path, deterministic):
    flags = [
        f"--logdir={tmp_path}",
        "--environment=Pong",
        "--network=mlp",
        "--mlp_sizes=8",
        "--unroll_length=10",
        "--batch_size=2",
        "--meta_batch_size=2",
        "--envs_per_actor=1",
        "--stall_timeout=8",
        deterministic,
    ]
    result = forked_command.run(
        [sys.executable, "-c", _HANG, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 1, result.stderr
    who = "actor-1" if deterministic == "--nodeterministic" else "the learner"
    error = f"no step for 8 s (--stall_timeout) from {who}"
    assert f"error: {error}" in result.stderr.splitlines()[-1]
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["reason"].startswith(error)
    stacks = (tmp_path / "stacks.txt").read_text("utf-8")
    assert "in hang\n" in stacks and "AtariVectorEnv" not in error
    if deterministic == "--nodeterministic":
        assert (tmp_path / "checkpoints" / status(tmp_path)["checkpoint"]).is_dir()
        assert "the same command continues from there" in result.stderr


_INSTALL = (
    "import ctypes, os, signal, sys, threading, time;"
    "from meta_impala.system.signals import StopRequest;"
    "stop = StopRequest(); stop.install();"
)


def test_a_second_interrupt_ends_a_main_thread_that_is_stuck_in_c():
    code = _INSTALL + (
        "library = ctypes.CDLL(None); mutex = ctypes.create_string_buffer(256);"
        "interrupt = lambda: [(time.sleep(1.5), os.kill(os.getpid(), signal.SIGINT)) "
        "for _ in range(2)];"
        "threading.Thread(target=interrupt, daemon=True).start();"
        "library.pthread_mutex_lock(mutex); library.pthread_mutex_lock(mutex)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 130
    assert result.stderr == "\nsecond interrupt: exiting without saving\n"


def test_under_nohup_sighup_is_ignored():
    code = _INSTALL + (
        "os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.2); print(stop.is_set());"
        "os.kill(os.getpid(), signal.SIGTERM); print(stop.is_set())"
    )
    result = subprocess.run(
        ["nohup", sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.stdout == "False\nTrue\n"


def test_huge_files_are_not_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(10**12)  # sparse
    with pytest.raises(UserError, match="more than 1048576 bytes"):
        RunFolder(tmp_path).load_config()
    os.replace(tmp_path / "config.json", tmp_path / "status.json")
    assert RunFolder(tmp_path).read_status() == {}


def test_hostile_start_and_agent_files_are_refused(tmp_path):
    path = tmp_path / "file"

    def refusal(read) -> str:
        with pytest.raises(UserError) as caught:
            read()
        assert str(path) in str(caught.value)
        return str(caught.value)

    def starts() -> str:
        return refusal(
            lambda: game_starts.read_starts(
                path, environment="ALE/Pong-v5", protocol="impala", num_actions=6
            )
        )

    head = {"format": game_starts.FORMAT, "environment": "ALE/Pong-v5", "protocol": "impala"}
    for start, message in (
        ({"seed": float("inf"), "actions": [], "observation": ""}, "damaged start"),
        ({"seed": -1, "actions": [], "observation": ""}, "has the seed -1"),
        ({"seed": 10**30, "actions": [], "observation": ""}, "has the seed 1000"),
        ({"seed": 1, "actions": [10**9], "observation": ""}, "has an action outside 0 to 5"),
        ({"seed": 1, "actions": 3, "observation": ""}, "damaged start"),
        ([], "damaged start"),
    ):
        path.write_text(json.dumps({**head, "starts": [start]}))
        assert message in starts()
    with open(path, "wb") as file:
        file.truncate(10**12)  # sparse
    assert "bytes" in starts()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", b"small")
        archive.infolist()[0].file_size = 2**31 + 1  # says the file's directory
    assert "would unpack to" in refusal(lambda: read_agent_file(path))
    path.write_bytes(b"\x80\x04\x95cposix\nsystem")
    assert "not an exported agent" in refusal(lambda: read_agent_file(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("torture", "flags"),
    [
        ("games", ["--games=Breakout"]),
        ("soak", ["--minutes=4", "--warm_up_minutes=2"]),
        ("kills", ["--count=10"]),
    ],
)
def test_every_scenario_of_the_torture_tool(torture, flags):
    result = subprocess.run(
        [sys.executable, "tools/torture.py", torture, *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert result.returncode == 0, result.stdout + result.stderr
