"""Equivalence: arrays reach TensorFlow unchanged, and without a copy where that is promised."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from meta_impala.agent.shared_arrays import as_tensor, can_be_shared, empty


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_a_tensor_is_in_the_memory_of_its_array(dtype):
    array = empty((3, 2, 5, 7), dtype.as_numpy_dtype)
    array[:] = np.arange(array.size).reshape(array.shape)
    tensor = as_tensor(array, dtype)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor, array)
    array[1, 1] = 99  # nobody does; it shows whose memory it is
    np.testing.assert_array_equal(tensor, array)
    # It is freed with the last of the two.
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    freed = weakref.ref(memory)
    expected = array.copy()
    del array, memory
    gc.collect()
    np.testing.assert_array_equal(tensor, expected)
    assert freed() is not None
    del tensor
    gc.collect()
    assert freed() is None


def test_arrays_that_cannot_be_shared_are_copied():
    array = empty((4, 6, 64), np.uint8)
    array[:] = np.arange(64)
    read_only = array.copy()
    read_only.flags.writeable = False
    for other in (array[:, :3], array.reshape(-1)[1:], read_only, empty((0, 64), np.uint8)):
        assert not can_be_shared(other)
        np.testing.assert_array_equal(as_tensor(other, tf.uint8), other)
    doubles = empty((4, 8), np.float64)
    doubles[:] = 0.1
    assert can_be_shared(doubles)
    assert as_tensor(doubles, tf.float32).dtype == tf.float32


def test_a_row_of_an_atari_unroll_can_be_shared():
    for num_envs in (1, 2, 3):
        unroll = empty((5, num_envs, 4, 84, 84), np.uint8)
        assert all(can_be_shared(row) for row in unroll)
