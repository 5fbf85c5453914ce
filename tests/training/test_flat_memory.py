"""Fault: what grew with every update and every row, found by an hour of soak.

TensorFlow keeps every Python number that it was ever asked to make a tensor of.
"""

import numpy as np
import tensorflow as tf
from support.run_helpers import BATCH_FRAMES, make_config, make_trainer

from meta_impala.learner import learner as learner_lib
from meta_impala.storage.metrics_table import COLUMNS
from meta_impala.training.metrics import MetricsWriter


def test_rows_of_metrics_give_tensorflow_no_python_number(tmp_path, monkeypatch):
    scalar, given, steps = tf.summary.scalar, [], []

    def recorded(name, value):
        given.append(value)
        steps.append(tf.summary.experimental.get_step())
        return scalar(name, value)

    monkeypatch.setattr(tf.summary, "scalar", recorded)
    writer = MetricsWriter(tmp_path / "metrics.csv", tmp_path / "tensorboard", 0)
    for i in range(3):
        numbers = {name: i + index / 100 for index, name in enumerate(COLUMNS)}
        writer.write(numbers | {"frames": 100 * i})
    writer.close()
    assert len(given) == 3 * (len(COLUMNS) - 1)
    assert all(isinstance(value, np.generic) for value in given)
    assert all(isinstance(step, tf.Tensor) for step in steps)
    assert [int(step) for step in steps[:: len(COLUMNS) - 1]] == [0, 100, 200]


def test_an_update_gives_tensorflow_no_python_number(tmp_path, monkeypatch):
    given = []
    constant = tf.constant

    def recorded(value, *arguments, **named):
        given.append(value)
        return constant(value, *arguments, **named)

    config = make_config(learning_rate_schedule="linear", total_frames=20 * BATCH_FRAMES)
    trainer = make_trainer(tmp_path, config)
    update = trainer.learner.update

    def watched(*arguments):
        monkeypatch.setattr(learner_lib.tf, "constant", recorded)
        try:
            return update(*arguments)
        finally:
            monkeypatch.setattr(learner_lib.tf, "constant", constant)

    trainer.learner.update = watched
    assert trainer.run() == "finished"
    rates = [value for value in given if isinstance(value, np.float32)]
    assert len(set(rates)) == 20, "the learning rate falls with every update"
    assert not [value for value in given if isinstance(value, (bool, int, float))]
