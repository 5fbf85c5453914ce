"""Frames and CPU time to a score: which row counts (ground truth), the file, the runs' commands."""

import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import sys
import time

import pytest
from support.command_helpers import load_tool

from meta_impala.benchmarks import time_to_score, timed_training
from meta_impala.benchmarks.time_to_score import TASKS, VARIANTS, Point, Result
from meta_impala.config import FIELDS, presets
from meta_impala.environments import registry
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage.run_folder import RunFolder

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


@pytest.mark.parametrize("column", Result._fields[5:])
def test_negative_frames_and_minutes_are_refused(tmp_path, column):
    (tmp_path / "score.csv").write_text(
        ",".join(Result._fields) + "\n"
        "pong,meta_impala,plain,1,-21,"
        + ",".join("-1" if name == column else "2" for name in Result._fields[5:])
    )
    with pytest.raises(ValueError, match="a number of frames or minutes is negative"):
        time_to_score.read_csv(tmp_path / "score.csv")


@pytest.mark.parametrize("column", Point._fields)
@pytest.mark.parametrize("cell", ["", "nan", "inf", "-inf", "1e999", None])
def test_a_cell_that_is_no_number_loses_its_row_or_is_unknown(column, cell):
    """Never a traceback, and never a number that is not finite."""
    whole = {"frames": "200", "cpu_seconds": "60", "seconds": "30", "episodes": "120"}
    whole["episode_return"] = "0.95"
    row = whole | {column: cell}
    if cell is None:
        del row[column]
    points = time_to_score.points_of([row, whole | {"frames": "300"}])
    assert [point.frames for point in points][-1] == 300
    if column in ("cpu_seconds", "seconds"):
        assert len(points) == 2 and math.isnan(getattr(points[0], column))
    else:
        assert len(points) == 1
    results = time_to_score.results_of("catch", "p", "plain", 1, points)
    text = "\n".join(time_to_score.lines(results)) + time_to_score.as_csv(results)
    assert "nan" not in text and "inf" not in text and "1 of 1" in text
    assert all(math.isnan(value) for value in time_to_score.progress_of([{}]))
    assert time_to_score.progress_of([whole]) == (200.0, 60.0)


def test_a_level_that_was_reached_in_an_unknown_cpu_time_is_not_called_missed():
    def of(*cpu_seconds, final=0.95):
        return [
            result
            for seed, cpu in enumerate(cpu_seconds)
            for result in time_to_score.results_of(
                "catch", "p", "plain", seed, [Point(2000, cpu, 9.0, 200, final)]
            )
        ]

    (_, line) = time_to_score.lines(of(math.nan))
    assert "1 of 1" in line and "0.002" in line
    assert "unknown" in line and "not reached" not in line and "nan" not in line
    # A median or a range of some of them would be that of other runs.
    (_, line) = time_to_score.lines(of(60.0, math.nan, 60.0))
    assert "3 of 3" in line and "unknown" in line and "nan" not in line and "1.00" not in line
    (_, line) = time_to_score.lines(of(math.nan) + of(60.0, 60.0, final=0.1))
    assert "1 of 3" in line and line.count("not reached") == 2 and "unknown" not in line


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ((2000.0, 2.0, 1.0, 4000.0, 4.0), "2,000 frames, 2.0 CPU-minutes"),
        ((2000.0, math.nan, 1.0, 4000.0, math.nan), "2,000 frames, CPU time unknown"),
        ((*[math.nan] * 3, 4000.0, 4.0), "not reached in 4,000 frames, 4.0 CPU-minutes"),
        ((*[math.nan] * 3, 4000.0, math.nan), "not reached in 4,000 frames, CPU time unknown"),
        ((math.nan,) * 5, "not reached; no row has a return"),
    ],
)
def test_the_line_of_a_run_says_what_is_known(result, words):
    tool = load_tool("time_to_score")
    line = tool._line(time_to_score.Result("catch", "p", "plain", 1, 0.9, *result))
    assert line == f"catch plain, seed 1, to 0.9: {words}"


@pytest.mark.parametrize(
    "row",
    [
        "catch,p,plain,1,0.9,inf,1,1,1,1",
        "catch,p,plain,1,0.9,1,-inf,1,1,1",
        "catch,p,plain,1,0.9,1,1,1,1,1e999",
        "catch,p,plain,1,,1,1,1,1,1",
        "catch,p,plain,1,nan,1,1,1,1,1",
        "catch,p,plain,nan,0.9,1,1,1,1,1",
        "catch,p,plain,1,0.9,one,1,1,1,1",
    ],
)
def test_a_table_with_a_number_that_is_none_is_refused_in_one_line(tmp_path, row):
    path = tmp_path / "score.csv"
    path.write_text(",".join(time_to_score.Result._fields) + f"\n{row}\n", "utf-8")
    result = _tool("table", str(path))
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


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
    command = timed_training.command_of("pong", "meta", 4, tmp_path, ["--seed=9"])
    assert command.index("--seed=4") < command.index("--seed=9")
    assert VARIANTS["meta"][0] in command


