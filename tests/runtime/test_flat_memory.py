"""Fault: what grew with every update and every row, found by an hour of soak.

TensorFlow keeps every Python number that it was ever asked to make a tensor of.
"""

import math

import numpy as np
import psutil
import pytest
import tensorflow as tf
from run_helpers import BATCH_FRAMES, make_config, make_supervisor

from meta_impala.runtime import learner as learner_lib
from meta_impala.runtime.metrics import COLUMNS, MetricsWriter


def _memory() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("numbers_are_kept", [False, True])
def test_rows_of_metrics_leave_nothing_in_memory(tmp_path, monkeypatch, numbers_are_kept):
    if numbers_are_kept:  # that the measurement would see it
        scalar = tf.summary.scalar
        monkeypatch.setattr(tf.summary, "scalar", lambda name, value: scalar(name, float(value)))
    writer = MetricsWriter(tmp_path / "metrics.csv", tmp_path / "tensorboard", 0)

    def write(first: int, count: int) -> None:
        for i in range(first, first + count):
            numbers = {name: i + index / 100 for index, name in enumerate(COLUMNS)}
            writer.write(numbers | {"frames": 100 * i, "rollouts": math.nan})

    write(0, 50)
    before = _memory()
    write(50, 400)
    grown = _memory() - before
    writer.close()
    assert (grown > 6 * 2**20) if numbers_are_kept else (grown < 4 * 2**20)


def test_an_update_gives_tensorflow_no_python_number(tmp_path, monkeypatch):
    given = []
    constant = tf.constant

    def recorded(value, *arguments, **named):
        given.append(value)
        return constant(value, *arguments, **named)

    config = make_config(learning_rate_schedule="linear", total_frames=20 * BATCH_FRAMES)
    supervisor = make_supervisor(tmp_path, config)
    update = supervisor.learner.update

    def watched(*arguments):
        monkeypatch.setattr(learner_lib.tf, "constant", recorded)
        try:
            return update(*arguments)
        finally:
            monkeypatch.setattr(learner_lib.tf, "constant", constant)

    supervisor.learner.update = watched
    assert supervisor.run() == "finished"
    rates = [value for value in given if isinstance(value, np.float32)]
    assert len(set(rates)) == 20, "the learning rate falls with every update"
    assert not [value for value in given if isinstance(value, (bool, int, float))]
