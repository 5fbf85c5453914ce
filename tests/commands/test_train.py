"""Command: the trainer as a user runs it, and what the user sees when it is stopped or mistaken."""

import csv
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from support import forked_command
from support.command_helpers import TINY

ROOT = pathlib.Path(__file__).parents[2]
START_SECONDS = 120.0


def start(
    *flags: str, popen: Callable[..., subprocess.Popen] = forked_command.Popen
) -> subprocess.Popen:
    return popen(
        [sys.executable, "-m", "meta_impala.train", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    *flags: str, popen: Callable[..., subprocess.Popen] = forked_command.Popen
) -> tuple[int, str, str]:
    process = start(*flags, popen=popen)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


# What is answered before TensorFlow is imported.
LIGHT = functools.partial(forked_command.Popen, light=True)


def wait_for_rows(logdir: pathlib.Path, count: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        path = logdir / "metrics.csv"
        if path.exists() and len(path.read_text("utf-8").splitlines()) > count:
            return
        time.sleep(0.1)
    raise AssertionError("the run did not get going")


def status(logdir: pathlib.Path) -> dict:
    return json.loads((logdir / "status.json").read_text("utf-8"))


def test_a_run_from_the_command_line_and_again(tmp_path):
    logdir = tmp_path / "deep" / "run"
    flags = (*TINY, f"--logdir={logdir}", "--total_frames=4000")
    code, out, err = run(*flags, popen=subprocess.Popen)
    assert code == 0, err
    assert err == ""  # none of TensorFlow's start-up noise
    assert "training on meta_impala/Catch-v0 for 4,000 frames" in out
    assert "finished after 4,000 frames" in out
    assert {path.name for path in logdir.iterdir()} == {
        "config.json",
        "status.json",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "lock",
    }
    assert status(logdir)["state"] == "finished"

    code, out, err = run(*TINY, f"--logdir={logdir}", "--total_frames=4000")
    assert (code, err) == (0, "")
    assert "this run is finished" in out

    code, out, err = run(f"--logdir={logdir}", "--total_frames=6000")
    assert (code, err) == (0, "")
    assert "continuing" in out and "from 4,000 frames" in out
    with open(logdir / "metrics.csv", encoding="utf-8") as file:
        frames = [int(row["frames"]) for row in csv.DictReader(file)]
    assert frames == list(range(400, 6001, 400))

    # Allowed by name, but the checkpoint does not fit: refused, and the run is as it was.
    before = (logdir / "config.json").read_bytes()
    trace = ("--override", "--meta_gradient_mode=accumulative_trace", "--total_frames=8000")
    code, out, err = run(f"--logdir={logdir}", *trace)
    assert code == 2 and err.count("\n") == 1, err
    assert (logdir / "config.json").read_bytes() == before


def test_a_refused_start_writes_no_config(tmp_path):
    code, _, err = run(*TINY, f"--logdir={tmp_path}", "--learner_device=gpu:99")
    assert code == 2 and "--learner_device=gpu:99" in err
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_exits_zero_within_ten_seconds(tmp_path, number):
    process = start(*TINY, f"--logdir={tmp_path}", "--total_frames=1000000000")
    try:
        wait_for_rows(tmp_path, 2)
        started = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert time.monotonic() - started < 10
    assert f"stopped by {number.name}" in out
    assert "Traceback" not in err
    saved = status(tmp_path)
    assert saved["state"] == "stopped"
    assert (tmp_path / "checkpoints" / f"frames-{saved['frames']}" / "state.index").exists()


@pytest.mark.parametrize("listened_to", [True, False])
def test_a_second_interrupt_exits_at_once_with_130(listened_to):
    code = (
        "import os, signal, time; from meta_impala.system.signals import StopRequest;"
        "stop = StopRequest(); stop.install();"
        f"{'' if listened_to else 'os.close(2);'}"
        "os.kill(os.getpid(), signal.SIGINT); assert stop.is_set();"
        # One request, as `timeout` makes it; and then a second.
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(1.5); print('still here', flush=True);"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    )
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 130
    assert result.stdout == "still here\n"
    said = "\nsecond interrupt: exiting without saving\n"
    assert result.stderr == (said if listened_to else "")
    assert time.monotonic() - started < 30


def test_a_killed_run_continues_from_its_checkpoint(tmp_path):
    flags = (*TINY, f"--logdir={tmp_path}", "--checkpoint_frames=400")
    process = start(*flags, "--total_frames=1000000000")
    try:
        wait_for_rows(tmp_path, 5)
    finally:
        process.kill()
        process.communicate(timeout=300)
    saved = max(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoints/frames-*"))
    code, out, err = run(*flags, f"--total_frames={saved + 2000}")
    assert code == 0, err
    assert f"from {saved:,} frames" in out
    with open(tmp_path / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    frames = [int(row["frames"]) for row in rows]
    assert frames == sorted(set(frames)) and frames[-1] == saved + 2000
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--environment=Pnog"], "--environment=Pnog: unknown environment 'Pnog'; did you mean Po"),
        (["--environment=Pendulum-v1"], "--environment=Pendulum-v1"),
        (["--gamma=nan"], "--gamma=nan: must be finite and in [0.0, 1.0]"),
        (
            ["--totl_frames=3"],
            "--totl_frames: there is no such flag (did you mean --total",
        ),
        (["--total_frames=1e400"], "--total_frames=1e400: must be at most 1000000000000000"),
        (["--total_frames=100"], "--total_frames=100: must be at least one batch, 2560 frames"),
        (["--network=deep", "--environment=Catch"], "--network=deep: needs images of at least"),
        (["--meta_batch_size=0"], "--meta_batch_size=0"),
        (["stray"], "stray: unexpected argument"),
        (["--flagfile=/does/not/exist"], "/does/not/exist"),
        (["--logdir="], "--logdir: must be given"),
        (["--logdir=/dev/null"], "--logdir=/dev/null: is a file"),
        (["--logdir=/dev/null/below"], "--logdir=/dev/null/below: is a file, or is below one"),
    ],
)
def test_a_mistake_is_refused_in_one_line_with_exit_code_2(tmp_path, flags, message):
    code, out, err = run(f"--logdir={tmp_path / 'run'}", *flags, popen=LIGHT)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_mistakes_are_answered_before_tensorflow_is_imported(tmp_path):
    code = (
        "import sys; from meta_impala import command, train; train.define_flags();"
        f"sys.argv = ['train', '--logdir={tmp_path}', '--batch_size=0'];"
        "import atexit; atexit.register(lambda: print('tensorflow' in sys.modules));"
        "command.run(train.main)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stdout.strip() == "False"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    code, _, err = run(*TINY, f"--logdir={tmp_path / 'run'}", "--total_frames=400")
    assert code == 2
    assert "must be a folder that can be written" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("{}", "missing keys"), ('{"gamma": 1}', "missing keys")],
)
def test_a_damaged_config_is_refused_and_left_as_it_is(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text, "utf-8")
    code, _, err = run(f"--logdir={tmp_path}", popen=LIGHT)
    assert code == 2
    assert message in err and "config.json" in err and err.count("\n") == 1
    assert (tmp_path / "config.json").read_text("utf-8") == text


def test_every_flag_has_help_and_presets_parse():
    code, out, _ = run("--helpfull", popen=LIGHT)
    assert code == 0
    for name in ("--gamma", "--lambda", "--meta_batch_size", "--[no]deterministic", "--logdir"):
        assert name in out


@pytest.mark.parametrize("preset", ["xu2018", "impala2018", "laptop", "catch", "cartpole"])
def test_presets_hold_only_settings_that_exist_and_fit(preset, tmp_path):

    from meta_impala import config as config_lib

    path = ROOT / "meta_impala" / "presets" / f"{preset}.flags"
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    values = {}
    for line in lines:
        name, _, text = line.removeprefix("--").partition("=")
        field = config_lib.FIELDS[name]
        kind, _ = config_lib.field_type(field)
        values[field.name] = kind(text)
    config = config_lib.resolve(config_lib.Config(**values))
    assert config.learned == (() if preset == "impala2018" else ("gamma", "lambda"))
