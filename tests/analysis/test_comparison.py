"""From run folders to a report: ground truth on invented runs, refusals, and the command."""

import csv
import dataclasses
import io
import json
import pathlib
import re
import sys

import pytest
from support import forked_command

from meta_impala.analysis import comparison, figures, labels, results, statistics, variants
from meta_impala.analysis import comparison_report as report
from meta_impala.config.schema import FIELDS, field_type
from meta_impala.errors import UserError
from meta_impala.published import tables as published
from meta_impala.storage.run_folder import RunFolder

ROOT = pathlib.Path(__file__).parents[2]
COLUMNS = published.read_columns()
MEDIANS = published.read_medians()
FIXED = {"meta_parameters": "none", "lambda": 1.0}
METRICS = ("frames", "episode_return", "gamma", "lambda")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 500)


def make_run(path, game, seed, mean, *, evaluation=None, metrics=True, **settings):
    """A run folder with what a comparison reads; config keys that it need not know are absent."""
    path.mkdir(parents=True)
    config = {
        "environment": f"ALE/{game}-v5" if game[0].isupper() else game,
        "protocol": "impala",
        "seed": seed,
        "meta_parameters": "gamma,lambda",
        "gamma": 0.99,
        "lambda": 0.99,
        "reference_gamma": 0.995,
        "total_frames": 200_000_000,
        "num_actors": seed,
    } | settings
    (path / "config.json").write_text(json.dumps(config))
    (path / "status.json").write_text("{}")
    found = {
        "protocol": "impala",
        "frames_trained": 200_000_000,
        "episodes": 200,
        "mean": mean,
        "standard_error": 1.0,
        "eta_is_from": "checkpoint",
    } | (evaluation or {})
    if mean is not None:
        (path / "evaluation.json").write_text(json.dumps(found))
    if metrics:
        rows = [(100 * i, seed + i, 0.99 + i / 1e4, 0.9) for i in range(1, 20)]
        text = "\n".join(",".join(map(str, row)) for row in [METRICS, *rows])
        (path / "metrics.csv").write_text(text + "\n")
    return RunFolder(path)


@pytest.fixture
def runs(tmp_path):
    """Two games, two seeds, one adaptive and two fixed agents; Pong's second seed of one is
    missing."""
    folders = []
    for game, scores in {
        "Pong": {"meta": (10.0, 14.0), "0.99": (5.0, 7.0), "0.999": (-21.0, None)},
        "Breakout": {"meta": (30.0, 40.0), "0.99": (100.0, 90.0), "0.999": (20.0, 25.0)},
    }.items():
        for variant, means in scores.items():
            settings = {} if variant == "meta" else FIXED | {"gamma": float(variant)}
            for seed, mean in enumerate(means, start=1):
                path = tmp_path / "runs" / variant / game / str(seed)
                folders.append(make_run(path, game, seed, mean, **settings))
    return folders


META, LOW, HIGH = "meta {γ, λ}, γ' 0.995", "IMPALA, γ 0.99", "IMPALA, γ 0.999"


def test_variants_ignore_game_seed_and_settings_that_do_not_matter(runs):
    found = results.read(runs)
    assert found.variants == [META, LOW, HIGH]
    assert found.names == ["Breakout", "Pong"]
    assert [r.seed for r in found.of(META, "Pong")] == [1, 2]
    assert len(found.missing) == 1 and "not evaluated" in found.missing[0]


def test_settings_that_differ_tell_variants_apart(tmp_path):
    folders = [
        make_run(tmp_path / "a", "Pong", 1, 1.0, entropy_cost=0.01),
        make_run(tmp_path / "b", "Pong", 1, 1.0, entropy_cost=0.02),
        make_run(tmp_path / "c", "Pong", 2, 1.0, entropy_cost=0.01),
        make_run(tmp_path / "d", "Pong", 1, 1.0, **FIXED),
    ]
    assert variants.labels([results.read_config(f) for f in folders]) == [
        f"{META}, entropy_cost=0.01",
        f"{META}, entropy_cost=0.02",
        f"{META}, entropy_cost=0.01",
        LOW,
    ]


