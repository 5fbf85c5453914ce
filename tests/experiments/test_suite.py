"""Suite files: what they expand to, every mistake in one line, and that all that ship are sound."""

import dataclasses
import json
import pathlib

import pytest
from support.command_helpers import refused

from meta_impala.environments import ATARI_57
from meta_impala.errors import UserError
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation.record import Game
from meta_impala.experiments import stages
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.shard import Shard
from meta_impala.experiments.stages import Stage
from meta_impala.storage import eta_replay
from meta_impala.storage.trust import Trust

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
image_scaling = "unit"

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


ADDRESSES = [
    "ray_address=head:6379", "learner_addresses=10.0.0.1:1,10.0.0.2:1", "learner_index=1",
    "wandb_project=mine",
]  # fmt: skip


@pytest.mark.parametrize("setting", ADDRESSES)
@pytest.mark.parametrize("place", ["settings", "variant", "population", "preset", "nested preset"])
def test_addresses_are_not_taken_from_the_files_of_a_suite(place, setting, path):
    name, _, value = setting.partition("=")
    line = f'{name} = "{value}"'
    if place == "settings":
        path.write_text(TEXT.replace("[settings]", f"[settings]\n{line}"))
    elif "preset" in place:
        (path.parent / "laptop.flags").write_text(f"--flagfile={path.parent}/inner.flags\n")
        (path.parent / "inner.flags").write_text(f"--{setting}\n")
        if place == "preset":
            (path.parent / "inner.flags").rename(path.parent / "laptop.flags")
    else:
        many = "population = { size = 4 }\n" if place == "population" else ""
        settings = f'settings = {{ {line}, meta_parameters = "none" }}\n'
        path.write_text(f'{TEXT[: TEXT.rindex("name =")]}name = "meta"\n{settings}{many}')
    with pytest.raises(UserError, match=f"--{name}=.*must not come from a file"):
        _expand(path)


def test_addresses_that_are_typed_are_taken(path):
    suite = suite_file.read(path)
    suite = dataclasses.replace(
        suite, settings={**suite.settings, "wandb_project": "mine"}, typed={"wandb_project"}
    )
    runs = suite_file.expand(suite, path, path.parent / "out")
    assert {run.config.wandb_project for run in runs} == {"mine"}


def test_one_word_selects_all_57_games(path):
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
        ("gamma = 0.98", 'environment = "Catch"', "games (or --games) says it"),
        ("deterministic = true", "seed = 7", "seed = 7: must not be a setting; seeds (or --seeds)"),
        ("gamma = 0.98", "gamma = 1.98", "variant fixed: --gamma=1.98: must be"),
        ("gamma = 0.98", 'gamma = "x"', "variant fixed: --gamma=x: must be a number"),
        ('name = "meta"', 'name = "fixed"', "two variants have the name fixed"),
        ('name = "meta"', 'name = "../up"', "a name is of letters"),
        ('name = "meta"', 'lable = "meta"', "every [[variants]] needs a name"),
        ('label = "IMPALA"', 'lable = "IMPALA"', "may have name, label, settings and population"),
        ("[settings]", "[evaluation]\nepisodes = 0\n[settings]", "evaluation.episodes = 0"),
        ("[settings]", "[evaluation]\nepisodes = 10000000000\n[settings]", "in [1, 200000]"),
        ('"laptop.flags"', '"desktop.flags"', "preset desktop.flags: is neither"),
        ("total_frames = 1_000_000", "total_frames = 5", "must be at least one batch"),
        (
            'image_scaling = "unit"',
            "",
            "--image_scaling=background: must be unit with --environment=catch; only Atari games",
        ),
        ("[settings]", "[settings", "not valid TOML"),
        ("seeds = [3, 1]", "seeds = [-1]", "must be different whole numbers from 0 to 2147483647"),
        ("seeds = [3, 1]", "seeds = [2147483648]", "whole numbers from 0 to 2147483647"),
        ("gamma = 0.98", "gamma = 0x7fffffffffffffff", "--gamma=9.223372036854776e+18: must be"),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_names_it(path, old, new, message):
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        _expand(path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "key", "new"),
    [
        ("seeds = [3, 1]", "seeds", "seeds = [{}]"),
        ('title = "A title"', "title", "title = {}"),
        ('games = ["Pong", "catch"]', "games", "games = [{}]"),
        ("deterministic = true", "settings", "seed = {}"),
        ("[settings]", "evaluation", "[evaluation]\nepisodes = {}\n[settings]"),
        ("gamma = 0.98", "variants", "gamma = {}"),
        ('name = "meta"', "variants", 'name = "meta"\npopulation = {{ size = [{{ x = {} }}] }}'),
        ('title = "A title"', "unknown key nonsense", 'nonsense = {}\ntitle = "A title"'),
    ],
)
@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0x8000000000000000"], ids=len)
def test_a_number_of_too_many_digits_is_refused_in_one_line(path, old, key, new, number):
    assert old in TEXT
    path.write_text(TEXT.replace(old, new.format(number), 1))
    with pytest.raises(UserError) as error:
        _expand(path)
    said = str(error.value)
    assert said.startswith(f"{path}: {key}") and "\n" not in said and len(said) < 500
    assert "unknown" in key or said.endswith("has a whole number of more than 63 bits")


