"""The runs of the study: their order, what they wait for, and the arms made from other runs."""

import contextlib
import csv
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from meta_impala.errors import UserError
from meta_impala.experiments import study_runner, study_runs
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.stages import Stage
from meta_impala.storage import eta_replay
from meta_impala.storage.metrics_table import header_line, line_of
from meta_impala.study import design
from meta_impala.study import records as records_lib
from meta_impala.system.signals import StopRequest

DATA = pathlib.Path(__file__).parents[2] / "testdata" / "study"
RANDOM = {task: 0.5 for part in (design.MECHANISM, design.MINATAR) for task in part.tasks}
GAMMAS = (0.991, 0.992, 0.98, 0.97)


@pytest.fixture
def cells(tmp_path):
    return study_runs.Cells(design.MECHANISM, tmp_path / "mechanism", RANDOM)


def finish(run, height=1.0, gamma=0.97):
    """A folder as a finished run leaves it."""
    folder = run.folder
    folder.path.mkdir(parents=True)
    folder.save_config(run.config)
    total = run.config.total_frames
    status = {"state": "finished", "frames": total}
    folder.status_path.write_text(json.dumps(status))
    steps = [total // 4 * (i + 1) for i in range(4)]
    rows = [
        {"frames": str(at), "updates": str(i + 1), "gamma": str(g), "lambda": "0.98"}
        for i, (at, g) in enumerate(zip(steps, GAMMAS, strict=True))
    ]
    folder.metrics_path.write_text(header_line() + "".join(map(line_of, rows)))
    (folder.path / "evaluations.csv").write_text(
        "frames,mean_return,standard_error,episodes,gamma,lambda,seconds\n"
        + "".join(f"{at},{height},0.1,20,{gamma},0.98,1\n" for at in steps)
    )


def _finish_selection(cells, tasks=("Noise",)):
    for run in cells.ready():
        if run.seed in (1, 2, 3) and run.game in tasks:
            finish(run, 2.0 if run.variant.name in ("F_0", "A_0.03") else 1.0)


def names(runs, game="Noise"):
    return {run.name for run in runs if run.game == game}


def test_runs_that_depend_on_the_selection_wait_for_it(cells):
    before = names(cells.ready())
    assert not any(name.startswith(("A_0.03.Noise.seed_11", "M_", "Y.")) for name in before)
    _finish_selection(cells)
    after = names(cells.ready())
    assert before < after
    assert {"A_0.03.Noise.seed_11", "F_0.Noise.seed_30", "M_0.Noise.seed_11"} <= after
    assert "A_ref_0.03.Noise.seed_11" in after
    assert not any(name.startswith(("Y.", "C.", "S.", "R.")) for name in after)


def test_a_yoked_run_waits_for_its_donor_and_replays_it(cells):
    _finish_selection(cells)
    by_name = {run.name: run for run in cells.ready()}
    finish(by_name["A_0.03.Noise.seed_11"])
    runs = {run.name: run for run in cells.ready()}
    assert "Y.Noise.seed_30" in runs and "Y.Noise.seed_11" not in runs
    yoked = runs["Y.Noise.seed_30"].config
    donor = by_name["A_0.03.Noise.seed_11"].folder.metrics_path
    assert (yoked.eta_schedule, yoked.eta_schedule_file) == ("replay", str(donor))


def _again(tmp_path, records, only=""):
    return study_runs.Cells(design.MECHANISM, tmp_path / "again", RANDOM, records, only)


def _made_elsewhere(cells, gamma=0.97):
    """The records of the selection and of the A-γλ runs on Noise, without their folders."""
    _finish_selection(cells)
    for run in cells.ready():
        if run.game == "Noise" and run.variant.name == "A_0.03" and run.seed > 10:
            finish(run, gamma=gamma)
    return cells.read()


def fail(run, rows=2):
    """The folder of a finished run as one leaves it that failed after some rows."""
    for path in (run.folder.metrics_path, run.folder.path / "evaluations.csv"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: 1 + rows]))
    run.folder.status_path.write_text(json.dumps({"state": "failed", "frames": 10}))


def _only_run(cells, name):
    return next(run for run in cells.ready() if run.name == name)