def test_a_config_with_another_kind_of_value_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", "Pong", 1, 1.0)
    config = json.loads(folder.config_path.read_text())
    for name, field in FIELDS.items():
        kind, _ = field_type(field)
        wrong = [[], {}, True if kind is not bool else 1, 5 if kind is str else "5"]
        for value in wrong + ([0.5] if kind is int else []):
            folder.config_path.write_text(json.dumps(config | {name: value}))
            with pytest.raises(UserError, match=f"config.json: .*{name}"):
                results.read_config(folder)
    folder.config_path.write_text(json.dumps(config | {"batch_size": 10**400}))
    with pytest.raises(UserError, match="config.json: .*a number of 401 digits"):
        results.read_config(folder)
    # One that is null counts as absent, and a whole number as a float.
    absent = dict.fromkeys(set(FIELDS) - set(config))
    others = {"learning_rate": 1, "batch_size": 32, "auxiliary_heads": 10**9}
    folders = [
        make_run(tmp_path / "a", "Pong", 1, 1.0, **absent | others),
        make_run(tmp_path / "b", "Pong", 2, 1.0, **others | {"learning_rate": 1.0}),
    ]
    found = results.read(folders)
    assert found.variants == [META]
    figures.draw_meta_parameters(found, tmp_path / "eta.png")


def test_variants_that_differ_in_kind_alone_are_told_apart():
    """A setting of another version, whose kind is not known."""
    config = {"meta_parameters": "none", "gamma": 0.9, "lambda": 1.0}
    values = [32, "32", {"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert variants.labels([config | {"older": value} for value in values]) == [
        f"IMPALA, γ 0.9, older={text}"
        for text in ("32", '"32"', '{"a": 1, "b": 2}', '{"a": 1, "b": 2}')
    ]


def test_numbers_of_one_game_by_hand(runs):
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    row = next(r for r in compared.games if (r.variant, r.name) == (META, "Pong"))
    assert (row.mean, row.seeds, row.random, row.human) == (12.0, [1, 2], -20.7, 14.6)
    assert row.human_normalised == pytest.approx((12.0 + 20.7) / 35.3)
    difference = next(
        d
        for d in compared.differences
        if (d.variant, d.game, d.column.name) == (META, "Pong", "impala_deep_noop_200m")
    )
    assert difference.published == 20.98
    assert difference.difference == pytest.approx(12.0 - 20.98)
    assert difference.human_normalised_difference == pytest.approx((12.0 - 20.98) / 35.3)
    assert difference.marks == "", "same starts, same frames, same evaluation"
    marked = {d.column.name: d.marks for d in compared.differences}
    assert marked["apex_noop"] == "fe"
    assert marked["a3c_lstm_human_start"] == "sfe", "its source says neither frames nor evaluation"
    assert marked["rainbow_noop"] == "e"
    assert marked["cleanba_impala_1A100_10cpu_mean"] == "se"
    assert marked["rllib_impala_40m_frames"] == "sfe", "its source does not say how games begin"
    # (12 − 6) / (14.6 + 20.7) and (35 − 95) / (95 − 1.7): the baseline is above human there.
    assert [(i.game, i.value) for i in compared.improvements if i.variant == META] == [
        ("Breakout", pytest.approx(-60 / 93.3)),
        ("Pong", pytest.approx(6 / 35.3)),
    ]


def test_a_published_baseline_is_marked_where_its_conditions_differ(runs, tmp_path):
    short = make_run(tmp_path / "short", "Qbert", 1, 9.0, evaluation={"frames_trained": 10_000_000})
    for folders, marks in ((runs, ""), ([*runs, short], "f"), ([short], "f")):
        compared = comparison.compare(results.read(folders), COLUMNS, MEDIANS)
        assert compared.baseline_marks == marks
        shown = f"IMPALA deep experts ({marks})" if marks else "IMPALA deep experts"
        assert compared.marked_baseline == shown
        assert f"Improvement relative to {shown}\n" in report.markdown(compared, "Title")
        deep = [row for row in compared.aggregates if row.column == "impala_deep_noop_200m"]
        assert {row.marks for row in deep} == {marks}
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    assert compared.marked_baseline == LOW


def test_seeds_left_out_of_the_aggregates_are_named(runs):
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    text = "\n".join(compared.missing)
    assert f"{HIGH}: aggregates over games use 1 seeds of each game" in text
    assert f"{META}: what is said over games" not in text


def test_a_game_that_no_aggregate_has_leaves_no_seeds_out(runs, tmp_path):
    only_one = make_run(
        tmp_path / "runs/0.99/Assault/1", "Assault", 1, 500.0, **FIXED | {"gamma": 0.99}
    )
    compared = comparison.compare(results.read([*runs, only_one]), COLUMNS, MEDIANS, LOW)
    assert f"{LOW}: aggregates over games use" not in "\n".join(compared.missing)


def test_aggregates_beside_published_agents_on_the_same_games(runs):
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, "impala_deep_noop_200m")
    ours = {row.agent: row for row in compared.aggregates if row.what == "ours"}
    assert (ours[HIGH].games, ours[HIGH].seeds) == (2, "1 to 2")
    theirs = {row.column: row for row in compared.aggregates if row.what.endswith("same games")}
    deep = theirs["impala_deep_noop_200m"]
    expected = ((20.98 + 20.7) / 35.3 + (787.34 - 1.7) / 28.8) / 2
    assert deep.games == 2 and deep.aggregates["mean"].value == pytest.approx(expected)
    everywhere = {row.column: row for row in compared.aggregates if row.what.endswith("all games")}
    assert everywhere["impala_deep_noop_200m"].games == 57
    median = everywhere["impala_deep_noop_200m"].aggregates["median"].value
    assert round(100 * median, 1) == 191.8


