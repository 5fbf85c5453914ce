"""Population based training: what is refused (command); a population of two on Catch from its start
to the comparison, stopped on the way; a member's folder while its checkpoints are replaced (fault).
"""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from support import forked_command

from meta_impala import population
from meta_impala.config import Config, resolve
from meta_impala.environments.catch import CATCH_ID
from meta_impala.errors import UserError
from meta_impala.experiments import pbt_settings, stages
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.stages import Stage
from meta_impala.storage.run_folder import RunFolder

ROOT = pathlib.Path(__file__).parents[2]
SUITE = """
title = "A title"
games = ["Catch"]
seeds = [5]
settings = { total_frames = 8000, meta_parameters = "none" }
variants = [
  { name = "plain" },
  { name = "many", label = "two", population = { size = 2, gamma = "0.9,0.99" } },
]
"""


@pytest.fixture
def suite_path(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--population_size=1"], "--population_size=1: must be a whole number in [2, 1000]"),
        (["--population_gamma=0.9,1"], "--population_gamma=0.9,1: must be LOW,HIGH"),
        (["--population_learning_rate=0.1"], "--population_learning_rate=0.1: must be LOW,HIGH"),
        (["--meta_parameters=gamma"], "--meta_parameters=gamma: must be none"),
        (["--population_interval=1"], "--population_interval=1: must be at least a batch"),
        (["--total_frames=900"], "--total_frames="),
        (["--population_cpus=0"], "--population_cpus=0: must be a number in (0, "),
        (["--learner_addresses=a:1,b:2"], "--learner_addresses=a:1,b:2: must be empty; every"),
        (["--learner_index=1"], "--learner_index=1: must be 0; every member"),
        (["--num_actors=auto", "--population_size=1"], "--population_size=1: must be a whole"),
    ],
)
def test_a_mistake_is_refused_in_one_line(tmp_path, arguments, message):
    pytest.importorskip("pyarrow")
    command = [sys.executable, "-m", "meta_impala.population", f"--logdir={tmp_path}/run"]
    result = forked_command.run(
        [*command, "--environment=Catch", *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}") and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_foreign_pickles_are_not_read(tmp_path):
    """A downloaded population: Ray Tune would run what its state holds."""
    pytest.importorskip("pyarrow")
    state = tmp_path / "run" / "members" / "tune" / "population"
    state.mkdir(parents=True)
    mark = tmp_path / "mark"
    evil = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    for name in ("tuner.pkl", "trainable.pkl", "experiment_state-2026.json"):
        (state / name).write_bytes(evil)
    (tmp_path / "run" / "members" / "made_here").write_text("0" * 64 + "\n")
    command = [
        sys.executable, "-m", "meta_impala.population", f"--logdir={tmp_path}/run",
        "--environment=Catch", "--total_frames=8000", "--population_size=2",
    ]  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    result = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")},
    )  # fmt: skip
    assert result.returncode == 2 and not mark.exists()
    assert "give --trust_modules if you trust them" in result.stderr
    assert result.stderr.count("\n") == 1
    assert {path.name for path in {*tmp_path.rglob("*")} - {*before}} <= {"lock"}


