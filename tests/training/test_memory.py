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


def test_more_games_than_memory_has_room_for_are_refused(monkeypatch):
    machine = type("Memory", (), {"total": 4 * 2**30})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    fit = 4 * 2**30 // (4 * 84 * 84 * 5)
    memory.check_games(fit, PONG)
    with pytest.raises(UserError, match=rf"^--num_envs={fit + 1}: .*must be at most the 4.0 GiB"):
        memory.check_games(fit + 1, PONG)
    memory.check_games(3 * 2**10, dataclasses.replace(PONG, game="Pong"))
    with pytest.raises(UserError, match="^--num_envs=4096: "):
        memory.check_games(4 * 2**10, dataclasses.replace(PONG, game="Pong"))


def test_the_emulators_of_a_run_are_counted():
    config = resolve(Config(network="shallow", num_actors=3, envs_per_actor=8))
    with_game = memory.needed_bytes(config, dataclasses.replace(PONG, game="Pong"))
    assert sum(with_game.values()) - sum(memory.needed_bytes(config, PONG).values()) == 24 * 2**20


def test_evaluate_refuses_more_games_than_fit(monkeypatch, tmp_path):
    """Before TensorFlow is imported, and before an emulator is made."""
    given = ["--agent=pong", "--episodes=200000", "--num_envs=200000"]
    machine = "import psutil; psutil.virtual_memory = lambda: type('M', (), {'total': 2**32})\n"
    result = subprocess.run(
        [sys.executable, "-c", f"{machine}{_EVALUATE}", *given],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(
        "error: --num_envs=200000: the settings need at least 221.6 GiB"
    )


_EVALUATE = """
import runpy, sys
sys.modules["tensorflow"] = None
runpy.run_module("meta_impala.evaluate", run_name="__main__", alter_sys=True)
"""
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
