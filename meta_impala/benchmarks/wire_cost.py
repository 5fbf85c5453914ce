"""The cost of compressing an unroll (`wire.py`) in bytes and CPU time, beside other ways.

Measured on random actions in a real game; everything is per agent step.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from meta_impala.actors.trajectory import Unroll
from meta_impala.distributed import wire as transport
from meta_impala.environments import registry

_NUM_ENVS, _UNROLL_LENGTH = 16, 20
_WARM_UP = 60
_REPEATS = 10


class Form(NamedTuple):
    """A way to send observations.

    Attributes:
      name: what is done.
      num_bytes: per agent step.
      send_ms, receive_ms: CPU-ms per agent step.
    """

    name: str
    num_bytes: float
    send_ms: float
    receive_ms: float


def forms(game: str) -> list[Form]:
    """Measures every form on the same unroll, of 20 steps in 16 games."""
    environment = registry.make(game, _NUM_ENVS, "impala")
    random = np.random.default_rng(1)
    rows = [environment.reset(1)]
    for _ in range(_WARM_UP + _UNROLL_LENGTH):
        rows.append(environment.step(random.integers(0, environment.num_actions, _NUM_ENVS))[0])
    environment.close()
    stacks = np.stack(rows[_WARM_UP:])
    steps = _UNROLL_LENGTH * _NUM_ENVS
    others = [np.zeros([_UNROLL_LENGTH + 1, _NUM_ENVS])] * 5
    unroll = Unroll._make([stacks, *others, np.zeros([_NUM_ENVS, 0]), np.zeros([_NUM_ENVS, 2])])
    first = np.moveaxis(stacks[0], 1, 0)  # [4, N, 84, 84]
    frames = np.concatenate([first, stacks[1:, :, -1]])

    def form(
        name: str,
        send: Callable[[], Any],
        receive: Callable[[Any], Any],
        size: Callable[[Any], int],
    ) -> Form:
        send_ms, sent = _cpu_ms(send)
        receive_ms, _ = _cpu_ms(lambda: receive(sent))
        return Form(name, size(sent) / steps, send_ms / steps, receive_ms / steps)

    return [
        form("whole stacks", stacks.copy, np.copy, lambda sent: sent.nbytes),
        form("each frame once", frames.copy, np.copy, lambda sent: sent.nbytes),
        form(
            "each frame once, zlib 1",
            lambda: zlib.compress(frames.data, 1),
            zlib.decompress,
            len,
        ),
        form(
            "this program: differences, zlib 1, and back to stacks",
            lambda: transport.pack(unroll),
            transport.unpack,
            lambda sent: len(sent.observations) + sent.shifted.nbytes,
        ),
    ]


def _cpu_ms(work: Callable[[], Any]) -> tuple[float, Any]:
    result = work()
    started = time.process_time()
    for _ in range(_REPEATS):
        result = work()
    return 1e3 * (time.process_time() - started) / _REPEATS, result
