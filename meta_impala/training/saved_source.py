"""Where the actors of a deterministic run stood, checked when it is read from a checkpoint.

The file `source.npz` may be from somebody else: names, types, shapes and ranges are those that
`TurnTakingSource.state` saves, or nothing is restored. Values of observations and rewards are the
environment's own, which may be NaN; the learner skips an update that is not finite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from meta_impala.actors.trajectory import Unroll
from meta_impala.environments import Description
from meta_impala.errors import UserError
from meta_impala.learner.learner import Learner
from meta_impala.storage.checkpoint import Saved

_NAME = re.compile(r"(actor|block) (0|[1-9]\d{0,5}) (\w+)", re.ASCII)
_OF_ACTOR = frozenset({"seed", "actions", "core_state", "observations"})
_OF_BLOCK = frozenset({*Unroll._fields, "version", "actor", "episodes"})
_MAX_SEED = 2**31
_MAX_COUNT = 2**63


def saved_source(
    saved: Saved | None, description: Description, learner: Learner
) -> Mapping[str, np.ndarray] | None:
    """The arrays for `TurnTakingSource.restore`; None if there are none.

    Earlier versions saved the turn alone where a stop came before the first actor was ready: then
    there are none, too.

    Args:
      saved: the checkpoint, if a deterministic run continues from one.
      description: of the environment.
      learner: with its state restored.

    Raises:
      UserError: naming the first array that is not what was saved.
    """
    if saved is None or saved.source is None or saved.source.keys() == {"turn"}:
        return None
    arrays = saved.source
    try:
        _Check(arrays, description, learner).run()
    except _Wrong as error:
        raise UserError(
            f"{saved.path}: its source.npz is damaged ({error}); remove this checkpoint to "
            "continue from the one before"
        ) from None
    return arrays


class _Wrong(Exception):
    """What is wrong, for a message."""


class _Check:
    """The check of one source. Shapes are `[T+1, B, ...]`, as in `Unroll`."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        description: Description,
        learner: Learner,
    ) -> None:
        self._arrays = arrays
        self._num_actions = description.num_actions
        self._frame = description.observation_shape
        self._frame_dtype = np.dtype(description.observation_dtype)
        self._core_state_size = learner.state.network.settings.core_state_size
        self._num_eta = learner.factory.schedule.num_of_unroll
        self._updates = int(learner.state.updates.numpy())
        self._actors_end = 0  # one above the number of the last actor

    def run(self) -> None:
        """Raises _Wrong for the first array that is not what was saved."""
        self._count("turn", (), _MAX_COUNT)
        actors = self._group("actor", _OF_ACTOR)
        if not actors:
            raise _Wrong("there are no actors")
        self._actors_end = actors[-1] + 1
        for index in actors:
            self._check_actor(f"actor {index} ")
        blocks = self._group("block", _OF_BLOCK)
        if blocks != list(range(len(blocks))):
            raise _Wrong("a block is missing")
        for index in blocks:
            self._check_block(f"block {index} ")

    def _group(self, kind: str, fields: frozenset[str]) -> list[int]:
        """The numbers of the actors or blocks; each has every field, and nothing else."""
        found: dict[int, set[str]] = {}
        for name in self._arrays:
            match = _NAME.fullmatch(name)
            if match is None and name != "turn":
                raise _Wrong(f"{name} is not what was saved")
            if match is not None and match[1] == kind:
                found.setdefault(int(match[2]), set()).add(match[3])
        for index, names in found.items():
            if names != fields:
                raise _Wrong(f"{kind} {index} is not what was saved")
        return sorted(found)

    def _check_actor(self, actor: str) -> None:
        dtype = np.uint16 if self._num_actions <= 2**16 else np.uint32
        actions = self._array(f"{actor}actions", dtype, (None, None))
        self._in_range(f"{actor}actions", actions, self._num_actions)
        width = actions.shape[1]
        self._count(f"{actor}seed", (1,), _MAX_SEED)
        self._array(f"{actor}core_state", np.float32, (width, self._core_state_size))
        self._array(f"{actor}observations", self._frame_dtype, (width, *self._frame))

    def _check_block(self, block: str) -> None:
        actions = self._array(f"{block}last_actions", np.int32, (None, None))
        self._in_range(f"{block}last_actions", actions, self._num_actions)
        rows, width = actions.shape
        self._array(f"{block}observations", self._frame_dtype, (rows, width, *self._frame))
        self._array(f"{block}rewards", np.float32, (rows, width))
        self._array(f"{block}terminations", np.bool_, (rows, width))
        self._array(f"{block}truncations", np.bool_, (rows, width))
        self._array(f"{block}behaviour_log_probs", np.float32, (rows - 1, width))
        self._array(f"{block}core_state", np.float32, (width, self._core_state_size))
        self._array(f"{block}eta", np.float32, (width, self._num_eta))
        self._count(f"{block}version", (), self._updates + 1)
        self._count(f"{block}actor", (), self._actors_end)
        episodes = self._array(f"{block}episodes", np.float64, (None, 2))
        if not ((episodes[:, 1] >= 0) & (episodes[:, 1] < 2.0**53)).all():
            raise _Wrong(f"{block}episodes has values that were not saved")

    def _count(self, name: str, shape: tuple[int, ...], end: int) -> None:
        self._in_range(name, self._array(name, np.int64, shape), end)

    def _array(
        self, name: str, dtype: np.dtype | type, shape: tuple[int | None, ...]
    ) -> np.ndarray:
        """An array of this type and shape; None stands for any length."""
        array = self._arrays.get(name)
        if array is None:
            raise _Wrong(f"{name} is missing")
        is_shape = array.ndim == len(shape) and all(
            wanted in (None, found) for found, wanted in zip(array.shape, shape, strict=True)
        )
        if array.dtype != dtype or not is_shape:
            raise _Wrong(f"{name} is {array.dtype} of shape {array.shape}")
        return array

    @staticmethod
    def _in_range(name: str, values: np.ndarray, end: int) -> None:
        if values.size and not (int(values.min()) >= 0 and int(values.max()) < end):
            raise _Wrong(f"{name} has values outside 0 to {end - 1}")