def test_the_adaptive_agent_is_compared_with_the_best_fixed_gamma(runs):
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    (against,) = compared.against_fixed
    assert against.adaptive == META
    assert [(row.game, row.best_fixed) for row in against.games] == [
        ("Breakout", LOW),
        ("Pong", LOW),
    ]
    assert "better in 1 of 2 games" in report.against_fixed_text(against)


def test_a_population_is_not_counted_as_a_fixed_gamma(runs):
    population = {"size": 2, "frames": 200_000_000, "ranges": {"gamma": [0.9, 0.999]},
                  "interval": 1000}  # fmt: skip
    best = next(run for run in runs if "/0.99/Pong/1" in str(run.path))
    alone = [run for run in runs if "/meta/" in str(run.path)]
    best.population_path.write_text(json.dumps(population))
    compared = comparison.compare(results.read([*alone, best]), COLUMNS, MEDIANS)
    assert "population of 2" in compared.results.variants
    assert compared.against_fixed == []


def test_an_agent_that_is_fed_a_fixed_eta_is_a_fixed_one(tmp_path):
    schedules = {"learned": 10.0, "fixed": 5.0, "random": 20.0, "mixture": 20.0, "linear": 20.0}
    folders = [
        make_run(tmp_path / schedule, "Pong", 1, mean, eta_schedule=schedule)
        for schedule, mean in schedules.items()
    ]
    compared = comparison.compare(results.read(folders), COLUMNS, MEDIANS)
    (against,) = compared.against_fixed
    assert against.adaptive == META
    assert [row.best_fixed for row in against.games] == ["fixed {γ, λ}, nothing learned"]
    assert against.overall_fixed == "fixed {γ, λ}, nothing learned"


@pytest.mark.parametrize(
    ("game", "limit", "caveats"),
    [
        ("Pong", 2000, ("games cut after 2,000 frames (published: 108,000)",)),
        ("Pong", 108_000, ()),
        ("Pong", None, ()),
        ("cartpole-v1", 100, ()),
    ],
)
def test_games_that_were_cut_early_are_a_caveat(tmp_path, game, limit, caveats):
    folder = make_run(tmp_path / "run", game, 1, 1.0, evaluation={"max_episode_frames": limit})
    (result,) = results.read([folder]).found
    assert result.caveats == caveats


def test_agents_without_a_common_game_are_named_and_not_compared(tmp_path):
    folders = [
        make_run(tmp_path / "a", "Pong", 1, 1.0),
        make_run(tmp_path / "b", "Qbert", 1, 1.0, **FIXED),
    ]
    compared = comparison.compare(results.read(folders), COLUMNS, MEDIANS)
    assert compared.against_fixed == []
    assert f"{META}: no game has results of it and of every fixed agent" in "\n".join(
        compared.missing
    )


