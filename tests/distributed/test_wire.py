"""Equivalence: what is unpacked is what was packed, to the bit; and it is small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_impala.actors.trajectory import Unroll
from meta_impala.distributed.wire import pack, unpack
from meta_impala.environments import registry


def _unroll(observations: np.ndarray, seed: int = 0) -> Unroll:
    """An unroll with these observations; all else is random."""
    random = np.random.default_rng(seed)
    rows, columns = observations.shape[:2]
    return Unroll(
        observations=observations,
        last_actions=random.integers(0, 18, (rows, columns)).astype(np.int32),
        rewards=random.normal(size=(rows, columns)).astype(np.float32),
        terminations=random.random((rows, columns)) < 0.2,
        truncations=random.random((rows, columns)) < 0.2,
        behaviour_log_probs=random.normal(size=(rows - 1, columns)).astype(np.float32),
        core_state=random.normal(size=(columns, 3)).astype(np.float32),
        eta=random.random((columns, 2)).astype(np.float32),
    )


def _assert_returns(unroll: Unroll) -> None:
    before = [np.array(field) for field in unroll]
    result = unpack(pack(unroll))
    for name, sent, expected, received in zip(Unroll._fields, unroll, before, result, strict=True):
        assert received.dtype == expected.dtype, name
        np.testing.assert_array_equal(received, expected, err_msg=name)
        np.testing.assert_array_equal(sent, expected, err_msg=f"{name} was changed by packing")


def _stacks(frames: np.ndarray, depth: int = 4) -> np.ndarray:
    """`[T+1, N, depth, ...]` of frames `[T+depth, N, ...]`."""
    return np.stack([frames[i : len(frames) - depth + 1 + i] for i in range(depth)], axis=2)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.integers(2, 6),
    columns=st.integers(1, 4),
    depth=st.integers(1, 4),
    breaks=st.floats(0.0, 1.0),
    values=st.sampled_from([2, 256]),
    seed=st.integers(0, 2**31),
)
def test_any_frame_stacks_survive_the_wire(rows, columns, depth, breaks, values, seed):
    """`breaks` is the share of steps after which the stack has nothing of the one before."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, values, (rows + depth - 1, columns, 3, 2), np.uint8)
    stacks = _stacks(frames, depth)
    broken = random.random((rows, columns)) < breaks
    stacks[broken] = random.integers(0, values, (broken.sum(), depth, 3, 2), np.uint8)
    _assert_returns(_unroll(stacks, seed))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((7,), np.float32), ((10, 5), np.float32), ((4, 6, 5), np.float32), ((9, 8), np.uint8),
     ((5,), np.uint8), ((2, 3, 4, 5), np.uint8), ((4, 6, 5), np.int64)],
)  # fmt: skip
def test_other_observations_survive_the_wire(shape, dtype):
    random = np.random.default_rng(1)
    observations = random.normal(size=(6, 3, *shape)) * 50
    observations = observations.astype(dtype)
    if dtype == np.float32:
        observations.flat[0] = np.nan
    _assert_returns(_unroll(observations))


def test_each_frame_is_sent_once():
    """Of random frames, which no compression makes smaller: T + 4 of them, not 4 (T + 1)."""
    frames = np.random.default_rng(2).integers(0, 256, (20 + 4, 2, 30, 30), np.uint8)
    packed = pack(_unroll(_stacks(frames)))
    assert frames.nbytes <= len(packed.observations) < 1.01 * frames.nbytes
    assert packed.nbytes < 1.05 * frames.nbytes


def test_a_game_with_ends_of_episodes_survives_the_wire_and_is_small():
    environment = registry.make("Breakout", 4, "impala")
    random = np.random.default_rng(3)
    rows = [environment.reset(11)]
    ends = 0
    for _ in range(400):
        step = environment.step(random.integers(0, environment.num_actions, 4))
        rows.append(step.observations)
        ends += int(step.episode_ends.sum())
    environment.close()
    observations = np.stack(rows)
    assert ends >= 3
    length, sizes, broken = 20, [], 0
    for start in range(0, 400, length):
        unroll = _unroll(observations[start : start + length + 1])
        _assert_returns(unroll)
        packed = pack(unroll)
        sizes.append(packed.nbytes)
        broken += int((~packed.shifted).sum())
    assert broken >= ends  # after each end a new stack, its earlier frames zeros
    assert broken < 5 * ends + 4
    # 84 · 84 = 7056 bytes a frame.
    assert np.mean(sizes) / (4 * length) < 0.1 * 7056
