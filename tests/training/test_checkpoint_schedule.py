"""When checkpoints are due. Ground truth: multiples counted one by one; a clock that is set."""

import pytest

from meta_impala.training import checkpoint_schedule
from meta_impala.training.checkpoint_schedule import CheckpointSchedule


@pytest.mark.parametrize("interval", [1, 7, 12, 100])
def test_a_checkpoint_is_due_where_an_update_passes_a_multiple(interval):
    schedule = CheckpointSchedule(0.0, interval)
    assert not schedule.is_due()
    for before in range(0, 60, 5):
        schedule.after_update(before, before + 5)
        passed = any(frames % interval == 0 for frames in range(before + 1, before + 6))
        assert schedule.at_frames == schedule.is_due() == passed


def test_an_update_without_frames_passes_no_multiple():
    schedule = CheckpointSchedule(0.0, 10)
    schedule.after_update(20, 20)
    assert not schedule.is_due()


@pytest.mark.parametrize("minutes", [0.0, 0.5])
def test_a_checkpoint_by_time_is_due_once_per_interval(monkeypatch, minutes):
    now = [0.0]
    monkeypatch.setattr(checkpoint_schedule.time, "monotonic", lambda: now[0])
    schedule, due = CheckpointSchedule(minutes, 0), []
    for now[0] in range(10, 100, 10):
        schedule.after_update(0, 10**6)
        if schedule.is_due():
            due.append(now[0])
            schedule.restart_clock()
    assert due == ([30, 60, 90] if minutes else [])