def test_the_report_names_missing_games_seeds_and_evaluations(runs, tmp_path):
    few = make_run(
        tmp_path / "few", "Qbert", 1, 9.0, evaluation={"episodes": 20, "frames_trained": 10_000_000}
    )
    compared = comparison.compare(results.read([*runs, few]), COLUMNS, MEDIANS, LOW)
    text = "\n".join(compared.missing)
    assert f"{META}: 3 of 57 games; seeds per game: 1 to 2" in text
    assert "frames trained: 10,000,000 to 200,000,000" in text
    assert f"{META}: 20 games evaluated (published: 200)" in text
    assert f"{HIGH}: no run of Qbert" in text
    assert "not evaluated" in text
    whole = report.markdown(compared, "Title", ["curves.png"])
    assert "3 of 57 games: the aggregates below are not comparable" in whole
    assert "![curves](curves.png)" in whole
    assert "287.6 %" in whole, "the published medians stand beside ours"
    for variant in (META, LOW, HIGH):
        assert variant in report.terminal(compared)


def test_a_table_too_long_to_read_is_left_to_the_csv_file(runs, monkeypatch):
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    count = len(compared.differences)
    assert "| A3C, LSTM" in report.markdown(compared, "Title")
    monkeypatch.setattr(report, "_MOST_ROWS", count - 1)
    assert f"{count} rows: see published.csv" in report.markdown(compared, "Title")


def test_the_csv_files_have_the_numbers_of_the_report(runs):
    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    tables = {
        name: list(csv.DictReader(io.StringIO(text)))
        for name, text in report.csv_files(compared).items()
    }
    row = next(r for r in tables["games.csv"] if (r["variant"], r["game"]) == (META, "Pong"))
    assert (float(row["mean"]), row["seeds"], row["interval_over"]) == (12.0, "2", "seeds")
    shown = {r["column"] for r in tables["published.csv"]}
    assert shown == {n for n, c in COLUMNS.items() if {"Pong", "Breakout"} & set(c.by_game)}
    assert {r["aggregate"] for r in tables["aggregates.csv"]} == set(statistics.AGGREGATES)
    assert {r["baseline"] for r in tables["improvements.csv"]} == {LOW}
    assert {r["marks"] for r in tables["improvements.csv"]} == {""}
    against = {r["game"]: r for r in tables["against_fixed.csv"]}
    # Of Pong LOW is the best (6 against -21), and so of Breakout (95 against 22.5).
    assert {r["best_fixed"] for r in against.values()} == {LOW}
    assert float(against["Pong"]["adaptive"]) == pytest.approx((12.0 + 20.7) / 35.3)
    assert float(against["Pong"]["overall_fixed_score"]) == pytest.approx((6.0 + 20.7) / 35.3)
    assert {(r["agent"], r["median_pct"]) for r in tables["medians.csv"]} >= {
        ("IMPALA deep experts", "191.8")
    }


def test_populations_are_distinguished_by_their_own_seeds(tmp_path):
    # The best member of both was that of seed 3, and an early version did not say the population's.
    shared = {"size": 2, "frames": 8_000, "interval": 1, "ranges": {}}
    folders = []
    for seed in (1, 2, None):
        folder = make_run(tmp_path / str(seed), "Pong", 3, 1.0, **FIXED)
        about = shared if seed is None else shared | {"seed": seed}
        folder.population_path.write_text(json.dumps(about))
        folders.append(folder)
    found = results.read(folders)
    assert [r.seed for r in found.found] == [1, 2, 3]
    assert found.variants == ["population of 2"]


def test_a_label_names_the_fixed_discount(tmp_path):
    settings = {"meta_parameters": "lambda", "gamma": 0.99}
    run = make_run(tmp_path / "run", "Pong", 1, 1.0, **settings)
    assert results.read([run]).variants == ["meta {λ}, γ' 0.995, γ 0.99"]


