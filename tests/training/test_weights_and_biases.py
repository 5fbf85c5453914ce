"""The optional logger: what it is sent, that its failures do not affect the run (fault), and, with
the package installed, a real record without a network."""

import dataclasses
import json
import math
import os
import sys
import threading
import time
import types

import pytest
from support import forked_command
from support.run_helpers import make_config, make_trainer

from meta_impala.config import Config, resolve
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder
from meta_impala.training import weights_and_biases
from meta_impala.training.weights_and_biases import WeightsAndBiases

CONFIG = resolve(Config(environment="Catch", wandb_project="games", gamma=0.9))
ROW = {"frames": 100, "episode_return": math.nan, "lambda": 0.5}


class StandIn(types.ModuleType):
    """In place of the package; notes what it is told, and fails where asked to."""

    def __init__(self, fails=""):
        super().__init__("wandb")
        self.fails, self.inits, self.calls = fails, [], []

    def Settings(self, **settings):
        return settings

    def init(self, **arguments):
        self._call("init")
        self.inits.append(arguments)
        return self

    def _call(self, name, *details):
        if name == self.fails:
            raise ConnectionError("no\nroute to host")
        self.calls.append((name, *details))

    def define_metric(self, name, step_metric):
        self._call("define_metric", name, step_metric)

    def log(self, row):
        self._call("log", row)

    def finish(self):
        self._call("finish")


def _record(folder, monkeypatch, fails="", frames=0):
    stand_in = StandIn(fails)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    record = WeightsAndBiases(CONFIG, folder, frames)
    record.log(ROW)
    record.log(ROW)
    record.close()
    record.close()
    record.log(ROW)
    return stand_in


def test_rows_are_sent_without_what_is_nan_and_by_frames(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    told = _record(folder, monkeypatch)
    sent = ("log", {"start": 0, "frames": 100, "1_learning/lambda": 0.5})
    assert told.calls == [("init",), ("define_metric", "*", "frames"), sent, sent, ("finish",)]
    (arguments,) = told.inits
    assert (arguments["project"], arguments["name"]) == ("games", "run")
    assert arguments["config"]["gamma"] == 0.9 and arguments["config"]["lambda"] == 0.99
    assert arguments["dir"] == str(folder.path)


def test_a_continued_run_continues_with_its_record(tmp_path, monkeypatch):
    names = set()
    for name in ("one", "one", "other"):
        folder = RunFolder(tmp_path / name)
        folder.prepare()
        (arguments,) = _record(folder, monkeypatch).inits
        assert arguments["resume"] == "allow"
        names.add((name, arguments["id"]))
    assert len(names) == 2


def test_rows_of_a_lost_part_can_be_told_from_those_that_replace_them(tmp_path, monkeypatch):
    """A kill at 100 frames, after a checkpoint at 60: they are in the record twice."""
    folder, logged = RunFolder(tmp_path / "run"), []
    folder.prepare()
    for frames in (0, 60):
        calls = _record(folder, monkeypatch, frames=frames).calls
        logged += [call[1] for call in calls if call[0] == "log"]
    assert [(row["frames"], row["start"]) for row in logged] == [(100, 0)] * 2 + [(100, 60)] * 2


def test_a_run_tells_its_record_where_it_continues(tmp_path, monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    config = make_config(wandb_project="games", meta_parameters="none")
    for total in (60, 120):
        make_trainer(tmp_path, dataclasses.replace(config, total_frames=total)).run()
    rows = [call[1] for call in stand_in.calls if call[0] == "log"]
    assert [(row["frames"], row["start"]) for row in rows] == [
        (40, 0),
        (60, 0),
        (100, 60),
        (120, 60),
    ]


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_its_errors_are_one_warning_and_do_not_end_the_run(tmp_path, monkeypatch, capsys, fails):
    folder = RunFolder(tmp_path)
    _record(folder, monkeypatch, fails)
    assert capsys.readouterr().err == (
        "warning: Weights & Biases: no route to host; the run continues without it\n"
    )


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(weights_and_biases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--wandb_project=games: .*meta_impala\[wandb\]"):
        weights_and_biases.check(CONFIG)
    weights_and_biases.check(resolve(Config(environment="Catch")))


def test_an_offline_record_of_a_real_run(tmp_path):
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    done = forked_command.run(
        [
            sys.executable,
            "-m",
            "meta_impala.train",
            "--environment=Catch",
            f"--logdir={folder}",
            "--total_frames=800",
            "--batch_size=8",
            "--envs_per_actor=8",
            "--unroll_length=5",
            "--mlp_sizes=8",
            "--log_frames=400",
            "--wandb_project=games",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    record_id = (folder / "wandb/record_id").read_text().strip()
    assert record.name == f"run-{record_id}.wandb"
    content = record.read_bytes()
    assert b"episode_return" in content and b"frames" in content
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_a_hanging_connection_does_not_block_the_end_of_a_run(tmp_path, monkeypatch, capfd):
    stand_in, release = StandIn(), threading.Event()
    stand_in.finish = lambda: release.wait(120)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(weights_and_biases, "_SECONDS_TO_FINISH", 0.1)
    record = WeightsAndBiases(CONFIG, RunFolder(tmp_path), 0)
    started = time.monotonic()
    record.close()
    release.set()
    assert time.monotonic() - started < 60
    assert "not everything was sent within 0.1 s" in capfd.readouterr().err


def test_a_requeued_run_continues_its_record(tmp_path, monkeypatch):
    """A scheduler starts it again elsewhere: only the folder is the same."""
    records = []
    for _ in range(2):
        stand_in = StandIn()
        monkeypatch.setitem(sys.modules, "wandb", stand_in)
        WeightsAndBiases(CONFIG, RunFolder(tmp_path), 0).close()
        records += [(one["id"], one["resume"]) for one in stand_in.inits]
    assert records[0] == records[1] and records[0][1] == "allow"
