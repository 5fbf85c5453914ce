"""Huge pages for TensorFlow's tensors (Linux).

The activations of an update are hundreds of MB. In pages of 4 KiB the processor spends a tenth of
an update on finding their addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import resource
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PAGE = 2**21
_LEAST = 2**26
_MOST = 2**33
_reserved = 0


def reserve(size: int) -> bool:
    """Asks for huge pages for the next tensors of this process, where Linux gives them if asked.

    TensorFlow with oneDNN keeps the memory of a freed tensor for later ones. So the address space
    of one large tensor, which is never written, is where they will be. It is no memory until then.

    Args:
      size: of all tensors at a time, in bytes; small ones need no huge pages. TensorFlow rounds it
        up to a power of two. It is 8 GiB or half of the memory at most, because TensorFlow counts
        it as used, and keeps a table of a 32nd of it.

    Returns:
      Whether they were asked for; not again where as much was before.
    """
    global _reserved
    most = min(_MOST, psutil.virtual_memory().total // 2)
    size = min(1 << (size - 1).bit_length(), 1 << (most.bit_length() - 1))
    if size < _LEAST or size <= _reserved:
        return False
    if not _are_given_if_asked() or _is_address_space_limited():
        return False
    with contextlib.suppress(OSError, AttributeError, tf.errors.ResourceExhaustedError):
        with tf.device("CPU:0"):
            tensor = tf.raw_ops.Empty(shape=[size // 8], dtype=tf.float64, init=False)
        start = np.asarray(memoryview(tensor)).ctypes.data
        first = -(-start // _PAGE) * _PAGE
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if madvise(first, start + size - first, mmap.MADV_HUGEPAGE) == 0:
            _reserved = size
            return True
    return False


def _is_address_space_limited() -> bool:
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _are_given_if_asked() -> bool:
    try:
        return "[madvise]" in _SETTING.read_text()
    except OSError:
        return False
