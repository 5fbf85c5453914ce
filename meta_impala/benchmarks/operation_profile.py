"""Time by kind of operation, from TensorFlow's own profiler.

Its files can also be opened in TensorBoard; here they are summed by kind of operation.
"""

from __future__ import annotations

import collections
import pathlib
import tempfile
from collections.abc import Callable

import tensorflow as tf


def milliseconds_by_operation(work: Callable[[], object], times: int) -> dict[str, float]:
    """Milliseconds that one piece of work spends in each kind of operation, most expensive first.

    Args:
      work: calls a `tf.function` that was called before.
      times: how often it is done; the result is the mean.

    Returns:
      Kind of operation (`Conv2D`, `MatMul` …, with the `_MklNative` or `_Mkl` of oneDNN's taken
      off) -> milliseconds of all operations of this kind, on the CPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(times):
                work()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        recorded = path.read_bytes()
    return _added_up(recorded, times)


def _added_up(recorded: bytes, times: int) -> dict[str, float]:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(recorded)
    sums: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        if "CPU" not in plane.name:
            continue
        for line in plane.lines:
            for event in line.events:
                # Operations are events "name in the graph:kind"; others are TensorFlow's own.
                name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and not name.endswith(":") and kind.isidentifier():
                    kind = kind.removeprefix("_MklNative").removeprefix("_Mkl")
                    sums[kind] += event.duration_ps / 1e9 / times
    return dict(sums.most_common())
