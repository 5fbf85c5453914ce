"""Fault: actors on a real Ray cluster of several nodes, whose processes and nodes are killed."""

import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf
from support.ray_helpers import actor_processes, add_node, make_cluster, wait_for
from support.run_helpers import BATCH_FRAMES, make_config, make_trainer, read_metrics, read_status

from meta_impala.actors.actor import Actor
from meta_impala.agent.builders import make_network
from meta_impala.agent.policy import EtaSnapshot, Policy, Snapshot
from meta_impala.config import ActorSettings, RemoteActorSettings, resolve_network
from meta_impala.distributed import cluster as ray_cluster
from meta_impala.distributed.remote_actor import RemoteActor
from meta_impala.distributed.weights import Weights
from meta_impala.environments import registry
from meta_impala.system import tensorflow_setup
from meta_impala.system.signals import StopRequest
from meta_impala.training.trainer import Trainer


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as cluster:
        yield cluster


def _run(trainer: Trainer, stop: StopRequest, script) -> str:
    """Runs to the end of `script`, which is called beside it."""
    errors = []

    def beside():
        try:
            script()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        finally:
            stop.request("the test")

    handler = signal.getsignal(signal.SIGTERM)
    with ray_cluster.connected(trainer.config.part(ActorSettings)):
        assert signal.getsignal(signal.SIGTERM) is handler
        thread = threading.Thread(target=beside)
        thread.start()
        try:
            state = trainer.run()
        finally:
            thread.join()
    if errors:
        raise errors[0]
    return state


def test_a_remote_actor_plays_what_a_thread_would(monkeypatch):
    """The same weights and seed: to the bit the same unrolls, through their compact form."""
    # TensorFlow of this process has been configured.
    monkeypatch.setattr(tensorflow_setup, "configure_tensorflow", lambda *_, **__: None)
    config = make_config(core="lstm", core_size=4, actors="ray", unroll_length=12)
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    settings = config.part(RemoteActorSettings)
    network = make_network(settings, description)
    thread = Actor(
        0,
        registry.make(config.environment, 2, config.protocol),
        Policy(network, settings, description, 2),
        config.unroll_length,
    )
    thread.reset(7, network.settings.core_state_size)
    remote = RemoteActor(0, 7, settings, description)
    ended = 0
    for version in range(3):
        parameters = tuple(version + 1.0 * v.value() for v in network.trainable_variables)
        eta = EtaSnapshot(tf.constant([0.9, 0.8 + 0.05 * version]))
        snapshot = Snapshot(version, parameters, eta)
        here = thread.unroll(snapshot)
        there = remote.unroll(Weights.of(snapshot)).block()
        assert here[1:] == there[1:]
        ended += len(here.episodes)
        for ours, theirs in zip(here.unroll, there.unroll, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    assert ended > 0


def test_lost_processes_and_nodes_are_replaced(tmp_path, cluster):
    """Two actors: a node joins late, a process is killed, a node is killed, another joins."""
    before = actor_processes()
    config = make_config(
        actors="ray", ray_address=cluster.address, total_frames=10**9, unrolls_in_flight=2
    )
    stop = StopRequest()
    trainer = make_trainer(tmp_path, config, stop)
    restarts = trainer._restarts
    delivered: list[int] = []
    fetch = trainer._batcher._fetch

    def recording_fetch(blocks):
        batch = fetch(blocks)
        delivered.extend(block.actor for block in batch.blocks)
        assert all(np.isfinite(block.unroll.observations).all() for block in batch.blocks)
        return batch

    trainer._batcher._fetch = recording_fetch

    def both_deliver() -> bool:
        return {0, 1} <= set(delivered)

    def script():
        wait_for(lambda: delivered, "unrolls of the actor that has room on the head")
        second = add_node(cluster)
        wait_for(both_deliver, "unrolls of the other, after a node joined")

        processes = actor_processes() - before
        assert len(processes) == 2
        os.kill(min(processes), signal.SIGKILL)
        wait_for(lambda: restarts.count == 1, "the lost process is noticed")
        delivered.clear()
        wait_for(both_deliver, "unrolls of both actors after one was killed")
        assert len(actor_processes() - before) == 2

        cluster.remove_node(second, allow_graceful=False)
        wait_for(lambda: restarts.count >= 2, "the lost node is noticed")
        delivered.clear()
        updates = trainer.updates
        wait_for(lambda: trainer.updates > updates + 20, "learning with one actor")
        assert len(set(delivered)) == 1

        add_node(cluster)
        wait_for(both_deliver, "unrolls of both actors after another node joined")

    assert _run(trainer, stop, script) == "stopped"
    status = read_status(tmp_path)
    assert status["state"] == "stopped"
    assert status["checkpoint"] == f"frames-{trainer.frames}"
    # Frames are those learned from, whatever was lost on the way.
    assert trainer.frames == trainer.updates * BATCH_FRAMES
    rows = read_metrics(tmp_path)
    assert [int(row["frames"]) for row in rows] == [
        2 * BATCH_FRAMES * (index + 1) for index in range(len(rows))
    ]
    # One more if an actor was sent to the lost node before the cluster knew that it was.
    assert rows[-1]["actor_restarts"] in ("2", "3")
    # 2 actors × 2 unrolls and 2 blocks in the queue, 2 blocks to a batch, and the lookahead.
    assert max(float(row["policy_lag"]) for row in rows[:5]) <= (2 * 2 + 2) / 2 + 2
    # Each version of the weights was sent once, however many actors play it.
    source = trainer._source
    assert 0 < source.broadcasts <= trainer.updates + 1
    assert source.unrolls > source.broadcasts
    wait_for(lambda: actor_processes() <= before, "the actors end with the run")
