"""What the study reads of tables with a changed byte: the other rows, and a word, or a refusal."""

import math

import pytest

from meta_impala.errors import UserError
from meta_impala.published import tables
from meta_impala.storage.csv_rows import rows_by_name
from meta_impala.study import records
from meta_impala.study.records import Point, Record
from meta_impala.training.evaluation_table import COLUMNS

_BYTES = (b'"', b"'", b",", b"\n", b"\r", b" ", b"_", b"\0", b"\xff", b"x")


def _evaluations(path, count=20):
    """A file of that many rows, as a run writes it; the frames of each."""
    frames = [10_000 * row for row in range(1, count + 1)]
    rows = [f"{f},{f / 1e5:.8g},0.05,20,0.99,0.95,1.5" for f in frames]
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n", "ascii")
    return frames


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(records, "_warn_once", said.append)
    return said


def _with(content, place, byte):
    return content[:place] + byte + content[place + 1 :]


@pytest.mark.parametrize("byte", _BYTES)
def test_a_changed_byte_loses_no_other_evaluation_and_is_said(tmp_path, warnings, byte):
    path = tmp_path / "evaluations.csv"
    frames = _evaluations(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(_with(content, place, byte))
        warnings.clear()
        found = {point.frames for point in records.read_points(path)}
        line = content.count(b"\n", 0, place)  # from 0, the header
        is_end = content[place : place + 1] == b"\n"  # which joins two lines
        touched = frames[max(0, line - 1) : line + is_end]
        assert found >= set(frames) - set(touched), place
        if len(found) < len(frames):
            (warning,) = warnings
            assert str(path) in warning and f"line {line + 1}" in warning


def test_a_whole_file_is_read_without_a_word(tmp_path, warnings):
    frames = _evaluations(tmp_path / "evaluations.csv")
    points = records.read_points(tmp_path / "evaluations.csv")
    assert points[2] == Point(30_000, 0.3, 0.05, 20, 0.99, 0.95)
    assert [point.frames for point in points] == frames and not warnings
    assert records.read_points(tmp_path / "none.csv") == ()


def test_the_warning_is_said_once(tmp_path, capsys):
    path = tmp_path / "evaluations.csv"
    _evaluations(path)
    path.write_bytes(path.read_bytes().replace(b"\n3", b'\n"', 1))
    for _ in range(3):
        assert len(records.read_points(path)) == 19
    warning = f"warning: {path}: 1 damaged lines are left out (line 4)\n"
    assert capsys.readouterr().err == warning


def _data(folder):
    points = tuple(Point(1000 * n, 0.1 * n, 0.01, 20, 0.99, math.nan) for n in (1, 2, 3))
    kept = [
        Record("mechanism", "Patience", "F_0", seed, "finished", 3000, 3000, 9.5, "abc", points)
        for seed in (1, 2)
    ]
    records.write(kept, folder, "made by a test")
    (folder / records.RANDOM).write_text("task,mean_return\nPatience,0.75\nNoise,0.5\n", "utf-8")


def _count_of_study(folder):
    found = records.read(folder)
    return len(found), sum(len(r.points) for r in found), len(records.read_random(folder))


def _published(folder):
    folder.mkdir()
    for file in ("sources.csv", "medians.csv", *tables.SCORE_TABLES):
        (folder / file).write_text((tables.FOLDER / file).read_text("utf-8"), "utf-8")


def _count_of_published(folder):
    columns = tables.read_columns(folder)
    cells = sum(len(column.by_game) for column in columns.values())
    return len(columns), cells, len(tables.read_medians(folder))


@pytest.mark.parametrize(
    ("make", "count", "file", "step"),
    [
        (_data, _count_of_study, records.POINTS, 1),
        (_data, _count_of_study, records.RUNS, 1),
        (_data, _count_of_study, records.RANDOM, 1),
        (_published, _count_of_published, "impala.csv", 101),
        (_published, _count_of_published, "medians.csv", 97),
        (_published, _count_of_published, "sources.csv", 211),
    ],
)
def test_a_quote_anywhere_in_a_table_drops_no_row_in_silence(tmp_path, make, count, file, step):
    """All of it is read, perhaps with another name, or the table is refused."""
    folder = tmp_path / "data"
    make(folder)
    whole = count(folder)
    content = (folder / file).read_bytes()
    refused = 0
    for place in range(0, len(content), step):
        changed = _with(content, place, b'"')
        if b"\n" not in content[place : place + 1]:
            (folder / file).write_bytes(changed)
            try:
                assert count(folder) == whole, place
            except UserError:
                refused += 1
    assert refused


def test_points_of_no_run_are_refused(tmp_path):
    _data(tmp_path)
    path = tmp_path / records.POINTS
    path.write_text(path.read_text("utf-8").replace("F_0,2", "F_1,2"), "utf-8")
    with pytest.raises(UserError, match=r"points\.csv has a run that runs\.csv has not: .* F_1 2"):
        records.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('a,b\n1,2\n"3,4\n5,6\n', "line 3"),
        ('# by\na,b\n1,"2\n3"\n', "line 3"),
        ('a,b\n"1"x,2\n', "line 2"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, not 2"),
        ("a,b\n1,2,3\n", "line 2 has 3 cells, not 2"),
    ],
)
def test_a_line_that_is_no_row_is_named(text, named):
    with pytest.raises(ValueError, match=named):
        rows_by_name(text)


def test_quoted_cells_and_comments_are_read():
    text = '# comment, "\n\na,b\r\n"1, one","say ""two"""\n'
    assert rows_by_name(text) == [{"a": "1, one", "b": 'say "two"'}]
    assert rows_by_name("") == rows_by_name("a,b\n") == []