# Writes a row every 10 ms until it is told to stop, as a run of the trainer does: frames, a CPU
# second each, and a return in the rows of the first argument's choice.
_FAKE_TRAINER = """
import pathlib, sys, time
table, episodes, mean = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
table.parent.mkdir(parents=True, exist_ok=True)
with table.open("w") as file:
    file.write("frames,cpu_seconds,seconds,episodes,episode_return\\n")
    for row in range(1, 3000):
        file.write(f"{1000 * row},{row},{row},{episodes},{mean}\\n")
        file.flush()
        time.sleep(0.01)
"""


@pytest.fixture
def commands(monkeypatch):
    """The commands that would train, in whose place a script writes rows."""
    made, command_of = [], timed_training.command_of
    monkeypatch.setattr(timed_training, "_POLL_SECONDS", 0.05)

    def fake(task, variant, seed, logdir, flags, *, row=("200", "0.1")):
        made.append(command_of(task, variant, seed, logdir, flags))
        return [sys.executable, "-c", _FAKE_TRAINER, str(logdir / "metrics.csv"), *row]

    monkeypatch.setattr(timed_training, "command_of", fake)
    return made


@pytest.mark.parametrize(
    "row", [("200", "0.1"), ("0", ""), ("nan", "0.1"), ("inf", "0.95"), ("200", "inf")], ids=str
)
@pytest.mark.parametrize(
    "limits", [timed_training.Limits(60.0, 30_000), timed_training.Limits(0.5)], ids=str
)
def test_a_limit_stops_a_run_and_does_not_change_how_it_trains(
    tmp_path, monkeypatch, commands, limits, row
):
    """Whether games end or not: rows without a return count too."""
    fake = functools.partial(timed_training.command_of, row=row)
    monkeypatch.setattr(timed_training, "command_of", fake)
    started = time.monotonic()
    with pytest.raises(RunFailed):  # the script knows no SIGTERM
        timed_training.train("catch", "plain", 1, tmp_path, [], limits)
    assert time.monotonic() - started < 20
    ((_, *flags),) = commands
    assert f"--total_frames={TASKS['catch'].total_frames}" in flags
    # What is there has come to the limit: it is read.
    (result,) = timed_training.train("catch", "plain", 1, tmp_path, [], limits)
    assert len(commands) == 1 and math.isnan(result.frames)


def _run_of(folder, name="catch-plain-1", final=0.95):
    """A run that has reached its level."""
    run = folder / name
    run.mkdir(parents=True)
    rows = f"frames,cpu_seconds,seconds,episodes,episode_return\n9000,60,30,200,{final}\n"
    (run / "metrics.csv").write_text(rows, "utf-8")
    return run