TWINS = (
    "import gymnasium\nfrom meta_impala.environments.catch import Catch\n"
    "for name in ('a/B-v0', 'a_B-v0', 'Größe-v0', 'Grüße-v0', 'c.Twin-v0', 'Twin-v0'):\n"
    "    gymnasium.register(name, entry_point=Catch)\n"
)


@pytest.mark.parametrize(
    ("games", "second", "place"),
    [
        (["a/B-v0", "a_B-v0"], "meta", "runs/fixed/twin_games_a_B-v0/seed_3"),
        (["Größe-v0", "Grüße-v0"], "meta", "runs/fixed/twin_games_Gr_e-v0/seed_3"),
        # Folders of their own, and one log.
        (["c.Twin-v0", "Twin-v0"], "fixed.twin_games_c", "fixed.twin_games_c.Twin-v0.seed_3.log"),
    ],
)
def test_games_that_would_share_a_folder_or_a_log_are_refused(
    path, monkeypatch, games, second, place
):
    (path.parent / "twin_games.py").write_text(TWINS)
    monkeypatch.syspath_prepend(path.parent)
    names = [f"twin_games:{game}" for game in games]
    if "Twin-v0" in games:
        names[1] = "Twin-v0"
    text = TEXT.replace('["Pong", "catch"]', json.dumps(names)).replace('"meta"', f'"{second}"')
    path.write_text(text)
    suite = suite_file.read(path)
    trust = Trust(everything=True)
    one = dataclasses.replace(suite, games=suite.games[:1])
    assert suite_file.expand(one, path, path.parent / "out", trust)
    with pytest.raises(UserError) as error:
        suite_file.expand(suite, path, path.parent / "out", trust)
    said = str(error.value)
    assert said.startswith(f"games: {names[0]} (variant fixed) and {names[1]} (variant ")
    assert f"{place}; must be in suites of their own" in said


def test_what_a_suite_has_in_the_reference_is_refused_for_new_runs_only(path):
    runs = _expand(path)
    given = '[settings]\nmeta_parameter_references = "entropy_cost:0.5"'
    path.write_text(TEXT.replace("[settings]", given))
    with pytest.raises(UserError, match="variant meta: .*J' does not read entropy_cost of η'"):
        _expand(path)
    for run in runs:
        old = dataclasses.replace(run.config, meta_parameter_references="entropy_cost:0.5")
        run.folder.path.mkdir(parents=True)
        run.folder.save_config(old)
    again = _expand(path)
    assert len(again) == len(runs) and not any(map(stages.settings_changed, again))
    # A suite of an older version that is half finished can be reported.
    next(run for run in again if run.variant.name == "meta").folder.config_path.unlink()
    with pytest.raises(UserError, match="J' does not read entropy_cost of η'"):
        _expand(path)
    only_read = suite_file.expand(
        suite_file.read(path), path, path.parent / "out", is_only_read=True
    )
    assert len(only_read) == len(runs)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_suite_is_valid(path):
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
        return stages.stage_of(run, evaluation)

    assert (stage(), stages.frames_of(run)) == (Stage.NEW, 0)
    run.folder.prepare()
    run.folder.save_config(run.config)
    assert stage() is Stage.STARTED
    run.folder.write_status("running", 500_000)
    assert (stage(), stages.frames_of(run)) == (Stage.STARTED, 500_000)
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
        {"seed": 2},
        {"max_episode_frames": 2000},
    ):
        run.folder.evaluation_path.write_text(json.dumps(evaluated | change))
        assert stage() is Stage.TRAINED, change
    for change in (
        {"seed": 1},
        {"seed": 2, "episodes": 1000},  # made by hand, with more games: it is not replaced
        {"max_episode_frames": 108_000},
        {"max_episode_frames": None},
    ):
        run.folder.evaluation_path.write_text(json.dumps(evaluated | change))
        assert stage() is Stage.DONE, change
    run.folder.evaluation_path.write_text(json.dumps(evaluated))
    assert stage() is Stage.DONE


@pytest.mark.parametrize(
    ("game", "limit", "stage"),
    [
        ("CartPole-v1", 500, Stage.DONE),
        ("CartPole-v1", 499, Stage.TRAINED),
        ("Catch", 108_000, Stage.DONE),
        ("Catch", 500, Stage.TRAINED),
    ],
)
def test_an_evaluation_is_up_to_the_limit_of_the_environment(path, game, limit, stage):
    path.write_text(TEXT.replace('["Pong", "catch"]', f'["{game}"]'))
    run = _expand(path)[0]
    run.folder.prepare()
    run.folder.save_config(run.config)
    run.folder.write_status("finished", 1_000_000)
    evaluated = {"frames_trained": 1_000_000, "episodes": 20, "starts": "noop",
                 "eta_is_from": "checkpoint", "max_episode_frames": limit}  # fmt: skip
    run.folder.evaluation_path.write_text(json.dumps(evaluated))
    assert stages.stage_of(run, {"episodes": 20, "seed": 1}) is stage


