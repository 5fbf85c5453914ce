"""The published tables: their medians recomputed, their sources, the columns others rely on
(ground truth)."""

import csv
import pathlib
import shutil

import pytest

from meta_impala.environments import ATARI_57
from meta_impala.errors import UserError
from meta_impala.published import tables as published

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "meta_impala/published"
TABLES = ("human_random.csv", *published.SCORE_TABLES, "medians.csv", "atari_n.csv")


@pytest.fixture(scope="module")
def columns():
    return published.read_columns(FOLDER)


@pytest.mark.parametrize(
    ("column", "median"),
    [
        ("impala_deep_noop_200m", 191.8),
        ("impala_shallow_noop_200m", 93.2),
        ("impala_deep_multitask_noop_200m", 59.7),
    ],
)
def test_impalas_medians_follow_from_its_scores(columns, column, median):
    assert len(columns[column].by_game) == 57
    assert round(published.median_percent(columns[column]), 1) == median
    texts = [row.median_text for row in published.read_medians(FOLDER)]
    assert str(median) in texts, "and that is what was published"


@pytest.mark.parametrize(
    ("column", "agent", "digits"),
    [
        ("impala_deep_noop_200m", "IMPALA deep experts", 2),
        ("impala_shallow_noop_200m", "IMPALA shallow experts", 2),
        ("impala_deep_multitask_noop_200m", "IMPALA deep multi-task", 2),
        ("stacx_noop_200m", "STACX", 1),
        ("disco57_noop_200m", "Disco57", 1),
        ("reactor_noop", "Reactor experts", 2),
        ("rainbow_noop", "Rainbow", 1),
        ("apex_noop", "Ape-X (22.8B frames; best in training)", 2),
        ("apex_human_start", "Ape-X", 1),
        (
            "cleanba_impala_1A100_10cpu_mean",
            "Cleanba IMPALA 1 A100 10 CPU (sticky)",
            1,
        ),
        (
            "monobeast_torchbeast_1A100_10cpu_mean",
            "Monobeast (torchbeast) 1 A100 10 CPU (sticky)",
            1,
        ),
    ],
)
def test_the_recomputed_medians_of_the_table(columns, column, agent, digits):
    rows = published.read_table(FOLDER / "medians.csv")
    texts = [row["recomputed_median_pct"] for row in rows if row["agent"] == agent]
    expected = float(texts[0].split(" ")[0])
    assert round(published.median_percent(columns[column]), digits) == expected


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_exactly_one_source(table):
    rows = published.read_table(FOLDER / table)
    assert all(None not in row and None not in row.values() for row in rows)
    sources = [row for row in published.read_table(FOLDER / "sources.csv") if row["file"] == table]
    assert [row["column"] for row in sources] == list(rows[0])
    assert all(row["meaning"] and row["source"] for row in sources)


def test_the_games_are_the_57_under_ale_pys_names():
    for table in ("human_random.csv", *published.SCORE_TABLES):
        games = [row["game"] for row in published.read_table(FOLDER / table)]
        assert sorted(games) == sorted(ATARI_57), table


def test_columns_are_read_with_what_is_known_of_them(columns):
    deep = columns["impala_deep_noop_200m"]
    assert deep.by_game["Pong"] == 20.98
    assert (deep.starts, deep.frames) == ("no-op", 200_000_000)
    assert deep.evaluation == "final policy, 200 games"
    assert "Jamesbond" not in columns["rainbow_noop"].by_game, "an empty cell is no score"
    assert columns["rainbow_noop"].by_game["Tennis"] == 0.0, "but -0.0 is one"
    assert columns["apex_human_start"].starts == "human starts"
    assert columns["rllib_impala_40m_frames"].starts == ""
    assert not any(name.endswith("_std") for name in columns)
    ppo = columns["slmlab_ppo_10m_steps"]
    assert (ppo.starts, ppo.frames, ppo.evaluation) == (
        "sticky actions", 40_000_000, "training return",
    )  # fmt: skip
    assert len(ppo.by_game) == 53


def test_human_starts_are_normalised_by_their_own_constants(columns):
    column = columns["apex_human_start"]
    # Published: 18.7; random -18.0, human 15.5.
    assert column.human_normalised(["Pong"])["Pong"] == pytest.approx((18.7 + 18.0) / 33.5)
    # The random player is above the human there.
    pinball = column.human_normalised(["VideoPinball"])["VideoPinball"]
    assert pinball == pytest.approx((873988.5 - 20452.0) / (20452.0 - 15641.1))
    assert column.human_normalised(["Tetris"]) == {}
    assert published.median_percent(column, ["Tetris"]) is None


def test_a_column_without_a_source_and_a_folder_without_tables(tmp_path):
    with pytest.raises(UserError, match="must be a published table"):
        published.read_columns(tmp_path)
    for name in (*TABLES, "sources.csv"):
        shutil.copy(FOLDER / name, tmp_path)
    path = tmp_path / "impala.csv"
    path.write_text(path.read_text().replace("impala_deep_noop_200m", "mystery", 1))
    path.write_text(path.read_text().replace(",impala_deep_noop_200m", ",mystery"))
    with pytest.raises(UserError, match="no row for mystery"):
        published.read_columns(tmp_path)


def test_medians_that_were_read_off_a_figure():
    by_agent = {row.agent: row for row in published.read_medians(FOLDER)}
    row = by_agent["Cleanba IMPALA 1 A100 10 CPU (sticky)"]
    assert (row.median, row.median_text) == (165.0, "about 165")
    assert by_agent["Ape-X"].median is None
    assert by_agent["Meta-gradient {gamma,lambda}"].median in (221.6, 292.9, 242.6, 287.6)


def test_the_tables_are_plain_csv_after_one_line_of_comment():
    for name in (*TABLES, "sources.csv"):
        lines = (FOLDER / name).read_text("utf-8").splitlines()
        assert [line.startswith("#") for line in lines].count(True) == 1 and lines[0][0] == "#"
        widths = {len(row) for row in csv.reader(lines[1:])}
        assert len(widths) == 1, name
