"""What TensorBoard shows: tags in groups, the settings as text and as hyper-parameters."""

import json
import math
import re

import pytest
import tensorflow as tf
from support.run_helpers import make_config
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from meta_impala import config as config_lib
from meta_impala.storage.metrics_table import COLUMNS
from meta_impala.storage.run_folder import RunFolder
from meta_impala.training.metric_tags import LEARNING, META_GRADIENT, tag
from meta_impala.training.metrics import open_metrics


def test_return_gamma_and_lambda_open_first():
    tags = sorted(tag(column) for column in COLUMNS if column != "frames")
    assert tags[:3] == ["1_learning/episode_return", "1_learning/gamma", "1_learning/lambda"]
    groups = list(dict.fromkeys(name.partition("/")[0] for name in tags))
    assert groups[:2] == [LEARNING, META_GRADIENT] and len(groups) == 6
    assert [name.rpartition("/")[2] for name in map(tag, COLUMNS)] == list(COLUMNS)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("entropy_cost", "1_learning/entropy_cost"),
        ("meta_gradient_entropy_cost", "2_meta_gradient/meta_gradient_entropy_cost"),
        ("x_step_entropy_cost", "2_meta_gradient/x_step_entropy_cost"),
        ("gamma_head_2", "7_other_heads/gamma_head_2"),
        ("meta_gradient_entropy_cost_head_3", "7_other_heads/meta_gradient_entropy_cost_head_3"),
    ],
)
def test_tags_of_columns_of_other_meta_parameters(column, expected):
    assert tag(column) == expected


@pytest.fixture
def events(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    config = make_config(environment_kwargs='{"ab": "a|b<script>"}')
    writer = open_metrics(folder, 40, config)
    row = dict.fromkeys(COLUMNS, 0.5) | {"frames": 60, "episode_return": math.nan}
    writer.write(row)
    writer.close()
    accumulator = EventAccumulator(str(folder.tensorboard))
    accumulator.Reload()
    return config, accumulator


def test_rows_stand_under_their_tags(events):
    _, accumulator = events
    (event,) = accumulator.Tensors("1_learning/gamma")
    assert event.step == 60 and tf.make_ndarray(event.tensor_proto) == 0.5
    assert "1_learning/episode_return" not in accumulator.Tags()["tensors"], "no game had ended"


def test_the_settings_are_a_table_of_text(events):
    config, accumulator = events
    (event,) = accumulator.Tensors("config")
    assert event.step == 40
    text = event.tensor_proto.string_val[0].decode()
    lines = text.splitlines()
    assert len(lines) == 2 + len(json.loads(config_lib.to_json(config)))
    assert "| batch_size | 4 |" in lines
    assert not any("<script>" in line or "a|b" in line for line in lines)


def test_the_settings_are_hyper_parameters(events):
    config, accumulator = events
    metadata = accumulator.SummaryMetadata("_hparams_/session_start_info")
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    found = content.session_start_info.hparams
    assert set(found) == set(json.loads(config_lib.to_json(config)))
    assert found["batch_size"].number_value == 4
    assert found["environment"].string_value == config.environment
    # A name that a person knows, and that no other run has: trials of one name become one row.
    assert re.fullmatch(r"run [0-9a-f]{6}", content.session_start_info.group_name)
    # Declared metrics without declared parameters would hide the latter.
    assert "_hparams_/experiment" not in accumulator.Tags()["tensors"]
