"""Equivalence: blocks split and joined are the same columns."""

import numpy as np

from meta_impala.actors.trajectory import Block, Episode, Unroll, concatenate, split
from meta_impala.agent.shared_arrays import can_be_shared


def _block(num_envs: int, actor: int = 0) -> Block:
    rng = np.random.default_rng(actor)
    rows = 4
    unroll = Unroll(
        observations=rng.integers(0, 255, (rows, num_envs, 3), np.uint8),
        last_actions=rng.integers(0, 3, (rows, num_envs), np.int32),
        rewards=rng.normal(size=(rows, num_envs)).astype(np.float32),
        terminations=rng.random((rows, num_envs)) < 0.5,
        truncations=rng.random((rows, num_envs)) < 0.5,
        behaviour_log_probs=rng.normal(size=(rows - 1, num_envs)).astype(np.float32),
        core_state=rng.normal(size=(num_envs, 5)).astype(np.float32),
        eta=rng.random((num_envs, 2)).astype(np.float32),
    )
    return Block(unroll, version=7, episodes=(Episode(1.0, 12),), actor=actor)


def test_split_then_concatenate_is_the_identity():
    block = _block(6)
    parts = split(block, 2)
    assert [part.unroll.last_actions.shape for part in parts] == [(4, 2)] * 3
    for joined, original in zip(concatenate(parts), block.unroll, strict=True):
        np.testing.assert_array_equal(joined, original)


def test_split_counts_every_episode_once_and_keeps_version_and_actor():
    parts = split(_block(6, actor=3), 3)
    assert [part.episodes for part in parts] == [(Episode(1.0, 12),), ()]
    assert {(part.version, part.actor) for part in parts} == {(7, 3)}


def test_a_batch_holds_the_blocks_side_by_side():
    first, second = _block(2, actor=0), _block(2, actor=1)
    batch = concatenate([first, second])
    np.testing.assert_array_equal(batch.observations[:, :2], first.unroll.observations)
    np.testing.assert_array_equal(batch.observations[:, 2:], second.unroll.observations)
    np.testing.assert_array_equal(batch.core_state[2:], second.unroll.core_state)
    np.testing.assert_array_equal(batch.eta[:2], first.unroll.eta)


def test_joined_blocks_need_no_further_copy():
    first, second = _block(2, actor=0), _block(2, actor=1)
    assert can_be_shared(concatenate([first, second]).observations)
