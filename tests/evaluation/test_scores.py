"""Statistics and human-normalised scores against numbers worked out by hand (ground truth)."""

import pytest

from meta_impala.environments import ATARI_57
from meta_impala.evaluation import scores


def test_statistics_of_four_returns():
    # Mean 4; deviations -3, -2, 0, 5 have squares 38; 38 / 3 / 4 = 19 / 6.
    summary = scores.summarize([4.0, 1.0, 9.0, 2.0])
    assert summary.episodes == 4
    assert summary.mean == 4.0
    assert summary.standard_error == pytest.approx((19 / 6) ** 0.5, rel=1e-12)
    assert (summary.median, summary.min, summary.max) == (3.0, 1.0, 9.0)


def test_one_return_has_no_standard_error():
    assert scores.summarize([-21.0]) == (1, -21.0, None, -21.0, -21.0, -21.0)


def test_no_returns_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        scores.summarize([])


@pytest.mark.parametrize(
    ("game", "mean", "starts", "expected"),
    [
        # (mean − random) / |human − random|, with the constants typed in from the papers.
        ("Pong", 21.0, "noop", (21.0 + 20.7) / (14.6 + 20.7)),
        ("Pong", -20.7, "noop", 0.0),
        ("Breakout", 30.5, "noop", 1.0),
        ("Skiing", -4336.9, "noop", 1.0),
        ("Pong", 15.5, "human_start", 1.0),
        # The random player's score is above the human's: divided by the distance, so that a better
        # agent keeps the larger number.
        ("VideoPinball", 20452.0 + 4810.9, "human_start", 1.0),
        ("VideoPinball", 15641.1, "human_start", -1.0),
        ("VideoPinball", 17667.9, "noop", 1.0),
    ],
)
def test_human_normalised_scores(game, mean, starts, expected):
    assert scores.human_normalised(game, mean, starts) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("game", [None, "Tetris", "pong"])
def test_without_a_published_score_there_is_none(game):
    assert scores.human_normalised(game, 1.0) is None


def test_unknown_starts_are_refused():
    with pytest.raises(ValueError, match="noop, human_start"):
        scores.human_normalised("Pong", 1.0, "human")


@pytest.mark.parametrize("starts", scores.STARTS)
def test_every_game_of_the_published_tables_has_a_score(starts):
    assert set(scores.human_random(starts)) == set(ATARI_57)
