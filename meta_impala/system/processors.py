"""How many processors this process may use."""

from __future__ import annotations

import math
import os
import pathlib

# CPU quota and period of a container, which may be below the number of processors.
_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")


def processors() -> int:
    """How many processors this process may use: those it may run on, or its quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    try:
        quota, period = map(float, _QUOTA.read_text(encoding="utf-8").split())
        return max(1, min(count, math.ceil(quota / period)))
    except (OSError, ValueError):  # no such file, or no quota ("max")
        return count