_FLAGS = (None, [], ["--gamma=0.9"], ["--gamma=0.9", "--lambda=1"], ["--gamma=.9"])


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("recorded", _FLAGS)
@pytest.mark.parametrize("given", _FLAGS[1:])
def test_a_run_with_other_flags_is_refused_and_not_read(tmp_path, recorded, given, has_config):
    """A folder of a version that made no record (None) is read without flags."""
    run = _run_of(tmp_path)
    if has_config:
        settings = timed_training.settings_of("catch", "plain", 1, recorded or [])
        RunFolder(run).save_config(timed_training.config_of(settings))
    record = tmp_path / "catch-plain-1.flags.json"
    if recorded is not None:
        record.write_text(json.dumps({"train_flags": recorded}), "utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def train():
        return timed_training.train("catch", "plain", 1, tmp_path, given, timed_training.Limits(9))

    if (recorded or []) == given:
        (result,) = train()
        assert result.frames == 9000
    else:
        with pytest.raises(UserError, match=r"^--train_flags=.*/catch-plain-1 has a run with"):
            train()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def _with_settings(path, task, variant, seed, **changes):
    """Gives the folder of a run the config of the task as it is now, but for some fields."""
    config = timed_training.config_of(timed_training.settings_of(task, variant, seed, []))
    RunFolder(path).save_config(dataclasses.replace(config, **changes))


@pytest.mark.parametrize(
    ("variant", "changes", "said"),
    [
        ("plain", {"learning_rate": 0.0006}, "--learning_rate=0.0003 (the run has 0.0006): "),
        ("meta", {"lambda_": 0.9, "batch_size": 16}, "--lambda=0.95 (the run has 0.9)"),
        ("meta", {"meta_parameters": "none"}, "--meta_parameters=gamma,lambda (the run has none)"),
        ("plain", {"environment": "ALE/Breakout-v5"}, "--environment=ALE/Pong-v5 (the run has "),
    ],
)  # fmt: skip
def test_a_run_of_another_preset_is_refused_and_not_read(tmp_path, variant, changes, said):
    """The preset was changed since: its frames and CPU time are none of the present one."""
    run = _run_of(tmp_path, f"pong-{variant}-1", final=19)
    _with_settings(run, "pong", variant, 1, **changes)
    with pytest.raises(UserError) as refused:
        timed_training.train("pong", variant, 1, tmp_path, [], timed_training.Limits(9))
    assert said in str(refused.value) and "give another --folder" in str(refused.value)
    assert all(f"--{name.rstrip('_')}=" in str(refused.value) for name in changes)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_of_another_length_or_with_other_actors_is_read(tmp_path, task):
    """Earlier versions had other `total_frames`, and the number of actors is that of a machine."""
    run = _run_of(tmp_path, f"{task}-meta-1", final=999)
    _with_settings(run, task, "meta", 1, total_frames=20_000_000, num_actors=5, log_frames=50)
    results = timed_training.train(task, "meta", 1, tmp_path, [], timed_training.Limits(9))
    assert [result.frames for result in results] == [9000] * len(TASKS[task].levels)


def test_every_flag_of_the_trainer_can_be_a_train_flag():
    program = (
        "from absl import flags; import meta_impala.train as train; before = set(flags.FLAGS); "
        "train.define_flags(); print(*set(flags.FLAGS) - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    no_settings = {*timed_training.TEXTS_OF_COMMAND, *timed_training.SWITCHES_OF_COMMAND}
    assert set(found.stdout.split()) == {*FIELDS, "preset", *no_settings}
    given = ["--max_runtime", "3h", "--override", "--notrust_modules", "--gamma=0.9"]
    assert timed_training.config_of(["--preset=catch", *given]).gamma == 0.9


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"train_flags": "--gamma=0.9"}', '{"train_fl'])
def test_a_damaged_record_of_flags_is_said(tmp_path, text):
    _run_of(tmp_path)
    (tmp_path / "catch-plain-1.flags.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"catch-plain-1\.flags\.json: cannot be read"):
        timed_training.train("catch", "plain", 1, tmp_path, [], timed_training.Limits(9))


def test_the_flags_of_a_new_run_are_recorded_before_it_trains(tmp_path, commands):
    limits, flags = timed_training.Limits(60.0, 1000), ["--wandb_project=a b"]
    with pytest.raises(RunFailed):
        timed_training.train("catch", "meta", 2, tmp_path, flags, limits)
    timed_training.train("catch", "meta", 2, tmp_path, flags, limits)
    assert len(commands) == 1
    with pytest.raises(UserError, match=r"^--train_flags=: .*'--wandb_project=a b'; must be"):
        timed_training.train("catch", "meta", 2, tmp_path, [], limits)


@pytest.mark.parametrize("name", ["catch-plain-1", "catch-plain-1.log", "catch-plain-1.flags.json"])
def test_nothing_is_written_through_a_link(tmp_path, commands, name):
    outside = tmp_path / "outside"
    if name == "catch-plain-1":
        _run_of(tmp_path, "outside")
    else:
        outside.write_text('{"train_flags": []}', "utf-8")
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / name).symlink_to(outside)
    files = [outside] if outside.is_file() else list(outside.iterdir())
    before = [file.read_bytes() for file in files]
    with pytest.raises((UserError, RunFailed)):
        timed_training.train("catch", "plain", 1, folder, [], timed_training.Limits(60.0, 1000))
    assert [file.read_bytes() for file in files] == before
    assert outside.is_file() or list(outside.iterdir()) == files


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--gamma=0.9", "--train_flags=--gamma=0.9: "),
        ("", "--learning_rate=0.01 (the run has 0.5): "),
    ],
)
def test_the_tool_refuses_other_flags_and_settings_before_it_trains_anything(tmp_path, given, said):
    """Of the two runs the second is there; the first is not begun."""
    run = _run_of(tmp_path / "runs", "catch-plain-2")
    if not given:
        _with_settings(run, "catch", "plain", 2, learning_rate=0.5)
    arguments = ["run", f"--folder={tmp_path / 'runs'}", f"--out={tmp_path / 'score.csv'}"]
    arguments += ["--tasks=catch", "--variants=plain", "--seeds=1,2", f"--train_flags={given}"]
    result = _tool(*arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert said in result.stderr and "another --folder" in result.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["catch-plain-2"]


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
        "--out=/tmp/s.json",  # where the same numbers are written beside the CSV
        "--out=/tmp/s",
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


@pytest.mark.slow
def test_a_run_that_finished_at_fewer_frames_is_continued(tmp_path):
    """`--frames` was the `--total_frames` of the run in earlier versions, which made no record."""
    folder = tmp_path / "runs"
    words = timed_training.command_of("catch", "plain", 1, folder / "catch-plain-1", [])
    subprocess.run([*words, "--total_frames=12000"], cwd=ROOT, check=True, timeout=600)
    arguments = ["run", f"--folder={folder}", f"--out={tmp_path / 'score.csv'}", "--tasks=catch"]
    arguments += ["--variants=plain", "--seeds=1"]
    read = _tool(*arguments, "--frames=12000")
    assert read.returncode == 0 and "in 12," in read.stdout
    result = _tool(*arguments, "--frames=20000")
    assert result.returncode == 0, result.stderr
    (row,) = time_to_score.read_csv(tmp_path / "score.csv")
    assert row.frames_at_end >= 20_000
    config = json.loads((folder / "catch-plain-1" / "config.json").read_text("utf-8"))
    assert config["total_frames"] == TASKS["catch"].total_frames
