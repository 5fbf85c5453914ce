"""Files of somebody else: wrong values at every key and in every cell of what reports, comparisons,
the study, suites, flag files and the doctor read. A result or one line, within seconds (fault).

The default suite takes a part (6 CPU-seconds), other values in every file; `-m slow` takes all.
"""

import datetime
import json
import shutil
import time

import pytest
from absl import flags
from support import wrong_values
from support.command_helpers import ROOT
from support.demonstration import META_PONG

from meta_impala.analysis import comparison, comparison_report, results, statistics
from meta_impala.analysis.curves import read_rows
from meta_impala.analysis.run_page import page, run_record
from meta_impala.analysis.run_page.run_record import metrics_of
from meta_impala.benchmarks import scaling, time_to_score
from meta_impala.config.flags import define_config_flags, parse_flags
from meta_impala.diagnosis import verdict
from meta_impala.diagnosis.evidence import Evidence
from meta_impala.errors import RunFailed, UserError, one_line
from meta_impala.experiments import study_runs, suite
from meta_impala.published import tables
from meta_impala.storage.run_folder import RunFolder
from meta_impala.study import records, study_page
from meta_impala.training.evaluation_table import EvaluationTable

COLUMNS, MEDIANS = tables.read_columns(), tables.read_medians()
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
SECONDS = 60.0  # of a machine with much else to do
EVALUATIONS = """frames,mean_return,standard_error,episodes,gamma,lambda,seconds
100,1.0,0.5,20,0.99,0.9,3
200,2.0,0.5,20,0.99,0.9,3
"""
POPULATION = {
    "size": 2, "seed": 1, "interval": 10, "ranges": {"gamma": [0.9, 0.99]}, "best": "member_01",
    "frames": 100, "frames_of_best": 50,
}  # fmt: skip


def read_report(folder):
    page.html([run_record.read(RunFolder(folder), "a")], "title", NOW)


def read_comparison(folder):
    found = comparison.compare(results.read([RunFolder(folder)]), COLUMNS, MEDIANS, None)
    comparison_report.markdown(found, "title")
    comparison_report.terminal(found)
    comparison_report.csv_files(found)


def read_doctor(folder):
    run = RunFolder(folder)
    evidence = Evidence(
        config=run.load_config(),
        status=run.read_status(),
        metrics=metrics_of(read_rows(run)),
        time_limit=None,
    )
    found = verdict.diagnose(evidence)
    verdict.sentences(found)
    json.dumps(verdict.to_json(found))


def read_study(folder):
    study_page.as_html(study_page.document(folder))


def read_tables(folder):
    tables.read_columns(folder)
    tables.read_medians(folder)


def read_suite(folder):
    (path,) = folder.glob("*.toml")
    suite.expand(suite.read(path), path, folder / "out")


def read_flag_file(folder):
    values = flags.FlagValues()
    define_config_flags(values)
    flags.DEFINE_string("flagfile", "", "absl's.", values)
    flags.DEFINE_string("undefok", "", "absl's.", values)
    parse_flags(["train", f"--flagfile={folder / 'laptop.flags'}"], values)


def read_scores(folder):
    """As `tools/time_to_score.py table` does."""
    try:
        results = time_to_score.read_csv(folder / "score.csv")
    except (OSError, ValueError) as error:
        raise UserError(one_line(error)) from None
    assert all(line.isprintable() for line in time_to_score.lines(results))


def read_scaling(folder):
    """As `tools/scaling_plan.py plan` does."""
    windows, waiting, settings = scaling.read(folder / "scaling.json")
    model = scaling.fit(windows, waiting, settings["unroll_length"])
    cluster = scaling.Cluster(actors=1000)
    assert scaling.table(model, [cluster]) and scaling.useful_actors(model, cluster)


SEQUENCE = "\x1b]0;title\x07\x9b31m\u202e\ud800"


def test_what_a_comparison_shows_of_a_config_is_printable(tmp_path):
    _run(tmp_path)
    path = tmp_path / "data" / "config.json"
    content = json.loads(path.read_text()) | {
        "environment": f"a{SEQUENCE}", "meta_parameters": f"gamma{SEQUENCE}"}  # fmt: skip
    path.write_text(json.dumps(content))
    found = comparison.compare(results.read([RunFolder(tmp_path / "data")]), COLUMNS, MEDIANS, None)
    for text in (comparison_report.terminal(found), comparison_report.markdown(found, "title")):
        assert "a\\x1b]0;title" in text and "gamma\\x1b" in text
        assert all(line.isprintable() for line in text.splitlines())


def test_what_a_suite_says_of_itself_is_printable(tmp_path):
    _small(tmp_path)
    path = tmp_path / "data" / "catch.toml"
    escape = "\\u001b]0;x\\u0007\\n\\u202e"
    text = path.read_text()
    for line in ('title = "Catch', 'question = "Does', 'label = "IMPALA'):
        assert line in text
        text = text.replace(line, f"{line}{escape}", 1)
    path.write_text(text)
    found = suite.read(path)
    said = [found.title, found.question, *(variant.label for variant in found.variants)]
    assert sum("\\x1b]0;x\\x07 \\u202e" in text for text in said) == 3
    assert all(text.isprintable() for text in said)