def _refused(logdir, *arguments) -> str:
    """The one line in which the command refuses a folder; it changes nothing in it."""
    before = {path: path.is_file() and path.read_bytes() for path in logdir.rglob("*")}
    result = forked_command.run(
        [sys.executable, "-m", "meta_impala.population", f"--logdir={logdir}",
         "--environment=Catch", "--total_frames=8000", "--population_size=2", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    after = {path: path.is_file() and path.read_bytes() for path in logdir.rglob("*")}
    after.pop(logdir / "lock", None)
    assert after == before
    return result.stderr


@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_the_folder_of_a_run_is_refused(tmp_path, state):
    pytest.importorskip("pyarrow")
    run = RunFolder(tmp_path)
    run.save_config(resolve(Config(environment="Catch")))
    run.write_status(state, 10**9)
    (run.checkpoints / "frames-1000000000").mkdir(parents=True)
    run.metrics_path.write_text("frames\n")
    assert "holds a run, whose files a population would replace" in _refused(tmp_path)


@pytest.fixture
def begun(tmp_path):
    """The folder of a population that was begun, with its record."""
    pytest.importorskip("pyarrow")
    config = resolve(Config(environment=CATCH_ID, total_frames=8000, **pbt_settings.OF_ALL_MEMBERS))
    values = flags.FlagValues()
    pbt_settings.define_population_flags(values)
    values(["population", "--population_size=2"])
    members = tmp_path / "members"
    population = pbt_settings.population_of(values, config, 1)
    pbt_settings.write_record(members, population, config, ["--environment=Catch"])
    (members / "tune").mkdir()
    return members


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        (["--total_frames=16000"], "--total_frames=16000 (it has 8000)"),
        (["--seed=2"], "--seed=2 (it has 1)"),
        (["--population_size=4"], "--population_size=4 (it has 2)"),
        (["--population_interval=700"], "--population_interval=700 (it has 640)"),
        (["--population_gamma=0.9,0.99"], "--population_gamma=0.9,0.99 (it has 0.95,0.999)"),
        (["--batch_size=16"], "--batch_size=16 (it has 32)"),
        (["--environment=CartPole-v1"], "--environment=CartPole-v1 (it has meta_impala/Catch-v0)"),
    ],
)
@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_population_is_not_continued_with_changed_settings(begun, arguments, difference, state):
    RunFolder(begun.parent).write_status(state, 8000)
    message = _refused(begun.parent, *arguments)
    assert "cannot continue this population with " in message and difference in message
    assert "; use another --logdir" in message


def test_what_a_run_may_change_freely_a_population_may(begun):
    """It then asks whose pickles these are: they are read next."""
    given = ["--num_actors=3", "--log_frames=10", "--environment=meta_impala/Catch-v0"]
    assert "it is not known that you made them here" in _refused(begun.parent, *given)
    assert pbt_settings.recorded_arguments(begun) == ["--environment=Catch"]


@pytest.mark.parametrize(
    "record",
    ["{", "[]", "{}", '{"population": 3}', '{"population": {}, "config": {}, "arguments": [1]}'],
)
def test_a_damaged_record_of_a_population_is_refused(begun, record):
    (begun / "settings.json").write_text(record)
    assert "settings.json: " in _refused(begun.parent)
    with pytest.raises(UserError, match=r"settings\.json: "):
        pbt_settings.recorded_arguments(begun)


def test_a_suite_may_have_a_population(suite_path):
    suite = suite_file.read(suite_path)
    plain, many = suite_file.expand(suite, suite_path, suite_path.parent / "out")
    assert (plain.module, many.module) == ("meta_impala.train", "meta_impala.population")
    assert {"--population_size=2", "--population_gamma=0.9,0.99"} <= set(many.arguments)
    # Its frames are those of all members, what is evaluated is one of them.
    evaluation = {"episodes": 4, "seed": 1, "num_envs": 4}
    many.folder.prepare()
    many.folder.save_config(many.config)
    many.folder.write_status("finished", 8000, frames_of_best=4000)
    assert stages.stage_of(many, evaluation) is Stage.TRAINED
    found = {"frames_trained": 4000, "episodes": 4, "starts": "noop", "eta_is_from": "checkpoint"}
    many.folder.evaluation_path.write_text(json.dumps(found))
    assert stages.stage_of(many, evaluation) is Stage.DONE

    suite_path.write_text(SUITE.replace("size = 2, ", ""))
    with pytest.raises(UserError, match="variant many: population = .*must have size"):
        suite_file.read(suite_path)
    suite_path.write_text(SUITE.replace("size = 2", "size = 2, depth = 3"))
    with pytest.raises(UserError, match="variant many: population = .*may have interval"):
        suite_file.read(suite_path)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("size = 2", "size = 4", "--population_size=4 (it has 2)"),
        ('"0.9,0.99"', '"0.8,0.99"', "--population_gamma=0.8,0.99 (it has 0.9,0.99)"),
        ("= 8000", "= 8000, batch_size = 16", "--batch_size=16 (it has 32)"),
        ("= 8000", "= 6000", "--total_frames=6000 (it has 8000)"),
    ],
)
def test_a_finished_population_of_other_settings_is_not_one_of_the_suite(
    suite_path, old, new, difference
):
    def expanded():
        suite = suite_file.read(suite_path)
        return suite_file.expand(suite, suite_path, suite_path.parent / "out")[1]

    many = expanded()
    assert many.population.size == 2 and stages.settings_changed(many) == ""
    pbt_settings.write_record(many.folder.members, many.population, many.config, [])
    # Its own folder is that of the best member, whose settings are other ones.
    many.folder.save_config(dataclasses.replace(many.config, gamma=0.93, seed=77))
    many.folder.write_status("finished", 8000, frames_of_best=4000)
    found = {"frames_trained": 4000, "episodes": 4, "starts": "noop", "eta_is_from": "checkpoint"}
    many.folder.evaluation_path.write_text(json.dumps(found))
    assert stages.settings_changed(many) == ""
    suite_path.write_text(SUITE.replace(old, new))
    other = expanded()
    assert stages.stage_of(other, {"episodes": 4}) is Stage.DONE
    assert stages.settings_changed(other).startswith("many.Catch.seed_5 was trained with other ")
    assert difference in stages.settings_changed(other)
    (many.folder.members / "settings.json").unlink()  # as of an older version
    assert stages.settings_changed(other) == ""


