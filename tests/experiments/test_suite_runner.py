"""Running a suite with stand-ins for the trainer: order, limits, failures, stopping (fault)."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from meta_impala.errors import UserError
from meta_impala.experiments import forked_process, stages, suite_runner
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.shard import Shard
from meta_impala.experiments.stages import Stage
from meta_impala.storage.folder_lock import FolderLock
from meta_impala.system.signals import StopRequest

EVALUATION = {"episodes": 5, "seed": 1, "num_envs": 1}
SUITE = """
title = "A title"
games = ["Catch"]
seeds = [1, 2]
settings = { total_frames = 1000 }
variants = [{ name = "a" }, { name = "b", settings = { gamma = 0.9 } }]
"""
# Does to a run folder what trainer or evaluation would do, and notes when it was there.
STAND_IN = """
import json, os, pathlib, signal, sys, time
folder, stage, notes, seconds = pathlib.Path(sys.argv[1]), *sys.argv[2:4], float(sys.argv[4])
folder.mkdir(parents=True, exist_ok=True)
def status(state, frames):
    text = json.dumps({"state": state, "frames": frames, "pid": os.getpid()})
    (folder / "status.json").write_text(text)
def stop(*_):
    status("stopped", 500)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with open(notes, "a") as file:
    file.write(f"{folder.parent.parent.name}{folder.name[-1]} {stage} {time.time()}\\n")
if stage == "train":
    (folder / "config.json").write_text("{}")
    status("running", 0)
    time.sleep(seconds)
    status("finished", 1000)
else:
    found = {"frames_trained": 1000, "episodes": 5, "starts": "noop", "eta_is_from": "checkpoint"}
    (folder / "evaluation.json").write_text(json.dumps(found))
