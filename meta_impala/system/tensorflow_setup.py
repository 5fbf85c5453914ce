"""Process-wide settings of TensorFlow."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from meta_impala.errors import UserError, warn
from meta_impala.system.processors import processors

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE = 2**20
_warned_about_use = False


def configure_tensorflow(*, deterministic: bool, cores: int | None = None) -> None:
    """Makes the process-wide settings; call it before the first operation.

    An environment that uses TensorFlow itself may have run one before: then the numbers of threads
    and the devices stay as they are, and there is a warning.

    Args:
      deterministic: whether operations must give the same bits in every run.
      cores: number of cores to use; all of the machine if not given.
    """
    give_back_large_arrays()
    for gpu in tf.config.list_physical_devices("GPU"):
        # Leave room for others: by default TensorFlow takes all of a GPU's memory.
        _set_if_unused(tf.config.experimental.set_memory_growth, gpu, True)
    _set_if_unused(_set_intra_op_threads, cores)
    if cores:
        _set_if_unused(tf.config.threading.set_inter_op_parallelism_threads, cores)
    set_graph_rewrites()
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def configure_in_program(*, deterministic: bool) -> None:
    """Makes the process-wide settings that decide the bits of a run, for a program that trains.

    Its own choice of threads stays, and so do devices. The number of threads is set as by
    `configure_tensorflow` if the program has chosen none and TensorFlow has not begun.

    Args:
      deterministic: as for `configure_tensorflow`; once on, it stays on in this process.
    """
    give_back_large_arrays()
    if not tf.config.threading.get_intra_op_parallelism_threads():
        with contextlib.suppress(RuntimeError):
            _set_intra_op_threads(None)
    set_graph_rewrites()
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _set_intra_op_threads(cores: int | None) -> None:
    """Actors and learner already run side by side: threads inside one operation use the remaining
    cores. On 2 cores one thread makes an actor's inference 20 % cheaper."""
    tf.config.threading.set_intra_op_parallelism_threads(cores or max(1, processors() // 2))


def _set_if_unused(setting: Callable[..., None], *values: Any) -> None:
    """Makes a setting that TensorFlow takes before its first operation only; else one warning."""
    global _warned_about_use
    try:
        setting(*values)
    except RuntimeError:
        if not _warned_about_use:
            _warned_about_use = True
            warn(
                "warning: TensorFlow was used before its threads and devices could be set (by the "
                "environment's module or constructor?); they stay as they are: training may be "
                "slower"
            )


def set_graph_rewrites() -> None:
    """Keeps TensorFlow from reordering sums and products, in every graph from here on.

    Constant folding and arithmetic rewriting order them differently in a larger graph, which
    changes the last bit of a weight. Without them an update is equal to the bit with and without a
    meta-gradient. It costs nothing measurable.
    """
    tf.config.optimizer.set_experimental_options(
        {"constant_folding": False, "arithmetic_optimization": False}
    )


def learner_device(setting: str) -> str:
    """The TensorFlow device of the learner.

    Args:
      setting: `--learner_device`.

    Raises:
      UserError: if a GPU is asked for that TensorFlow does not see.
    """
    name = setting.lower()
    gpus = tf.config.list_physical_devices("GPU")  # of this machine, and no other learner's
    if name == "auto":
        return "GPU:0" if gpus else "CPU:0"
    kind, _, index = name.partition(":")
    number = int(index or 0)
    if kind == "gpu" and number >= len(gpus):
        raise UserError(
            f"--learner_device={setting}: TensorFlow sees {len(gpus)} GPUs; must be "
            "auto, cpu, or the number of one of them"
        )
    return f"{kind.upper()}:{number}"


def configure_for_inference() -> None:
    """Makes the process-wide settings, as `configure_tensorflow`."""
    # Policies act on the CPU; a GPU is left to the training that may be using it.
    _set_if_unused(tf.config.set_visible_devices, [], "GPU")
    _set_if_unused(tf.config.threading.set_intra_op_parallelism_threads, 1)
    # A damaged checkpoint is reported in one line, or the one before is used; without this a page
    # on "unrestored values" follows.
    tf.get_logger().setLevel("CRITICAL")


def give_back_large_arrays() -> None:
    """Returns arrays of 1 MiB and more to the system as soon as they are freed (glibc only).

    By default glibc keeps blocks of up to 32 MiB in its heaps once one of that size was freed.
    Unrolls are made by one thread and freed by another, so the heaps fragment: a run's memory grew
    by 20 to 30 MiB an hour.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
