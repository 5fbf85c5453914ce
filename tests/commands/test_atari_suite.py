"""The suite command: it survives its own kill and ends in the report (command, fault)."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
import types

import psutil
import pytest
from support import forked_command
from support.command_helpers import run_tool

from meta_impala import run_suite
from meta_impala.errors import UserError
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.shard import WHOLE

ROOT = pathlib.Path(__file__).parents[2]
SUITE = """
title = "Tiny"
question = "Does it work?"
games = ["Catch"]
seeds = [1]
preset = "catch.flags"
settings = { total_frames = 40_000, mlp_sizes = "8", log_frames = 400 }
evaluation = { episodes = 4 }
variants = [{ name = "meta", label = "the agent" }]
"""


def _command(*arguments):
    return [sys.executable, "tools/atari_suite.py", *arguments]


def _run(*arguments):
    return run_tool("atari_suite", *arguments, light=True)


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return str(path), f"--out={tmp_path / 'out'}"


def _wait(condition, what):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within two minutes: {what}")


@pytest.mark.skipif(sys.platform != "linux", reason="a child hears of its parent's death on Linux")
def test_a_killed_suite_continues_and_ends_with_the_report(suite, tmp_path):
    folder = tmp_path / "out/runs/meta/Catch/seed_1"

    def status():
        try:
            return json.loads((folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    # Endless, until it is killed.
    process = subprocess.Popen(
        _command(*suite, "--set=total_frames=2000000000"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: status().get("frames", 0) > 1000, "the training is going on")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    trainer = status()["pid"]
    _wait(lambda: not psutil.pid_exists(trainer), "the trainer has saved and stopped too")
    assert status()["state"] == "stopped"
    reached = status()["frames"]

    end = f"--set=total_frames={reached + 4000}"
    dry = _run(*suite, "--dry_run", end)
    assert dry.returncode == 0, dry.stderr
    assert f"meta.Catch.seed_1: unfinished, {reached:,} of {reached + 4000:,} frames" in dry.stdout
    assert "4,000 of" in dry.stdout and "frames/s of one run, measured" in dry.stdout

    done = _run(*suite, end)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    begun = [line for line in told if line and line[0] in ("training", "evaluating")]
    assert begun == [["training", "meta.Catch.seed_1"], ["evaluating", "meta.Catch.seed_1"]]
    assert "the agent" in done.stdout and "report written to" in done.stdout
    log = (tmp_path / "out/logs/meta.Catch.seed_1.log").read_text()
    assert f"continuing {folder} from {reached:,} frames" in log
    changed = _run(*suite, end, "--set=entropy_cost=0.5")
    assert changed.returncode == 2 and changed.stderr.count("\n") == 1
    assert "--entropy_cost=0.5 (the run has 0.01); use another --out" in changed.stderr
    shown = _run(*suite, end, "--set=entropy_cost=0.5", "--report_only")
    assert shown.returncode == 0, shown.stderr
    assert "meta.Catch.seed_1 was trained with other settings: --entropy_cost=0.5" in shown.stdout
    report = (tmp_path / "out/report/report.md").read_text()
    assert report.startswith("# Tiny\n\nDoes it work?\n") and "the agent" in report
    assert (tmp_path / "out/report/curves.png").exists()


def test_mistakes_are_refused_in_one_line(suite, tmp_path):
    path, out = suite
    for arguments, message in [
        ([path], "--out: must be given"),
        ([out, str(tmp_path / "none.toml")], "must be a suite file (TOML), or one of catch"),
        ([out, "gamma_gird"], "did you mean gamma_grid?"),
        ([out, path, "--shard=3/2"], "--shard=3/2: must be K/N"),
        ([out, path, "--shard=99/99", "--dry_run"], "--shard=99/99: must have a run; the suite"),
        ([out, path, "--set=seed=7"], "seed = '7': must not be a setting"),
        ([out, path, "--games=Pnog"], "did you mean Pong?"),
        ([out, path, "--set=gamma"], "--set=gamma: must be name=value"),
        (
            [out, path, "--set=matching_value_cost=2"],
            "--matching_value_cost=2: has no effect with --meta_objective=validation",
        ),
        ([out, "catch", "--set=gamma=0.98"], "variant impala_0.9 is defined by"),
        ([out, path, "--episodes=0"], "--episodes=0: must be a whole number in [1, 200000]"),
        ([out, "catch", "--ray_address=nonsense"], "--ray_address=nonsense: must be"),
        ([out, "catch", "--ray_address=127.0.0.1:1"], "nothing answers at 127.0.0.1:1"),
        ([out, path, "--frames_per_second=nan"], "--frames_per_second=nan: must be a number"),
        ([out, path, "--seeds=1,1"], "seed 1: must be given only once"),
        ([out, path, "--seeds=\u00b2"], "must be whole numbers from 0"),
    ]:
        done = _run(*arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_flags_reduce_a_suite(tmp_path):
    done = _run(
        "gamma_grid",
        f"--out={tmp_path}",
        "--dry_run",
        "--games=Pong",
        "--seeds=5",
        "--preset=laptop.flags",
        "--set=total_frames=45000000",
        "--episodes=10",
        "--frames_per_second=5000",
        "--parallel=2",
    )
    assert done.returncode == 0, done.stderr
    assert "meta_gamma_lambda_0.995.Pong.seed_5: not started, 0 of 45,000,000" in done.stdout
    assert "7 runs (1 game × 1 seed × 7 variants): 7 not started" in done.stdout
    # 7 · 45M frames at 2 · 5,000 a second: 8.75 hours, and the evaluation.
    assert "8.8 hours on this machine with 2 at a time (at 5,000 frames/s" in done.stdout
    assert "and 70 games to evaluate" in done.stdout and " GB of disk" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_commands_are_printed_for_other_schedulers(suite, tmp_path):
    path, out = suite
    shards = [
        _run(path, out, "--seeds=1,2,3", f"--shard={index}/2", "--print_commands").stdout
        for index in (1, 2)
    ]
    lines = [shard.splitlines() for shard in shards]
    assert [[line.count("seed_") for line in of_shard] for of_shard in lines] == [[2, 2], [2]]
    assert not (tmp_path / "out").exists()
    for line, seed in zip([*lines[0], *lines[1]], (1, 3, 2), strict=True):
        train, evaluate = (shlex.split(command) for command in line.split(" && "))
        assert train[1:3] == ["-m", "meta_impala.train"] and f"--seed={seed}" in train
        logdir = f"--logdir={tmp_path / 'out/runs/meta/Catch'}/seed_{seed}"
        assert logdir in train and logdir in evaluate
    shown = _run(path, out, "--seeds=1,2,3", "--shard=1/2", "--dry_run").stdout
    assert "2 runs (1 game × 3 seeds × 1 variant, shard 1/2): 2 not started" in shown


def test_what_the_module_of_an_environment_prints_is_no_command(suite, tmp_path, monkeypatch):
    (tmp_path / "talking.py").write_text(
        "import gymnasium\nfrom meta_impala.environments.catch import Catch\nprint('talks')\n"
        "gymnasium.register('Talking-v0', entry_point=Catch)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    done = _run(*suite, "--games=talking:Talking-v0", "--print_commands")
    assert (done.returncode, done.stderr) == (0, "talks\n")
    assert "meta_impala.train" in done.stdout and done.stdout.count("\n") == 1


def test_an_unknown_baseline_is_refused_before_training(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text('baseline = "impala_deep_noop_20m"\n' + SUITE)
    done = _run(str(path), f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "did you mean impala_deep_noop_200m?" in done.stderr
    path.write_text('baseline = "apex_human_start"\n' + SUITE)
    done = _run(str(path), f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "must be a variant's name or a published column with no-op" in done.stderr


PROTOCOLS = """
title = "Two protocols"
games = ["Catch", "Pong"]
seeds = [1, 2]
variants = [{ name = "a" }, { name = "b", settings = { protocol = "machado" } }]
"""


@pytest.mark.parametrize("mode", [None, "--dry_run", "--print_commands"])
def test_variants_of_different_protocols_are_refused_before_training(tmp_path, mode):
    """As the report would refuse them; outside Atari the protocol has no effect."""
    path = tmp_path / "suite.toml"
    path.write_text(PROTOCOLS)
    arguments = (str(path), f"--out={tmp_path / 'out'}")
    done = _run(*arguments, *filter(None, [mode]))
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {path}: the runs are evaluated under different protoc")
    assert "(variant a: no-op, protocol impala; variant b: sticky actions, " in done.stderr
    assert not (tmp_path / "out").exists()
    assert _run(*arguments, "--games=Catch", "--dry_run").returncode == 0
    assert _run(*arguments, "--set=gamma=0.9", "--report_only").returncode == 0


def test_what_failed_is_listed_also_if_there_can_be_no_report(suite, tmp_path, monkeypatch, capsys):
    class Runner:
        failed = {"meta.Catch.seed_1": "a reason"}
        run = staticmethod(lambda: False)

    def refuse(*_):
        raise UserError("no report")

    given = types.SimpleNamespace(ray_address=None, parallel=1, preload=False)
    monkeypatch.setattr(run_suite, "FLAGS", given)
    monkeypatch.setattr(run_suite.suite_runner, "SuiteRunner", lambda *_, **__: Runner)
    monkeypatch.setattr(run_suite.StopRequest, "install", lambda _: None)
    monkeypatch.setattr(run_suite, "_report", refuse)
    path = pathlib.Path(suite[0])
    read = suite_file.read(path)
    runs = suite_file.expand(read, path, tmp_path / "out")
    with pytest.raises(UserError, match="no report"):
        run_suite._run(read, runs, WHOLE, tmp_path / "out")
    assert capsys.readouterr().out == (
        "1 of 1 runs failed; the same command tries again:\n  meta.Catch.seed_1: a reason\n"
    )


_WITHOUT_MINATAR = """
import runpy, sys
sys.modules["minatar"] = None
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("atari_suite", ["catch", "--games=Catch,MinAtar/Breakout"]),
        ("atari_suite", ["catch", "--games=minatar/breakout", "--nopreload"]),
        ("study", ["run", "--part=minatar"]),
    ],
)
def test_without_the_package_of_a_game_nothing_is_started(tmp_path, tool, arguments):
    done = forked_command.run(
        [sys.executable, "-c", _WITHOUT_MINATAR, f"tools/{tool}.py", *arguments,
         f"--out={tmp_path / 'out'}"],
        light=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: MinAtar/") and done.stderr.count("\n") == 1
    assert done.stderr.endswith("minatar is missing: pip install 'meta_impala[minatar]'\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("atari_suite", ["catch"]), ("atari_suite", ["catch", "--dry_run"]),
     ("atari_suite", ["catch", "--report_only"]), ("study", ["status"]), ("study", ["run"]),
     ("study", ["acceptance"])],
)  # fmt: skip
def test_a_circle_of_links_is_no_folder_of_runs(tmp_path, tool, arguments):
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    done = run_tool(tool, *arguments, f"--out={circle}", light=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --out={circle}: Too many levels of symbolic links\n"


def test_a_report_without_evaluated_runs_says_so(suite, tmp_path):
    done = _run(*suite, "--report_only")
    assert (done.returncode, done.stdout) == (0, "nothing to report yet: no run was evaluated\n")
    assert not (tmp_path / "out").exists()
