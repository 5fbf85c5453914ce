"""Recording games and drawing starts from them: every start leads where it was drawn (equivalence).

With pygame, a person is imitated by key presses in a window that nobody sees.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.evaluation import start_recorder
from meta_impala.evaluation import starts as game_starts

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def games():
    recorded = start_recorder.RecordedGames(registry.make("Catch", 1, "impala"))
    yield recorded
    recorded.close()


def _play(games, seed, actions):
    games.reset(seed)
    for action in actions:
        games.step(np.array([action]))


def test_every_start_leads_where_it_was_drawn(games):
    _play(games, 3, [0, 1, 2, 2, 2])
    _play(games, 4, [0] * 9)  # to the end of the game
    starts = start_recorder.draw_starts(games.recordings, 60, seed=0, max_steps=100)
    plain = registry.make("Catch", 1, "impala")
    for start in starts:
        begun = game_starts.begin(plain, start)  # checks the digest
        assert game_starts.digest(begun.observation) == start.observation
    plain.close()
    drawn = {(start.seed, len(start.actions)) for start in starts}
    # Every point but the start itself and the end.
    assert drawn == {(3, n) for n in range(1, 6)} | {(4, n) for n in range(1, 9)}
    assert start_recorder.draw_starts(games.recordings, 60, seed=0, max_steps=100) == starts


def test_actions_after_the_end_of_a_game_are_not_recorded(games):
    _play(games, 4, [0] * 12)
    assert games.recordings[0].actions == [0] * 8


def test_starts_lie_no_further_than_asked(games):
    _play(games, 3, [0] * 8)
    starts = start_recorder.draw_starts(games.recordings, 40, seed=1, max_steps=3)
    assert {len(start.actions) for start in starts} == {1, 2, 3}


def test_nothing_recorded_is_refused(games):
    games.reset(1)
    with pytest.raises(UserError, match="no game was recorded"):
        start_recorder.draw_starts(games.recordings, 1, seed=0, max_steps=3)


def test_a_person_sees_what_the_agent_sees():
    environment = start_recorder.RecordedGames(registry.make("Pong", 1, "impala"))
    game = start_recorder.PlayableGame(environment, seed=5)
    game.reset(seed=99)
    for _ in range(20):
        observation, *_ = game.step(0)
    picture = game.render()
    assert picture.shape == (420, 420, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[::5, ::5, 1], observation[-1])
    game.reset()
    seeds = [recording.seed for recording in environment.recordings]
    assert seeds == [game_starts.game_seeds(5, 0)[0], game_starts.game_seeds(5, 1)[0]]
    environment.close()


@pytest.mark.parametrize(
    ("name", "shape"),
    [("CartPole-v1", (420, 1680, 3)), ("MinAtar/Breakout", (420, 1806, 3)), ("Catch", None)],
)
def test_a_person_sees_what_is_no_stack_of_pictures(name, shape):
    if name.startswith("MinAtar"):
        pytest.importorskip("minatar")
    environment = registry.make(name, 1, "impala")
    game = start_recorder.PlayableGame(environment, seed=5)
    observation, _ = game.reset()
    picture = game.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    if shape is not None:
        assert picture.shape == shape
    if name.startswith("MinAtar"):
        # The four planes of the board side by side: 10 cells high, a line between two planes.
        board = np.moveaxis(observation, int(np.argmin(observation.shape)), 0)
        np.testing.assert_array_equal(picture[::42, ::42, 0][:, :10], 255 * board[0])
    environment.close()


def test_keys_of_a_game_and_of_any_environment():
    keys = start_recorder.keys_to_actions("Pong", "impala", 6)
    assert keys[("d",)] == 2 and len(keys) == 6
    assert len(start_recorder.keys_to_actions("Pong", "machado", 18)) == 18
    assert start_recorder.keys_to_actions("Catch", "impala", 3) == {
        ("0",): 0,
        ("1",): 1,
        ("2",): 2,
    }


_PERSON = """
import sys
import pygame

frames = 0
def flip(original=pygame.display.flip):
    global frames
    frames += 1
    if frames == 3:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ord("2")))
    if frames == 30:
        pygame.event.post(pygame.event.Event(pygame.QUIT))
    original()
pygame.display.flip = flip

sys.argv[1:] = [
    "--environment=Catch", "--frames_per_second=1000", "--starts=20", "--out=" + sys.argv[1]
]
import runpy
runpy.run_path("tools/record_starts.py", run_name="__main__")
"""


def test_starts_are_recorded_while_a_person_plays(tmp_path):
    pytest.importorskip("pygame")
    out = tmp_path / "starts.json"
    done = subprocess.run(
        [sys.executable, "-c", _PERSON, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "keys: 0, 1, 2; close the window to end" in done.stdout
    content = json.loads(out.read_text())
    assert content["recorded_from"] == "a person's games"
    starts = game_starts.read_starts(
        out, environment="meta_impala/Catch-v0", protocol="impala", num_actions=3
    )
    assert {action for start in starts for action in start.actions} == {0, 2}
    environment = registry.make("Catch", 1, "impala")
    for start in starts:
        game_starts.begin(environment, start)
    environment.close()


def test_games_before_an_interrupt_are_kept_and_a_missing_screen_is_refused(monkeypatch):
    pygame = pytest.importorskip("pygame")
    play = importlib.import_module("gymnasium.utils.play")

    def interrupted(game, **_):
        game.reset()
        game.reset()  # as Gymnasium does
        game.step(0)
        raise KeyboardInterrupt

    def without_screen(game, **_):
        raise pygame.error("No available video device")

    environment = registry.make("Catch", 1, "impala")
    monkeypatch.setattr(play, "play", interrupted)
    recordings = start_recorder.record_person(environment, {("0",): 0}, 1, 10.0)
    assert [len(recording.actions) for recording in recordings] == [0, 1]
    monkeypatch.setattr(play, "play", without_screen)
    with pytest.raises(UserError, match="needs a screen"):
        start_recorder.record_person(environment, {("0",): 0}, 1, 10.0)
    environment.close()


def test_without_pygame_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.delitem(sys.modules, "gymnasium.utils.play", raising=False)
    environment = registry.make("Catch", 1, "impala")
    with pytest.raises(UserError, match=r"meta_impala\[play\]"):
        start_recorder.record_person(environment, {("0",): 0}, 1, 10.0)
    environment.close()
