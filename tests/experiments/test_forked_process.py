"""Commands as forks of one process: like processes of their own (equivalence, fault)."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.command_helpers import ROOT, TINY
from support.run_helpers import read_metrics

from meta_impala.environments import minatar_games
from meta_impala.experiments import forked_process, suite_runner
from meta_impala.experiments.forked_process import ForkPool, can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="needs Linux without a GPU")


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Of small commands; `pool.run(...)` gives exit code and output."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    pool = SmallPool(tmp_path)
    yield pool
    pool.close()


class SmallPool(ForkPool):
    def __init__(self, folder, modules=("json",)):
        super().__init__(folder / "server.log", modules)
        self.folder = folder
        self.count = 0

    def begin(self, *arguments, module="support.small_command"):
        self.count += 1
        path = self.folder / f"{self.count}.log"
        with open(path, "ab") as log:
            return self.start([sys.executable, "-m", module, *arguments], log), path

    def run(self, *arguments, **more):
        process, path = self.begin(*arguments, **more)
        return process.wait(120), path.read_text()


def _wait(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_exit_codes_and_output(pool):
    assert pool.run("nothing", "a b", "ü") == (0, "arguments ['a b', 'ü']\n")
    assert pool.run("exit", "3") == (3, "arguments ['3']\n")
    code, output = pool.run("raise")
    assert code == 1 and "Traceback" in output and output.endswith("ValueError: it is broken\n")
    code, output = pool.run(module="no_such_module")
    assert code == 1 and "No module named no_such_module" in output
    with pytest.raises(ValueError, match="not a command"):
        pool.start([sys.executable, "-c", "pass"], sys.stdout)


def test_a_child_inherits_no_descriptor_or_group_of_the_server(pool):
    waiting, path = pool.begin("wait")  # whose descriptors it must not have either
    _wait(lambda: "waiting" in path.read_text())
    _, process, descriptors = pool.run("process")[1].splitlines()
    number, parent, group, has_no_input = process.split()
    assert int(parent) == pool.server_process and group == number and has_no_input == "True"
    assert descriptors == "['0', '1', '2']"
    # The log is appended to, by whoever writes.
    assert waiting.poll() is None


def test_children_draw_different_random_numbers(pool):
    assert len({number for _ in range(3) for number in pool.run("random")[1].split()[2:]}) == 6


def test_many_at_a_time_and_their_signals(pool):
    several = [pool.begin("wait") for _ in range(3)]
    stubborn = pool.begin("wait", "and exit 5")
    for _, path in [*several, stubborn]:
        _wait(lambda path=path: "waiting" in path.read_text())
    with pytest.raises(subprocess.TimeoutExpired):
        several[0][0].wait(0.1)
    several[1][0].terminate()
    assert several[1][0].wait(60) == -signal.SIGTERM
    stubborn[0].terminate()
    assert stubborn[0].wait(60) == 5
    several[2][0].kill()
    assert several[2][0].wait(60) == -signal.SIGKILL
    several[2][0].terminate()  # of no effect
    assert several[0][0].poll() is None
    assert pool.run("exit", "0")[0] == 0


def test_children_end_with_the_server_and_the_next_command_gets_a_new_one(pool):
    process, path = pool.begin("wait")
    _wait(lambda: "waiting" in path.read_text())
    (child,) = psutil.Process(pool.server_process).children()
    os.kill(pool.server_process, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGTERM and process.reason == ""
    _wait(lambda: not child.is_running())
    assert pool.run("exit", "4")[0] == 4
    process, path = pool.begin("wait")
    _wait(lambda: "waiting" in path.read_text())
    (child,) = psutil.Process(pool.server_process).children()
    pool.close()
    _wait(lambda: not child.is_running())
    assert pool.server_process is None


def test_a_server_that_cannot_start_does_not_block(tmp_path):
    pool = SmallPool(tmp_path, modules=("no_such_module",))
    assert pool.run("exit", "0") == (-signal.SIGTERM, "")
    assert "No module named 'no_such_module'" in (tmp_path / "server.log").read_text()
    process, _ = pool.begin("exit", "0")
    process.wait(120)
    assert process.reason == "server.log: ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize("is_installed", [True, False])
@pytest.mark.parametrize("environment", ["Catch", "MinAtar/Breakout", "MinAtar/Freeway-v1"])
def test_what_is_loaded_is_what_the_environments_need_and_is_there(
    tmp_path, monkeypatch, environment, is_installed
):
    monkeypatch.setattr(minatar_games, "is_installed", lambda: is_installed)
    with forked_process.starting_here(["Pong", environment], tmp_path) as start:
        loads_minatar = "minatar" in start.__self__._modules
    assert loads_minatar == (is_installed and environment != "Catch")
    with forked_process.starting_here([environment], tmp_path, preload=False) as start:
        assert start is suite_runner.start_here
    assert not list(tmp_path.iterdir())


# Columns of metrics that depend on the clock and on the process.
_VARYING = {"seconds", "frames_per_second", "rss_mib", "cpu_seconds"}


@pytest.mark.slow
def test_a_run_gives_the_same_result_alone_and_in_a_pool(tmp_path):
    """Deterministic, so equal to the bit: weights and optimiser state, metrics and evaluation."""
    train = ["-m", "meta_impala.train", *TINY, "--total_frames=2000", "--deterministic"]
    evaluate = ["-m", "meta_impala.evaluate", "--episodes=5"]
    alone, first, second = (tmp_path / name for name in ("alone", "first", "second"))
    for command in (train, evaluate):
        subprocess.run(
            [sys.executable, *command, f"--logdir={alone}"], check=True, capture_output=True
        )
    pool = ForkPool(tmp_path / "server.log")
    try:
        for folder in (first, second):
            for command in (train, evaluate):
                with open(tmp_path / "log", "ab") as log:
                    other = ["--gamma=0.9"] if folder is first and command is train else []
                    process = pool.start(
                        [sys.executable, *command, *other, f"--logdir={folder}"], log
                    )
                assert process.wait(120) == 0, (tmp_path / "log").read_text()
        tasks = psutil.Process(pool.server_process).num_threads()
        maps = {one.path for one in psutil.Process(pool.server_process).memory_maps()}
    finally:
        pool.close()
    assert not [path for path in maps if "/pandas/" in path], "it loads no Keras"
    assert tasks < 20, "the server itself starts no TensorFlow operation"
    names = {path.relative_to(alone) for path in alone.rglob("*") if path.is_file()}
    weights = [name for name in names if name.suffix == ".data-00000-of-00001"]
    assert weights
    for name in weights:
        expected = (alone / name).read_bytes()
        assert (second / name).read_bytes() == expected
        assert (first / name).read_bytes() != expected
    rows, others = read_metrics(alone), read_metrics(second)
    assert len(rows) == len(others) == 5
    for row, other in zip(rows, others, strict=True):
        assert {name for name in row if row[name] != other[name]} <= _VARYING
    evaluations = [
        json.loads((folder / "evaluation.json").read_text()) for folder in (alone, second)
    ]
    for evaluation in evaluations:
        assert evaluation.pop("time", True)
    assert evaluations[0] == evaluations[1]