def test_a_failed_donor_is_replayed_as_far_as_it_came(cells):
    """A failed run is a result: without this its yoked run would be missing for ever."""
    _finish_selection(cells)
    donor = _only_run(cells, "A_0.03.Noise.seed_11")
    finish(donor)
    fail(donor)
    yoked = _only_run(cells, "Y.Noise.seed_30").config
    assert yoked.eta_schedule_file == str(donor.folder.metrics_path)
    assert eta_replay.pin(yoked).eta_schedule_sha256
    assert donor.name in names(study_runner.open_runs(cells.ready()))
    # As long as it is going to be trained again, its end is not known.
    assert yoked_of(cells, given_up={}) == set()
    assert yoked_of(cells, given_up={donor.name: "a reason"}) == {"Y.Noise.seed_30"}
    fail(donor, rows=0)
    assert yoked_of(cells) == set()


def yoked_of(cells, **arguments):
    return {name for name in names(cells.ready(**arguments)) if name.startswith("Y.")}


def test_a_failed_donor_that_the_data_have_finished_is_finished_first(cells, tmp_path):
    again = _again(tmp_path, _made_elsewhere(cells))
    donor = _only_run(again, "A_0.03.Noise.seed_12")
    finish(donor)
    fail(donor)
    assert donor.name in names(again.ready()) and yoked_of(again) == set()


def test_a_failed_donor_is_trained_again_before_what_replays_it(cells, monkeypatch):
    _finish_selection(cells)
    donor = _only_run(cells, "A_0.03.Noise.seed_11")
    finish(donor)
    fail(donor)
    rounds = []

    class Runner:
        def __init__(self, runs, *_, **__):
            rounds.append(names(runs))
            self.failed = {run.name: "a reason" for run in runs}

        def run(self):
            return False

    monkeypatch.setattr(study_runner, "SuiteRunner", Runner)
    monkeypatch.setattr(study_runner, "starting_here", lambda *_: contextlib.nullcontext())
    failed = study_runner.run_part(cells, 2, StopRequest())
    first, second = rounds
    assert donor.name in first and "Y.Noise.seed_30" not in first
    assert second == {"Y.Noise.seed_30"} and failed.keys() >= first | second


def test_what_is_going_to_be_trained_again_selects_nothing(cells):
    _finish_selection(cells)
    run = _only_run(cells, "F_0.9.Noise.seed_2")
    fail(run)
    assert "M_0.Noise.seed_11" in names(cells.ready())
    assert "M_0.Noise.seed_11" not in names(cells.ready(given_up=()))
    assert "M_0.Noise.seed_11" in names(cells.ready(given_up=[run.name]))


def test_a_shuffled_run_has_the_values_that_its_donor_has_when_it_begins(cells):
    _finish_selection(cells, ("Switching",))
    donor = _only_run(cells, "A_0.03.Switching.seed_12")

    def count():
        run = _only_run(cells, "S.Switching.seed_11")
        return len(pathlib.Path(run.config.eta_schedule_file).read_text().splitlines()) - 1

    finish(donor)
    fail(donor)
    assert count() == 2
    shutil.rmtree(donor.folder.path)
    finish(donor)
    assert count() == 4
    run = _only_run(cells, "S.Switching.seed_11")
    run.folder.prepare()
    run.folder.save_config(run.config)
    fail(donor)
    assert count() == 4


def test_folders_that_are_no_runs_of_the_part_are_left_out(cells):
    _finish_selection(cells)
    run = cells.ready()[0]
    if not run.folder.has_run():
        finish(run)
    before = repr(cells.read())  # costs are NaN
    path = run.folder.path
    strange = [path.with_name(f"{path.name}_old"), path.with_name("seed_01"),
               path.parents[1] / "Pong" / "seed_1", path.with_name("seed_99")]  # fmt: skip
    copies = ("{}_copy", "{}.old", "copy of {}", "_{}", "{}_")
    named = [copy.format(name) for name in ("A_0.01", "F_0", "Y", "A_ref_0.03") for copy in copies]
    # The last are variants of the suite, or of another part, that no run of this part has.
    for name in (*named, "A", "F_0.95", "A_0.0003", "A_from_0.9_0.03", "M_0.1", "M", "F*"):
        strange.append(path.parents[2] / name / path.parts[-2] / path.parts[-1])
    for other in strange:
        shutil.copytree(path, other)
    assert repr(cells.read()) == before and cells.ready()
    assert cells.strangers() == sorted(strange)


