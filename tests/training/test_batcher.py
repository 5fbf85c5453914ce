"""Batches from numbered blocks: which are learned from, and which are the meta batch."""

import dataclasses

import numpy as np
import pytest

from meta_impala.actors.source import StopRequested
from meta_impala.actors.trajectory import Block, Unroll
from meta_impala.config import BatcherSettings, Config, resolve
from meta_impala.training.batcher import Batcher

# Two blocks of two environments to a batch of four.
CONFIG = Config(batch_size=4, envs_per_actor=2, meta_batch_size=2, num_actors=1)


def block(number: int) -> Block:
    rows = np.full([3, 2], number, np.float32)
    flags = np.zeros([3, 2], bool)
    unroll = Unroll(
        observations=rows[..., np.newaxis],
        last_actions=rows.astype(np.int32),
        rewards=rows,
        terminations=flags,
        truncations=flags,
        behaviour_log_probs=rows[:-1],
        core_state=np.zeros([2, 0], np.float32),
        eta=np.zeros([2, 2], np.float32),
    )
    return Block(unroll, number, (), 0)


class Blocks:
    """Gives out blocks 0, 1, …; asks to stop before those of `stops`, once."""

    def __init__(self, stops=()):
        self.number, self.stops = 0, set(stops)

    def __call__(self) -> Block:
        if self.number in self.stops:
            self.stops.remove(self.number)
            raise StopRequested
        self.number += 1
        return block(self.number - 1)


def make_batcher_of(blocks: Blocks, **settings) -> Batcher:
    config = resolve(dataclasses.replace(CONFIG, **settings))
    return Batcher(config.part(BatcherSettings), config.block_size, blocks)


def make(meta_data: str, blocks: Blocks) -> Batcher:
    return make_batcher_of(blocks, meta_data=meta_data)


def numbers(batch) -> tuple[int, ...]:
    assert batch.unroll.rewards.numpy()[0].tolist() == [n for n in batch.versions for _ in range(2)]
    return tuple(batch.versions)


@pytest.mark.parametrize(
    ("meta_data", "expected"),
    [
        ("next_batch", [(2, 3), (4, 5), (6, 7), (8, 9)]),
        ("held_out", [(2, 3), (4, 5), (6, 7), (8, 9)]),  # the learner does not look at it
        ("swap", [(2, 3), (0, 1), (6, 7), (4, 5)]),
        ("same", [(0, 1), (2, 3), (4, 5), (6, 7)]),
    ],
)
def test_which_batch_is_the_meta_batch(meta_data, expected):
    batcher = make(meta_data, Blocks())
    for index, meta in enumerate(expected):
        batch, (meta_batch,) = batcher.next_batches()
        assert numbers(batch) == (2 * index, 2 * index + 1)
        assert numbers(meta_batch) == meta
        batcher.learned_from(batch, 1)


@pytest.mark.parametrize("meta_data", ["next_batch", "swap", "same"])
@pytest.mark.parametrize("stop", range(9))
def test_no_block_is_lost_by_a_stop(meta_data, stop):
    """A batcher that continues with the pending blocks makes the pairs of one without a stop."""
    whole = make(meta_data, Blocks())
    expected = []
    for _ in range(5):
        batch, (meta_batch,) = whole.next_batches()
        expected.append((numbers(batch), numbers(meta_batch)))
        whole.learned_from(batch, 1)

    blocks = Blocks([stop])
    batcher, found = make(meta_data, blocks), []
    try:
        while True:
            batch, (meta_batch,) = batcher.next_batches()
            found.append((numbers(batch), numbers(meta_batch)))
            batcher.learned_from(batch, 1)
    except StopRequested:
        waiting = [*batcher.pending_blocks()]
    following = make(meta_data, lambda: waiting.pop(0) if waiting else blocks())
    if batcher.has_swap_blocks:
        following.expect_swap_blocks()
        assert following.has_swap_blocks
    following.restore_swap_blocks(is_there=True)
    while len(found) < 5:
        batch, (meta_batch,) = following.next_batches()
        found.append((numbers(batch), numbers(meta_batch)))
        following.learned_from(batch, 1)
    assert found == expected


def test_a_batch_that_is_reused_keeps_its_blocks_until_the_last_update():
    """Three updates on each batch, all with the batch after it as τ'."""
    batcher = make_batcher_of(Blocks(), sample_reuse=3)
    for updates in range(9):
        batch, (meta_batch,) = batcher.next_batches()
        first = 2 * (updates // 3)
        assert (numbers(batch), numbers(meta_batch)) == ((first, first + 1), (first + 2, first + 3))
        batcher.learned_from(batch, updates + 1)
        assert len(batcher.pending_blocks()) == (2 if updates % 3 == 2 else 4)


def test_a_continued_run_makes_the_updates_that_are_left():
    blocks = Blocks()
    batcher = make_batcher_of(blocks, sample_reuse=3)
    batcher.learned_from(batcher.next_batches()[0], 1)
    waiting = batcher.pending_blocks()
    following = make_batcher_of(lambda: waiting.pop(0) if waiting else blocks(), sample_reuse=3)
    firsts = []
    for updates in range(1, 6):
        batch, _ = following.next_batches()
        firsts.append(numbers(batch)[0])
        following.learned_from(batch, updates + 1)
    assert firsts == [0, 0, 2, 2, 2]


def test_clear_discards_all_blocks():
    batcher = make("swap", Blocks())
    batch, _ = batcher.next_batches()
    batcher.learned_from(batch, 1)
    assert batcher.has_swap_blocks and len(batcher.pending_blocks()) == 4
    batcher.clear()
    assert not batcher.has_swap_blocks and batcher.pending_blocks() == []
    assert numbers(batcher.next_batches()[0]) == (4, 5)


def test_a_bootstrapped_target_has_the_batches_that_are_next():
    """L − 1 batches for the target and then τ'; each is learned from once, in order."""
    chosen = {"meta_objective": "bootstrapped", "bootstrap_steps": 3}
    blocks = Blocks(stops=(3, 9))
    batcher = make_batcher_of(blocks, **chosen)
    for first in (0, 2, 4, 6):
        try:
            batch, ahead = batcher.next_batches()
        except StopRequested:
            batch, ahead = batcher.next_batches()
        assert numbers(batch) == (first, first + 1)
        expected = [(first + 2 * k, first + 2 * k + 1) for k in (1, 2, 3)]
        assert [numbers(one) for one in ahead] == expected
        batcher.learned_from(batch, 1)
        assert len(batcher.pending_blocks()) == 6