MARK = re.compile(r" \(([sfe]+)\)")
EXPLAINED = re.compile(r"(?:^|; )\(([sfe])\) [a-z]", re.MULTILINE)


@pytest.mark.parametrize("frames", [200_000_000, 10_000_000])
@pytest.mark.parametrize("write", [report.terminal, lambda found: report.markdown(found, "Title")])
def test_each_mark_is_explained_once_and_no_other(runs, tmp_path, frames, write):
    run = make_run(tmp_path / "run", "Pong", 1, 1.0, evaluation={"frames_trained": frames})
    compared = comparison.compare(results.read([run]), COLUMNS, MEDIANS, "impala_deep_noop_200m")
    few = ("impala_deep_noop_200m", "rainbow_noop")
    some = [d for d in compared.differences if d.column.name in few]
    for differences in (compared.differences, some):
        text = write(dataclasses.replace(compared, differences=differences, aggregates=[]))
        letters = {letter for mark in MARK.findall(text) for letter in mark}
        assert sorted(EXPLAINED.findall(text)) == sorted(letters)
        assert ("f" in letters) == (frames < 200_000_000 or differences is not some)
        assert text.count("* one seed") == ("] * |" in text)


def test_different_numbers_of_frames_are_named_and_marked(runs, tmp_path):
    def trained(name, game, seed, frames, **settings):
        path = tmp_path / "more" / name
        return make_run(path, game, seed, 9.0, evaluation={"frames_trained": frames}, **settings)

    compared = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    assert compared.baseline_marks == ""
    assert "different numbers of frames" not in "\n".join(compared.missing)
    third = trained("seed", "Pong", 3, 10_000_000)
    compared = comparison.compare(results.read([*runs, third]), COLUMNS, MEDIANS, LOW)
    text = "\n".join(compared.missing)
    assert f"{META}: the seeds of Pong were trained for different numbers of frames" in text
    assert "in Pong, variants were trained for different" in text
    assert compared.baseline_marks == "f"
    assert f"Improvement relative to {LOW} (f)\n" in report.markdown(compared, "Title")
    near = trained("near", "Pong", 3, 199_990_000)
    compared = comparison.compare(results.read([*runs, near]), COLUMNS, MEDIANS, LOW)
    assert compared.baseline_marks == "", "a batch more or less is no difference"


def test_aggregates_beside_each_other_are_over_the_same_games(runs, tmp_path):
    more = make_run(tmp_path / "more", "Qbert", 1, 9000.0)
    compared = comparison.compare(results.read([*runs, more]), COLUMNS, MEDIANS, LOW)
    beside = [r for r in compared.aggregates if r.what != "published, all games"]
    assert {row.games for row in beside if row.what == "ours"} == {2}
    assert {row.games for row in beside if row.column == "impala_deep_noop_200m"} == {2}
    alone = comparison.compare(results.read(runs), COLUMNS, MEDIANS, LOW)
    assert [r for r in compared.aggregates if r.what == "ours"] == [
        r for r in alone.aggregates if r.what == "ours"
    ]
    assert "use the 2 games that every variant has, without Qbert" in "\n".join(compared.missing)
    assert "that every variant has" not in "\n".join(alone.missing)


def test_a_setting_missing_from_an_old_run_has_its_default(tmp_path):
    old = make_run(tmp_path / "old", "Pong", 1, 1.0)
    new = make_run(tmp_path / "new", "Pong", 2, 1.0, precision="float32", ray_address="")
    none = make_run(tmp_path / "none", "Pong", 3, 1.0, trace_decay=None)
    assert results.read([old, new, none]).variants == [META]
    other = make_run(tmp_path / "other", "Pong", 4, 1.0, precision="bfloat16")
    assert results.read([old, other]).variants == [
        f"{META}, precision=float32",
        f"{META}, precision=bfloat16",
    ]


@pytest.mark.parametrize(
    ("settings", "matters"),
    [({"eta_embedding_size": 16}, True), ({"eta_embedding_size": 0}, False),
     ({"eta_embedding_size": 16, "core": "lstm"}, False)],
)  # fmt: skip
def test_the_place_of_e_eta_makes_variants_only_where_eta_is_embedded(tmp_path, settings, matters):
    old = make_run(tmp_path / "old", "Pong", 1, 1.0, **settings)
    new = make_run(tmp_path / "new", "Pong", 2, 1.0, eta_embedding_place="last_hidden", **settings)
    places = [f"{META}, eta_embedding_place={place}" for place in ("heads", "last_hidden")]
    assert results.read([old, new]).variants == (places if matters else [META])


