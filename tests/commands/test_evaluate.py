"""The evaluation command as a user runs it (command)."""

import errno
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from support import forked_command
from support.command_helpers import refused, run_tool
from support.run_helpers import make_config

import meta_impala
from meta_impala import __version__, evaluate
from meta_impala.command import LOADING
from meta_impala.errors import UserError
from meta_impala.storage import results_folder
from meta_impala.storage.run_folder import RunFolder

ROOT = pathlib.Path(__file__).parents[2]
EPISODES = 21
CATCH_FRAMES = 9  # from the top row to the bottom one


def _command(module, *arguments):
    return [sys.executable, "-m", f"meta_impala.{module}", *arguments]


def _run(module, *arguments, start=forked_command.run):
    return start(
        _command(module, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def _files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "catch"
    result = _run(
        "train",
        "--environment=Catch",
        f"--logdir={folder}",
        "--total_frames=2000",
        "--batch_size=8",
        "--envs_per_actor=8",
        "--log_frames=500",
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def evaluated(trained):
    before = _files(trained)
    arguments = (f"--logdir={trained}", f"--episodes={EPISODES}", "--num_envs=4", "--seed=3")
    result = _run("evaluate", *arguments, start=subprocess.run)
    assert result.returncode == 0, result.stderr
    after = _files(trained)
    written = after.pop(pathlib.Path("evaluation.json"))
    assert after == before, "evaluation touches nothing of training's"
    return result, written


def test_the_evaluation_file_has_the_expected_content(trained, evaluated):
    written = json.loads(evaluated[1])
    config = json.loads((trained / "config.json").read_text())
    frames = json.loads((trained / "status.json").read_text())["frames"]
    returns = written.pop("returns")
    assert len(returns) == EPISODES and set(returns) == {-1.0, 1.0}
    mean = sum(returns) / EPISODES
    variance = sum((value - mean) ** 2 for value in returns) / (EPISODES - 1)
    assert written.pop("mean") == pytest.approx(mean)
    assert written.pop("standard_error") == pytest.approx((variance / EPISODES) ** 0.5)
    assert written.pop("median") == sorted(returns)[EPISODES // 2]
    # Learned, so no longer where it started, and not far from there after 12 updates.
    for name in ("gamma", "lambda"):
        value = written.pop(name)
        assert value != pytest.approx(config[name], abs=1e-9)
        assert value == pytest.approx(config[name], abs=0.01)
    assert written.pop("versions")["meta_impala"] == __version__
    assert len(written.pop("agent_digest")) == 16
    assert written == {
        "environment": "meta_impala/Catch-v0",
        "rom": None,
        "protocol": "impala",
        "starts": "noop",
        "starts_sha256": None,
        "starts_recorded_from": None,
        "noops": None,
        "max_episode_frames": 108_000,
        "episodes_at_limit": 0,
        "policy": "stochastic",
        "frames_trained": frames,
        "updates": frames // 160,
        "checkpoint": f"frames-{frames}",
        "eta_is_from": "checkpoint",
        "seed": 3,
        "num_envs": 4,
        "episodes": EPISODES,
        "min": -1.0,
        "max": 1.0,
        "human_normalised": None,
        "mean_episode_frames": CATCH_FRAMES,
        "episode_frames": [CATCH_FRAMES] * EPISODES,
    }


def test_the_command_prints_the_result_of_the_file(trained, evaluated):
    result, written = evaluated[0], json.loads(evaluated[1])
    assert result.stderr == "", "no noise, and no progress bar where nobody looks"
    loading, first, *table, last = result.stdout.splitlines()
    assert loading == LOADING
    assert first.startswith(f"playing {EPISODES} games of meta_impala/Catch-v0")
    assert last == f"written to {trained / 'evaluation.json'}"
    printed = {name: value.strip() for name, _, value in (line.partition(":") for line in table)}
    assert printed["environment"] == "meta_impala/Catch-v0"
    assert printed["episodes"] == str(EPISODES)
    assert printed["human_normalised"] == "none"
    assert printed["frames_trained"] == f"{written['frames_trained']:,}"
    for name in ("mean", "standard_error", "median", "min", "max"):
        assert float(printed[name]) == pytest.approx(written[name], abs=0.005)


def test_the_same_seed_writes_the_same_bytes_and_a_video(trained, evaluated):
    pytest.importorskip("imageio_ffmpeg")
    result = _run(
        "evaluate",
        f"--logdir={trained}",
        f"--episodes={EPISODES}",
        "--num_envs=4",
        "--seed=3",
        "--record_video",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert (trained / "evaluation.json").read_bytes() == evaluated[1]
    assert f" in {CATCH_FRAMES} frames: {trained / 'video.mp4'}" in result.stdout
    assert (trained / "video.mp4").read_bytes()[4:8] == b"ftyp"


def test_evaluation_eta_seed_and_a_single_game(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    result = _run(
        "evaluate", f"--logdir={folder}", "--episodes=1", "--seed=7", "--evaluation_eta=0.5,1"
    )
    assert result.returncode == 0, result.stderr
    written = json.loads((folder / "evaluation.json").read_text())
    assert (written["gamma"], written["lambda"]) == (0.5, 1.0)
    assert written["eta_is_from"] == "--evaluation_eta"
    assert (written["episodes"], written["num_envs"], written["standard_error"]) == (1, 1, None)


def test_a_shorter_evaluation_does_not_replace_a_longer_one_unless_asked(
    trained, evaluated, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    path = folder / "evaluation.json"
    path.write_bytes(evaluated[1])

    def evaluate(*flags):
        result = _run("evaluate", str(folder), *flags)
        assert (result.returncode, result.stderr) == (0, "")
        return [line for line in result.stdout.splitlines() if str(folder) in line]

    said = f"{path} keeps its {EPISODES} games of this checkpoint; --override replaces them, "
    lines = evaluate("--episodes=2")
    assert lines == [said + "--out=FILE writes to another file", f"not written to {path}"]
    assert path.read_bytes() == evaluated[1] and _partials(folder) == []
    assert evaluate("--episodes=2", "--override") == [f"written to {path}"]
    assert json.loads(path.read_text())["episodes"] == 2
    assert evaluate("--episodes=1", f"--out={path}") == [f"written to {path}"]
    assert json.loads(path.read_text())["episodes"] == 1
    path.write_bytes(evaluated[1])
    assert evaluate("--episodes=1", "--evaluation_eta=0.5,1") == [f"written to {path}"]


def _partials(folder):
    """The files of unfinished evaluations."""
    return list(folder.glob("evaluation.partial-*.json"))


def _games_of(partials):
    """The numbers of the games in the first of them, which may not be there yet."""
    return {game[0] for path in partials[:1] for game in json.loads(path.read_text())["games"]}


def test_an_interrupted_evaluation_is_continued_and_ends_in_the_same_bytes(
    trained, evaluated, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    (folder / "evaluation.json").unlink(missing_ok=True)
    before = _files(folder)
    arguments = [f"--logdir={folder}", "--num_envs=4", "--seed=3"]
    kept = {0, 1, 2, 5, 9}
    with forked_command.Popen(
        _command("evaluate", *arguments, "--episodes=200000"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == f"{LOADING}\n"
            assert process.stdout.readline().startswith("playing 200000 games")
            deadline = time.monotonic() + 240
            while not kept <= _games_of(_partials(folder)) and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == "interrupted\n"
    (partial,) = _partials(folder)
    content = json.loads(partial.read_text())
    assert said == (
        f"{len(content['games']):,} of 200,000 games are kept in {partial}; "
        "the same command plays the others\n"
    )
    after = _files(folder)
    del after[pathlib.Path(partial.name)]
    assert after == before

    # As if it had been interrupted earlier, with some games done and some not.
    done = [game for game in content["games"] if game[0] in kept]
    assert len(done) == 5
    partial.write_text(json.dumps(content | {"games": done}))
    # Another evaluation that was begun meanwhile.
    other = folder / "evaluation.partial-00000000.json"
    other.write_text("{}")
    result = _run("evaluate", *arguments, f"--episodes={EPISODES}")
    assert result.returncode == 0, result.stderr
    assert "; 5 were played before the interruption" in result.stdout
    assert f"{other} keeps games of another checkpoint, seed or protocol" in result.stdout
    assert (folder / "evaluation.json").read_bytes() == evaluated[1]
    assert _partials(folder) == [other]


def test_an_exported_agent_plays_the_same_games(trained, evaluated, tmp_path):
    file = tmp_path / "agent.npz"
    before = _files(trained)
    result = _run("export", f"--logdir={trained}", f"--out={file}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f" written to {file} ({file.stat().st_size:,} bytes)\n")
    assert _files(trained) == before
    out = tmp_path / "scores.json"
    result = _run(
        "evaluate",
        f"--agent={file}",
        f"--episodes={EPISODES}",
        "--num_envs=4",
        "--seed=3",
        f"--out={out}",
    )
    assert result.returncode == 0, result.stderr
    frames = json.loads(out.read_text())["frames_trained"]
    assert f"Catch-v0 with the agent {file} ({frames:,} frames)\n" in result.stdout
    assert out.read_bytes() == evaluated[1]
    assert {path.name for path in tmp_path.iterdir()} == {"agent.npz", "scores.json"}


def test_human_starts_are_recorded_and_replayed(trained, tmp_path):
    folder, file = tmp_path / "copy", tmp_path / "starts.json"
    shutil.copytree(trained, folder)
    (folder / "evaluation.json").unlink(missing_ok=True)
    recorded = run_tool(
        "record_starts",
        f"--logdir={folder}",
        f"--out={file}",
        "--games=4",
        "--starts=5",
        "--max_steps=6",
    )
    assert recorded.returncode == 0, recorded.stderr
    assert f"5 starts from 4 games written to {file}" in recorded.stdout
    starts = json.loads(file.read_text())
    lengths = [len(start["actions"]) for start in starts["starts"]]
    assert all(1 <= length <= 6 for length in lengths)
    human = [f"--logdir={folder}", "--starts=human", "--episodes=7", f"--starts_file={file}"]
    result = _run("evaluate", *human)
    assert result.returncode == 0, result.stderr
    written = json.loads((folder / "evaluation_human_starts.json").read_text())
    assert written["starts"] == "human" and len(written["starts_sha256"]) == 64
    # The starts are taken in turn, and what was played to reach them does not count.
    assert written["episode_frames"] == [CATCH_FRAMES - lengths[number % 5] for number in range(7)]
    assert not (folder / "evaluation.json").exists()


def test_starts_are_recorded_in_the_environment_of_the_run(tmp_path):
    """Patience of another length has observations of another shape."""
    config = make_config(
        environment="Patience", environment_kwargs='{"length": 12}', meta_parameters="none"
    )
    meta_impala.make_trainer(config, tmp_path / "run").run()
    file = tmp_path / "starts.json"
    recorded = run_tool(
        "record_starts", f"--logdir={tmp_path / 'run'}", f"--out={file}", "--games=2", "--starts=3"
    )
    assert recorded.returncode == 0, recorded.stderr
    human = ["--starts=human", "--episodes=3", f"--starts_file={file}"]
    result = _run("evaluate", f"--logdir={tmp_path / 'run'}", *human)
    assert result.returncode == 0, result.stderr


# Mistakes, answered in one line, without TensorFlow.


def _refused(*arguments):
    return refused("meta_impala.evaluate", *arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--episodes=0", "--episodes=0: must be a whole number in [1, 200000]"),
        ("--episodes=many", "many"),
        ("--num_envs=0", "--num_envs=0: must be a whole number in [1, 200000]"),
        ("--num_envs=201", "--num_envs=201: must be at most 200 (--episodes)"),
        ("--seed=-1", "--seed=-1: must be a whole number in [0, "),
        ("--evaluation_eta=0.9,1.1", "two numbers in [0, 1]"),
        ("--record_video=here.gif", "must end in .mp4"),
        ("--agent=agent.npz", "give one of: the folder of a run, or --agent"),
        ("--out=/no/such/folder/x", "must be a file in a folder that exists"),
        ("--out=/tmp/scores.txt", "must end in .json"),
        ("--starts=person", "noop | human"),
        ("--starts=human", "--starts_file: must be given"),
        ("--starts_file=starts.json", "needs --starts=human"),
    ],
)
def test_a_bad_flag_is_refused_in_one_line(trained, argument, message):
    assert message in _refused(f"--logdir={trained}", argument)


def test_out_cannot_replace_a_file_of_training(trained):
    before = _files(trained)
    for name in ("config.json", "status.json", "new.json"):
        refusal = _refused(f"--logdir={trained}", f"--out={trained / name}")
        assert "begin with evaluation in a run's folder" in refusal
    assert _files(trained) == before


@pytest.fixture
def inputs():
    """The checked inputs of the command, in this process."""
    before = set(flags.FLAGS)
    evaluate.define_flags()
    own = set(flags.FLAGS) - before

    def inputs(*arguments):
        for name in own:
            flags.FLAGS[name].unparse()
        return evaluate._inputs(flags.FLAGS(["evaluate", *arguments])[1:])

    yield inputs
    for name in own:
        delattr(flags.FLAGS, name)


def test_a_run_that_is_only_read_may_be_read_only(trained, tmp_path, monkeypatch, inputs):
    def read_only(folder):
        raise UserError(f"--logdir={folder.path}: must be a folder that can be written")

    monkeypatch.setattr(RunFolder, "prepare", read_only)
    out = tmp_path / "result.json"
    assert inputs(str(trained), f"--out={out}").out == out
    for more in ([], [f"--out={out}", "--record_video"]):
        with pytest.raises(UserError, match="must be a folder that can be written"):
            inputs(str(trained), *more)

    def refuses(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(results_folder, "_probe", refuses)
    with pytest.raises(UserError, match=rf"^--out={out}: cannot be written \(Permission denied"):
        inputs(str(trained), f"--out={out}")


def test_folders_without_a_run_a_checkpoint_or_a_valid_config_are_refused(trained, tmp_path):
    assert "give one of: the folder of a run, or --agent=FILE" in _refused()
    assert "there is no such file" in _refused("--agent=none.npz")
    assert "must be the folder of a run" in _refused(f"--logdir={tmp_path}")
    config = (trained / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    assert "no checkpoint yet" in _refused(f"--logdir={tmp_path}")
    (tmp_path / "config.json").write_text(config.replace('"gamma"', '"gama"'))
    assert "missing keys: gamma" in _refused(f"--logdir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_evaluation_eta_is_refused_for_a_network_without_eta(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eta_embedding_size": 0}))
    assert "would have no effect" in _refused(f"--logdir={folder}", "--evaluation_eta=0.9,1")


def test_what_no_waiting_brings_is_said_before_tensorflow_is_loaded(trained, tmp_path):
    """A best checkpoint of a run that keeps none, and checkpoints that were deleted."""
    error = _refused(f"--logdir={trained}", "--best")
    assert error.endswith(
        "/checkpoints_best: this run keeps no best checkpoint (--evaluation_frames and "
        "--keep_best_checkpoint of its training)\n"
    )
    kept = tmp_path / "kept"
    shutil.copytree(trained, kept)
    settings = {"evaluation_frames": 1000, "keep_best_checkpoint": True}
    config = json.loads((kept / "config.json").read_text()) | settings
    (kept / "config.json").write_text(json.dumps(config))
    assert "there is no best checkpoint yet; one is kept when" in _refused(str(kept), "--best")
    shutil.rmtree(kept / "checkpoints")
    assert re.search(
        r"/checkpoints: holds no checkpoint, but frames-\d+ was saved there; restore it",
        _refused(str(kept)),
    )
