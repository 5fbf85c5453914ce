"""Arrays that NumPy and TensorFlow use in the same memory.

Observations are most of what a run moves, and `tf.constant` copies: 7 to 10 ms for a batch of 32
Atari unrolls. Through DLPack there is no copy, if the memory is where TensorFlow wants it.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

# What TensorFlow's kernels take for granted of memory, in bytes.
_ALIGNMENT = 64


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array like NumPy's `empty`, where TensorFlow can use it as it is."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def can_be_shared(array: np.ndarray) -> bool:
    """Whether TensorFlow can use an array as it is."""
    flags = array.flags
    is_whole = flags.c_contiguous and flags.writeable and array.size > 0
    return is_whole and array.ctypes.data % _ALIGNMENT == 0


def as_tensor(array: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    """A tensor of an array of numbers that nobody changes while it is used.

    It is in the array's own memory if that can be, or else a copy.
    """
    if array.dtype == dtype.as_numpy_dtype and can_be_shared(array):
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array, dtype)
