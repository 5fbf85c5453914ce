"""What is suggested to a person who named a folder that is no run (unit)."""

import json
import os

import pytest
from support.run_helpers import make_config

from meta_impala.analysis import run_folders
from meta_impala.config import Config, to_json, values_if_missing
from meta_impala.errors import UserError
from meta_impala.storage import nearby_runs
from meta_impala.storage.folder_use import check_for_run
from meta_impala.storage.run_folder import RunFolder


@pytest.fixture
def runs(tmp_path):
    for name in ("pong", "suite/meta/Catch/seed_1", "\x1b[31m"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text(to_json(Config()))
    return tmp_path / "runs"


def test_runs_below_a_folder_are_named_and_hostile_names_are_not(runs):
    assert nearby_runs.hint(runs) == "; runs below it: pong, suite/meta/Catch/seed_1"
    assert nearby_runs.hint(runs / "suite") == "; runs below it: meta/Catch/seed_1"


def test_the_most_similar_existing_name_is_suggested(runs):
    assert nearby_runs.hint(runs / "pnog") == " (did you mean pong?)"
    assert nearby_runs.hint(runs / "breakout") == ""
    assert nearby_runs.hint(runs / "no/such") == ""


def test_a_long_list_of_runs_is_shortened(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}").mkdir()
        for name in ("config.json", "status.json"):
            (tmp_path / f"{number}/{name}").touch()
    assert nearby_runs.hint(tmp_path) == "; runs below it: 0, 1, 2, 3, 4, …"


def test_the_search_is_bounded(tmp_path):
    deep = tmp_path / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (deep / "config.json").touch()
    (deep / "checkpoints").mkdir()
    assert nearby_runs.hint(tmp_path) == ""


def test_the_error_has_the_hint(runs):
    with pytest.raises(UserError, match=r"no config.json\); runs below it: pong, suite"):
        RunFolder(runs).load_config()
    with pytest.raises(UserError, match=r"no such folder\) \(did you mean pong\?\)"):
        RunFolder(runs / "pnog").load_config()


OTHER_PROGRAMS = {
    "a model": '{"architectures": ["BertModel"], "seed": 1, "gamma": 0.99}',
    "a list": "[1, 2]",
    "empty": "",
    "no text": b"\xff\xfe\x00",
    "deep": "[" * 100_000,
    "large": to_json(make_config()) + " " * 2**17,
}


@pytest.mark.parametrize("content", OTHER_PROGRAMS.values(), ids=OTHER_PROGRAMS)
def test_a_config_of_another_program_makes_no_run(tmp_path, content):
    """As in an environment of Python, in node_modules, or beside a model."""
    path = tmp_path / "venv/lib/package"
    path.mkdir(parents=True)
    content = content if isinstance(content, bytes) else content.encode()
    (path / "config.json").write_bytes(content)
    assert nearby_runs.hint(tmp_path) == ""
    check_for_run(RunFolder(tmp_path))
    with pytest.raises(UserError, match="holds no run"):
        run_folders.find([str(tmp_path)])
    assert [run.path for run in run_folders.find([str(path)])] == [path], "it is named"
    (path / "run").mkdir()
    (path / "run/config.json").write_text(to_json(make_config()))
    assert nearby_runs.hint(tmp_path) == "; runs below it: venv/lib/package/run"
    assert [run.path for run in run_folders.find([str(tmp_path)])] == [path / "run"]
    with pytest.raises(UserError, match=r"runs below it any more; runs below it: venv/lib"):
        check_for_run(RunFolder(tmp_path))
    (path / "status.json").touch()  # of a run whose config was damaged
    assert nearby_runs.hint(tmp_path) == "; runs below it: venv/lib/package"


def test_the_search_does_not_wait_for_a_pipe(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/config.json")
    assert nearby_runs.hint(tmp_path) == ""


def test_a_run_of_the_first_version_is_one(tmp_path):
    settings = json.loads(to_json(make_config()))
    older = {name: value for name, value in settings.items() if name not in values_if_missing()}
    assert set(older) < set(settings)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.json").write_text(json.dumps(older))
    assert nearby_runs.hint(tmp_path) == "; runs below it: a"
