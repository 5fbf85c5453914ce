"""What other programs print, read as progress; the tool's refusals (as a user runs it)."""

import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.command_helpers import load_tool

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def peers():
    return load_tool("peer_time_to_score")


def test_the_last_complete_point_in_a_log_of_stable_baselines3_is_used(peers):
    log = "Using cpu device\nPOINT 20000 12 -20.5\nPOINT 40000 130 -18.25\nPOI"
    assert peers._sb3_progress(log) == (40000, 130, -18.25)
    assert peers._sb3_progress("Using cpu device\n") is None


@pytest.mark.parametrize("length", range(len("POINT 40000 130 18.25")))
def test_a_half_written_line_of_stable_baselines3_is_not_read(peers, length):
    log = "POINT 20000 12 -20.5\n" + "POINT 40000 130 18.25"[:length]
    assert peers._sb3_progress(log) == (20000, 12, -20.5)


@pytest.mark.parametrize("mean", ["nan", "inf", "-inf", "None", "1.2.3", "", "--1"])
def test_a_mean_that_is_no_number_is_no_point(peers, mean):
    assert peers._sb3_progress(f"POINT 20000 120 {mean}\n") is None
    log = f"Total num frames: 81920. Throughput\nAvg episode reward: [(0, '{mean}')]\n"
    assert peers._sample_factory_progress(log) is None


def test_means_in_every_notation_are_read(peers):
    for mean in ("-20.5", "0", "7.", "1e-05", "-2.5e+01"):
        assert peers._sb3_progress(f"POINT 20000 120 {mean}\n") == (20000, 120, float(mean))


def test_frames_and_reward_of_sample_factory_are_read_from_its_log(peers):
    log = (
        "[12:00:01] Fps is (10 sec: 2100.1). Total num frames: 81920. Throughput: 0: 2000.0.\n"
        "[12:00:01] Avg episode reward: [(0, '-20.100')]\n"
        "[12:00:06] Fps is (10 sec: 2100.1). Total num frames: 98304. Throughput: 0: 2000.0.\n"
        "[12:00:06] Avg episode reward: [(0, '-19.4')]\n"
    )
    found = peers._sample_factory_progress(log)
    assert found is not None and (found.frames, found.episode_return) == (98304, -19.4)
    assert peers._sample_factory_progress("Total num frames: 81920.") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "--out: must be given"),
        (("run", "--out=o.csv", "--peers=dqn"), "--peers=dqn: must be among a2c, ppo"),
        (("run", "--out=o.csv", "--tasks=catch"), "--tasks=catch: must be among pong"),
        (("run", "--out=o.csv", "--seeds=1,a"), "--seeds=1,a: must be whole numbers from 0"),
        (("install", "--pip_arguments='a"), "--pip_arguments='a: cannot be split into arguments"),
        (("run", "--out=/no/x.csv"), "--out=/no/x.csv: must be a file in a folder that exists"),
        (("run", "--out=o.csv", "--peers="), "--peers=: must be among a2c, ppo"),
        (("run", "--out=o.csv", "--seeds="), "--seeds=: must be whole numbers from 0"),
        (("install", "--folder=/proc/x"), "--folder=/proc/x: cannot be made or written to"),
        (("walk",), "walk: must be install | run"),
    ],
)
def test_a_mistake_is_refused_in_one_line(arguments, message):
    result = subprocess.run(
        [sys.executable, "tools/peer_time_to_score.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_its_workers(tmp_path, number):
    program = tmp_path / "sb3" / "bin" / "python"
    program.parent.mkdir(parents=True)
    worker = tmp_path / "worker"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {worker}\nwait\n")
    program.chmod(0o755)
    arguments = ["run", f"--folder={tmp_path}", "--tasks=pong", "--peers=a2c"]
    tool = subprocess.Popen(
        [sys.executable, "tools/peer_time_to_score.py", *arguments, f"--out={tmp_path / 'o.csv'}"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (worker.exists() and worker.read_text().endswith("\n")):
        assert tool.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    tool.send_signal(number)
    assert tool.wait(60) == 128 + number
    assert not _is_running(int(worker.read_text()))


def _is_running(pid):
    try:
        # A zombie has ended; nobody waited for it.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
