"""Imports TensorFlow without the lines that it prints at every start."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from absl import logging

from meta_impala.errors import UserError
from meta_impala.system import interrupt


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up messages off the screen; before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off on processors without AVX-512 VNNI or AMX, where it is still much
    # faster: the filter gradient of the first convolution took 5 to 7 times as long without it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Sonnet and TensorFlow Probability need Keras 2.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


# Lines that TensorFlow and its libraries print at every start, whatever TF_CPP_MIN_LOG_LEVEL.
_START_UP_NOISE = re.compile(
    rb"absl::InitializeLog|cudart_stub|cuda|TF-TRT|port\.cc|cpu_feature_guard|"
    rb"computation_placer|rebuild TensorFlow|Sets are not currently considered sequences"
)


def _scratch_file() -> IO[bytes]:
    """An anonymous file, in memory if the system supports it, so that no folder is needed."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def without_noise(noise: re.Pattern[bytes]) -> Iterator[None]:
    """Keeps lines that C++ code writes to file descriptor 2 off the screen; others are passed on.

    Args:
      noise: matches lines that are dropped.
    """
    with _scratch_file() as captured:
        sys.stderr.flush()
        screen = os.dup(2)
        os.dup2(captured.fileno(), 2)
        interrupt.write_to(screen)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            interrupt.write_to()
            os.close(screen)
            captured.seek(0)
            for line in captured.read().splitlines(keepends=True):
                if not noise.search(line):
                    os.write(2, line)


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up noise; other lines are passed on.

    The noise is written by C++ code, before any logging can be configured.

    Raises:
      UserError: if an environment or another library has disabled TensorFlow 2, or Python runs
        without docstrings.
    """
    if sys.flags.optimize > 1:
        raise UserError(
            "python -OO or PYTHONOPTIMIZE=2: Sonnet cannot be imported without docstrings; must be "
            "-O, PYTHONOPTIMIZE=1 or neither"
        )
    with without_noise(_START_UP_NOISE):
        import tensorflow as tf
        import tree

        if not tf.executing_eagerly():  # Sonnet refuses it with an assertion
            raise UserError(
                "TensorFlow 2 was disabled in this process (tf.compat.v1.disable_eager_execution "
                "or disable_v2_behavior), probably by the environment's module; must be enabled"
            )
        tf.config.list_physical_devices()
        tree.flatten(set())  # warns once per process that sets are leaves
    # "Sharding callback duration" at every checkpoint, for example.
    logging.set_verbosity(logging.WARNING)
