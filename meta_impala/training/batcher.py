"""Makes the learner's batches from blocks, and selects which batch is τ' (the meta batch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from meta_impala.actors.trajectory import Block, Unroll, concatenate
from meta_impala.agent.shared_arrays import as_tensor
from meta_impala.config import BatcherSettings


class Batch:
    """A batch of the learner.

    Attributes:
      unroll: its tensors, `[T+1, B, ...]`.
      blocks: what it was made of.
      versions: of the snapshots that acted, block by block.
      episodes: games that ended in it.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        arrays = concatenate(list(blocks))
        observations = as_tensor(arrays.observations, tf.as_dtype(arrays.observations.dtype))
        self.unroll = Unroll(observations, *(tf.constant(array) for array in arrays[1:]))
        self.blocks = blocks
        self.versions = [block.version for block in blocks]
        self.episodes = [episode for block in blocks for episode in block.episodes]


class Batcher:
    """The batches of a run, one after the other, each with its meta batch.

    τ' is the next batch, and becomes τ of the next update: no extra frames. Plain IMPALA waits for
    it too, so that runs with and without the meta-gradient have the same policy lag. `--meta_data`
    selects another one.
    """

    def __init__(
        self, settings: BatcherSettings, block_size: int, next_block: Callable[[], Block]
    ) -> None:
        """Args:
        settings: resolved; of several learners this one's share.
        block_size: unrolls in a block.
        next_block: of the newest source.
        """
        self._meta_data = settings.meta_data
        # Batches of a bootstrapped target that come before τ'.
        self._num_before = settings.bootstrap_steps - 1 if settings.learned else 0
        self._blocks_per_batch = settings.batch_size // block_size
        self._reuse = settings.sample_reuse
        self._next_block = next_block
        # Blocks that were taken from the source and not learned from yet.
        self._unused: list[Block] = []
        # With `meta_data=swap`: blocks of the batch that was learned from and is the next τ'.
        self._swap_blocks: list[Block] = []
        self._awaits_swap_blocks = False
        # Batches that are made and not learned from yet, the next τ first.
        self._made: list[Batch] = []
        # With `sample_reuse`: what `next_batches` returns until the last update on it.
        self._in_use: tuple[Batch, list[Batch]] | None = None

    def next_batches(self) -> tuple[Batch, list[Batch]]:
        """τ, and the batches ahead of it, τ' last; call `learned_from` after the update.

        With `sample_reuse` they are the same until the last update on τ.

        Before τ' come the L − 1 batches that a bootstrapped target of L updates takes, which are
        the next to be learned from.

        Raises:
          StopRequested, or what `next_block` raises: no block is lost then.
        """
        if self._in_use is not None:
            return self._in_use
        while len(self._made) < self._num_before + 2:
            self._made.append(self._fetch(self._unused))
        batch, *before, following = self._made
        meta_batch = self._select_meta_batch(batch, following)
        self._made.pop(0)
        self._in_use = batch, [*before, meta_batch]
        return self._in_use

    def learned_from(self, batch: Batch, updates: int) -> None:
        """Drops its blocks after the last update on it.

        Args:
          batch: τ of the update that was made.
          updates: made so far. A continued run makes the updates that are left on a batch.
        """
        if updates % self._reuse == 0:
            self._in_use = None
            del self._unused[: len(batch.blocks)]

    def _fetch(self, blocks: list[Block]) -> Batch:
        """A batch; its blocks are appended to `blocks` one by one, so that a stop loses none."""
        # A stop in the middle of a batch leaves a part of it.
        first = len(blocks) // self._blocks_per_batch * self._blocks_per_batch
        while len(blocks) < first + self._blocks_per_batch:
            blocks.append(self._next_block())
        return Batch(blocks[first:])

    def _select_meta_batch(self, batch: Batch, following: Batch) -> Batch:
        if self._meta_data == "same":
            return batch
        if self._meta_data != "swap":
            return following
        if not self._swap_blocks:
            self._swap_blocks = list(batch.blocks)
            return following
        first = Batch(self._swap_blocks)
        self._swap_blocks = []
        return first

    # For checkpoints.

    @property
    def has_swap_blocks(self) -> bool:
        """Whether the blocks of a batch that is yet to be τ' come first in `pending_blocks`."""
        return bool(self._swap_blocks) or self._awaits_swap_blocks

    def pending_blocks(self) -> list[Block]:
        """Blocks taken from the source that a continued run needs again, in their order."""
        return [*self._swap_blocks, *self._unused]

    def expect_swap_blocks(self) -> None:
        """The source that a checkpoint is restored into will give the blocks of a pair first."""
        self._awaits_swap_blocks = True

    def restore_swap_blocks(self, *, is_there: bool) -> None:
        """Takes the expected pair from the source, if it is there; before the first batch."""
        if is_there and self._awaits_swap_blocks:
            self._fetch(self._swap_blocks)
        self._awaits_swap_blocks = False

    def clear(self) -> None:
        """Drops all blocks: those of a new source follow."""
        self._unused.clear()
        self._swap_blocks.clear()
        self._made.clear()
        self._in_use = None
