"""What is suggested to a person who named a folder that is no run (unit)."""

import pytest

from meta_impala.errors import UserError
from meta_impala.storage import nearby_runs
from meta_impala.storage.run_folder import RunFolder


@pytest.fixture
def runs(tmp_path):
    for name in ("pong", "suite/meta/Catch/seed_1", "\x1b[31m"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
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
        (tmp_path / f"{number}/config.json").touch()
    assert nearby_runs.hint(tmp_path) == "; runs below it: 0, 1, 2, 3, 4, …"


def test_the_search_is_bounded(tmp_path):
    deep = tmp_path / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (deep / "config.json").touch()
    assert nearby_runs.hint(tmp_path) == ""


def test_the_error_has_the_hint(runs):
    with pytest.raises(UserError, match=r"no config.json\); runs below it: pong, suite"):
        RunFolder(runs).load_config()
    with pytest.raises(UserError, match=r"no such folder\) \(did you mean pong\?\)"):
        RunFolder(runs / "pnog").load_config()
