"""An evaluation as a whole: saved before it is shown, and never without an end (command)."""

import json
import os
import subprocess
import sys
import time
import types

import pytest
from support import forked_command
from support.command_helpers import ROOT

ENVIRONMENT = "support.endless:support/Endless-v0"
FRAMES = 30


def run(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return forked_command.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        text=True,
        timeout=300,
        check=False,
        **{"capture_output": True, **options},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on an environment whose episodes never end."""
    logdir = tmp_path_factory.mktemp("endless")
    result = run(
        "meta_impala.train",
        f"--environment={ENVIRONMENT}",
        f"--logdir={logdir}",
        "--total_frames=40",
        "--batch_size=4",
        "--envs_per_actor=4",
        "--meta_batch_size=2",
        "--unroll_length=5",
        "--mlp_sizes=8",
        "--log_frames=20",
    )
    assert result.returncode == 0, result.stderr
    return logdir


def test_an_endless_game_is_cut_with_a_message(trained):
    result = run(
        "meta_impala.evaluate",
        f"--logdir={trained}",
        "--trust_modules",
        "--episodes=3",
        f"--max_episode_frames={FRAMES}",
    )
    assert result.returncode == 0, result.stderr
    assert f"3 of 3 games had not ended after {FRAMES} frames" in result.stdout
    written = json.loads((trained / "evaluation.json").read_text())
    assert written["max_episode_frames"] == FRAMES
    assert written["episodes_at_limit"] == 3
    assert written["episode_frames"] == [FRAMES] * 3
    assert written["returns"] == [float(FRAMES)] * 3


def test_the_limit_is_a_number_above_zero(trained):
    result = run("meta_impala.evaluate", f"--logdir={trained}", "--max_episode_frames=0")
    assert result.returncode == 2
    message = "--max_episode_frames=0: must be a whole number (such as 1e6 or 10M) in [1, "
    assert result.stderr.startswith(f"error: {message}")


def test_one_game_has_no_standard_error_and_a_message_says_so(trained):
    result = run(
        "meta_impala.evaluate",
        f"--logdir={trained}",
        "--trust_modules",
        "--episodes=1",
        f"--max_episode_frames={FRAMES}",
    )
    assert "a standard error needs more games than one (--episodes)" in result.stdout


@pytest.mark.parametrize("closed", ["reader", "stdout"])
def test_the_result_is_saved_also_if_stdout_is_closed(trained, tmp_path, closed):
    out = tmp_path / "scores.json"
    command = (
        f"{sys.executable} -m meta_impala.evaluate --logdir={trained} --trust_modules --episodes=2 "
        f"--max_episode_frames={FRAMES} --out={out}"
    )
    shell = f"{command} | head -0" if closed == "reader" else f"{command} >&-"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(out.read_text())["episodes"] == 2


def test_progress_is_printed_once_a_minute_while_no_game_ends(monkeypatch):
    from meta_impala.evaluation import evaluator

    said = []
    evaluation = evaluator.Evaluation(None, None, None, max_episode_frames=9000, say=said.append)
    now = time.monotonic()
    silence = evaluator._Silence(evaluation)
    for seconds in range(0, 130, 10):
        monkeypatch.setattr(evaluator.time, "monotonic", lambda at=now + seconds + 1: at)
        silence.on_step(100 * seconds)
    assert len(said) == 2
    assert "the longest has 6,000 frames so far, it is cut after 9,000" in said[0]


@pytest.mark.parametrize(
    ("numbers", "has_file", "expected"),
    [
        ([0, 2], True, "2 of 3 games are kept in {path}; the same command plays the others"),
        # Games beyond those that are asked for, of a longer evaluation.
        ([2, 3, 4], True, "1 of 3 games are kept in {path}; the same command plays the others"),
        ([0], False, "1 of 3 games were played, and are not kept: that needs --out=FILE"),
        ([], True, None),
        ([], False, None),
    ],
)
def test_an_interruption_says_what_is_kept(monkeypatch, tmp_path, numbers, has_file, expected):
    from meta_impala.evaluation import evaluator, record

    def interrupted(self, missing, num_envs, episodes, partial):
        for number in numbers:
            partial.add(record.Game(number, 1.0, 9))
        raise KeyboardInterrupt

    definition, said = {"seed": 1}, []
    monkeypatch.setattr(evaluator.Evaluation, "definition", lambda self: definition)
    monkeypatch.setattr(evaluator.Evaluation, "_play_all", interrupted)
    settings = types.SimpleNamespace(environment="Catch")
    evaluation = evaluator.Evaluation(None, settings, None, say=said.append, name="the agent a")
    out = tmp_path / "scores.json" if has_file else None
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(3, 1, out)
    path = record.partial_path(tmp_path / "scores.json", definition)
    assert said[0] == "playing 3 games of Catch with the agent a"
    assert said[1:] == ([] if expected is None else [expected.format(path=path)])
    assert path.exists() == (has_file and bool(numbers))
