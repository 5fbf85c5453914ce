"""The games of an interrupted evaluation: kept, and continued under the same definition only."""

import json

import numpy as np
import pytest

from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation.record import Game, PartialGames

GAMES = [Game(3, 1.5, 8), Game(0, -21.0, 4000)]
DEFINITION = {"seed": 1, "noops": (1, 30), "rom": None}


def _saved(path, definition=DEFINITION):
    partial = PartialGames(path, definition)
    for game in GAMES:
        partial.add(game)
    partial.save()


def test_games_are_found_again_under_an_equal_definition(tmp_path):
    path = tmp_path / "partial.json"
    _saved(path)
    assert PartialGames(path, dict(DEFINITION)).games == sorted(GAMES)
    assert PartialGames(path, DEFINITION | {"seed": 2}).games == []
    assert PartialGames(path, DEFINITION | {"rom": {"sha256": "0"}}).games == []


def test_another_definition_does_not_change_the_saved_games(tmp_path):
    result = tmp_path / "evaluation.json"
    first = evaluation_record.partial_path(result, DEFINITION)
    second = evaluation_record.partial_path(result, DEFINITION | {"seed": 2})
    assert first.parent == tmp_path and first != second
    assert first == evaluation_record.partial_path(result, dict(reversed(DEFINITION.items())))
    _saved(first)
    _saved(second, DEFINITION | {"seed": 2})
    PartialGames(second, DEFINITION | {"seed": 2}).remove()
    assert PartialGames(first, DEFINITION).games == sorted(GAMES)
    assert evaluation_record.other_partials(second) == [first]
    assert evaluation_record.other_partials(first) == []
    elsewhere = evaluation_record.partial_path(tmp_path / "evaluation_2.json", DEFINITION)
    assert evaluation_record.other_partials(elsewhere) == []
    assert evaluation_record.other_partials(None) == []


@pytest.mark.parametrize("name", ["evaluation[1].json", "a*b?.json", "[.json", "a.partial-b.json"])
def test_unfinished_games_are_found_beside_a_result_with_any_name(tmp_path, name):
    first, second = (
        evaluation_record.partial_path(tmp_path / name, DEFINITION | {"seed": seed})
        for seed in (1, 2)
    )
    _saved(first)
    for other in ("evaluation1", "a--bc", "a"):  # what the names mean as patterns, and parts
        _saved(evaluation_record.partial_path(tmp_path / f"{other}.json", DEFINITION))
    assert evaluation_record.other_partials(second) == [first]
    assert evaluation_record.other_partials(first) == []


def test_more_games_of_the_same_agent_and_settings_are_kept(tmp_path):
    path = tmp_path / "evaluation.json"
    definition = DEFINITION | {
        "environment": "Catch", "protocol": "impala", "starts": "noop", "frames_trained": 400,
        "agent_digest": "1a", "versions": {"python": "3.11"},
    }  # fmt: skip
    summary = {"episodes": 5, "mean": 0.5, "standard_error": None}

    def kept(episodes, **changes):
        return evaluation_record.games_to_keep(path, definition | changes, episodes)

    assert kept(1) == 0, "there is no file"
    path.write_text(json.dumps(definition | summary))
    assert [kept(episodes) for episodes in (1, 4, 5, 6)] == [5, 5, 0, 0]
    path.write_text(json.dumps(definition | summary | {"episodes_left_out": 2}))
    assert [kept(episodes) for episodes in (6, 7)] == [7, 0], "those left out were played"
    path.write_text(json.dumps(definition | summary | {"episodes_left_out": "x"}))
    assert kept(4) == 5
    assert kept(1, seed=2) == kept(1, versions={}) == kept(1, a_later_setting=3) == 5
    for name in ("agent_digest", "frames_trained", "starts", "rom", "noops"):
        assert kept(1, **{name: "other"}) == 0
    path.write_text(json.dumps({"agent_digest": "1a"} | summary))
    assert kept(1) == 0, "damaged"
    undated = {name: value for name, value in definition.items() if name != "agent_digest"}
    path.write_text(json.dumps(undated | summary))
    assert kept(1) == 0, "whose games these are is not known"


def test_a_damaged_file_of_games_is_ignored(tmp_path):
    path = tmp_path / "partial.json"
    for text in ("", "{", "[]", "3", json.dumps({"definition": DEFINITION, "games": [[1]]})):
        path.write_text(text)
        assert PartialGames(path, DEFINITION).games == []


def test_without_games_nothing_is_written_and_the_end_removes_the_file(tmp_path):
    path = tmp_path / "partial.json"
    PartialGames(path, DEFINITION).save()
    assert not path.exists()
    _saved(path)
    partial = PartialGames(path, DEFINITION)
    partial.remove()
    partial.remove()
    assert not path.exists()
    nowhere = PartialGames(None, DEFINITION)
    nowhere.add(GAMES[0])
    nowhere.save()
    nowhere.remove()