"""


class Suite:
    """A suite of four runs with stand-ins; `notes` are the lines they leave."""

    def __init__(self, tmp_path, seconds=0.1):
        path = tmp_path / "suite.toml"
        path.write_text(SUITE)
        self.out = tmp_path / "out"
        self.runs = suite_file.expand(suite_file.read(path), path, self.out)
        self.notes_path = tmp_path / "notes"
        self.seconds = seconds
        self.told = []
        self.stop = StopRequest()
        self.broken = ()

    def command(self, run, stage, evaluation):
        if run.name in self.broken:
            return [sys.executable, "-c", "print('error: --it: is broken'); exit(2)"]
        what = "evaluate" if stage is Stage.TRAINED else "train"
        arguments = [str(run.folder.path), what, str(self.notes_path), str(self.seconds)]
        return [sys.executable, "-c", STAND_IN, *arguments]

    def runner(self, parallel=1):
        return suite_runner.SuiteRunner(
            self.runs, EVALUATION, self.out, parallel, self.stop, self.told.append, self.command
        )

    @property
    def notes(self):
        if not self.notes_path.exists():
            return []
        return [line.split()[:2] for line in self.notes_path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(suite_runner, "_SECONDS_BETWEEN_POLLS", 0.02)


def test_every_run_is_trained_then_evaluated_and_what_is_finished_is_skipped(tmp_path):
    suite = Suite(tmp_path)
    assert suite.runner().run()
    expected = [[run, stage] for run in ("a1", "b1", "a2", "b2") for stage in ("train", "evaluate")]
    assert suite.notes == expected
    assert all(stages.stage_of(run, EVALUATION) is Stage.DONE for run in suite.runs)
    assert suite.runner().run()
    assert suite.notes == expected, "nothing is done twice"
    (suite.runs[1].folder.evaluation_path).unlink()
    assert suite.runner().run()
    assert suite.notes == [*expected, ["b1", "evaluate"]]


def test_as_many_at_a_time_as_asked(tmp_path):
    suite = Suite(tmp_path, seconds=0.5)
    most = 0
    runner = suite.runner(parallel=3)
    show = runner._display.show

    def look(jobs):
        nonlocal most
        most = max(most, len(jobs))
        assert len(jobs) <= 3
        show(jobs)

    runner._display.show = look
    assert runner.run()
    assert most == 3
    assert sorted(suite.notes) == sorted(
        [run, stage] for run in ("a1", "b1", "a2", "b2") for stage in ("train", "evaluate")
    )


def test_a_failed_run_is_reported_and_the_others_continue(tmp_path):
    suite = Suite(tmp_path)
    suite.broken = ("a.Catch.seed_1",)
    runner = suite.runner()
    assert not runner.run()
    assert runner.failed == {"a.Catch.seed_1": "error: --it: is broken"}
    log = suite.out / "logs/a.Catch.seed_1.log"
    assert f"failed: a.Catch.seed_1: error: --it: is broken (see {log})" in suite.told
    assert [run for run, stage in suite.notes if stage == "evaluate"] == ["b1", "a2", "b2"]
    suite.broken = ()
    assert suite.runner().run(), "the next time it is tried again"


def test_a_request_to_stop_lets_the_runs_save(tmp_path):
    suite = Suite(tmp_path, seconds=60)
    runner = suite.runner(parallel=2)
    show = runner._display.show

    def stop_when_both_run(jobs):
        show(jobs)
        if len(suite.notes) == 2 and all(
            run.folder.read_status().get("state") == "running" for run in suite.runs[:2]
        ):
            suite.stop._handle(signal.SIGTERM, None)

    runner._display.show = stop_when_both_run
    began = time.monotonic()
    assert not runner.run()
    assert time.monotonic() - began < 50
    states = [run.folder.read_status().get("state") for run in suite.runs]
    assert states == ["stopped", "stopped", None, None]
    assert runner.failed == {}


def test_a_run_that_another_process_trains_is_waited_for(tmp_path):
    suite = Suite(tmp_path)
    run = suite.runs[0]
    run.folder.prepare()
    other = subprocess.Popen(
        [sys.executable, "-c", STAND_IN, str(run.folder.path), "train", os.devnull, "60"]
    )
    try:
        while run.folder.read_status().get("pid") != other.pid:
            time.sleep(0.02)
        assert suite_runner.busy_elsewhere(run)
        runner = suite.runner()
        show = runner._display.show

        def end_the_other(jobs):
            show(jobs)
            if len(suite.notes) == 6:  # the other three runs are through
                assert ["a1", "train"] not in suite.notes
                other.terminate()
                other.wait()

        runner._display.show = end_the_other
        assert runner.run()
        assert suite.notes[-2:] == [["a1", "train"], ["a1", "evaluate"]]
    finally:
        other.kill()
        other.wait()
    assert not suite_runner.busy_elsewhere(run)


def test_a_stale_process_number_does_not_mark_a_run_as_busy(tmp_path):
    suite = Suite(tmp_path)
    run = suite.runs[0]
    run.folder.prepare()
    status = {"state": "running", "frames": 3, "pid": os.getpid()}
    run.folder.status_path.write_text(json.dumps(status))
    assert not suite_runner.busy_elsewhere(run), "this process does something else"
    run.folder.status_path.write_text(json.dumps(status | {"pid": 2**22 + 1}))
    assert not suite_runner.busy_elsewhere(run)
    lock = FolderLock(run.folder.path)
    assert suite_runner.busy_elsewhere(run), "whatever its status says, a trainer holds the folder"
    lock.release()
    assert not suite_runner.busy_elsewhere(run)


def test_one_suite_per_folder(tmp_path):
    with (
        suite_runner.locked(tmp_path / "out"),
        pytest.raises(UserError, match="another process"),
        suite_runner.locked(tmp_path / "out"),
    ):
        pass
    with suite_runner.locked(tmp_path / "out"):
        pass
    shards = [Shard(index, 2) for index in (1, 2)]
    with (
        suite_runner.locked(tmp_path / "out", shards[0]),
        suite_runner.locked(tmp_path / "out", shards[1]),
        pytest.raises(UserError, match="another process is running shard 2/2"),
        suite_runner.locked(tmp_path / "out", shards[1]),
    ):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="must be a folder"), suite_runner.locked(tmp_path / "file"):
        pass
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match="is the folder of a run"), suite_runner.locked(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def test_the_display_estimates_the_time_left(tmp_path, monkeypatch):
    suite = Suite(tmp_path)
    clock = [0.0]
    monkeypatch.setattr(suite_runner.time, "monotonic", lambda: clock[0])
    display = suite_runner._Display(suite.runs, 4, suite.told.append)
    clock[0] = 100.0
    display.show([])
    assert suite.told[-1].startswith("0 frames; 0/4 runs done, time left unknown")
    suite.runs[0].folder.prepare()
    suite.runs[0].folder.write_status("finished", 1000)
    display.note(suite.runs[0])
    display.show([])  # a line a minute
    assert len(suite.told) == 1
    clock[0] = 200.0
    display.show([])  # 1000 frames in 200 s, 3000 left
    assert "1,000 frames; 0/4 runs done, 0:10:00 and 4 evaluations left" in suite.told[-1]
    display.done(20.0)
    clock[0] = 300.0
    display.show([])  # 3000 frames at 1000 in 300 s, and 3 evaluations of 20 s
    assert "1/4 runs done, 0:16:00 left" in suite.told[-1]
    display.close()


def test_without_evaluations_the_time_left_is_that_of_the_frames(tmp_path, monkeypatch):
    suite = Suite(tmp_path)
    clock = [0.0]
    monkeypatch.setattr(suite_runner.time, "monotonic", lambda: clock[0])
    display = suite_runner._Display(suite.runs, 4, suite.told.append, evaluates=False)
    suite.runs[0].folder.prepare()
    suite.runs[0].folder.write_status("finished", 1000)
    for clock[0] in (100.0, 200.0):
        display.note(suite.runs[0])
        display.show([])
        assert f"{3 * int(clock[0]) // 60}:{3 * int(clock[0]) % 60:02} left" in suite.told[-1]
        display.done(None)
    display.close()


def test_the_runner_starts_the_ordinary_commands(tmp_path):
    run = Suite(tmp_path).runs[1]
    train = suite_runner.command_of(run, Stage.STARTED, EVALUATION)
    assert train[1:3] == ["-m", "meta_impala.train"] and "--gamma=0.9" in train
    evaluate = suite_runner.command_of(run, Stage.TRAINED, EVALUATION)
    assert evaluate[1:] == [
        "-m",
        "meta_impala.evaluate",
        f"--logdir={run.folder.path}",
        "--episodes=5",
        "--seed=1",
        "--num_envs=1",
        "--override",
    ]
    assert pathlib.Path(train[0]) == pathlib.Path(sys.executable)


@pytest.mark.skipif(not forked_process.can_fork(), reason="needs Linux without a GPU")
def test_what_the_fork_server_cannot_load_is_the_reason_of_the_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(forked_process, "TRAINING_MODULES", ("no_such_module",))
    suite = Suite(tmp_path)
    with forked_process.starting_here([], suite.out) as start:
        runner = suite_runner.SuiteRunner(
            suite.runs[:1], EVALUATION, suite.out, 1, suite.stop, suite.told.append, start=start
        )
        assert not runner.run()
    reason = "fork_server.log: ModuleNotFoundError: No module named 'no_such_module'"
    assert runner.failed == {suite.runs[0].name: reason}


@pytest.mark.parametrize("package", ["minatar", "ray", "pyarrow"])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, package):
    path = tmp_path / "suite.toml"
    path.write_text(SUITE.replace('"Catch"', '"Catch", "MinAtar/Freeway"'))
    if package != "minatar":
        many = 'settings = { meta_parameters = "none" }, population = { size = 2 }'
        text = SUITE.replace("total_frames = 1000", "total_frames = 100_000")
        path.write_text(text.replace("settings = { gamma = 0.9 }", many))
    runs = suite_file.expand(suite_file.read(path), path, tmp_path / "out")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    suite_runner.check_packages(runs)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else 1)
    needs_nothing = [run for run in runs if run.game == "Catch" and run.population is None]
    suite_runner.check_packages(needs_nothing)
    with pytest.raises(UserError) as refusal:
        suite_runner.check_packages(runs)
    assert str(refusal.value) == {
        "minatar": "MinAtar/Freeway-v1 cannot be made: the package minatar is missing: "
        "pip install 'meta_impala[minatar]'"
    }.get(package, "population: needs Ray Tune: pip install 'meta_impala[distributed]'")
