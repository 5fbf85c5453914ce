"""Settings that cannot fit into memory are refused before anything is made (ground truth)."""

import dataclasses
import platform
import subprocess
import sys

import numpy as np
import psutil
import pytest

from meta_impala.config import Config, resolve
from meta_impala.environments import Description
from meta_impala.errors import UserError
from meta_impala.training import memory

CATCH = Description((10, 5), np.dtype(np.float32), 3, 1)
PONG = Description((4, 84, 84), np.dtype(np.uint8), 6, 4)


def test_the_memory_bound_by_hand():
    config = resolve(
        Config(network="mlp", mlp_sizes="7,3", batch_size=4, meta_batch_size=2, unroll_length=9,
               num_actors=2, envs_per_actor=8, queue_capacity=3)
    )  # fmt: skip
    assert list(memory.needed_bytes(config, CATCH).values()) == [
        4 * 10 * (2 * 200 + 200),
        (3 * 4 + 2 * 8) * 10 * 200,
        5 * (3 * 3) * 4,
        5 * (50 * 7 + 7 * 3) * 4,
    ]
    config = resolve(Config(network="shallow", core="lstm", core_size=10))
    assert list(memory.needed_bytes(config, PONG).values())[3] == 5 * 4 * 10 * 11 * 4


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"batch_size": 65536, "unroll_length": 10_000}, "--batch_size=65536 --unroll_length="),
        ({"num_actors": 1024, "unroll_length": 10_000}, "--num_actors=1024"),
        ({"network": "mlp", "mlp_sizes": "65536,65536"}, "--mlp_sizes=65536,65536"),
        ({"core": "lstm", "core_size": 8192}, "--mlp_sizes=64,64 --core_size=8192"),
    ],
)
def test_a_run_larger_than_memory_is_refused_with_its_flag(settings, flag, monkeypatch):
    machine = type("Memory", (), {"total": 4 * 2**30})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    memory.check(resolve(Config(network="shallow")), PONG)
    with pytest.raises(UserError, match=r"GiB of memory; must be at most the 4.0 GiB") as caught:
        memory.check(resolve(Config(**({"network": "shallow"} | settings))), PONG)
    assert str(caught.value).startswith(flag)


def test_a_huge_number_of_actions_is_refused(monkeypatch):
    machine = type("Memory", (), {"total": 4 * 2**30})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    config = resolve(Config(environment="Catch", network="mlp", mlp_sizes="64"))
    with pytest.raises(
        UserError, match=r"--environment=.* \(1,000,000,000 actions\): the settings"
    ):
        memory.check(config, dataclasses.replace(CATCH, num_actions=10**9))


_FREED = """
import os, psutil, numpy as np
if {fixed}:
    from meta_impala.system.tensorflow_setup import give_back_large_arrays
    give_back_large_arrays()
np.ones(31 * 2**20, np.uint8)  # freed: from now on glibc would keep such blocks in its heap
blocks = [np.ones(20 * 2**20, np.uint8) for _ in range(8)]
kept = np.ones(600_000, np.uint8)  # above them in the heap
before = psutil.Process().memory_info().rss
del blocks
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_arrays_go_back_to_the_system():
    def given_back(fixed):
        result = subprocess.run(
            [sys.executable, "-c", _FREED.format(fixed=fixed)], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return float(result.stdout)

    assert given_back(True) > 150  # of 160
    assert given_back(False) < 50
