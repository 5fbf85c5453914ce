"""Intervals, aggregates and comparisons against numbers worked out by hand (ground truth)."""

import numpy as np
import pytest

from meta_impala.analysis import statistics


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 1000)


def test_the_interval_over_seeds_is_that_of_students_t():
    pytest.importorskip("rliable")
    # Mean 2, standard deviation 1 (ddof 1), t of 2 degrees of freedom 4.302653.
    interval = statistics.mean_interval([1.0, 2.0, 3.0], standard_error=99.0)
    assert interval.over == "seeds"
    assert interval.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert interval.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)


def test_with_one_seed_the_interval_is_over_its_games_and_is_labelled_so():
    pytest.importorskip("rliable")
    interval = statistics.mean_interval([10.0], standard_error=2.0)
    assert interval == (
        pytest.approx(10 - 2 * 1.959964, abs=1e-5),
        pytest.approx(10 + 2 * 1.959964, abs=1e-5),
        "games",
    )
    assert statistics.mean_interval([10.0], standard_error=None) is None


SCORES = {"Pong": [1.0, 3.0], "Breakout": [0.0, 0.5], "Qbert": [4.0, 6.0]}


def test_aggregates_of_two_seeds_of_three_games():
    pytest.importorskip("rliable")
    found = statistics.aggregates(SCORES)
    # Games' means 2, 0.25, 5.
    assert found["median"].value == 2.0
    assert found["mean"].value == pytest.approx(7.25 / 3)
    # Of 0, 0.5, 1, 3, 4, 6 the lowest and highest (a quarter of 6, rounded down) go.
    assert found["iqm"].value == pytest.approx((0.5 + 1 + 3 + 4) / 4)
    # Short of 1 by 1 and 0.5 in two of six runs.
    assert found["optimality_gap"].value == pytest.approx(1.5 / 6)
    for aggregate in found.values():
        assert aggregate.low <= aggregate.value <= aggregate.high
    # A redraw's median lies between Pong's lowest and highest seed.
    assert (found["median"].low, found["median"].high) == (1.0, 3.0)


def test_the_bootstrap_is_repeatable_and_leaves_the_global_generator_alone():
    pytest.importorskip("rliable")
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    first = statistics.aggregates(SCORES)
    assert np.random.random() == expected
    assert statistics.aggregates(SCORES) == first


def test_one_seed_has_no_interval():
    pytest.importorskip("rliable")
    found = statistics.aggregates({"Pong": [1.0], "Breakout": [0.5]})
    assert found["median"] == (0.75, None, None)
    assert found["optimality_gap"] == (0.25, None, None)


def test_unequal_seeds_are_cut_to_the_fewest():
    matrix = statistics.score_matrix({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0]}, ["b", "a"])
    np.testing.assert_array_equal(matrix, [[4.0, 1.0], [5.0, 2.0]])


def test_without_rliable_there_are_median_and_mean(monkeypatch):
    monkeypatch.setattr(statistics, "rliable_is_installed", lambda: False)
    assert statistics.aggregates(SCORES) == {
        "median": (2.0, None, None),
        "mean": (pytest.approx(7.25 / 3), None, None),
    }
    assert statistics.mean_interval([1.0, 2.0], None) is None
    against = statistics.against_fixed("a", ["b"], {"a": SCORES, "b": SCORES})
    assert against.per_game["median"] == (0.0, None, None)


@pytest.mark.parametrize(
    ("agent", "baseline", "human", "random", "expected"),
    [
        # (agent − baseline) / (max(human, baseline) − random)
        (30.0, 20.0, 40.0, 0.0, 10 / 40),
        (30.0, 60.0, 40.0, 10.0, -30 / 50),
        (-20.0, -20.0, 14.6, -20.7, 0.0),
        # The random player above human and baseline: the distance.
        (16_000.0, 15_000.0, 15_641.1, 20_452.0, 1000 / 4810.9),
    ],
)
def test_relative_improvement_of_wang_et_al(agent, baseline, human, random, expected):
    value = statistics.relative_improvement(agent, baseline, human, random)
    assert value == pytest.approx(expected)


BY_VARIANT = {
    "adaptive": {"A": [1.0, 1.0], "B": [2.0, 2.0], "C": [3.0, 3.0]},
    "low": {"A": [2.0, 2.0], "B": [0.0, 0.0], "C": [1.0, 1.0]},
    "high": {"A": [0.0, 0.0], "B": [1.5, 1.5], "C": [2.0, 2.0], "D": [9.0, 9.0]},
}


def test_the_adaptive_agent_against_the_best_fixed_one():
    against = statistics.against_fixed("adaptive", ["low", "high"], BY_VARIANT)
    assert [row.game for row in against.games] == ["A", "B", "C"], "those that all have"
    assert [row.best_fixed for row in against.games] == ["low", "high", "high"]
    # Per game: 1 − 2, 2 − 1.5, 3 − 2.
    assert against.per_game["median"].value == pytest.approx(0.5)
    assert against.per_game["mean"].value == pytest.approx(0.5 / 3)
    # Medians 1 (low) and 1.5 (high): 1 − 0, 2 − 1.5, 3 − 2.
    assert against.overall_fixed == "high"
    assert against.overall["median"].value == pytest.approx(1.0)
    assert against.overall["mean"].value == pytest.approx(2.5 / 3)
    pytest.importorskip("rliable")
    # Seeds are alike, so no redraw differs.
    assert against.per_game["median"][1:] == (0.5, 0.5)


def test_the_best_fixed_agent_is_chosen_again_in_every_redraw():
    pytest.importorskip("rliable")
    fixed = {name: {"A": [0.0, 2.0]} for name in "wxyz"}
    against = statistics.against_fixed(
        "adaptive", list(fixed), {"adaptive": {"A": [1.0] * 2}} | fixed
    )
    # Each fixed agent draws a mean of 0, 1 or 2 with chances 1/4, 1/2, 1/4: the best of four is
    # below 1 in 1 of 256 redraws, so the upper end is 1 − 1. Of one chosen beforehand: 1 − 0.
    assert against.per_game["median"] == (0.0, -1.0, 0.0)


def test_agents_without_a_common_game_cannot_be_compared():
    assert statistics.against_fixed("a", ["b"], {"a": {"A": [1.0]}, "b": {"B": [1.0]}}) is None