def test_a_run_of_its_own_is_no_population_of_a_suite(suite_path):
    suite = suite_file.read(suite_path)
    _, many = suite_file.expand(suite, suite_path, suite_path.parent / "out")
    many.folder.prepare()
    many.folder.save_config(many.config)
    many.folder.write_status("finished", 8000)
    assert stages.settings_changed(many).endswith("as a run of its own, not as a population")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size = 2", "size = 1", "variant many: --population_size=1: must be a whole number"),
        ("size = 2", "size = 2, interval = 1", "--population_interval=1: must be at least a batch"),
        ('"0.9,0.99"', '"0.9,1"', "--population_gamma=0.9,1: must be LOW,HIGH"),
        ("8000", "900", "variant many: --total_frames="),
        ('meta_parameters = "none"', 'meta_parameters = "gamma"', "--meta_parameters=gamma: must"),
    ],
)
def test_a_suite_with_a_population_that_cannot_run_is_refused(suite_path, old, new, message):
    assert old in SUITE
    suite_path.write_text(SUITE.replace(old, new))
    with pytest.raises(UserError) as error:
        suite_file.expand(suite_file.read(suite_path), suite_path, suite_path.parent / "out")
    assert message in str(error.value)


def test_the_members_of_a_suite_have_one_learner_too(suite_path):
    given = {"learner_addresses": "a:1,b:2"}
    suite = suite_file.read(suite_path)
    suite = dataclasses.replace(suite, settings=suite.settings | given, typed=frozenset(given))
    with pytest.raises(UserError, match="variant many: --learner_addresses=a:1,b:2: must be empty"):
        suite_file.expand(suite, suite_path, suite_path.parent / "out")


def test_members_are_plain_whatever_the_default_is(suite_path):
    suite_path.write_text(SUITE.replace(', meta_parameters = "none"', ""))
    suite = suite_file.read(suite_path)
    plain, many = suite_file.expand(suite, suite_path, suite_path.parent / "out")
    assert plain.config.learned and not many.config.learned
    assert many.config.learning_rate_schedule == "constant"


def test_the_progress_of_a_population_is_that_of_its_members(suite_path):
    suite = suite_file.read(suite_path)
    _, many = suite_file.expand(suite, suite_path, suite_path.parent / "out")
    for number, frames in enumerate((2500, 2000)):
        member = RunFolder(many.folder.path / "members" / f"member_{number:02}")
        member.prepare()
        member.write_status("running", frames)
    assert stages.frames_of(many) == 4500
    assert stages.stage_of(many, {"episodes": 4}) is Stage.STARTED
    # At the end its own folder is the run.
    many.folder.prepare()
    many.folder.save_config(many.config)
    many.folder.write_status("finished", 8000, frames_of_best=4000)
    assert stages.frames_of(many) == 8000