def test_games_outside_the_57_are_not_counted_among_them(tmp_path):
    run = make_run(tmp_path / "run", "Tetris", 1, 1.0)
    compared = comparison.compare(results.read([run]), COLUMNS, MEDIANS)
    assert f"{META}: 0 of 57 games" in "\n".join(compared.missing)


def test_one_seed_is_starred_and_without_rliable_one_line_says_what_is_missing(runs, monkeypatch):
    pytest.importorskip("rliable")
    found = results.read(runs[:1])
    text = report.terminal(comparison.compare(found, COLUMNS, MEDIANS, "impala_deep_noop_200m"))
    assert "[8.04, 11.96] *" in text and "* one seed" in text
    monkeypatch.setattr(statistics, "rliable_is_installed", lambda: False)
    text = report.terminal(comparison.compare(found, COLUMNS, MEDIANS, "impala_deep_noop_200m"))
    assert text.count(statistics.INSTALL) == 1
    assert "8.04" not in text


def test_runs_outside_atari_are_shown_without_normalised_scores(tmp_path):
    folder = make_run(tmp_path / "catch", "meta_impala/Catch-v0", 1, 0.5)
    compared = comparison.compare(results.read([folder]), COLUMNS, MEDIANS, "impala_deep_noop_200m")
    assert compared.games[0].human_normalised is None
    assert compared.aggregates == [] and compared.differences == []
    assert "meta_impala/Catch-v0" in report.terminal(compared)


def test_different_protocols_are_refused(tmp_path):
    sticky = make_run(tmp_path / "m", "Pong", 2, 1.0, evaluation={"protocol": "machado"})
    noop = make_run(tmp_path / "n", "Pong", 1, 1.0)
    with pytest.raises(UserError, match="different protocols") as error:
        results.read([noop, sticky])
    assert "sticky actions" in str(error.value) and "no-op" in str(error.value)
    compared = comparison.compare(results.read([sticky]), COLUMNS, MEDIANS)
    assert compared.baseline == "Cleanba IMPALA, 1 A100, 10 CPUs"
    with pytest.raises(UserError, match="--baseline=impala_deep_noop_200m: .*sticky actions"):
        comparison.compare(results.read([sticky]), COLUMNS, MEDIANS, "impala_deep_noop_200m")


def test_human_starts_of_different_protocols_or_files_are_refused(tmp_path):
    def human(name, seed, **evaluation):
        folder = make_run(
            tmp_path / name, "Pong", seed, 1.0, evaluation={"starts": "human", **evaluation}
        )
        folder.evaluation_path.rename(folder.path / "evaluation_human_starts.json")
        return folder

    plain = human("plain", 1, starts_sha256="aa", rom={"file": "pong.bin", "sha256": "11"})
    same = human("same", 2, starts_sha256="aa", rom={"file": "pong.bin", "sha256": "11"})
    early = human("early", 3)
    assert len(results.read([plain, same, early], starts="human").found) == 3
    sticky = human("sticky", 4, protocol="machado")
    with pytest.raises(UserError, match="different protocols.*impala.*machado"):
        results.read([plain, sticky], starts="human")
    elsewhere = human("elsewhere", 5, starts_sha256="bb")
    with pytest.raises(UserError, match="with another file of starts than .*plain"):
        results.read([plain, early, elsewhere], starts="human")
    other = human("other", 6, rom={"file": "pong.bin", "sha256": "22"})
    with pytest.raises(UserError, match="with another ROM than .*plain"):
        results.read([plain, other], starts="human")


