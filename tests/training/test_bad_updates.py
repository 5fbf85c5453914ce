"""Fault: updates and meta steps that are not finite are counted and told apart.

With several inner steps a meta step follows every K-th update alone, and may fail where all updates
are good.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
from support.run_helpers import make_config, make_trainer, read_metrics, read_status

from meta_impala.config.metric_columns import learned_columns
from meta_impala.errors import RunFailed
from meta_impala.learner.group import LearnerLost
from meta_impala.learner.state import FIXED, Statistics
from meta_impala.learner.update_statistics import meta_columns
from meta_impala.learner.window_step import WindowStep
from meta_impala.storage import arrays as arrays_lib
from meta_impala.training.bad_updates import BadUpdates
from meta_impala.training.metrics import MetricsWindow

LEARNED = ("gamma", "entropy_cost")
NAN = math.nan


def statistics(number=1.0, *, meta=NAN, applied=1.0, meta_applied=NAN) -> Statistics:
    """Of an update with this number everywhere, and this one in what a meta step reports."""
    names = (*FIXED, *learned_columns(LEARNED))
    of_meta = meta_columns(LEARNED)
    values = {name: meta if name in of_meta else number for name in names} | {"applied": applied}
    fixed = {name: values[name] for name in FIXED}
    others = {name: values[name] for name in names if name not in fixed}
    return Statistics(**fixed, others=others, meta_applied=meta_applied)


GOOD = statistics()
GOOD_STEP = statistics(meta=1.0, meta_applied=1.0)
BAD_STEP = statistics(meta=NAN, meta_applied=0.0)
BAD = statistics(NAN, applied=0.0)


def row_of(window: MetricsWindow) -> dict[str, float]:
    return window.row(10, 1, 0.1, 0)


def added(*all_statistics: Statistics) -> MetricsWindow:
    window = MetricsWindow(0, learned=LEARNED)
    for one in all_statistics:
        window.add(one, [], 0.0, 0.0)
    return window


def test_bad_meta_steps_end_the_run_whatever_the_updates_between(tmp_path, capsys):
    bad = BadUpdates(tmp_path, 3)
    for number, one in enumerate([GOOD, BAD_STEP, GOOD, BAD_STEP, GOOD], 1):
        bad.record(number, one, {})
    assert (bad.in_a_row, bad.meta_in_a_row) == (0, 2)
    message = capsys.readouterr().err
    assert "update 2 was applied, but the meta step after it was not, since it is not" in message
    assert "update 2 was not applied" not in message
    assert arrays_lib.read_arrays(tmp_path / "update-2.npz")["statistics meta_applied"] == 0
    with pytest.raises(RunFailed, match=r"3 meta steps in a row \(--max_bad_updates\) were not"):
        bad.record(6, BAD_STEP, {})


def test_updates_and_meta_steps_are_counted_apart(tmp_path):
    bad = BadUpdates(tmp_path, 3, {"bad_in_a_row": 1, "bad_meta_in_a_row": 2})
    bad.record(5, BAD, {})
    assert bad.state() == {"bad_in_a_row": 2, "bad_meta_in_a_row": 2}
    bad.record(6, GOOD_STEP, {})
    assert (bad.in_a_row, bad.meta_in_a_row) == (0, 0)


def test_an_update_whose_meta_step_is_bad_is_part_of_the_means():
    row = row_of(added(GOOD_STEP, statistics(2.0, meta=math.inf, meta_applied=0.0), BAD))
    assert row["inner_loss"] == 1.5 and row["bad_updates"] == 2
    assert row["meta_loss"] == row["x_step_gamma"] == row["meta_gradient_entropy_cost"] == 1.0


def test_updates_before_the_first_meta_step_are_not_part_of_its_means():
    window = added(GOOD, statistics(3.0, meta=4.0, meta_applied=1.0), statistics(5.0, meta=6.0))
    # A continued run has the same row.
    again = MetricsWindow(0, window.state(), LEARNED)
    for row in (row_of(window), row_of(again)):
        assert row["meta_loss"] == row["meta_gradient_gamma"] == row["x_step_entropy_cost"] == 5.0
        assert row["inner_loss"] == 3.0 and row["entropy_cost"] == 5.0
    # What no meta step has computed stays empty, and what is not finite is told.
    assert all(math.isnan(row_of(added(GOOD))[name]) for name in ("meta_loss", "x_step_gamma"))
    assert math.isnan(row_of(added(GOOD, GOOD._replace(entropy=NAN)))["entropy"])


def test_the_first_row_of_a_run_with_several_inner_steps_has_meta_columns(tmp_path):
    make_trainer(tmp_path, make_config(inner_steps=2, log_frames=60)).run()
    first = read_metrics(tmp_path)[0]
    assert first["updates"] == "3" and float(first["meta_gradient_norm"]) > 0


def test_meta_steps_that_are_never_finite_end_a_run(tmp_path, monkeypatch):
    take = WindowStep.__call__

    def taken(self, ahead, order):
        numbers, _, eta = take(self, ahead, order)
        return numbers * np.nan, tf.constant(False), eta

    monkeypatch.setattr(WindowStep, "__call__", taken)
    trainer = make_trainer(
        tmp_path, make_config(inner_steps=2, max_bad_updates=3, total_frames=10**6)
    )
    with pytest.raises(RunFailed, match="3 meta steps in a row"):
        trainer.run()
    assert trainer.updates == 6
    assert all(row["inner_loss"] for row in read_metrics(tmp_path))


def test_a_learner_that_is_lost_during_a_meta_step_leaves_whole_counters(tmp_path, monkeypatch):
    """The update before that step was made: θ, frames and updates have moved."""
    take, calls = WindowStep.__call__, []

    def lost(self, ahead, order):
        calls.append(1)
        if len(calls) == 2:
            raise LearnerLost("the other learners cannot be reached any more")
        return take(self, ahead, order)

    config = make_config(inner_steps=2)
    with monkeypatch.context() as patched:
        patched.setattr(WindowStep, "__call__", lost)
        trainer = make_trainer(tmp_path, config)
        with pytest.raises(LearnerLost):
            trainer.run()
    state = trainer.learner.state
    assert (trainer.updates, trainer.frames) == (4, int(state.frames.numpy()))
    assert state.window.made == 0
    status = read_status(tmp_path)
    assert status["checkpoint"] == f"frames-{status['frames']}" == f"frames-{trainer.frames}"
    again = make_trainer(tmp_path, config)
    assert again.updates == 4 and again.run() == "finished"
    # The row of that update was not written; the next one comes after the next update.
    assert [int(row["updates"]) for row in read_metrics(tmp_path)] == [2, 5, 7, 9, 10]