def test_what_the_doctor_says_of_a_failure_is_printable_and_json(tmp_path):
    _run(tmp_path)
    run = RunFolder(tmp_path / "data")
    status = {"state": "failed", "frames": 1, "reason": f"γ{SEQUENCE}"}
    run.status_path.write_text(json.dumps(status))
    evidence = Evidence(run.load_config(), run.read_status(), metrics_of(read_rows(run)), None)
    found = verdict.to_json(verdict.diagnose(evidence))
    text = json.dumps(found, ensure_ascii=False)
    assert text.isprintable() and json.loads(text)["failure"].startswith("γ\\x1b]0;title")


def _run(tmp_path):
    shutil.copytree(META_PONG, tmp_path / "data")
    (tmp_path / "data" / "evaluations.csv").write_text(EVALUATIONS)


def _population(tmp_path):
    _run(tmp_path)
    (tmp_path / "data" / "population.json").write_text(json.dumps(POPULATION))


def _small(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "evaluations.csv").write_text(EVALUATIONS)
    (folder / "costs.csv").write_text("name,1.0\nb,2\nc,3\n")
    shutil.copy(ROOT / "testdata" / "results" / "scaling.json", folder)
    shutil.copy(ROOT / "meta_impala" / "suites" / "catch.toml", folder)
    shutil.copy(ROOT / "meta_impala" / "presets" / "laptop.flags", folder)
    points = [time_to_score.Point(1000 * i, 60.0, 30.0, 200, 0.5 * i) for i in (1, 2)]
    results = time_to_score.results_of("catch", "meta_impala", "plain", 1, points)
    (folder / "score.csv").write_text(time_to_score.as_csv(results))


def _copy(*parts):
    return lambda tmp_path: shutil.copytree(ROOT.joinpath(*parts), tmp_path / "data")


# Reader, what makes its folder, the file that is changed, how many changes are tried by default.
# None at all: a whole report or page of the study takes seconds.
CASES = [
    (read_report, _run, "evaluation.json", 0),
    (read_report, _run, "config.json", 0),
    (read_report, _run, "evaluations.csv", 0),
    (read_report, _run, "metrics.csv", 0),
    (read_comparison, _run, "evaluation.json", 10),
    (read_comparison, _run, "config.json", 10),
    (read_comparison, _population, "population.json", 10),
    (read_doctor, _run, "status.json", 50),
    (read_doctor, _run, "config.json", 50),
    (read_doctor, _run, "metrics.csv", 30),
    (read_tables, _copy("meta_impala", "published"), "sources.csv", 50),
    (read_tables, _copy("meta_impala", "published"), "impala.csv", 50),
    (read_tables, _copy("meta_impala", "published"), "medians.csv", 50),
    (read_study, _copy("testdata", "study"), "runs.csv", 0),
    (read_study, _copy("testdata", "study"), "points.csv", 0),
    (read_study, _copy("testdata", "study"), "random.csv", 0),
    (read_suite, _small, "catch.toml", 40),
    (read_flag_file, _small, "laptop.flags", 40),
    (read_scores, _small, "score.csv", 100),
    (records.read_random, _copy("testdata", "study"), "random.csv", 50),
    (read_scaling, _small, "scaling.json", 100),
    (lambda folder: study_runs.read_costs(folder / "costs.csv"), _small, "costs.csv", 100),
    (lambda folder: EvaluationTable(folder / "evaluations.csv", 150).return_at(100), _small,
     "evaluations.csv", 100),
]  # fmt: skip


def check(read, folder, what):
    started = time.monotonic()
    try:
        read(folder)
    except (UserError, RunFailed) as error:
        assert str(error).isprintable(), what
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}") from error
    assert time.monotonic() - started < SECONDS, what


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 50)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("number", "part"),
    [(number, "some") for number, case in enumerate(CASES) if case[-1]]
    + [pytest.param(number, "all", marks=pytest.mark.slow) for number in range(len(CASES))],
)
def test_wrong_values_give_a_result_or_one_line(number, part, tmp_path):
    read, make, name, count = CASES[number]
    make(tmp_path)
    folder = tmp_path / "data"
    read(folder)  # the real one is accepted
    tried = wrong_values.of_file(folder / name)
    if part == "some":  # spread over the places, other values at each
        tried = tried[number % 7 :: max(1, len(tried) // count)][:count]
    for what, text in tried:
        (folder / name).write_text(text, "utf-8")
        check(read, folder, f"{name}: {what}")
    for content in (b"\xff\xfe", b"{" * 100_000):
        (folder / name).write_bytes(content)
        check(read, folder, f"{name}: other bytes")
    (folder / name).unlink()
    (folder / name).mkdir()
    check(read, folder, f"{name}: a folder")