def test_finished_games_are_saved_once_a_minute(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(evaluation_record.time, "monotonic", lambda: clock[0])
    path = tmp_path / "partial.json"
    partial = PartialGames(path, DEFINITION)
    partial.add(GAMES[0])
    assert not path.exists()
    clock[0] += 60
    partial.add(GAMES[1])
    assert len(json.loads(path.read_text())["games"]) == 2


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    partial = PartialGames(tmp_path / "gone" / "partial.json", DEFINITION)
    partial.add(GAMES[0])
    with pytest.raises(UserError, match="cannot be written"):
        partial.save()


def test_the_rom_is_named_and_hashed():
    rom = evaluation_record.rom(registry.resolve("MsPacman"))
    assert rom["file"] == "ms_pacman.bin" and len(rom["sha256"]) == 64
    assert evaluation_record.rom(registry.resolve("Catch")) is None


def test_versions_of_everything_that_takes_part():
    assert set(evaluation_record.versions()) == {
        "meta_impala",
        "python",
        "tensorflow",
        "numpy",
        "gymnasium",
        "ale-py",
    }


def test_the_definition_has_the_arguments_of_the_environment_and_what_agents_are_scored_in():
    def definition(environment, arguments):
        return evaluation_record.where_games_are_played(environment, "impala", None, arguments)

    plain = definition("Catch", {})
    assert "environment_kwargs" not in plain
    assert definition("Catch", {"size": 5}) == plain | {"environment_kwargs": {"size": 5}}
    assert definition("Switching", {})["environment"] == "meta_impala/SwitchingEvaluation-v0"
    # What the task of the scores fixes is not the run's to change; the rest is.
    noise = definition("Noise", {})
    assert definition("Noise", {"sigma": 2.0}) == noise and "environment_kwargs" not in noise
    assert definition("Noise", {"length": 4, "sigma": 2.0})["environment_kwargs"] == {"length": 4}
    assert definition("Switching", {"play": "first"}) == definition("Switching", {})
    explicit = definition("Noise/evaluation", {"sigma": 2.0})
    assert explicit["environment_kwargs"] == {"sigma": 2.0}


@pytest.mark.parametrize(
    ("environment", "arguments", "limit", "is_cut"),
    [
        ("MountainCar-v0", {}, 200, False),
        ("MountainCar-v0", {"max_episode_steps": None}, 200, False),
        ("MountainCar-v0", {"max_episode_steps": 50}, 50, False),
        ("MountainCar-v0", {"max_episode_steps": -1}, None, True),
        ("Noise", {}, None, True),
        ("Noise", {"max_episode_steps": 4}, 4, False),
        ("Pong", {}, 108_000, False),
    ],
)
def test_the_limit_of_a_game_follows_the_arguments_of_the_environment(
    environment, arguments, limit, is_cut
):
    assert registry.time_limit(environment, arguments) == limit
    most = evaluation_record.DEFAULT_MAX_EPISODE_FRAMES if is_cut else None
    assert evaluation_record.frame_limit(environment, arguments) == most
    if limit is None or limit > 200:
        return
    # As long as the environment that is made with them.
    batch = registry.make(environment, 1, "impala", environment_kwargs=arguments)
    batch.reset(seed=0)
    steps = 1
    while not batch.step(np.array([1])).episode_ends[0]:
        steps += 1
    batch.close()
    assert steps == limit


def test_returns_that_are_not_finite_are_left_out_counted_and_kept_as_json(tmp_path):
    nan, infinity = float("nan"), float("inf")
    games = [Game(0, 1.0, 5), Game(1, nan, 6), Game(2, 3.0, 7), Game(3, -infinity, 8)]
    definition = {"environment": "Catch", "starts": "noop", "max_episode_frames": None}
    found = evaluation_record.result(definition, games)
    json.dumps(found, allow_nan=False)
    assert (found["returns"], found["episode_frames"]) == ([1.0, 3.0], [5, 7])
    assert (found["episodes"], found["mean"], found["episodes_left_out"]) == (2, 2.0, 2)
    assert "episodes_left_out" not in evaluation_record.result(definition, games[:1])
    with pytest.raises(UserError, match="no game has a finite return"):
        evaluation_record.result(definition, games[1:2])
    # An interrupted evaluation does not play them again.
    path = tmp_path / "partial.json"
    partial = PartialGames(path, DEFINITION)
    for game in games:
        partial.add(game)
    partial.save()
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    again = PartialGames(path, DEFINITION).games
    assert [game.number for game in again] == [0, 1, 2, 3]
    assert [np.isfinite(game.episode_return) for game in again] == [True, False, True, False]
