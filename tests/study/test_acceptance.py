"""The acceptance test of Switching: its verdict and its table."""

import pytest

from meta_impala.study import acceptance
from meta_impala.study.design import ACCEPTANCE
from meta_impala.study.records import Point, Record

RANDOM = 0.5


def record(variant, seed, level, part="acceptance"):
    """A run whose curve stays at `level` from the beginning."""
    points = tuple(Point(frames, level, 0.1, 20, 0.9, 1.0) for frames in (1, 100))
    return Record(part, "Switching", variant, seed, "finished", 100, 100, 1.0, "", points)


def runs(best_constant, right=1.5):
    levels = dict.fromkeys(ACCEPTANCE.arms, 0.6) | {"R": right, "F_0.5": best_constant}
    return [record(name, seed, of) for name, of in levels.items() for seed in ACCEPTANCE.seeds]


@pytest.mark.parametrize(
    ("best_constant", "expected"),
    [(1.19, "accepted"), (1.21, "not accepted"), (2.0, "not accepted")],
)  # fmt: skip
def test_the_verdict_depends_on_the_best_constant(best_constant, expected):
    areas = acceptance.areas_of(runs(best_constant), RANDOM)
    assert acceptance.verdict(areas) == expected


def test_without_all_runs_it_is_undecided():
    found = runs(1.0)
    del found[-1]
    assert acceptance.verdict(acceptance.areas_of(found, RANDOM)) == "undecided"
    assert acceptance.verdict(acceptance.areas_of([], RANDOM)) == "undecided"
    assert "undecided" in acceptance.table(found[:1], RANDOM)


def test_runs_of_the_study_are_ignored():
    mine = runs(1.0)
    others = [record("F_0.5", seed, 9.0, part="mechanism") for seed in ACCEPTANCE.seeds]
    assert acceptance.areas_of(mine + others, RANDOM) == acceptance.areas_of(mine, RANDOM)


def test_the_table_gives_both_losses():
    lines = acceptance.table(runs(1.0), RANDOM).splitlines()
    # Areas 0.9975 and 1.495: the curve rises from random actions' 0.5 in 1 % of the frames.
    (row,) = [line for line in lines if line.startswith("| 0.5 ")]
    assert row.startswith("| 0.5 | 10 | 0.998 (0.000) | 33 % | 50 % |")
    assert lines[-1].endswith("accepted. Random actions: 0.5.")


def test_without_the_right_schedule_there_are_no_shares():
    found = [run for run in runs(1.0) if run.variant != "R"]
    (row,) = [r for r in acceptance.table(found, RANDOM).splitlines() if r.startswith("| 0.5 ")]
    assert row == "| 0.5 | 10 | 0.998 (0.000) | – | – |"


@pytest.mark.parametrize("right", [0.0, RANDOM])
def test_a_right_schedule_without_an_area_to_lose_has_no_shares(right):
    text = acceptance.table(runs(0.4, right=right), right)
    (row,) = [line for line in text.splitlines() if line.startswith("| 0.5 ")]
    assert row.endswith("| – | – |")


def test_the_acceptance_seeds_are_used_nowhere_else():
    from meta_impala.study.design import PARTS

    used = {s for p in PARTS.values() for s in (*p.seeds, *p.selection_seeds, *p.pilot_seeds)}
    assert not used & set(ACCEPTANCE.seeds)
    assert ACCEPTANCE.name not in PARTS
