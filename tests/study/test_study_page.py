"""The page of the study: re-made from the shipped data, and whole at every stage of the runs."""

import dataclasses
import pathlib
import re

import pytest

from meta_impala.errors import UserError
from meta_impala.study import answers, design, effects, records, summary
from meta_impala.study import study_page as page
from meta_impala.study.blocks import Table
from meta_impala.study.records import Point, Record

DATA = pathlib.Path(__file__).parents[2] / "testdata" / "study"


def test_the_shipped_page_is_made_from_the_shipped_data(tmp_path):
    page.make(DATA, tmp_path)
    assert (tmp_path / page.MARKDOWN).read_text() == (DATA / page.MARKDOWN).read_text()
    made = {path.name for path in (tmp_path / page.FIGURES).iterdir()}
    assert made == {path.name for path in (DATA / page.FIGURES).iterdir()}


def test_a_part_without_a_selection_has_a_table_of_its_own_in_plain_words():
    text = (DATA / "study.md").read_text("utf-8")
    further = text[text.index("## Part 4") : text.index("## What it costs")]
    assert "| η per state | `per_state` | 3 of 3 |" in further
    assert "nan" not in further and "chosen β" not in further and "from its start" not in further


def test_the_shipped_data_are_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 10e6


def test_the_page_is_self_contained(tmp_path):
    text = page.as_html(page.document(DATA))
    assert not re.search(r'(src|href)="(?!#)', text.replace('xlink:href="#', 'x="#'))
    assert "<svg" in text


def _record(part, task, variant, seed):
    height = 1.0 + 0.01 * seed + (0.2 if variant.startswith("A") else 0.0)
    points = tuple(Point(f, height, 0.1, 20, 0.99, 0.98) for f in (50, 100))
    return Record(part, task, variant, seed, "finished", 100, 100, 2.0, "abc", points)


def _all_runs():
    for part in design.PARTS.values():
        for task in part.tasks:
            for seed in part.selection_seeds:
                for name in part.grid:
                    yield _record(part.name, task, name, seed)
            # All of a grid are alike here, so the first is chosen.
            chosen = design.Selection(
                f"F_{(part.gammas or ['0'])[0]}", f"A_{(part.betas or ['0'])[0]}", 1.0
            )
            for arm in part.arms_of(task):
                name = design.variant_of(arm, chosen, chosen.fixed) if part.grid else arm
                for seed in part.seeds_of(arm):
                    yield _record(part.name, task, name, seed)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_the_page_is_complete_at_every_stage(tmp_path, monkeypatch, share):
    monkeypatch.setattr(effects, "REPETITIONS", 200)
    runs = list(dict.fromkeys(_all_runs()))
    random = "task,mean_return\n" + "".join(
        f"{task},0.1\n" for part in design.PARTS.values() for task in part.tasks if part.grid
    )
    records.write(runs[: max(1, int(share * len(runs)))], tmp_path, "made by a test")
    (tmp_path / records.RANDOM).write_text(random)
    text = page.as_markdown(page.document(tmp_path))
    assert "nan" not in text and "None" not in text
    for name in ("Part 1", "Part 2", "Part 3", "Part 4"):
        assert f"## {name}" in text
    verdicts = re.findall(r"\| (confirmed|refuted) \|", text)
    assert bool(verdicts) == (share >= 0.3)
    assert ("What is missing" in text) == (share < 1.0)


def _switching(text):
    section = text[text.index("### Switching") :]
    return section[: section.index("\n## ")]