@pytest.mark.parametrize("name", design.PARTS)
def test_every_run_of_the_data_and_of_a_part_has_a_name_of_the_part(name, tmp_path):
    part = design.PARTS[name]
    cells = study_runs.Cells(part, tmp_path / name, dict.fromkeys(part.tasks, 0.5))
    made = [(run.game, run.variant.name, run.seed) for run in cells.ready()]
    kept = [r for r in records_lib.read(DATA) if r.part == name]
    for task, variant, seed in {*made, *((r.task, r.variant, r.seed) for r in kept)}:
        folder = suite_file.folder_name(task)
        path = tmp_path / name / "runs" / variant / folder / f"seed_{seed}"
        path.mkdir(parents=True)
        (path / "config.json").touch()
    assert kept and not cells.strangers()


def test_nothing_is_written_when_runs_are_only_counted(cells):
    _finish_selection(cells, ("Switching",))
    by_name = {run.name: run for run in cells.ready(writes=False)}
    finish(by_name["A_0.03.Switching.seed_12"])
    shutil.rmtree(cells.out / "derived")
    before = sorted(cells.out.rglob("*"))
    found = cells.ready(writes=False)
    assert sorted(cells.out.rglob("*")) == before
    assert [run.name for run in found] == [run.name for run in cells.ready()]
    files = {r.config.eta_schedule_file for r in found if r.variant.name in ("R", "S")}
    assert len(files) == 2 and all(pathlib.Path(file).exists() for file in files)


def test_runs_that_the_data_have_are_not_made_again(cells, tmp_path):
    again = _again(tmp_path, _made_elsewhere(cells))
    runs = {run.name: run for run in again.ready() if run.game == "Noise"}
    expected = names(cells.ready()) - {
        f"{record.variant}.Noise.seed_{record.seed}" for record in cells.read()
    }
    # Y.Noise.seed_11 replays seed 12, whose folder is gone: it comes first.
    assert runs.keys() == (expected - {name for name in expected if name.startswith("Y.")}) | {
        f"A_0.03.Noise.seed_{seed}" for seed in design.MECHANISM.seeds
    }
    finish(runs["A_0.03.Noise.seed_12"])
    after = {run.name: run for run in again.ready()}
    assert "Y.Noise.seed_11" in after and "A_0.03.Noise.seed_12" not in after
    assert after["Y.Noise.seed_11"].config.eta_schedule_file.startswith(str(tmp_path / "again"))
    assert {(r.variant, r.seed) for r in again.read()} == {
        (r.variant, r.seed) for r in cells.read()
    }


def test_a_donor_that_was_begun_again_is_finished_first(cells, tmp_path):
    records = _made_elsewhere(cells)
    again = _again(tmp_path, records)
    donor = next(run for run in again.ready() if run.name == "A_0.03.Noise.seed_12")
    finish(donor)
    donor.folder.status_path.write_text(json.dumps({"state": "stopped", "frames": 10}))
    assert donor.name in names(again.ready()) and "Y.Noise.seed_11" not in names(again.ready())
    assert again.read() == records  # the finished record, not the run that was begun again


@pytest.mark.parametrize(
    ("only", "made"),
    [
        ("F_0.99.Noise.seed_2", {"F_0.99.Noise.seed_2"}),
        ("Y.Noise.seed_30", {"A_0.03.Noise.seed_11"}),
        ("C.Noise.seed_11", {"C.Noise.seed_11"}),
        ("M_0.Noise.seed_15", {"M_0.Noise.seed_15"}),
    ],
)
def test_any_run_can_be_repeated_from_the_data_alone(cells, tmp_path, only, made):
    again = _again(tmp_path, _made_elsewhere(cells), only)
    assert {run.name for run in again.ready()} == made


@pytest.mark.parametrize("only", ["F_0", "A_0.03", "seed_1"])
def test_a_text_that_ends_with_a_number_names_that_number_alone(cells, only):
    wanted = study_runs.Cells(design.MECHANISM, cells.out, RANDOM, (), only)
    found = [run.name for run in wanted.ready()]
    assert found
    assert all(f".{only}." in f".{name}." for name in found)


