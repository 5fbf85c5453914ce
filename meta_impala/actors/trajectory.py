"""Unrolls, which actors send to the learner, in rows of states *arrived in*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from meta_impala.agent.shared_arrays import empty


class Unroll(NamedTuple):
    """T steps of N environments: T+1 states that overlap the next unroll by one.

    Row t of every `[T+1, N]` array describes the *arrival* in state t: what was seen, the action
    that led there, the reward received on the way, and whether an episode ended on the way (state
    t is then the next episode's first). Row 0 repeats the last row of the unroll before. The final
    observation of an episode that a time limit cut is a separate state; the "step" from there to
    the next episode's first observation is not a transition, and has weight 0.

    Attributes:
      observations: `[T+1, N, ...]`.
      last_actions: `[T+1, N]` int32.
      rewards: `[T+1, N]` float32, raw; the learner clips them.
      terminations: `[T+1, N]` bool, terminal for the learner.
      truncations: `[T+1, N]` bool, whether the arrival is from the final observation of an episode
        that a time limit cut: the row after the one in which `Step.truncations` is True.
      behaviour_log_probs: `[T, N]` float32, log μ of the action chosen on *leaving* state t.
      core_state: `[N, S]` float32 before row 0.
      eta: `[N, 2]` float32, the γ and λ that the acting network was fed, zeros where η belongs to
        the state; with `--eta_schedule=random` or `mixture` `[N, S]`, all that was drawn, in the
        order of `EtaSchedule.names`.

    The same tuple serves for a learner's batch (N = B) and, in graphs, for its tensors.
    """

    observations: Any
    last_actions: Any
    rewards: Any
    terminations: Any
    truncations: Any
    behaviour_log_probs: Any
    core_state: Any
    eta: Any

    def map(self, in_time: Callable[[Any], Any], of_columns: Callable[[Any], Any]) -> Unroll:
        """A function of every `[T+1, N, ...]` array, and one of every `[N, ...]` array."""
        *rows, core_state, eta = self
        return Unroll._make([*map(in_time, rows), of_columns(core_state), of_columns(eta)])


class Episode(NamedTuple):
    """A full game that ended: raw return, and length in environment frames."""

    episode_return: float
    frames: int


class Block(NamedTuple):
    """An item of the queue.

    Attributes:
      unroll: of N = `Config.block_size` environments.
      version: number of the snapshot (= learner updates) that acted during the whole unroll.
      episodes: games that ended in it.
      actor: index of the actor.
    """

    unroll: Unroll
    version: int
    episodes: tuple[Episode, ...]
    actor: int


def _columns(unroll: Unroll, start: int, stop: int) -> Unroll:
    return unroll.map(lambda array: array[:, start:stop], lambda array: array[start:stop])


def split(block: Block, size: int) -> list[Block]:
    """Splits a block into blocks of `size` environments; the first has its episodes."""
    num_envs = block.unroll.last_actions.shape[1]
    if num_envs == size:
        return [block]
    return [
        Block(
            _columns(block.unroll, start, start + size),
            block.version,
            block.episodes if start == 0 else (),
            block.actor,
        )
        for start in range(0, num_envs, size)
    ]


def concatenate(blocks: list[Block]) -> Unroll:
    """One batch from the blocks, in their order: `[T+1, B, ...]` with B the sum of their widths."""
    if len(blocks) == 1:
        return blocks[0].unroll
    fields = Unroll._make(zip(*(block.unroll for block in blocks), strict=True))
    return fields.map(_side_by_side, np.concatenate)


def _side_by_side(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    first = arrays[0]
    width = sum(array.shape[1] for array in arrays)
    joined = empty((first.shape[0], width, *first.shape[2:]), first.dtype)
    return np.concatenate(arrays, axis=1, out=joined)