def test_human_starts_have_files_constants_and_published_scores_of_their_own(tmp_path):
    folder = make_run(tmp_path / "run", "Pong", 1, 1.0, evaluation={"starts": "human"})
    folder.evaluation_path.rename(folder.path / "evaluation_human_starts.json")
    assert "not evaluated" in results.read([folder]).missing[0]
    (result,) = results.read([folder], starts="human").found
    assert result.starts == "human starts"
    assert result.human_normalised == pytest.approx(19.0 / 33.5)
    compared = comparison.compare(results.read([folder], starts="human"), COLUMNS, MEDIANS)
    assert compared.baseline == "Rainbow"
    assert "never released" in "\n".join(compared.missing)
    assert all("s" in d.marks for d in compared.differences), "ours are starts of our own"
    assert "s" in compared.baseline_marks
    text = report.terminal(compared)
    assert "292.9 %" in text and "287.6 %" not in text, "the medians of the same starts"


def test_the_same_seed_twice_and_damaged_folders_are_refused(tmp_path):
    first = make_run(tmp_path / "a", "Pong", 1, 1.0)
    twin = make_run(tmp_path / "b", "Pong", 1, 1.0)
    with pytest.raises(UserError, match="seed 1 of Pong.*give only one"):
        results.read([first, twin])
    with pytest.raises(UserError, match="no config.json"):
        results.read([RunFolder(tmp_path)])
    first.evaluation_path.write_text("{")
    twin.evaluation_path.write_text("{}")
    found = results.read([first, twin])
    assert found.found == [] and len(found.missing) == 2
    with pytest.raises(UserError, match="none of the runs was evaluated"):
        comparison.compare(found, COLUMNS, MEDIANS, "impala_deep_noop_200m")
    config = json.loads(twin.config_path.read_text())
    twin.config_path.write_text(json.dumps(config | {"environment": 7}))
    with pytest.raises(UserError, match="environment=7: must be a name"):
        results.read([twin])
    for name, value in (("seed", None), ("gamma", None), ("lambda", "1"), ("seed", True)):
        twin.config_path.write_text(json.dumps(config | {name: value}))
        with pytest.raises(UserError, match=f"{name}={value}: must be a number"):
            results.read([twin])
    twin.config_path.write_text(json.dumps(config))
    twin.population_path.write_text("{}")
    with pytest.raises(UserError, match="population.json: must have frames"):
        results.read([twin])
    first.config_path.write_text('{"environment": "Pong"}')
    with pytest.raises(UserError, match="missing keys: protocol"):
        results.read([first])


@pytest.mark.parametrize(
    "damage", [{"frames_trained": None}, {"episodes": "x"}, {"rom": "x"}, {"mean": []}]
)
def test_a_damaged_evaluation_is_listed_as_missing_in_one_line(tmp_path, damage):
    run = make_run(tmp_path / "run", "Pong", 1, 1.0, evaluation=damage)
    found = results.read([run])
    assert found.found == [] and "is damaged" in found.missing[0]


# The command.


