"""The demonstration that ships (`testdata/demonstration`): its report is what its runs say."""

import csv
import json
import shutil

import pytest
from support.command_helpers import ROOT, run_tool

from meta_impala.evaluation import scores

SHIPPED = ROOT / "testdata/demonstration"
RUNS = sorted(path.parent for path in SHIPPED.glob("runs/*/*/*/config.json"))


def _value(text):
    try:
        return float(text)
    except ValueError:
        return text


def _table(path):
    """Rows with numbers as numbers: the last digit may differ between machines."""
    with path.open(encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def test_the_demonstration_is_two_games_and_two_variants_fully_evaluated():
    assert len(RUNS) == 4
    for run in RUNS:
        evaluation = json.loads((run / "evaluation.json").read_text())
        assert (evaluation["episodes"], evaluation["starts"]) == (200, "noop")
        assert (evaluation["noops"], evaluation["max_episode_frames"]) == ([1, 30], 108_000)
        assert len(evaluation["returns"]) == 200
        status = json.loads((run / "status.json").read_text())
        assert status["state"] == "finished"
        assert status["frames"] == evaluation["frames_trained"] >= 3_000_000


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(run.parts[-3:]))
def test_every_run_has_learned(run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    random = scores.human_random("noop")[run.parts[-2]].random
    assert evaluation["mean"] - 4 * evaluation["standard_error"] > random


def test_the_shipped_report_is_reproduced_from_the_runs(tmp_path):
    pytest.importorskip("rliable")
    shutil.copytree(SHIPPED / "runs", tmp_path / "runs")
    suite = "demonstration"
    done = run_tool("atari_suite", f"--out={tmp_path}", "--report_only", suite)
    assert done.returncode == 0, done.stderr
    assert "trained with other settings" not in done.stdout
    shipped = {path.name for path in (SHIPPED / "report").iterdir()}
    assert shipped == {path.name for path in (tmp_path / "report").iterdir()}
    for name in sorted(name for name in shipped if name.endswith(".csv")):
        expected, made = _table(SHIPPED / "report" / name), _table(tmp_path / "report" / name)
        for one, other in zip(expected, made, strict=True):
            assert one.keys() == other.keys(), name
            for column, value in one.items():
                if isinstance(value, float):
                    value = pytest.approx(value, rel=1e-6)
                assert other[column] == value, (name, column)
