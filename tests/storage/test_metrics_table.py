"""`metrics.csv` under damage: every damaged line costs itself and no other (fault)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.run_helpers import make_config

from meta_impala.config.metric_columns import learned_columns
from meta_impala.storage.metrics_table import (
    COLUMNS,
    header_line,
    line_of,
    read_metrics,
    read_table,
)
from meta_impala.storage.run_folder import RunFolder
from meta_impala.training.metrics import MetricsWriter, open_metrics


def _line(frames: int) -> str:
    draw = random.Random(frames)
    cells = {name: f"{draw.uniform(-5, 5):.8g}" for name in COLUMNS if draw.random() < 0.9}
    return line_of(cells | {"frames": str(frames)})


LINES = [header_line(), *(_line(400 * index) for index in range(1, 21))]
CONTENT = "".join(LINES).encode()


def _frames(path) -> list[int]:
    return [int(row["frames"]) for row in read_metrics(path)]


def _lines_lost(path, content: bytes) -> set[int]:
    """Which rows of the whole table are not read any more; the others are as they were."""
    path.write_bytes(content)
    expected = {400 * index: LINES[index] for index in range(1, len(LINES))}
    found = {int(row["frames"]): line_of(row) for row in read_metrics(path)}
    return {
        index for index in range(1, len(LINES)) if found.get(400 * index) != expected[400 * index]
    }


def test_an_undamaged_table_is_read_completely(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(CONTENT)
    table = read_table(path)
    assert table.damaged == [] and len(table.rows) == 20
    assert "".join(map(line_of, table.rows)) == "".join(LINES[1:])
    assert read_metrics(tmp_path / "none.csv") == []


def test_line_ends_of_another_system_are_read(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(CONTENT.replace(b"\n", b"\r\n"))
    table = read_table(path)
    assert table.damaged == []
    assert "".join(map(line_of, table.rows)) == "".join(LINES[1:])


OTHERS = learned_columns(["entropy_cost", "rho_clip", "gamma_head_2"])


@pytest.mark.parametrize("others", [(), OTHERS[:3], OTHERS])
@pytest.mark.parametrize("order", ["as written", "sorted", "reversed", "shuffled"])
def test_columns_may_stand_in_any_order(order, others, tmp_path, capsys):
    """Another program may have written the table; each column is read by its name."""
    names = [*COLUMNS, *others]
    if order == "shuffled":
        random.Random(3).shuffle(names)
    elif order != "as written":
        names.sort(reverse=order == "reversed")
    rows = [{name: f"{frames + place}" for place, name in enumerate(names)} for frames in (0, 40)]
    rows = [row | {"frames": str(frames)} for frames, row in zip((40, 80), rows, strict=True)]
    path = tmp_path / "metrics.csv"
    path.write_text("\n".join([",".join(names), *(",".join(row.values()) for row in rows), ""]))
    table = read_table(path)
    assert (table.damaged, table.rows) == ([], rows)
    learned = [name for name in others if name in ("entropy_cost", "rho_clip", "gamma_head_2")]
    MetricsWriter(path, tmp_path / "tensorboard", 80, learned).close()
    assert list(tmp_path.glob("*.damaged*")) == [] and capsys.readouterr().err == ""
    assert read_metrics(path) == [{name: row[name] for name in (*COLUMNS, *others)} for row in rows]


@pytest.mark.parametrize(
    "others",
    [
        ("entropy_cost",),
        ("x_step_entropy_cost", "meta_gradient_entropy_cost"),
        (*OTHERS[:3], "gamma"),
        (*OTHERS[:3], "entropy_cost"),
        (*OTHERS[:2], "x_step_entropy_cos"),
        (*OTHERS[:3], "note"),
        ("Note", "meta_gradient_Note", "x_step_Note"),
    ],
)
def test_columns_that_no_version_writes_are_damage(others, tmp_path):
    path = tmp_path / "metrics.csv"
    names = sorted((*COLUMNS, *others))
    path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert read_table(path).damaged == [1]


def _line_of_byte(index: int) -> int:
    return CONTENT[:index].count(b"\n")


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_loses_one_line_wherever_it_is(bit, tmp_path):
    """In the header it costs none, in an end of line the two that it joins."""
    path = tmp_path / "metrics.csv"
    for index in range(bit, len(CONTENT), 29):
        content = bytearray(CONTENT)
        content[index] ^= 1 << bit
        line = _line_of_byte(index)
        allowed = {line, line + 1} if CONTENT[index : index + 1] == b"\n" else {line}
        lost = _lines_lost(path, bytes(content))
        assert lost <= allowed, (index, content[max(0, index - 20) : index + 20])


@pytest.mark.parametrize(
    "inserted", [b'"', b'""', b"\0", b"\0" * 512, b"\r", b"\xff", b",", b"\x1b[2J"]
)
@pytest.mark.parametrize("replaces", [False, True])
def test_inserted_bytes_lose_one_line(inserted, replaces, tmp_path):
    path = tmp_path / "metrics.csv"
    for index in range(len(LINES[0]), len(CONTENT), 61):
        if CONTENT[index : index + 1] == b"\n":
            continue
        end = min(index + len(inserted), CONTENT.index(b"\n", index)) if replaces else index
        content = CONTENT[:index] + inserted + CONTENT[end:]
        assert _lines_lost(path, content) <= {_line_of_byte(index)}


def test_two_distant_quotes_lose_only_their_lines(tmp_path):
    path = tmp_path / "metrics.csv"
    content = bytearray(CONTENT)
    for line in (3, 15):
        content[sum(map(len, LINES[:line])) + 6] = ord('"')
    assert _lines_lost(path, bytes(content)) == {3, 15}


@settings(max_examples=200, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(CONTENT) - 1), st.binary(max_size=4), st.integers(0, 4)),
        max_size=5,
    )
)
def test_anything_is_read_without_an_exception(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    content = bytearray(CONTENT)
    for index, inserted, removed in changes:
        content[index : index + removed] = inserted
    path.write_bytes(content)
    frames = _frames(path)
    assert frames == sorted(set(frames))


@pytest.mark.parametrize("count", [2, 5, 27])
def test_tables_of_older_versions_are_repaired_too(count, tmp_path):
    path = tmp_path / "metrics.csv"
    header = ",".join(COLUMNS[:count])
    rows = [",".join([str(10 * i)] + ["1.5"] * (count - 1)) for i in range(1, 5)]

    def read(first):
        path.write_text("\n".join([first, *rows, ""]))
        return read_table(path)

    assert read(header).damaged == [] and len(read(header).rows) == 4
    for index in range(len(header)):
        table = read(header[:index] + "~" + header[index + 1 :])
        assert table.damaged == [1] and tuple(table.rows[0]) == COLUMNS[:count]


def test_lines_left_out_are_named_and_the_damaged_file_is_kept(tmp_path, capsys):
    path = tmp_path / "metrics.csv"
    damaged = CONTENT.replace(b"\n4000,", b'\n4"00,') + b"8400,1"
    path.write_bytes(damaged)
    MetricsWriter(path, tmp_path / "tensorboard", 6000).close()
    assert _frames(path) == [400 * i for i in range(1, 16) if i != 10]
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == damaged
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "2 of 21 lines are damaged and left out (line 11, 22)" in warning
    assert "kept as metrics.csv.damaged" in warning
    # Once more: the first is not overwritten.
    path.write_bytes(b"\0")
    MetricsWriter(path, tmp_path / "tensorboard", 6000).close()
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == damaged
    assert (tmp_path / "metrics.csv.damaged-2").read_bytes() == b"\0"
    # A whole file is not spoken of.
    capsys.readouterr()
    MetricsWriter(path, tmp_path / "tensorboard", 6000).close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("gone", [[], ["metrics.csv"], ["metrics.csv", "tensorboard"]])
def test_a_continued_run_says_which_of_its_records_are_gone(tmp_path, capsys, gone):
    folder = RunFolder(tmp_path)
    open_metrics(folder, 0, make_config()).close()
    assert capsys.readouterr().err == ""  # a new run has none
    for name in gone:
        (tmp_path / name).rename(tmp_path / f"{name}.aside")
    open_metrics(folder, 378_880, make_config()).close()
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {tmp_path / name} is gone; the rows before frame 378,880 are lost"
        for name in gone
    ]