def test_the_constant_of_a_repeated_run_is_that_of_the_data(cells, tmp_path):
    made = _made_elsewhere(cells, gamma=0.123456789)
    records_lib.write(made, tmp_path, "test")
    first = next(run for run in cells.ready() if run.name == "C.Noise.seed_11")
    (again,) = _again(tmp_path, records_lib.read(tmp_path), "C.Noise.seed_11").ready()
    assert again.config.gamma == first.config.gamma == 0.123457


def test_the_constant_is_the_median_of_the_other_seeds(cells):
    _finish_selection(cells)
    by_name = {run.name: run for run in cells.ready()}
    for seed in design.MECHANISM.seeds:
        finish(by_name[f"A_0.03.Noise.seed_{seed}"], gamma=0.9 + seed / 1000)
    constant = next(run for run in cells.ready() if run.name == "C.Noise.seed_11").config
    others = [0.9 + seed / 1000 for seed in design.MECHANISM.seeds if seed != 11]
    assert constant.gamma == pytest.approx(np.median(others))
    assert (constant.eta_schedule, constant.lambda_) == ("fixed", 0.98)


def test_the_constant_is_the_median_of_the_runs_that_were_evaluated(cells):
    """One that failed before its first evaluation has no last η."""
    _finish_selection(cells)
    by_name = {run.name: run for run in cells.ready()}
    for seed in design.MECHANISM.seeds:
        finish(by_name[f"A_0.03.Noise.seed_{seed}"], gamma=0.9 + seed / 1000)
    fail(by_name["A_0.03.Noise.seed_30"], rows=0)
    constant = _only_run(cells, "C.Noise.seed_11").config
    others = [0.9 + seed / 1000 for seed in design.MECHANISM.seeds if seed not in (11, 30)]
    assert constant.gamma == pytest.approx(np.median(others))
    assert "C.Noise.seed_11" not in names(cells.ready(given_up=()))
    for seed in design.MECHANISM.seeds:
        fail(by_name[f"A_0.03.Noise.seed_{seed}"], rows=0)
    assert "C.Noise.seed_11" not in names(cells.ready())


def test_the_shuffled_arm_has_the_same_values_in_another_order(cells):
    _finish_selection(cells, ("Switching",))
    by_name = {run.name: run for run in cells.ready()}
    finish(by_name["A_0.03.Switching.seed_12"])
    run = next(run for run in cells.ready() if run.name == "S.Switching.seed_11")
    with open(run.config.eta_schedule_file) as file:
        rows = list(csv.DictReader(file))
    assert sorted(float(row["gamma"]) for row in rows) == sorted(GAMMAS)
    assert [int(row["frames"]) for row in rows] == [0, 51_200, 102_400, 153_600]


def test_the_right_schedule_of_switching_changes_when_the_task_does(cells):
    run = next(run for run in cells.ready() if run.name == "R.Switching.seed_11")
    with open(run.config.eta_schedule_file) as file:
        rows = [(row["frames"], row["gamma"]) for row in csv.DictReader(file)]
    assert rows == [("0", "0"), ("102400", "0.99")]
    config = run.config
    assert config.num_actors * config.envs_per_actor * 6_400 == 102_400
    assert not any(run.game != "Switching" for run in cells.ready() if run.name.startswith("R."))


def test_every_run_is_deterministic_and_has_twenty_evaluations(cells):
    for run in cells.ready():
        config = run.config
        assert config.deterministic and config.evaluation_episodes == 20
        assert config.total_frames == 20 * config.evaluation_frames


@pytest.mark.parametrize("name", [p.name for p in design.PARTS.values()])
def test_every_part_has_runs_that_the_trainer_takes(tmp_path, name):
    part = design.PARTS[name]
    runs = study_runs.Cells(part, tmp_path, RANDOM).ready()
    expected = len(part.grid) * len(part.selection_seeds) * len(part.tasks)
    assert len(runs) >= max(expected, len(part.tasks))
    assert len({run.name for run in runs}) == len(runs)


