"""Fault: commands on a Ray cluster of two nodes: exit codes, output, stopping, a lost node."""

import subprocess
import sys
import time

import psutil
import pytest
from support.ray_helpers import add_node, make_cluster

from meta_impala.config import ActorSettings
from meta_impala.distributed import cluster as ray_cluster

pytestmark = pytest.mark.slow


def test_commands_run_and_are_stopped_on_a_cluster(tmp_path):
    with make_cluster() as cluster:
        node = add_node(cluster, 1)
        settings = ActorSettings(actors="ray", ray_address=cluster.address)
        with ray_cluster.connected(settings):
            from meta_impala.experiments.ray_process import RayProcess

            def start(code, name):
                with open(tmp_path / name, "ab") as log:
                    return RayProcess([sys.executable, "-c", code], log, cpus=1.0)

            ended = start("print('out'); raise SystemExit(3)", "ended")
            assert ended.wait(120) == 3 == ended.poll() == ended.returncode
            assert (tmp_path / "ended").read_text() == "out\n"

            waits = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
            running = start(waits, "running")
            pid = _pid(tmp_path / "running")
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(0.1)
            assert running.poll() is None
            running.terminate()
            assert running.wait(60) == -15
            assert not psutil.pid_exists(pid)

            # One on each node. Whoever is on a lost one is lost; the command does not outlive it.
            both = [start(waits, f"both {i}") for i in range(2)]
            pids = [_pid(tmp_path / f"both {i}") for i in range(2)]
            cluster.remove_node(node, allow_graceful=False)
            deadline = time.monotonic() + 60
            while all(one.poll() is None for one in both):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            lost = [one.poll() is not None for one in both].index(True)
            assert both[lost].returncode < 0
            while psutil.pid_exists(pids[lost]):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert both[1 - lost].poll() is None and psutil.pid_exists(pids[1 - lost])
            both[1 - lost].terminate()
            assert both[1 - lost].wait(60) == -15


def _pid(path):
    """What the command has printed."""
    deadline = time.monotonic() + 120
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return int(path.read_text())
