"""Frames and CPU time to a score: which row counts (ground truth), the file, the runs' commands."""

import math
import pathlib
import subprocess
import sys

import pytest

from meta_impala.benchmarks import time_to_score, timed_training
from meta_impala.benchmarks.time_to_score import TASKS, VARIANTS, Point
from meta_impala.config import presets
from meta_impala.environments import registry

ROOT = pathlib.Path(__file__).parents[2]


def _points(*returns, episodes=200):
    return [
        Point(1000 * (i + 1), 60.0 * (i + 1), 30.0 * (i + 1), episodes, mean)
        for i, mean in enumerate(returns)
    ]


def test_the_first_row_that_reaches_the_level_is_used():
    results = time_to_score.results_of("pong", "meta_impala", "plain", 3, _points(-20, 0, -1, 18.5))
    assert [result.level for result in results] == [0.0, 18.0]
    assert [result.frames for result in results] == [2000, 4000]
    assert [result.cpu_minutes for result in results] == [2.0, 4.0]
    assert [result.minutes for result in results] == [1.0, 2.0]
    assert all(result.frames_at_end == 4000 for result in results)


def test_rows_with_too_few_games_are_ignored():
    points = [*_points(21.0, episodes=time_to_score.GAMES_AVERAGED - 1), *_points(19.0)]
    assert time_to_score.reached(points, 18.0) is points[1]


def test_a_level_that_was_not_reached_has_no_time():
    (result,) = time_to_score.results_of("catch", "meta_impala", "meta", 1, _points(0.1, 0.5))
    assert math.isnan(result.frames) and math.isnan(result.cpu_minutes)
    assert result.frames_at_end == 2000 and result.cpu_minutes_at_end == 2.0
    (nothing,) = time_to_score.results_of("catch", "meta_impala", "meta", 1, [])
    assert math.isnan(nothing.frames_at_end)


def test_rows_without_a_return_are_left_out_and_old_tables_have_no_cpu_time():
    rows = [
        {"frames": "100", "seconds": "1", "episodes": "0", "episode_return": ""},
        {"frames": "200", "seconds": "2", "episodes": "120", "episode_return": "0.5"},
    ]
    (point,) = time_to_score.points_of(rows)
    assert point.frames == 200 and math.isnan(point.cpu_seconds)


def test_a_file_gives_back_what_was_written(tmp_path):
    results = [
        *time_to_score.results_of("pong", "meta_impala", "plain", 1, _points(5.0)),
        *time_to_score.results_of("pong", "stable-baselines3", "a2c", 1, _points(19.0)),
    ]
    path = tmp_path / "score.csv"
    path.write_text(time_to_score.as_csv(results), "utf-8")
    for before, after in zip(results, time_to_score.read_csv(path), strict=True):
        assert before[:5] == after[:5]
        assert before[5:] == pytest.approx(after[5:], nan_ok=True)


@pytest.mark.parametrize("text", ["", "a,b\n", ",".join(time_to_score.Result._fields) + "\n1,2\n"])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "other.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"line"):
        time_to_score.read_csv(tmp_path / "other.csv")


def test_the_table_counts_a_run_that_did_not_reach_the_level_as_the_longest():
    results = [
        result
        for seed, final in enumerate((0.95, 0.5, 0.95))
        for result in time_to_score.results_of("catch", "p", "plain", seed, _points(0.2, final))
    ]
    (_, line) = time_to_score.lines(results)
    assert "2 of 3" in line and "0.002" in line and "2.00–2.00" in line
    (_, line) = time_to_score.lines([result for result in results if result.seed == 1])
    assert "not reached" in line


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_of_a_preset_and_its_levels_rise(task):
    what = TASKS[task]
    assert what.preset in presets.names()
    registry.resolve(what.environment)
    assert list(what.levels) == sorted(what.levels)


def test_flags_on_the_command_line_override_the_preset(tmp_path):
    limits = timed_training.Limits(1.0, 500)
    command = timed_training.command_of("pong", "meta", 4, tmp_path, ["--seed=9"], limits)
    assert command.index("--seed=4") < command.index("--seed=9")
    assert VARIANTS["meta"][0] in command and "--total_frames=500" in command


def _tool(*arguments):
    return subprocess.run(
        [sys.executable, "tools/time_to_score.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_tool_refuses_an_unknown_task(tmp_path):
    result = _tool("run", f"--folder={tmp_path}", f"--out={tmp_path}/s.csv", "--tasks=chess")
    assert result.returncode == 2 and "--tasks=chess: must be among pong" in result.stderr


@pytest.mark.parametrize(
    "given",
    [
        "--seeds=1,a",
        "--seeds=²",
        "--seeds=",
        "--tasks=",
        "--train_flags=--x='a",
        "--out=/no/x.csv",
        "--out=/dev/null",
        "--folder=/proc/x",
    ],  # fmt: skip
)
def test_the_tool_refuses_bad_lists_and_quotes_before_it_trains(tmp_path, given):
    result = _tool("run", f"--folder={tmp_path}/runs", f"--out={tmp_path}/s.csv", given)
    assert result.returncode == 2 and given in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_tool_trains_until_the_level_and_reuses_existing_runs(tmp_path):
    arguments = ["run", f"--folder={tmp_path / 'runs'}", f"--out={tmp_path / 'score.csv'}"]
    arguments += ["--tasks=catch", "--variants=plain", "--seeds=1"]
    first = _tool(*arguments)
    assert first.returncode == 0, first.stderr
    (result,) = time_to_score.read_csv(tmp_path / "score.csv")
    assert result.frames < 400_000 and 0 < result.cpu_minutes <= result.cpu_minutes_at_end
    assert result.frames_at_end - result.frames < 100_000  # it was ended there
    again = _tool(*arguments)
    assert again.returncode == 0 and again.stdout == first.stdout
    table = _tool("table", str(tmp_path / "score.csv"))
    assert "catch to 0.9, meta_impala plain" in table.stdout
