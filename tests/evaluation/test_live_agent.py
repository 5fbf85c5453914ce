"""The agent that is watched while training goes on: it becomes the newest one (fault)."""

import dataclasses

import numpy as np
from support.run_helpers import BATCH_FRAMES, make_config, make_trainer

from meta_impala.config import resolve_network
from meta_impala.environments import registry
from meta_impala.evaluation.live_agent import NewestAgent
from meta_impala.storage.checkpoint import Checkpoints
from meta_impala.storage.manifest import list_checkpoints


def _train(path, config, updates):
    longer = dataclasses.replace(config, total_frames=updates * BATCH_FRAMES)
    assert make_trainer(path, longer).run() == "finished"


def _newest(path):
    """The agent of a run of two updates, and the config that trains it further."""
    config = make_config(learning_rate_schedule="constant")
    _train(path, config, 2)
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    return NewestAgent(path / "checkpoints", config, description), config


def test_a_newer_checkpoint_is_read_and_a_damaged_one_is_not(tmp_path, capsys):
    newest, config = _newest(tmp_path)
    first = newest.agent
    assert first.frames == 2 * BATCH_FRAMES and not newest.refresh()

    _train(tmp_path, config, 5)
    assert newest.refresh() and not newest.refresh()
    assert (newest.agent.frames, newest.agent.snapshot.version) == (5 * BATCH_FRAMES, 5)
    assert newest.agent.digest() != first.digest()
    assert any(
        np.any(a != b)
        for a, b in zip(first.snapshot.parameters, newest.agent.snapshot.parameters, strict=True)
    )

    _train(tmp_path, config, 8)
    playing = newest.agent
    for path in list_checkpoints(tmp_path / "checkpoints"):
        (path / "manifest.json").write_text("{}")
    assert not newest.refresh()
    assert newest.agent is playing
    warning = capsys.readouterr().err
    assert "continues to play" in warning and warning.count("\n") == 1


def test_more_updates_of_the_same_frames_are_a_newer_agent(tmp_path):
    newest, config = _newest(tmp_path)
    first = newest.agent
    state = newest._learner.state
    (weight, *_) = newest.agent.network.trainable_variables
    checkpoints = Checkpoints(tmp_path / "checkpoints", state, 3, newest._identity)
    progress = checkpoints.restore_latest().progress
    state.updates.assign_add(1)
    weight.assign_add(weight + 1.0)
    assert checkpoints.save(progress).name == first.checkpoint
    assert newest.refresh() and not newest.refresh()
    assert (newest.agent.frames, newest.agent.snapshot.version) == (first.frames, 3)
    assert newest.agent.digest() != first.digest()


def test_a_deleted_folder_leaves_the_agent_as_it_was(tmp_path):
    config = make_config()
    _train(tmp_path, config, 1)
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    newest = NewestAgent(tmp_path / "checkpoints", config, description)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    assert not newest.refresh()