@pytest.mark.parametrize("infinite", [0, 1, 19])
def test_an_evaluation_that_leaves_games_out_is_finished(path, infinite):
    """To play them again would leave them out again."""
    run = _expand(path)[0]
    run.folder.prepare()
    run.folder.save_config(run.config)
    run.folder.write_status("finished", 1_000_000)
    definition = {
        "environment": "Catch", "starts": "noop", "max_episode_frames": None,
        "frames_trained": 1_000_000, "eta_is_from": "checkpoint",
    }  # fmt: skip
    games = [Game(n, float("inf") if n < infinite else 1.0, 9) for n in range(20)]
    found = evaluation_record.result(definition, games)
    evaluation_record.save_result(run.folder.evaluation_path, found)
    assert stages.stage_of(run, {"episodes": 20}) is Stage.DONE
    assert stages.stage_of(run, {"episodes": 21}) is Stage.TRAINED
    found |= {"episodes_left_out": "many", "episodes": 19}
    run.folder.evaluation_path.write_text(json.dumps(found))
    assert stages.stage_of(run, {"episodes": 20}) is Stage.TRAINED


def test_a_run_that_replays_is_not_one_with_other_settings(path):
    """The digest of its file is known only once it has begun."""
    replayed = path.parent / "metrics.csv"
    replayed.write_text("frames,gamma,lambda\n0,0.9,0.9\n100,0.95,0.9\n")
    path.write_text(
        TEXT.replace(
            "total_frames = 2_000_000",
            f'eta_schedule = "replay", eta_schedule_file = "{replayed}"',
        )
    )
    run = _expand(path)[1]
    run.folder.prepare()
    run.folder.save_config(eta_replay.pin(run.config))
    assert run.folder.load_config().eta_schedule_sha256 and not run.config.eta_schedule_sha256
    assert stages.settings_changed(run) == ""
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, gamma=0.5))
    assert "--gamma=0.5" in stages.settings_changed(other)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 11])
def test_shards_are_a_partition_that_later_seeds_leave_alone(path, count):
    runs = _expand(path)
    shards = [Shard(index, count).of(runs) for index in range(1, count + 1)]
    assert sorted((run for shard in shards for run in shard), key=runs.index) == runs
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    path.write_text(TEXT.replace("[3, 1]", "[3, 1, 7, 8]"))
    more = _expand(path)
    for index, shard in enumerate(shards, start=1):
        names = [run.name for run in Shard(index, count).of(more)]
        assert names[: len(shard)] == [run.name for run in shard]


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", "1/1e9", "١/٢"]
)
def test_invalid_shards_are_refused(text):
    with pytest.raises(UserError, match="must be K/N"):
        Shard.parse(text)
    assert Shard.parse("2/3") == Shard(2, 3)


def test_a_suite_is_found_by_path_or_name(path):
    assert suite_file.find(str(path)) == path
    for shipped in SHIPPED:
        assert suite_file.find(shipped.stem) == shipped


@pytest.mark.parametrize(
    "text", ["gamma_gird", "tools/suites/gamma_gird.toml", "x" * 5000, "a\0b", ""]
)
def test_an_unknown_suite_is_refused_in_one_line_with_the_names(text):
    with pytest.raises(UserError, match="must be a suite file") as error:
        suite_file.find(text)
    assert "catch, demonstration" in str(error.value) and "\n" not in str(error.value)
    if "gird" in text:
        assert "did you mean gamma_grid?" in str(error.value)


def test_a_preset_is_found_without_its_ending_and_a_mistyped_one_suggested(path):
    path.write_text(TEXT.replace('"laptop.flags"', '"laptop"'))
    assert _expand(path)[0].config.batch_size == 8
    path.write_text(TEXT.replace('"laptop.flags"', '"labtop.flags"'))
    with pytest.raises(UserError, match="did you mean laptop.flags"):
        _expand(path)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\\u0000b"])
def test_a_preset_that_no_file_can_be_is_refused_in_one_line(path, name):
    path.write_text(TEXT.replace("laptop.flags", name))
    with pytest.raises(UserError, match="^preset .*is neither a file in .* nor one of") as error:
        _expand(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000])
def test_a_preset_on_the_command_line_that_no_file_can_be_is_refused(tmp_path, name):
    arguments = ("catch", f"--out={tmp_path / 'out'}", f"--preset={name}")
    refusal = refused("meta_impala.run_suite", *arguments)
    assert refusal.startswith(f"error: --preset={name[:100]}") and "must be one of" in refusal
    assert list(tmp_path.iterdir()) == []


def test_the_games_of_a_subset(path):
    path.write_text(TEXT.replace('["Pong", "catch"]', '"atari5"'))
    expected = ("BattleZone", "DoubleDunk", "NameThisGame", "Phoenix", "Qbert")
    assert suite_file.read(path).games == expected
    assert suite_file.games_of(["Pong", "atari5", "Qbert"]) == ("Pong", *expected)
    assert len(suite_file.games_of(["atari57", "Catch"])) == 58