def _tool(*arguments):
    return forked_command.run(
        [sys.executable, "tools/compare_published.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_command_writes_report_tables_and_pictures(runs, tmp_path):
    out = tmp_path / "report"
    done = _tool(f"--out={out}", f"--baseline={LOW}", *(str(run.path) for run in runs))
    assert done.returncode == 0, done.stderr
    assert META in done.stdout and f"written to {out}" in done.stdout
    names = {path.name for path in out.iterdir()}
    pictures = {"improvement.png", "curves.png", "meta_parameters.png"}
    tables = {f"{name}.csv" for name in ("games", "published", "aggregates", "improvements")}
    tables |= {"against_fixed.csv", "medians.csv"}
    assert names == {"report.md"} | pictures | tables
    for picture in pictures:
        assert (out / picture).read_bytes()[:4] == b"\x89PNG"
        assert f"]({picture})" in (out / "report.md").read_text()


def test_a_folder_keeps_no_pictures_of_an_earlier_comparison(runs, tmp_path, monkeypatch):
    out, found = tmp_path / "report", results.read(runs)
    report.make(found, out, LOW, "Title")
    assert {path.name for path in out.glob("*.png")} == figures.PICTURES
    compared = comparison.compare(found, COLUMNS, MEDIANS, LOW)
    without = dataclasses.replace(compared, improvements=[])
    with monkeypatch.context() as patched:
        patched.setattr(report.comparison_lib, "compare", lambda *_: without)
        report.make(found, out, LOW, "Title")
    assert {path.name for path in out.glob("*.png")} == figures.PICTURES - {"improvement.png"}
    report.make(found, out, LOW, "Title", pictures=False)
    assert not list(out.glob("*.png"))


def test_a_game_without_metrics_has_no_panel(runs, tmp_path, monkeypatch):
    found = results.read(runs)
    gone = found.names[0]
    for result in found.found:
        if result.name == gone:
            result.folder.metrics_path.unlink()
    drawn = []
    for name in ("draw_learning_curves", "draw_meta_parameters"):
        monkeypatch.setattr(figures, name, lambda results, _: drawn.append(results.names))
    figures.draw_all(comparison.compare(found, COLUMNS, MEDIANS, LOW), tmp_path)
    assert drawn == [[name for name in found.names if name != gone]] * 2 != [[], []]


def test_mistakes_of_the_command_are_refused_in_one_line(runs, tmp_path):
    for arguments, message in [
        ([], "give at least one run folder"),
        ([str(tmp_path / "runs/none")], "with a config.json"),
        ([f"--out={tmp_path}", "--baseline=nobody", str(runs[0].path)], "--baseline=nobody"),
    ]:
        done = _tool(*arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert message in done.stderr


@pytest.mark.parametrize("frames", [200_000_000, 10_000_000])
def test_the_median_over_57_games_is_estimated_at_200m_frames_only(tmp_path, frames):
    means = {"BattleZone": 37187.5, "NameThisGame": 8049.0, "Phoenix": 7242.6}  # human
    folders = [
        make_run(tmp_path / game, game, 1, mean, evaluation={"frames_trained": frames})
        for game, mean in means.items()
    ]
    compared = comparison.compare(results.read(folders), COLUMNS, MEDIANS)
    refusals = [line for line in compared.missing if "Atari-N" in line]
    text = report.terminal(compared)
    if frames == 200_000_000:
        assert [estimate.subset for estimate in compared.atari_n] == ["atari1", "atari3"]
        expected = 101.0 ** (0.37056 + 0.51327 + 0.10152) - 1
        assert compared.atari_n[1].median_percent == pytest.approx(expected, rel=1e-3)
        assert refusals == [] and f"{expected:,.1f} %" in text
        assert "atari_n.csv" in report.csv_files(compared)
    else:
        assert compared.atari_n == [] and "estimated" not in text
        assert len(refusals) == 1 and "these runs have 10,000,000" in refusals[0]


def test_comparators_at_another_number_of_frames_are_marked(tmp_path):
    for frames, marks in ((10_000_000, "fe"), (40_000_000, "e")):
        run = make_run(
            tmp_path / str(frames), "Breakout", 1, 20.0, protocol="machado",
            evaluation={"protocol": "machado", "frames_trained": frames},
        )  # fmt: skip
        compared = comparison.compare(results.read([run]), COLUMNS, MEDIANS)
        found = {d.column.name: d.marks for d in compared.differences}
        assert found["slmlab_ppo_10m_steps"] == found["slmlab_a2c_10m_steps"] == marks


def test_figures_show_labels_as_text_whatever_is_in_them(tmp_path):
    names = ["$x$", "a$b", "_hidden", "\x1b[31mred", "n" * 300, "\udcff", "new\nline", "{γ, λ}"]
    folders = [make_run(tmp_path / str(i), "Pong", i, 10.0) for i in range(len(names))]
    (tmp_path / "0/metrics.csv").write_text("frames,episode_return,gamma,lambda\n1,nan,,\n")
    (tmp_path / "1/metrics.csv").write_text("")
    found = results.read(folders, labels=names)
    compared = comparison.compare(found, COLUMNS, MEDIANS)
    assert len(figures.draw_all(compared, tmp_path)) == 3
    assert all(
        (tmp_path / name).stat().st_size > 1000 for name in figures.draw_all(compared, tmp_path)
    )
    assert labels.figure_text("$x$") == r"\$x\$"
    assert labels.figure_text("_a") == " _a"
    assert len(labels.figure_text("n" * 300)) <= 60
    assert labels.printable("\udcff\n\x1b") == r"?\n\x1b"
