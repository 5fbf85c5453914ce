"""Files of starts: round trip and refusals. Replaying them on real Atari: equivalence."""

import json

import numpy as np
import pytest

from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.starts import Start

STARTS = [Start(5, (0, 1, 2), "abc"), Start(2**31 - 1, (), "def")]


def _write(path, starts=STARTS, environment="ALE/Pong-v5"):
    game_starts.write_starts(
        path,
        environment=environment,
        protocol="impala",
        recorded_from="a person",
        made_with={"ale-py": "1"},
        starts=starts,
    )


def _read(path, environment="ALE/Pong-v5", protocol="impala", num_actions=3):
    return game_starts.read_starts(
        path, environment=environment, protocol=protocol, num_actions=num_actions
    )


def test_starts_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "starts.json"
    _write(path)
    assert _read(path) == STARTS
    content = json.loads(path.read_text())
    assert content["recorded_from"] == "a person" and content["made_with"] == {"ale-py": "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment": "ALE/Breakout-v5"}, "of environment ALE/Breakout-v5; must be ALE/Pong-v5"),
        ({"protocol": "machado"}, "of protocol machado; must be impala"),
        ({"format": "2"}, "is not a file of starts"),
        ({"starts": []}, "has no starts"),
        ({"starts": [{"seed": 1}]}, "has a damaged start"),
        ({"starts": [{"seed": 1, "actions": [3], "observation": ""}]}, "an action outside 0 to 2"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, message):
    path = tmp_path / "starts.json"
    _write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        _read(path)


def test_a_missing_file_and_invalid_json_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read as a file of starts"):
        _read(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("[")
    with pytest.raises(UserError, match="cannot be read as a file of starts"):
        _read(tmp_path / "text.json")


@pytest.fixture(scope="module")
def pong():
    with_sticky_actions = registry.make("Pong", 1, "machado")
    yield with_sticky_actions
    with_sticky_actions.close()


def test_an_atari_start_is_replayed_exactly_even_with_sticky_actions(pong):
    actions = tuple(np.random.default_rng(0).integers(0, pong.num_actions, 60).tolist())
    first = game_starts.begin(pong, Start(11, actions))
    again = game_starts.begin(pong, Start(11, actions, game_starts.digest(first.observation)))
    np.testing.assert_array_equal(first.observation, again.observation)
    assert (first.frames, first.episode_return) == (240, again.episode_return)
    with pytest.raises(UserError, match="does not lead to the recorded observation"):
        game_starts.begin(pong, Start(12, actions, game_starts.digest(first.observation)))
