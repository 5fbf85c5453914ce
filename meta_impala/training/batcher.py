"""Puts blocks together to the learner's batches."""

from __future__ import annotations

import tensorflow as tf

from meta_impala.actors.trajectory import Block, Unroll, concatenate
from meta_impala.agent.shared_arrays import as_tensor


class Batch:
    """A batch on its way: its tensors, and the blocks that it was made of."""

    def __init__(self, blocks: list[Block]) -> None:
        arrays = concatenate(blocks)
        observations = as_tensor(arrays.observations, tf.as_dtype(arrays.observations.dtype))
        self.unroll = Unroll(observations, *(tf.constant(array) for array in arrays[1:]))
        self.blocks = blocks
        self.versions = [block.version for block in blocks]
        self.episodes = [episode for block in blocks for episode in block.episodes]
