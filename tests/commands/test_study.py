"""The study's command: mistakes in one line, one commit for all runs, and what runs a cell."""

import pathlib
import re
import shlex

import pytest
from support.command_helpers import run_tool

from meta_impala.errors import UserError
from meta_impala.experiments import study_runner

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one of run, status, collect, report, random"),
        (["judge"], "give one of run"),
        (["run"], "--out: must be given"),
        (["acceptance"], "--out: must be given"),
        (["run", "--out=x", "--part=pong"], "--part=pong: must be among mechanism, minatar"),
        (["run", "--out=x", "--part="], "--part=: must be among mechanism, minatar"),
        (["run", "--out=x", "--only=F_099"], "--only=F_099: is in the name of no run that can be"),
        (["collect", "--out=x", "--data=/proc/x"], "--data=/proc/x: cannot be made or written to"),
        (["report", "--data=nowhere"], "nowhere: must hold runs.csv and points.csv"),
    ],
)
def test_a_mistake_is_refused_in_one_line(arguments, said, tmp_path):
    found = run_tool("study", *arguments)
    assert found.returncode == 2
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not (ROOT / "x").exists()


def test_damaged_data_files_are_named(tmp_path):
    (tmp_path / "runs.csv").write_text("part,task\nmechanism,Noise\n")
    found = run_tool("study", "report", f"--data={tmp_path}")
    assert found.returncode == 2 and "the study's data are damaged" in found.stderr


def test_the_status_estimates_the_cost_of_the_remaining_runs(tmp_path):
    found = run_tool("study", "status", f"--out={tmp_path}", "--part=mechanism,minatar")
    assert not list(tmp_path.iterdir())
    priced = re.findall(r"0 of the (\d+) runs .* about ([0-9.]+) core-hours", found.stdout)
    (few, cheap), (many, dear) = ((int(runs), float(hours)) for runs, hours in priced)
    # 8 to 20 CPU-seconds a run of part 1, 70 to 130 of part 2.
    assert 5 < 3600 * cheap / few < 30 and 50 < 3600 * dear / many < 200


def test_the_acceptance_without_runs_is_undecided(tmp_path):
    found = run_tool("study", "acceptance", f"--out={tmp_path}")
    assert found.returncode == 0
    assert "| 0, then .99 | 0 |" in found.stdout and "undecided" in found.stdout


def test_print_commands_prints_a_command_for_every_remaining_run(tmp_path):
    found = run_tool("study", "run", f"--out={tmp_path}", "--part=mechanism", "--print_commands")
    lines = [shlex.split(line) for line in found.stdout.splitlines()]
    assert found.returncode == 0 and len(lines) > 90
    assert all(line[1:3] == ["-m", "meta_impala.train"] for line in lines)
    folders = [line[-1].removeprefix("--logdir=") for line in lines]
    assert len(set(folders)) == len(lines)
    assert all(folder.startswith(str(tmp_path / "mechanism")) for folder in folders)


@pytest.mark.parametrize("only", ["", "R.Switching.seed_11", "seed_30"])
def test_a_refused_start_leaves_the_folder_as_it_was(only, tmp_path):
    (tmp_path / "mechanism").mkdir()
    (tmp_path / "mechanism" / "commit.txt").write_text("of no clone\n")
    before = sorted(tmp_path.rglob("*"))
    found = run_tool("study", "run", f"--out={tmp_path}", "--part=mechanism", f"--only={only}")
    assert found.returncode == 2, found.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_of_another_commit_are_refused(tmp_path, monkeypatch):
    answers = {"rev-parse": "abc", "status": ""}
    monkeypatch.setattr(study_runner, "git", lambda folder, command, *rest: answers[command])
    assert study_runner.pin_commit(tmp_path) == "abc"
    assert study_runner.pin_commit(tmp_path) == "abc"
    answers["rev-parse"] = "def"
    with pytest.raises(UserError, match="its runs were made at abc; this is def"):
        study_runner.pin_commit(tmp_path)
    answers.update({"rev-parse": "abc", "status": " M train.py"})
    with pytest.raises(UserError, match="differs from its commit"):
        study_runner.pin_commit(tmp_path)
