"""The study's scores, contrasts, verdicts and choices against values worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from meta_impala.errors import UserError
from meta_impala.experiments import suite as suite_file
from meta_impala.study import design, effects, records, summary, task_figures
from meta_impala.study.records import Point, Record

RANDOM = {task: 0.0 for part in (design.MECHANISM, design.MINATAR) for task in part.tasks}


def record(variant, seed, height=1.0, part="mechanism", task="Noise", state="finished", **changes):
    points = tuple(Point(f, height, 0.1, 20, changes.get("gamma", 0.99), 1.0) for f in (50, 100))
    frames = 100 if state == "finished" else 50
    points = points if state == "finished" else points[:1]
    commit = changes.get("commit", "abc")
    return Record(part, task, variant, seed, state, frames, 100, 1.0, commit, points)


def test_the_area_is_the_mean_height_from_the_score_of_random_actions_on():
    # 0 to 50: mean of 0.2 and 1; 50 to 100: 1.
    assert effects.area(record("F_0", 1), random=0.2) == pytest.approx(0.5 * 0.6 + 0.5 * 1.0)


def test_a_failed_run_continues_at_random():
    failed = record("F_0", 1, state="failed")
    assert failed.counts and not failed.is_finished
    assert effects.area(failed, random=0.2) == pytest.approx(0.5 * 0.6 + 0.5 * 0.2, abs=0.01)


def test_the_mean_curve_counts_failed_runs_as_their_areas_do():
    """From where it ended on a failed run is at random, one without a point from the beginning."""
    good, failed = record("F_0", 1, 3.0), record("F_0", 2, 2.0, state="failed")
    frames, values = task_figures._mean_curve([good, failed], 0.2)
    assert frames.tolist() == [50, 100]
    assert values == pytest.approx([(3.0 + 2.0) / 2, (3.0 + 0.2) / 2])
    never = dataclasses.replace(failed, points=())
    _, values = task_figures._mean_curve([good, never], 0.2)
    assert values == pytest.approx([(3.0 + 0.2) / 2] * 2)
    _, values = task_figures._mean_curve([good, record("F_0", 3, 1.0)], 0.2)
    assert values.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 20])
def test_the_interquartile_mean_is_that_of_a_finely_repeated_sample(count):
    values = np.random.default_rng(count).normal(size=count)
    repeated = np.sort(np.repeat(values, 4))
    assert effects.interquartile_mean(values) == pytest.approx(repeated[count : 3 * count].mean())


def test_the_holm_correction_on_a_worked_example():
    assert effects.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert effects.holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_contrast_finds_a_difference_and_covers_zero_without_one():
    generator = np.random.default_rng(1)
    low, high = generator.normal(0.0, 0.1, 20), generator.normal(0.5, 0.1, 20)
    found = effects.contrast({"a": high}, {"a": low})
    assert 0.4 < found.low < found.value < found.high < 0.6
    assert found.p < 0.01 and found.improvement == 1.0 and not found.is_equivalent
    same = effects.contrast({"a": low}, {"a": generator.normal(0.0, 0.1, 20)})
    assert same.low < 0.0 < same.high and same.p > 0.05 and same.is_equivalent


def test_few_runs_have_no_interval_and_no_verdict():
    few = {"a": np.array([1.0, 1.1]), "b": np.array([1.0] * 9)}
    found = effects.contrast(few, {"a": np.zeros(9), "b": np.zeros(9)})
    assert found.value == pytest.approx(1.0) and not found.has_interval
    assert summary.verdict(found, found.p, is_complete=True) == summary.UNDECIDED
    assert not effects.contrast(few, few).is_equivalent
    many = {"a": np.ones(effects.LEAST_RUNS)}
    assert effects.contrast(many, many).has_interval


def test_pairs_are_redrawn_together():
    donors = np.random.default_rng(2).normal(size=20)
    paired = effects.contrast({"a": donors + 0.3}, {"a": donors}, paired=True)
    apart = effects.contrast({"a": donors + 0.3}, {"a": donors})
    assert paired.low == pytest.approx(0.3) and paired.high == pytest.approx(0.3)
    assert apart.high - apart.low > 0.5


def test_ties_count_half_in_the_probability_of_improvement():
    assert effects.improvement({"a": np.array([1.0, 0.0])}, {"a": np.array([0.0])}) == 0.75


@pytest.mark.parametrize("part", list(design.PARTS.values()), ids=lambda part: part.name)
def test_the_suite_of_a_part_has_its_grid_and_its_tasks(part):
    suite = suite_file.read(suite_file.find(part.suite))
    names = {variant.name: variant.settings for variant in suite.variants}
    assert suite.games == part.tasks
    for gamma in part.gammas:
        assert names[f"F_{gamma}"]["gamma"] == float(gamma)
    for beta in part.betas:
        assert names[f"A_{beta}"]["meta_learning_rate"] == float(beta)


def _selection(best="F_0", learned="A_0.03", task="Noise", part=design.MECHANISM):
    return [
        record(name, seed, 2.0 if name in (best, learned) else 1.0, part.name, task)
        for name in part.grid
        for seed in part.selection_seeds
    ]


def test_the_selection_takes_the_largest_area_and_waits_for_all_runs():
    found = _selection()
    chosen = design.select(found, design.MECHANISM, "Noise", 0.0)
    assert chosen[:2] == ("F_0", "A_0.03") and chosen.fixed_area == pytest.approx(1.5)
    without = [r for r in found if (r.variant, r.seed) != ("F_0.9", 2)]
    assert design.select(without, design.MECHANISM, "Noise", 0.0)[:2] == (None, "A_0.03")


def test_confirmation_seeds_do_not_select():
    found = [*_selection(), *(record("F_0.9", seed, 50.0) for seed in design.MECHANISM.seeds)]
    assert design.select(found, design.MECHANISM, "Noise", 0.0).fixed == "F_0"
    assert not set(design.MECHANISM.seeds) & set(design.MECHANISM.selection_seeds)


def test_the_best_overall_weighs_tasks_by_their_span():
    found = []
    for task in design.MINATAR.tasks:
        best = "F_0.9" if task == "MinAtar/Seaquest" else "F_0.999"
        found += _selection(best, "A_0.03", task, design.MINATAR)
    assert design.best_overall(found, design.MINATAR, RANDOM) == "F_0.999"


def test_s_is_one_for_the_best_fixed_agent_and_no_verdict_comes_early():
    seeds = design.MECHANISM.seeds
    found = _selection()
    found += [record("A_0.03", seed, 2.5 + 0.01 * seed) for seed in seeds]
    found += [record("F_0", seed, 2.0 + 0.01 * seed) for seed in seeds[:-1]]
    task = summary.tasks_of(found, design.MECHANISM, RANDOM)[1]
    assert task.arms[design.BEST].s[seeds[0]] == pytest.approx((2.0 + 0.11) / 2.0)
    claim = summary.MECHANISM_CLAIMS[0]
    early = summary.results([task], [claim], family=False)[0]
    assert early.contrast.low > 0.0 and early.verdict == summary.UNDECIDED
    task = summary.tasks_of([*found, record("F_0", seeds[-1], 2.2)], design.MECHANISM, RANDOM)[1]
    assert summary.results([task], [claim], family=False)[0].verdict == summary.CONFIRMED


def test_a_yoked_run_is_paired_with_its_donor():
    seeds = design.MECHANISM.seeds
    found = _selection()
    found += [record("A_0.03", seed, float(seed)) for seed in seeds]
    donor = {seed: seeds[(i + 1) % len(seeds)] for i, seed in enumerate(seeds)}
    found += [record("Y", seed, float(donor[seed])) for seed in seeds]
    task = summary.tasks_of(found, design.MECHANISM, RANDOM)[1]
    claim = next(c for c in summary.MECHANISM_CLAIMS if c.second == design.YOKED)
    contrast = summary.contrast_of(claim, [task])
    assert (contrast.value, contrast.low, contrast.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "width", "p", "complete", "expected"),
    [
        (0.3, 0.1, 0.001, True, summary.CONFIRMED),
        (-0.3, 0.1, 0.001, True, summary.REFUTED),
        (0.0, 0.05, 0.9, True, summary.REFUTED),
        (0.1, 0.3, 0.5, True, summary.UNDECIDED),
        (0.3, 0.1, 0.001, False, summary.UNDECIDED),
    ],
)
def test_verdicts_follow_from_interval_and_p(value, width, p, complete, expected):
    ends = (value - width, value + width)
    contrast = effects.Contrast(value, *ends, *ends, p, 0.5, (20, 20))
    assert summary.verdict(contrast, p, complete) == expected


def test_the_family_is_corrected_for_all_its_contrasts_while_some_are_missing(monkeypatch):
    """Without it four named contrasts get their verdicts at their raw p before F** is there."""
    p = iter([0.02, 0.3, None, 0.04, 0.001])

    def contrast_of(claim, tasks):
        value = next(p)
        return value and effects.Contrast(0.5, 0.2, 0.8, 0.3, 0.7, value, 0.9, (50, 50))

    monkeypatch.setattr(summary, "contrast_of", contrast_of)
    found = summary.results([], summary.MINATAR_CLAIMS, family=True)
    assert [result.p for result in found] == pytest.approx([0.08, 0.6, None, 0.12, 0.005])


def test_records_are_read_as_they_were_written(tmp_path):
    kept = [record("F_0", 1), record("A_0.03", 2, part="minatar", task="MinAtar/Breakout")]
    kept.append(record("F_0.9", 3, state="failed"))
    records.write(kept, tmp_path, "made by a test")
    found = records.read(tmp_path)
    assert sorted(found, key=str) == sorted(kept, key=str)


def test_a_repeated_cell_does_not_replace_a_part_of_another_commit():
    shipped = [record("F_0", seed, commit="old") for seed in (1, 2)]
    shipped.append(record("A_0.003", 1, part="minatar", task="MinAtar/Breakout", commit="old"))
    cell = [record("F_0", 1, commit="new")]
    with pytest.raises(UserError, match="has 1 results of part mechanism, .* have 2 of"):
        records.with_parts_of(cell, shipped)
    both = [*cell, record("F_0", 2, commit="new")]
    whole, left_out = records.with_parts_of(both, shipped)
    assert left_out == 2 and sorted(whole, key=str) == sorted([*both, shipped[2]], key=str)
    same = [record("F_0", 3, commit="old"), *shipped[:2]]
    assert records.with_parts_of(same, shipped) == ([shipped[2], *same], 0)


def test_a_missing_gamma_stays_missing(tmp_path):
    nan = math.nan
    points = (Point(100, 1.0, 0.1, 20, nan, nan),)
    records.write(
        [Record("atari", "Breakout", "A", 11, "finished", 100, 100, nan, "", points)], tmp_path, ""
    )
    found = records.read(tmp_path)[0]
    assert math.isnan(found.points[0].gamma) and math.isnan(found.cpu_seconds)