def test_the_acceptance_test_has_every_constant_and_the_right_schedule_on_ten_seeds(tmp_path):
    runs = study_runs.Cells(design.ACCEPTANCE, tmp_path, RANDOM).ready()
    found = {(run.variant.name, run.seed) for run in runs}
    constants = {f"F_{gamma}" for gamma in ("0", "0.5", "0.9", "0.99", "0.995")}
    assert found == {(name, seed) for name in {"R", *constants} for seed in range(101, 111)}
    # All other settings are those of the study.
    study = study_runs.Cells(design.MECHANISM, tmp_path, RANDOM)
    (ours,) = [run for run in runs if run.name == "F_0.9.Switching.seed_101"]
    theirs = next(run for run in study.ready() if run.name == "F_0.9.Switching.seed_1")
    assert ours.config == dataclasses.replace(theirs.config, seed=101)


def test_selection_comes_first_and_seeds_one_by_one(cells):
    _finish_selection(cells, design.MECHANISM.tasks)
    runs = cells.ready()
    count = len(design.MECHANISM.grid) * 9
    assert all(run.seed in (1, 2, 3) for run in runs[:count])
    learned = runs[count : count + 60]
    assert all(run.variant.name == "A_0.03" for run in learned)
    seeds = [run.seed for run in runs[count + 60 :]]
    assert seeds == sorted(seeds)


def test_a_run_is_what_its_suite_makes_of_it(cells):
    runs = {run.name: run for run in cells.ready()}
    path = suite_file.find(cells.part.suite)
    suite = dataclasses.replace(suite_file.read(path), games=("Noise",), seeds=(2, 3))
    settings = {**suite.settings, "deterministic": True}
    for expected in suite_file.expand(
        dataclasses.replace(suite, settings=settings), path, cells.out
    ):
        if expected.variant.name in cells.part.grid:
            found = runs[expected.name]
            assert found.config == expected.config
            assert sorted(found.arguments) == sorted(expected.arguments)
            assert found.folder.path == expected.folder.path


def test_a_trained_run_is_finished_without_an_evaluation_of_its_own(cells):
    run = cells.ready()[0]
    assert study_runs.stage(run, {}) is Stage.NEW
    finish(run)
    assert study_runs.stage(run, {}) is Stage.DONE
    run.folder.status_path.write_text(json.dumps({"state": "stopped", "frames": 10}))
    assert study_runs.stage(run, {}) is Stage.STARTED


def test_the_costs_of_the_parts_of_a_continued_run_are_summed(tmp_path):
    path = tmp_path / "costs.csv"
    assert study_runs.read_costs(path) == {}
    for name, seconds in (("a", 1.5), ("b", 2.0), ("a", 0.25)):
        study_runs.add_cost(path, name, seconds)
    assert study_runs.read_costs(path) == {"a": 1.75, "b": 2.0}


@pytest.mark.parametrize("torn", ["b", "b,", "b,1", '"b,c"', '"b,c",', '"b'])
def test_a_cost_that_a_kill_tore_is_left_out(tmp_path, torn):
    path = tmp_path / "costs.csv"
    path.write_text(f"a,1.50\n{torn}")
    assert study_runs.read_costs(path) == {"a": 1.5}
    if torn != "b,1":  # which looks whole once another line is begun
        study_runs.add_cost(path, "c", 2.0)
        assert study_runs.read_costs(path) == {"a": 1.5, "c": 2.0}


@pytest.mark.parametrize("line", ["b,much", "b,1,2"])
def test_other_damage_of_costs_is_said(tmp_path, line):
    path = tmp_path / "costs.csv"
    path.write_text(f"a,1.50\n{line}\n")
    with pytest.raises(UserError, match=r"costs\.csv: is damaged"):
        study_runs.read_costs(path)


def test_a_run_that_is_begun_again_costs_what_the_new_attempt_costs(cells):
    (run,) = [r for r in cells.ready() if r.game == "Switching"][:1]
    path = cells.out / study_runs.COSTS
    run.folder.prepare()
    run.folder.save_config(run.config)
    study_runs.add_cost(path, run.name, 7.0)
    study_runner._begin_anew(cells.out, [run])
    assert not run.folder.path.exists()
    study_runs.add_cost(path, run.name, 5.0)
    assert study_runs.read_costs(path)[run.name] == pytest.approx(5.0)
