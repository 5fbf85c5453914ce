"""Atari-N: the formula by hand, published agents, its limits (ground truth)."""

import math

import pytest

from meta_impala.environments import ATARI_57
from meta_impala.published import atari_n
from meta_impala.published import tables as published


def test_the_subsets_are_of_the_57_games():
    sizes = {name: len(games) for name, games in atari_n.subsets().items()}
    assert sizes == {
        "atari1": 1,
        "atari3": 3,
        "atari5": 5,
        "atari10": 10,
        "atari3_validation": 3,
        "atari5_validation": 5,
    }
    for games in atari_n.subsets().values():
        assert set(games) <= set(ATARI_57)
        assert all(weight > 0 for weight in games.values())


def test_the_regression_formula_by_hand():
    assert atari_n.median_percent("atari1", {"NameThisGame": 0.99}) == pytest.approx(
        100.0**0.9976 - 1
    )
    three = {"BattleZone": 1.5, "NameThisGame": 0.4, "Phoenix": -3.0}
    expected = 151.0**0.37056 * 41.0**0.51327 * 1.0**0.10152 - 1  # below random counts as random
    assert atari_n.median_percent("atari3", three) == pytest.approx(expected)
    with pytest.raises(KeyError):
        atari_n.median_percent("atari3", {"Phoenix": 1.0})


@pytest.mark.parametrize("column", ["impala_deep_noop_200m", "apex_noop", "stacx_noop_200m"])
def test_estimates_are_close_to_the_medians_of_published_agents(column):
    agent = published.read_columns()[column]
    true = published.median_percent(agent)
    for estimate in atari_n.estimates(agent.agent, agent.human_normalised()):
        if estimate.subset in ("atari5", "atari10"):
            assert abs(math.log(estimate.median_percent / true)) < math.log(1.4), estimate


def test_the_estimate_is_wrong_at_few_frames():
    """Why there is no estimate below 200M frames."""
    agent = published.read_columns()["slmlab_a2c_10m_steps"]
    by_game = agent.human_normalised()
    assert by_game["BattleZone"] < 0.01
    assert atari_n.median_percent("atari5", by_game) == pytest.approx(13.6, abs=0.1)
    assert published.median_percent(agent) == pytest.approx(41.8, abs=0.1)
    assert not atari_n.is_trained_enough(agent.frames)
    assert atari_n.is_trained_enough(200_000_000) and atari_n.is_trained_enough(199_999_360)


def test_the_subsets_estimated_and_values_out_of_range():
    names = {"NameThisGame", "BattleZone", "Phoenix"}
    found = atari_n.estimates("x", dict.fromkeys(names, 2.0))
    assert [estimate.subset for estimate in found] == ["atari1", "atari3"]
    assert all(estimate.is_in_range for estimate in found)
    low = atari_n.estimates("x", {"NameThisGame": 0.3})
    assert [(e.subset, e.is_in_range) for e in low] == [("atari1", False)]
    assert atari_n.estimates("x", {"Pong": 1.0}) == []
