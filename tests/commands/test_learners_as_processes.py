"""Several learners as a user starts them. Command: both roles train, stop together, continue, are
evaluated; what is refused. Fault: one is killed, one never starts. (Every start is two processes.)
"""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from support import forked_command
from support.run_helpers import read_metrics

from meta_impala.command import LOADING

pytestmark = pytest.mark.slow

CATCH = (
    "--environment=Catch", "--batch_size=8", "--meta_batch_size=4", "--envs_per_actor=4",
    "--unroll_length=5", "--mlp_sizes=8", "--log_frames=400", "--learning_rate=0.01",
)  # fmt: skip


def free_addresses(count=2):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return ",".join(addresses)


class Learners:
    """Two trainers of one run; whatever the test leaves is killed."""

    def __init__(self, folder):
        self.folder = folder / "run"
        self.processes = []

    def start(self, *flags, of_second=(), addresses=None):
        addresses = addresses or free_addresses()
        self.outputs = [self.folder.with_name(f"{i}.txt") for i in range(2)]
        for index, output in enumerate(self.outputs):
            flags_of = (*flags, f"--logdir={self.folder}") if index == 0 else of_second
            with open(output, "w") as file:
                self.processes.append(
                    forked_command.Popen(
                        [sys.executable, "-m", "meta_impala.train", *flags_of,
                         f"--learner_addresses={addresses}", f"--learner_index={index}"],
                        stdout=file, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip

    def wait_for_row(self):
        """Until the run has written a row since this start."""
        deadline = time.monotonic() + 200
        while "frames/s" not in self.outputs[0].read_text():
            assert time.monotonic() < deadline and self.processes[-2].poll() is None, self.text(0)
            time.sleep(0.1)

    def codes(self, timeout):
        """The exit codes of both."""
        deadline = time.monotonic() + timeout
        pair, self.processes = self.processes, []
        try:
            return [p.wait(max(0.1, deadline - time.monotonic())) for p in pair]
        finally:
            for process in pair:
                process.kill()
                process.wait()

    def text(self, index):
        return self.outputs[index].read_text()

    def status(self):
        return json.loads((self.folder / "status.json").read_text())


@pytest.fixture
def learners(tmp_path):
    ours = Learners(tmp_path)
    yield ours
    for process in ours.processes:
        process.kill()
        process.wait()


def test_train_stop_continue_evaluate(learners):
    learners.start(*CATCH, "--total_frames=100000000")
    learners.wait_for_row()
    learners.processes[0].send_signal(signal.SIGTERM)
    assert learners.codes(60) == [0, 0]
    status = learners.status()
    assert status["state"] == "stopped" and status["frames"] % 40 == 0
    assert "stopped by SIGTERM" in learners.text(0)
    assert "stopped by another learner" in learners.text(1)
    config = json.loads((learners.folder / "config.json").read_text())
    assert (config["batch_size"], config["learner_index"]) == (8, 0)
    assert config["meta_gradient_mode"] == "reverse_over_forward"

    # SIGTERM at the other one, and on from where both stopped.
    learners.start()
    learners.wait_for_row()
    assert f"continuing {learners.folder} from {status['frames']:,} frames" in learners.text(0)
    assert f"from {status['frames']:,} frames on" in learners.text(1)
    learners.processes[1].send_signal(signal.SIGTERM)
    assert learners.codes(60) == [0, 0]
    assert "stopped by another learner" in learners.text(0)
    frames = learners.status()["frames"] + 400

    learners.start(f"--total_frames={frames}")
    assert learners.codes(300) == [0, 0]
    assert learners.status()["state"] == "finished"
    rows = read_metrics(learners.folder)
    assert int(rows[-1]["frames"]) == frames
    assert int(rows[-1]["updates"]) == frames // 40  # B·T of both
    assert float(rows[-1]["gamma"]) != float(rows[0]["gamma"])
    assert all(row["meta_gradient_norm"] for row in rows)

    result = forked_command.run(
        [sys.executable, "-m", "meta_impala.evaluate", f"--logdir={learners.folder}",
         "--episodes=4"], capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_learner_ends_the_others(learners, victim):
    learners.start(*CATCH, "--total_frames=100000000", "--checkpoint_frames=200")
    learners.wait_for_row()
    learners.processes[victim].kill()
    codes = learners.codes(90)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1
    last = learners.text(1 - victim).strip().splitlines()[-1]
    assert last.startswith("error: the other learners cannot be reached any more (")
    assert "Traceback" not in learners.text(1 - victim)
    status = learners.status()
    if victim == 1:
        assert status["state"] == "failed"
        assert status["checkpoint"] == f"frames-{status['frames']}"  # nothing is lost
    # The same commands continue.
    learners.start(f"--total_frames={status['frames'] + 4000}")
    assert learners.codes(300) == [0, 0]
    assert re.search(r"continuing \S+ from [\d,]+ frames", learners.text(0))


def test_different_settings_are_refused_by_both_learners(learners):
    learners.start(*CATCH, "--total_frames=4000", of_second=("--seed=9", "--learning_rate=0.01"))
    assert learners.codes(200) == [2, 2]
    assert "error: --learner_index=1: learner 0 has other settings: --seed=9 (it has 1)" in (
        learners.text(1)
    )
    assert "another learner was started with other settings" in learners.text(0)
    assert all("Traceback" not in learners.text(i) for i in range(2))


def test_a_missing_learner_ends_the_start(tmp_path):
    def start(*flags):
        return forked_command.Popen(
            [sys.executable, "-m", "meta_impala.train", *CATCH, f"--logdir={tmp_path}/run",
             f"--learner_addresses={free_addresses()}", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    process = start("--stall_timeout=3")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "not all learners had connected within 3 s (--stall_timeout)" in errors.splitlines()[-1]
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"

    process = start()
    said = [process.stdout.readline() for _ in range(3)]
    assert said[0] == f"{LOADING}\n"
    assert "listens on port" in said[1] and "of all network interfaces" in said[1]
    assert "waits for those at" in said[2]
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "before anything was trained" in out
