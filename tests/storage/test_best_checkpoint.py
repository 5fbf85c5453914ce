"""Fault: which checkpoint is the best one after kills, and of whatever files are found."""

import json
import math
import pathlib
import types

import pytest

from meta_impala.storage.best_checkpoint import BestCheckpoint
from meta_impala.storage.manifest import list_checkpoints


def save(path: pathlib.Path, mean_return: float | None = None) -> None:
    path.mkdir(parents=True)
    if mean_return is not None:
        (path / "evaluation.json").write_text(json.dumps({"mean_return": mean_return}))


def start(folder: pathlib.Path, frames: int = 100, **rows: float) -> BestCheckpoint:
    """A start from a checkpoint at this number of frames; `rows` are those of the table."""
    state = types.SimpleNamespace(counts=(frames, 1))
    return BestCheckpoint(folder, state, {}, lambda at: rows.get(f"at_{at}", -math.inf))


def evaluate(best: BestCheckpoint, folder: pathlib.Path, frames: int, mean_return: float) -> None:
    save(folder / "candidate" / f"frames-{frames}")
    best.rate(frames, mean_return)


def in_place(folder: pathlib.Path) -> dict[str, float]:
    """Name -> the return that is written in it."""
    records = [path / "evaluation.json" for path in list_checkpoints(folder)]
    return {path.parent.name: json.loads(path.read_text())["mean_return"] for path in records}


def test_a_higher_return_takes_the_place_and_an_equal_one_does_not(tmp_path):
    best = start(tmp_path)
    for frames, mean_return in ((10, -1.0), (20, 1 / 3), (30, 0.1), (40, 1 / 3)):
        evaluate(best, tmp_path, frames, mean_return)
    assert in_place(tmp_path) == {"frames-20": 1 / 3}
    # The table has eight digits: it does not make a third more than a third.
    evaluate(start(tmp_path, 40, at_20=0.33333333), tmp_path, 50, 1 / 3)
    assert in_place(tmp_path) == {"frames-20": 1 / 3}


def test_the_best_of_a_lost_part_of_the_run_stays_until_one_is_better(tmp_path, capsys):
    save(tmp_path / "frames-20", 3.0)
    best = start(tmp_path, 15, at_10=1.0)
    assert "frames-20 is later than the checkpoint the run continues from; it stays" in (
        capsys.readouterr().err
    )
    for frames in (18, 20, 22):
        evaluate(best, tmp_path, frames, 2.0)
        assert in_place(tmp_path) == {"frames-20": 3.0}
    best = start(tmp_path, 22, at_18=2.0, at_20=2.0, at_22=2.0)
    evaluate(best, tmp_path, 25, 2.5)
    assert in_place(tmp_path) == {"frames-20": 3.0}
    assert capsys.readouterr().err == ""
    evaluate(best, tmp_path, 30, 3.5)
    assert in_place(tmp_path) == {"frames-30": 3.5}


@pytest.mark.parametrize("frames", [15, 20])
def test_a_better_one_of_earlier_or_the_same_frames_takes_its_place(tmp_path, frames):
    save(tmp_path / "frames-20", 3.0)
    evaluate(start(tmp_path, 10), tmp_path, frames, 4.0)
    assert in_place(tmp_path) == {f"frames-{frames}": 4.0}


@pytest.mark.parametrize(
    ("written", "row", "taken"),
    [
        (None, 2.0, True),  # killed after the row was added
        (2.0, 2.0, True),  # and after the return was written
        (2.0, None, True),  # the row is of a lost part of the run
        (0.5, 0.5, False),
        (None, 1.0, False),
        (None, None, False),  # killed in the middle of the games
    ],
)
def test_a_candidate_whose_games_are_over_is_taken_at_the_next_start(tmp_path, written, row, taken):
    save(tmp_path / "frames-10", 1.0)
    save(tmp_path / "candidate" / "frames-20", written)
    start(tmp_path, 30, at_10=1.0, **({} if row is None else {"at_20": row}))
    assert in_place(tmp_path) == ({"frames-20": 2.0} if taken else {"frames-10": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == list(in_place(tmp_path))


def test_of_two_in_place_the_better_one_stays(tmp_path):
    save(tmp_path / "frames-10", 4.0)
    save(tmp_path / "frames-20", 3.0)  # killed before it was removed
    start(tmp_path, 10)
    assert in_place(tmp_path) == {"frames-10": 4.0}


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "null", "{}", '{"mean_return": "9"}', '{"mean_return": true}',
     '{"mean_return": NaN}', '{"mean_return": Infinity}', '{"mean_return": null}'],
)  # fmt: skip
@pytest.mark.parametrize("row", [2.0, None])
def test_a_return_that_cannot_be_read_is_that_of_the_table_or_unknown(
    tmp_path, capsys, record, row
):
    save(tmp_path / "frames-10")
    (tmp_path / "frames-10" / "evaluation.json").write_text(record)
    best = start(tmp_path, 10, **({} if row is None else {"at_10": row}))
    assert ("its evaluation is not in the table" in capsys.readouterr().err) == (row is None)
    evaluate(best, tmp_path, 20, 1.0)
    if row is None:
        assert in_place(tmp_path) == {"frames-20": 1.0}
        assert (tmp_path / "frames-10.unrated" / "evaluation.json").read_text() == record
    else:
        assert in_place(tmp_path) == {"frames-10": 2.0}


def test_a_candidate_that_could_not_be_taken_is_taken_with_the_next_one(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk")

    save(tmp_path / "frames-10", 1.0)
    best = start(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk"):
        patched.setattr("os.rename", fail)
        evaluate(best, tmp_path, 20, 2.0)
    assert in_place(tmp_path) == {"frames-10": 1.0}
    monkeypatch.setattr("meta_impala.storage.best_checkpoint.Checkpoints.save", lambda *_: None)
    best.save_candidate({})
    assert in_place(tmp_path) == {"frames-20": 2.0}