def test_what_is_left_to_the_program_is_left_to_the_members():
    given = {"num_actors": None, "environment": "Catch", "gamma": 0.9}
    arguments = population._arguments(given)
    assert "--environment=Catch" in arguments
    assert not any(text.startswith(("--num_actors", "--gamma")) for text in arguments)


@pytest.mark.slow
def test_a_population_on_catch_stopped_and_continued(tmp_path):
    logdir = tmp_path / "run"
    arguments = [
        sys.executable, "-m", "meta_impala.population", f"--logdir={logdir}",
        f"--flagfile={ROOT}/meta_impala/presets/catch.flags", "--total_frames=8000",
        "--population_size=2", "--population_interval=2000", "--log_frames=1000",
    ]  # fmt: skip

    def rows():
        return [
            json.loads(line)
            for path in sorted(logdir.glob("members/member_*/history.jsonl"))
            for line in path.read_text().splitlines()
        ]

    output = tmp_path / "output.txt"
    with open(output, "w") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 400
        while len(rows()) < 2:
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 1
    finally:
        process.kill()
    assert "Traceback" not in output.read_text()
    assert "the same command continues it" in output.read_text()
    assert not (logdir / "status.json").exists()

    done = subprocess.run(arguments, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(logdir / "population.csv") as file:
        table = list(csv.DictReader(file))
    assert [(row["member"], row["frames"]) for row in table] == [
        (member, frames) for frames in ("2000", "4000") for member in ("member_00", "member_01")
    ]
    names = ("learning_rate", "entropy_cost", "gamma", "lambda")
    settings = [[float(row[name]) for name in names] for row in table]
    # One of the two went on as it was, the other took its settings and changed some.
    kept = [settings[2 + i] == settings[i] for i in range(2)]
    assert sorted(kept) == [False, True]
    about = json.loads((logdir / "population.json").read_text())
    for name, (low, high) in about["ranges"].items():
        assert all(low - 1e-9 <= float(row[name]) <= high + 1e-9 for row in table)
    assert (about["frames"], about["frames_of_best"]) == (8000, 4000)
    best = float(next(r for r in table[2:] if r["member"] == about["best"])["episode_return"])
    assert best == max(float(row["episode_return"]) for row in table[2:])
    again = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0 and "is finished" in again.stdout

    # It is evaluated as any run, and compared at the frames of all.
    evaluated = subprocess.run(
        [sys.executable, "-m", "meta_impala.evaluate", f"--logdir={logdir}", "--episodes=4"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    from meta_impala.analysis import results

    (result,) = results.read([RunFolder(logdir)]).found
    assert (result.variant, result.frames) == ("population of 2", 8000)
    assert any("best of 2 members" in caveat for caveat in result.caveats)


@pytest.mark.slow
def test_a_member_killed_while_it_takes_a_checkpoint_continues(tmp_path):
    pytest.importorskip("ray.tune")
    from meta_impala.experiments import pbt as population_lib

    folder = RunFolder(tmp_path / "member_03")

    def checkpoint(parent, text):
        path = parent / "frames-40"
        path.mkdir(parents=True)
        (path / "state").write_text(text)
        return path.parent

    checkpoint(folder.checkpoints, "mine")
    given = checkpoint(tmp_path / "given", "another's")
    member = population_lib.Member.__new__(population_lib.Member)
    member._folder = folder
    rename, calls = os.rename, []
    for allowed in range(4):  # killed before the renaming number `allowed`

        def dying(source, target, allowed=allowed):
            calls.append(target)
            if len(calls) > allowed:
                raise KeyboardInterrupt
            rename(source, target)

        calls.clear()
        os.rename = dying
        try:
            member.load_checkpoint(str(given))
        except KeyboardInterrupt:
            pass
        finally:
            os.rename = rename
        population_lib._finish_replacing(folder)
        text = (folder.checkpoints / "frames-40" / "state").read_text()
        assert text == ("mine" if allowed == 0 else "another's")
        assert [p.name for p in folder.path.iterdir() if p.name.startswith("checkpoints")] == [
            "checkpoints"
        ]
