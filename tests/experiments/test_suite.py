"""Suite files: what they expand to, every mistake in one line, and that all that ship are sound."""

import dataclasses
import json
import pathlib

import pytest

from meta_impala.environments import ATARI_57
from meta_impala.errors import UserError
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.suite import Stage

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = sorted(suite_file.SUITES.glob("*.toml"))
TEXT = """
title = "A title"
question = "A question?"
games = ["Pong", "catch"]
seeds = [3, 1]
preset = "laptop.flags"
baseline = "fixed"

[settings]
total_frames = 1_000_000
deterministic = true

[[variants]]
name = "fixed"
label = "IMPALA"
settings = { meta_parameters = "none", gamma = 0.98 }

[[variants]]
name = "meta"
settings = { total_frames = 2_000_000 }
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(TEXT)
    return path


def _expand(path):
    return suite_file.expand(suite_file.read(path), path, path.parent / "out")


def test_runs_are_games_by_seeds_by_variants(path):
    suite, runs = suite_file.read(path), _expand(path)
    assert (suite.title, suite.baseline_label) == ("A title", "IMPALA")
    assert suite.evaluation == {"episodes": 200, "seed": 1, "num_envs": 16}
    # Seed by seed, so that an early stop leaves whole comparisons.
    assert [(run.seed, run.game, run.variant.name) for run in runs] == [
        (seed, game, variant)
        for seed in (3, 1)
        for game in ("Pong", "catch")
        for variant in ("fixed", "meta")
    ]
    first, second = runs[:2]
    assert first.folder.path == path.parent / "out/runs/fixed/Pong/seed_3"
    assert first.name == "fixed.Pong.seed_3"
    # Preset, then settings of all, then of the variant.
    assert (first.config.environment, first.config.seed) == ("ALE/Pong-v5", 3)
    assert (first.config.network, first.config.batch_size) == ("shallow", 8)
    assert (first.config.gamma, first.config.learned) == (0.98, ())
    assert first.config.deterministic and first.config.total_frames == 1_000_000
    assert second.config.total_frames == 2_000_000
    assert second.variant.label == "meta"
    assert "--deterministic=true" in first.arguments and "--seed=3" in first.arguments


def test_a_preset_beside_the_file_comes_first(path):
    (path.parent / "laptop.flags").write_text("--batch_size=4\n--envs_per_actor=4\n")
    (path.parent / "laptop.flags").chmod(0o600)
    suite = dataclasses.replace(suite_file.read(path), variants=suite_file.read(path).variants[:1])
    runs = suite_file.expand(suite, path, path.parent)
    assert runs[0].config.batch_size == 4


def test_all_57_games_by_one_word(path):
    path.write_text(TEXT.replace('["Pong", "catch"]', '"atari57"'))
    assert suite_file.read(path).games == ATARI_57


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title =", "titel =", "unknown key titel (did you mean title?)"),
        ('title = "A title"', "title = 3", "title = 3: has the wrong type"),
        ("seeds = [3, 1]", "", "seeds is missing"),
        ("seeds = [3, 1]", "seeds = [1, 1]", "must be different whole numbers"),
        ("seeds = [3, 1]", "seeds = [true]", "must be different whole numbers"),
        (
            'games = ["Pong", "catch"]',
            'games = "all"',
            "must be a list of names, or one of atari57, atari1, atari3, atari5",
        ),
        ('"Pong"', '"Pnog"', "did you mean Pong?"),
        ('"catch"', '"Pong"', "games and seeds: Pong, seed 3: must be given only once"),
        ('"catch"', '"pong"', "games and seeds: Pong and pong, seed 3: must be given only once"),
        ("gamma = 0.98", "gama = 0.98", "there is no setting gama (did you mean gamma?)"),
        ("gamma = 0.98", "gamma = 1.98", "variant fixed: --gamma=1.98: must be"),
        ("gamma = 0.98", 'gamma = "x"', "variant fixed: flag --gamma=x"),
        ('name = "meta"', 'name = "fixed"', "two variants have the name fixed"),
        ('name = "meta"', 'name = "../up"', "a name is of letters"),
        ('name = "meta"', 'lable = "meta"', "every [[variants]] needs a name"),
        ('label = "IMPALA"', 'lable = "IMPALA"', "may have name, label, settings and population"),
        ("[settings]", "[evaluation]\nepisodes = 0\n[settings]", "evaluation.episodes = 0"),
        ('"laptop.flags"', '"desktop.flags"', "preset desktop.flags: is neither"),
        ("total_frames = 1_000_000", "total_frames = 5", "must be at least one batch"),
        ("[settings]", "[settings", "not valid TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(path, old, new, message):
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        _expand(path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_is_sound(path):
    suite = suite_file.read(path)
    assert suite.question.endswith("?")
    names = [variant.name for variant in suite.variants]
    assert suite.baseline in names
    one = dataclasses.replace(suite, games=suite.games[:1], seeds=suite.seeds[:1])
    runs = suite_file.expand(one, path, pathlib.Path("out"))
    # No two variants are the same but for their names.
    assert len({run.config for run in runs}) == len(names)


def test_every_question_has_a_suite():
    assert {path.stem for path in SHIPPED} >= {
        "gamma_grid",
        "reference_grid",
        "trace_decay",
        "eta_embedding",
        "gradient_paths",
        "meta_objective",
        "multi_task_control",
        "demonstration",
    }
    grid = suite_file.read(suite_file.find("gamma_grid"))
    settings = [variant.settings for variant in grid.variants]
    fixed = [s["gamma"] for s in settings if s["meta_parameters"] == "none"]
    learned = [s["meta_parameters"] for s in settings if s["meta_parameters"] != "none"]
    assert fixed == [0.99, 0.995, 0.998, 0.999]
    assert learned == ["lambda", "gamma", "gamma,lambda"]


def test_the_stage_is_read_from_the_folder_alone(path):
    run = _expand(path)[0]
    evaluation = {"episodes": 20, "seed": 1, "num_envs": 4}

    def stage():
        return suite_file.stage_of(run, evaluation)

    assert (stage(), suite_file.frames_of(run)) == (Stage.NEW, 0)
    run.folder.prepare()
    run.folder.save_config(run.config)
    assert stage() is Stage.STARTED
    run.folder.write_status("running", 500_000)
    assert (stage(), suite_file.frames_of(run)) == (Stage.STARTED, 500_000)
    run.folder.write_status("finished", 500_000)
    assert stage() is Stage.STARTED, "finished, but shorter than the suite asks"
    run.folder.write_status("finished", 1_000_000)
    assert stage() is Stage.TRAINED
    evaluated = {
        "frames_trained": 1_000_000,
        "episodes": 20,
        "starts": "noop",
        "eta_is_from": "checkpoint",
    }
    for change in (
        {"episodes": 19},
        {"frames_trained": 900_000},
        {"starts": "human"},
        {"eta_is_from": "--evaluation_eta"},
    ):
        run.folder.evaluation_path.write_text(json.dumps(evaluated | change))
        assert stage() is Stage.TRAINED, change
    run.folder.evaluation_path.write_text(json.dumps(evaluated))
    assert stage() is Stage.DONE
