"""Fault: the trainer on Ray as a process, damaged from outside; what is refused."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from support.ray_helpers import PYTHONPATH, ROOT, actor_processes, add_node, make_cluster, wait_for

TINY = (
    "--environment=Catch",
    "--actors=ray",
    "--batch_size=8",
    "--envs_per_actor=8",
    "--unroll_length=5",
    "--log_frames=400",
    "--mlp_sizes=8",
    "--total_frames=1000000000",
)


def train(*flags: str) -> list[str]:
    return [sys.executable, "-m", "meta_impala.train", *TINY, *flags]


class Trainer:
    """The trainer, in a process group of its own, until it has learned something."""

    def __init__(self, logdir: pathlib.Path, *flags: str) -> None:
        self.logdir = logdir
        self.errors = open(logdir.with_suffix(".stderr"), "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            train(f"--logdir={logdir}", *flags),
            cwd=ROOT,
            stderr=self.errors,
            stdout=self.errors,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            start_new_session=True,
        )

    def wait_for_rows(self) -> "Trainer":
        metrics = self.logdir / "metrics.csv"
        wait_for(
            lambda: (
                self.process.poll() is not None
                or (metrics.exists() and metrics.read_text("utf-8").count("\n") > 3)
            ),
            "rows of metrics",
        )
        assert self.process.poll() is None, self.output()
        return self

    def output(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def end(self) -> None:
        """Kills it and what it started, if the test has not."""
        for process in [psutil.Process(self.process.pid)] if self.process.poll() is None else []:
            for one in [*process.children(recursive=True), process]:
                one.kill()
        self.process.wait(60)
        self.errors.close()

    def status(self) -> dict:
        return json.loads((self.logdir / "status.json").read_text("utf-8"))


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*flags: str) -> Trainer:
        started.append(Trainer(tmp_path / "run", *flags))
        return started[-1]

    yield start
    for trainer in started:
        trainer.end()


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as cluster:
        yield cluster


def refused(*flags: str) -> str:
    result = subprocess.run(train(*flags), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_without_ray_the_extra_is_named(tmp_path):
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
        "from meta_impala import command, train; train.define_flags(); command.run(train.main)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *TINY, f"--logdir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "error: --actors=ray: needs Ray, which is missing: pip install 'meta_impala[distributed]'\n"
    )


@pytest.mark.slow
def test_no_cluster_at_this_address(tmp_path):
    message = refused(f"--logdir={tmp_path}", "--ray_address=127.0.0.1:1")
    assert message.startswith("error: --ray_address=127.0.0.1:1: nothing answers at 127.0.0.1:1")
    assert not (tmp_path / "status.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_with_ray_on_this_machine(start, number):
    """As from a terminal: Ctrl-C goes to every process of the group."""
    before = actor_processes()
    trainer = start().wait_for_rows()
    family = psutil.Process(trainer.process.pid).children(recursive=True)
    assert any(process.name() == "raylet" for process in family)
    for process in family:
        for connection in process.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), process
    if number == signal.SIGINT:
        os.killpg(trainer.process.pid, number)
    else:
        trainer.process.send_signal(number)
    assert trainer.process.wait(60) == 0, trainer.output()
    assert trainer.status()["state"] == "stopped"
    assert "warning" not in trainer.output()
    wait_for(lambda: not any(process.is_running() for process in family), "Ray ends with the run")
    assert actor_processes() <= before


@pytest.mark.slow
def test_stopped_while_ray_is_being_started(start):
    """In these seconds SIGTERM belongs to Ray."""
    trainer = start()
    process = psutil.Process(trainer.process.pid)

    def ray_is_starting() -> bool:
        return any(child.name() == "gcs_server" for child in process.children(recursive=True))

    wait_for(ray_is_starting, "the first process of Ray")
    trainer.process.send_signal(signal.SIGTERM)
    assert trainer.process.wait(60) == 0, trainer.output()
    assert "stopped by SIGTERM after 0 frames, before anything was trained" in trainer.output()
    assert "Traceback" not in trainer.output()
    assert trainer.status()["state"] == "stopped"


@pytest.mark.slow
def test_killed_with_ray_on_this_machine(start):
    before = actor_processes()
    trainer = start().wait_for_rows()
    family = psutil.Process(trainer.process.pid).children(recursive=True)
    trainer.process.kill()
    trainer.process.wait(60)
    wait_for(
        lambda: not [p for p in family if p.is_running() and p.status() != "zombie"],
        "Ray ends with the run",
    )
    assert actor_processes() <= before


@pytest.mark.slow
def test_the_death_of_the_learner_ends_its_actors(start, cluster):
    before = actor_processes()
    node = add_node(cluster)
    trainer = start(f"--ray_address={cluster.address}").wait_for_rows()
    wait_for(lambda: len(actor_processes() - before) == 2, "two actors")
    trainer.process.kill()
    wait_for(lambda: actor_processes() <= before, "the actors end with the learner")
    cluster.remove_node(node)


@pytest.mark.slow
def test_two_learners_have_actors_of_their_own(tmp_path, cluster):
    node = add_node(cluster)
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    shared = (
        f"--ray_address={cluster.address}",
        "--learner_addresses=" + ",".join(f"127.0.0.1:{port}" for port in ports),
        "--num_actors=1",
        "--envs_per_actor=4",
        "--total_frames=4000",
    )
    second = Trainer(tmp_path / "unused", *shared, "--learner_index=1")
    first = Trainer(tmp_path / "run", *shared, "--learner_index=0")
    try:
        assert first.process.wait(150) == 0, first.output()
        assert second.process.wait(60) == 0, second.output()
    finally:
        first.end()
        second.end()
        cluster.remove_node(node)
    status = json.loads((tmp_path / "run" / "status.json").read_text("utf-8"))
    assert (status["state"], status["frames"]) == ("finished", 4000)


@pytest.mark.slow
def test_a_dead_head_gives_a_checkpoint_and_a_clean_exit(start):
    before = actor_processes()
    with make_cluster() as cluster:
        trainer = start(f"--ray_address={cluster.address}").wait_for_rows()
        head = cluster.head_node
        for processes in head.all_processes.values():
            for process in processes:
                process.process.kill()
        assert trainer.process.wait(50) == 1, trainer.output()
    error = trainer.output().splitlines()[-1]
    assert error.startswith("error: the ") and "is safe, and the same command" in error, error
    status = trainer.status()
    assert status["state"] == "failed"
    assert "head of the Ray cluster" in status["reason"] or "of this machine" in status["reason"]
    assert (trainer.logdir / "checkpoints" / status["checkpoint"]).is_dir()
    wait_for(lambda: actor_processes() <= before, "the actors end")


@pytest.mark.slow
def test_a_dead_head_elsewhere_gives_a_checkpoint_and_a_clean_exit(start):
    """Only the head's global control service: this machine's own node lives on for a while."""
    with make_cluster() as cluster:
        trainer = start(f"--ray_address={cluster.address}").wait_for_rows()
        (service,) = cluster.head_node.all_processes["gcs_server"]
        service.process.kill()
        assert trainer.process.wait(50) == 1, trainer.output()
    error = trainer.output().splitlines()[-1]
    assert error.startswith("error: the head of the Ray cluster has not answered for 15 s; frames-")
    assert trainer.status()["state"] == "failed"
    assert (trainer.logdir / "checkpoints" / trainer.status()["checkpoint"]).is_dir()


@pytest.mark.slow
def test_an_actor_that_hangs_is_replaced(start, cluster):
    trainer = start(
        f"--ray_address={cluster.address}",
        "--num_actors=1",
        "--environment=support.ray_environments:Hanging-v0",
        "--stall_timeout=15",
        "--max_actor_restarts=1",
    )
    assert trainer.process.wait(120) == 1, trainer.output()
    lines = trainer.output().splitlines()
    assert "was lost and is started again: no unroll for 15 s (--stall_timeout)" in str(lines)
    assert lines[-1].startswith("error: actor-0 was lost 2 times without an unroll in between")
    assert trainer.status()["state"] == "failed"


@pytest.mark.slow
def test_an_environment_that_raises_is_counted_and_shown(start, cluster):
    trainer = start(
        f"--ray_address={cluster.address}",
        "--num_actors=1",
        "--environment=support.ray_environments:Raising-v0",
        "--max_actor_restarts=1",
    )
    assert trainer.process.wait(120) == 1, trainer.output()
    assert "the emulator caught fire" in trainer.output()
    assert "in explode" in trainer.output()  # of the remote process's traceback
    assert "caught fire" in trainer.status()["reason"]