def test_only_the_runs_of_the_acceptance_test_accept_a_task(tmp_path, monkeypatch):
    """F* and R on the confirmation seeds do not: the test has its own seeds and all constants."""
    monkeypatch.setattr(effects, "REPETITIONS", 20)
    assert "accepted" not in _switching((DATA / "study.md").read_text("utf-8"))
    runs = [run for run in dict.fromkeys(_all_runs()) if run.part == "mechanism"]
    tasks = [task for part in design.PARTS.values() if part.grid for task in part.tasks]
    random = "".join(f"{task},0.1\n" for task in tasks)
    (tmp_path / records.RANDOM).write_text(f"task,mean_return\n{random}")

    def section(found):
        records.write(found, tmp_path, "made by a test")
        return _switching(page.as_markdown(page.document(tmp_path)))

    without = section(runs)
    assert "accepted" not in without and "testdata/results" in without
    test = design.ACCEPTANCE
    of_test = [
        _record(test.name, "Switching", name, seed) for name in test.arms for seed in test.seeds
    ]
    said = "(the best of 5 constants, seeds 101 to 110): "
    assert f"{said}not accepted." in section(runs + of_test)
    better = [
        dataclasses.replace(
            run, points=tuple(p._replace(mean_return=2 * p.mean_return) for p in run.points)
        )
        if run.variant == design.RIGHT
        else run
        for run in of_test
    ]
    assert f"{said}accepted." in section(runs + better)
    assert f"{said}undecided." in section(runs + better[1:])


def test_one_whole_game_of_minatar_is_described_without_a_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "REPETITIONS", 200)
    runs = [r for r in _all_runs() if r.part == "mechanism" or r.task == "MinAtar/Breakout"]
    random = "".join(f"{t},0.1\n" for part in design.PARTS.values() for t in part.tasks)
    records.write(list(dict.fromkeys(runs)), tmp_path, "made by a test")
    (tmp_path / records.RANDOM).write_text(f"task,mean_return\n{random}")
    text = page.as_markdown(page.document(tmp_path))
    game = text[text.index("### MinAtar/Breakout") : text.index("## Part 3")]
    rows = re.findall(r"^\| (A-γλ > F\\\*): .* \| (.*) \|$", game, re.M)
    assert rows == [("A-γλ > F\\*", "–")]
    assert not re.search("confirmed|refuted", game)
    said = (
        "10 of 50 runs of A-γλ and 10 of 50 runs of F\\* are there. Single games, without verdict: "
    )
    assert said + "MinAtar/Breakout: +0." in text
    assert "| confirmed in part 1 |" in text


def test_the_page_of_runs_that_cost_nothing_and_are_no_better_than_random_actions(
    tmp_path, monkeypatch
):
    """No ratio of the page may divide by zero."""
    monkeypatch.setattr(effects, "REPETITIONS", 20)
    runs = [
        dataclasses.replace(
            run,
            points=tuple(point._replace(mean_return=0.0) for point in run.points),
            cpu_seconds=0.0,
        )
        for run in dict.fromkeys(_all_runs())
    ]
    tasks = [task for part in design.PARTS.values() for task in part.tasks]
    records.write(runs, tmp_path, "made by a test")
    random = "".join(f"{task},0\n" for task in tasks)
    (tmp_path / records.RANDOM).write_text(f"task,mean_return\n{random}")
    assert "nan" not in page.as_markdown(page.document(tmp_path))


def test_a_task_without_a_score_of_random_actions_is_named(tmp_path):
    for name in (records.RUNS, records.POINTS, records.RANDOM):
        text = (DATA / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("MinAtar/Asterix", "MinAtar/Asterisk"))
    with pytest.raises(UserError, match=r"random\.csv: has no score of MinAtar/Asterix; "):
        page.document(tmp_path)


def test_nine_questions_have_nine_answers_with_a_number_each():
    found = records.read(DATA)
    random = records.read_random(DATA)
    tasks = {name: summary.tasks_of(found, p, random) for name, p in design.PARTS.items()}
    given = answers.answers(tasks)
    assert [answer.question[0] for answer in given] == list("123456789")
    for answer in given:
        assert re.search(r"\d", answer.text) or "no task" in answer.text, answer


def test_part_3_stands_beside_published_scores_and_has_no_estimate_over_57_games():
    """Atari-5 gives A2C a third of the true median at these frames."""
    rows = {row[0]: row for block in page.document(DATA).blocks
            if isinstance(block, Table) for row in block.rows}  # fmt: skip
    assert rows["Breakout"][-2:] == ["273 (f)", "326 (f)"]
    _, *estimates, median = rows["SLM-Lab A2C, 10M agent steps"]
    assert estimates[2] == "13.6 (below the range)" and median == "41.8 (53 games)"
